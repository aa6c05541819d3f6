"""Schemas of the course of training, of training parts only, and of the same study elsewhere.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "targets": (
        "a sub-layer that is trained, by one way of choosing",
        "of strategy budget training_seed site",
        """
        of            | text    | name   | the agent whose training is repeated in parts
        strategy      | text    | name   | how sub-layers are chosen: patching, attribution, pathways, random, early, middle or late
        budget        | integer | count  | how many are chosen
        training_seed | integer | count  | of the training; random choices differ between seeds
        n_sub_layers  | integer | count  | that the model has
        rank          | integer | count  | place among those chosen, 0 for the first
        site          | text    | site   | the attention or MLP of a layer
        score         | number? | nats   | what it was chosen by; null where nothing was measured (random, bands)
        """,
    ),
    "targeting": (
        "an agent that was trained in parts, or the whole training that it repeats",
        "agent",
        """
        agent          | text    | name   | who was trained
        of             | text    | name   | the whole training with the same seed
        strategy       | text    | name   | how sub-layers were chosen; all for the whole
        budget         | integer | count  | how many sub-layers
        training_seed  | integer | count  | of the training
        chosen_here    | flag    | yes or no | whether the sub-layers were chosen by an analysis of this very seed
        parameters     | integer | count  | trained parameters
        share          | number  | ratio  | of the whole training's parameters
        behaviour_kept | number? | ratio  | slope of its change from base on the whole training's, over prompts: 1 is all, 0 nothing; null: the whole training changed nothing
        low            | number? | ratio  | 95% interval over scenarios
        high           | number? | ratio  | its upper end
        n              | integer | count  | scenarios
        """,
    ),
}
