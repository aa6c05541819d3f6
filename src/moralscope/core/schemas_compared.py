"""Schemas of which agents a study compares, how far apart they are, and what that answers.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "comparisons": (
        "a pair of agents that a study compares",
        "comparison agent_a agent_b",
        """
        comparison | text | name   | the study's name for it; base and seeds are the package's own
        kind       | text | one of | named (the study's question), base (a base and an agent: the positive control) or replicate (same reward, other training seed: the noise floor)
        agent_a    | text | name   | one of the pair; of kind base the base
        agent_b    | text | name   | the other
        tested     | flag | yes or no | whether claims are made about this pair by itself; the others are distances that tests over seeds rest on
        """,
    ),
    "cascade": (
        "how far two agents, or the agents of two rewards, lie apart at one level",
        "level measure comparison kind agent_a agent_b",
        """
        level      | text    | one of | behaviour, attribution, patching, attention, wiring, weights or representations
        measure    | text    | name   | what the distance is made of; the claims rest on the first measure of a level
        comparison | text    | name   | which comparison it belongs to; base and seeds as in comparisons
        kind       | text    | one of | named, base or replicate, as in comparisons; rewards: mean over the pairs of agents of two rewards from different seeds
        agent_a    | text    | name   | one of the pair; of kind rewards the reward
        agent_b    | text    | name   | the other
        distance   | number  | as unit | 0 or more
        unit       | text    | name   | unit of the distance
        floor      | number? | as unit | distance of two seeds of one reward (median over pairs), or of the base from itself under another number format; null: neither was measured
        floor_kind | text?   | one of | seeds or numerical; null without a floor
        floor_high | number? | as unit | the largest distance of two seeds of one reward
        control    | number? | as unit | distance of the base from the agents of the comparison (mean); null: not measured
        relative   | number? | ratio  | (distance - floor) / (control - floor): 0 at the noise floor, 1 as far as fine-tuning moves an agent; null: the scale has no two ends
        low        | number? | ratio  | 95% interval of relative, over the replicates
        high       | number? | ratio  | its upper end
        n_units    | integer | count  | replicates that the interval is over
        replicate  | text    | name   | what they are: scenarios or training seeds; weight matrices are no sample and give no interval
        p_adjusted | number? | probability | of kind rewards: that seeds of one reward lie as far apart, corrected over the levels; null: not tested
        answer     | text?   | one of | indistinguishable from another seed, between, or as large as fine-tuning itself; null: not identified by this design, or one end of the scale
        reason     | text    | sentence | what the answer rests on, or what is missing
        """,
    ),
    "questions": (
        "a research question",
        "question",
        """
        question   | text | name     | RQ1, RQ2, RQ3
        text       | text | sentence | what is asked
        answer     | text | sentences | what the claims say, in plain words
        verdict    | text | one of   | as of claims
        confidence | text | one of   | high (over training seeds), moderate (over scenarios, for these agents), low (nothing was told apart) or none
        evidence   | text | list     | ids of the claims that it rests on, joined by spaces
        missing    | text | sentences | what would have to be measured for a full answer; empty where nothing is
        """,
    ),
}  # fmt: skip
