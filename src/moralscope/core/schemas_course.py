"""Schemas of the course of training, of training parts only, and of the same study elsewhere.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "checkpoints": (
        "a state of a training on its way, which is an agent of its own",
        "agent",
        """
        agent         | text     | name  | the state, as an agent
        of            | text     | name  | the agent at the end of the training
        step          | integer  | count | optimiser steps until then
        steps         | integer  | count | of the whole training
        training_seed | integer? | count | of the training
        """,
    ),
    "course": (
        "how far a training has come after a step, at one level",
        "of step level measure",
        """
        of        | text    | name  | the agent at the end of the training
        agent     | text    | name  | the state after the step
        step      | integer | count | optimiser steps until then
        level     | text    | name  | as in cascade: behaviour, attribution, ...
        measure   | text    | name  | what distances are made of, as in cascade
        moved     | number  | ratio | distance from the base, over that of the end
        remaining | number  | ratio | distance from the end, over that of the base from the end: 1 at the start, 0 at the end; more than 1 on a detour
        low       | number? | ratio | 95% interval of remaining; null: scenarios are no units of this measure
        high      | number? | ratio | its upper end
        n_units   | integer | count | units of a single distance
        """,
    ),
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
    "members": (
        "a model that the same study was made of",
        "member",
        """
        member     | text     | name   | its name in the series
        model      | text     | name   | its base model
        n_layers   | integer? | layers | of the model; null: nothing was measured by layer
        n_agents   | integer  | count  | trained agents
        n_claims   | integer  | count  | claims of its study
        supported  | integer  | count  | of those supported
        finished   | flag     | yes or no | whether every stage of its study was computed
        """,
    ),
    "depths": (
        "how much of a level's effects lies in a layer of one agent, in a scenario",
        "member level agent scenario layer",
        """
        member         | text    | name  | the model's name in the series
        level          | text    | name  | attribution (change from base by a layer's own weights) or patching (effects from the base)
        agent          | text    | name  | the agent
        scenario       | text    | name  | the cluster
        layer          | integer | count | layer from 0
        relative_depth | number  | ratio | middle of the layer, 0 at the embedding, 1 at the end
        share          | number  | ratio | of the summed absolute effects of the scenario
        """,
    ),
}
