"""Schemas of what agents represent: similarity of changes, directions, subspaces.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "representation_pairs": (
        "two agents' residual streams at a depth, where a prompt's options part",
        "agent_a agent_b prompt layer",
        """
        agent_a       | text    | name  | one of the pair
        agent_b       | text    | name  | the other
        prompt        | text    | name  | on what
        layer         | integer | count | the stream after this decoder layer; -1 for the embedding
        change_cosine | number? | ratio | cosine of the two agents' changes from base, in [-1, 1]; null: one of them does not change, as of a base
        raw_cosine    | number? | ratio | cosine of the streams themselves, in [-1, 1]; null: one of them is zero
        distance      | number? | ratio | length of the difference of the two streams over the length of the base's; null: the base's is zero
        """,
    ),
    "representation_similarity": (
        "a measure of how alike two agents' residual streams are at a depth",
        "agent_a agent_b layer measure",
        """
        agent_a | text    | name   | one of the pair
        agent_b | text    | name   | the other
        layer   | integer | count  | the stream after this decoder layer; -1 for the embedding
        measure | text    | one of | change_cosine, change_cka (of changes from base), raw_cosine, raw_cka (of the streams; near 1 for any two agents of one base) or distance (over the base's length)
        value   | number? | ratio  | mean over scenarios, of CKA over all of them; null: undefined, as for changes of a base
        low     | number? | ratio  | 95% interval over scenarios; null: undefined
        high    | number? | ratio  | its upper end
        n       | integer | count  | scenarios, the units of replication
        """,
    ),
    "separations": (
        "a linear probe at a depth, asked on scenarios that it was not fitted to",
        "what subject layer method",
        """
        what         | text     | name   | what it tells apart: agents (on the same prompts), or a property of prompts, such as opponent_previous, labels or framing
        subject      | text     | name   | whose streams: the agent, or A|B of two agents
        layer        | integer  | count  | the stream after this decoder layer; -1 for the embedding
        method       | text     | one of | mean_difference or logistic (regularised)
        accuracy     | number   | share  | of held-out prompts on the right side, both classes weighing alike
        auc          | number   | share  | held-out prompts of one class above those of the other, in pairs within a block; 0.5 by chance
        chance       | number   | share  | mean accuracy with permuted labels
        chance_low   | number   | share  | 2.5% of the permutations lie below
        chance_high  | number   | share  | 97.5% of them lie below
        null_p       | number   | share  | of the permutations, the observed labels among them, with at least this accuracy
        n_null       | integer  | count  | permutations
        permuted     | text     | one of | within blocks of scenarios that are left out together: prompts of a wording, or whole scenarios where each has one label only
        random_model | number?  | share  | accuracy of the same probe on a model of this shape with random weights; null: not measured
        direction    | number   | model units | length of the difference of means over all prompts, each about the mean of its block and wording
        n            | integer  | count  | scenarios
        n_prompts    | integer  | count  | readings that are told apart
        """,
    ),
    "direction_effects": (
        "a direction added to the stream of an agent where its options part",
        "what subject agent layer draw",
        """
        what      | text     | name   | what the direction tells apart, as in separations
        subject   | text     | name   | whose streams it was found in, as in separations
        agent     | text     | name   | the agent that is steered
        layer     | integer  | count  | added to the stream after this decoder layer
        draw      | integer  | count  | -1 for the direction itself; random directions of its length from 0
        norm      | number   | model units | length of what is added
        effect    | number   | nats   | mean over scenarios that the direction was not found in, of the change in log-odds
        low       | number?  | nats   | 95% interval over those scenarios; null: undefined
        high      | number?  | nats   | its upper end
        n         | integer  | count  | those scenarios
        """,
    ),
    "subspace_effects": (
        "a projection of the stream on a subspace, exchanged on a prompt",
        "what source agent layer dimension control draw prompt",
        """
        what          | text    | name   | what differs between the two readings: agents, or the change between the two prompts, such as opponent_previous
        source        | text    | name   | agent that the projection comes from
        agent         | text    | name   | agent that it is put into
        layer         | integer | count  | the stream after this decoder layer
        dimension     | integer | count  | of the subspace
        control       | text    | one of | none (found for this), arbitrary (found for sides drawn at random) or random (drawn)
        draw          | integer | count  | which random subspace, or which search for arbitrary sides, from 0; 0 for none
        prompt        | text    | name   | the agent's prompt
        source_prompt | text    | name   | the prompt of the projection
        split         | text    | one of | train (the subspace was found on it) or test
        full_effect   | number  | nats   | of exchanging the whole stream at this place, on the log-odds
        wanted        | number  | nats   | what the search asks for: full_effect, of arbitrary sides with a sign drawn by scenario
        effect        | number  | nats   | of exchanging the projection
        """,
    ),
    "subspaces": (
        "a subspace of the stream: how much of the full exchange passes through it",
        "what source agent layer dimension split control",
        """
        what               | text    | name   | as in subspace_effects
        source             | text    | name   | agent that the projection comes from
        agent              | text    | name   | agent that it is put into
        layer              | integer | count  | the stream after this decoder layer
        dimension          | integer | count  | of the subspace
        split              | text    | one of | train or test
        control            | text    | one of | none, arbitrary or random (mean over draws)
        interchange_effect | number? | share  | of the wanted change that is reached: sum of effect times wanted over sum of wanted squared, each scenario weighing alike; null: the full exchange does nothing
        low                | number? | share  | 95% interval over scenarios; null: undefined
        high               | number? | share  | its upper end
        full_effect        | number  | nats   | root mean square over scenarios of the full exchange
        n                  | integer | count  | scenarios
        """,
    ),
}
