"""Schemas of how components vary together, and what one does through another.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "norms": (
        "the size of a component's write at the last prompt token",
        "agent prompt site",
        """
        agent  | text   | name | who decides
        prompt | text   | name | on what
        site   | text   | site | component: a sub-layer (attn, mlp), or a head, whose write is part of its attn
        norm   | number | model units | Euclidean norm of what it adds to the residual stream, measured in float32
        """,
    ),
    "projections": (
        "a component's write along the decision",
        "agent prompt site",
        """
        agent      | text   | name | who decides
        prompt     | text   | name | on what
        site       | text   | site | component: a sub-layer (attn, mlp), or a head, whose share is part of its attn
        projection | number | nats | what it adds to the logit difference where the options part, every norm's scale frozen
        """,
    ),
    "interactions": (
        "a pair of sites",
        "agent site_a site_b measure",
        """
        agent   | text    | name  | who decides
        site_a  | text    | site  | first
        site_b  | text    | site  | second
        measure | text    | name  | what is measured: norm_correlation (of the sizes of writes) or projection_correlation (of writes along the decision), over prompts
        value   | number? | as named | null where undefined
        n       | integer | count | prompts
        """,
    ),
    "interaction_networks": (
        "the wiring of two agents, compared",
        "comparison agent_a agent_b measure",
        """
        comparison     | text     | name   | which comparison it belongs to
        kind           | text     | one of | named, base or replicate, as in comparisons
        agent_a        | text     | name   | one of the pair
        agent_b        | text     | name   | the other
        measure        | text     | name   | norm_correlation or projection_correlation
        sites          | integer  | count  | sites that are distinct, alive and resolved in both agents
        pairs          | integer  | count  | pairs of them that could be tested
        prompts        | integer  | count  | prompts that the correlations are over
        prompts_needed | integer  | count  | independent prompts that would tell two correlations apart that differ by as much as the study asked for (0.3 of Fisher z unless it says otherwise), with 80% power, one pair at a time
        scenarios      | integer  | count  | units whose labels are swapped
        changed        | integer  | count  | pairs that change by more than 0.3 of Fisher z
        distance       | number?  | Fisher z | root mean square difference over the tested pairs; null where there is none
        p              | number?  | probability | that the networks do not differ: twice the smaller of the p of count and largest change; null where undefined
        p_adjusted     | number?  | probability | the same after Holm's correction over the comparisons of this kind and both measures
        reliability    | number?  | ratio  | of the differences, from halves of the scenarios; null where undefined
        surviving      | integer  | count  | pairs that survive, as in interaction_changes
        """,
    ),
    "interaction_changes": (
        "a pair of sites in two agents that are compared",
        "comparison agent_a agent_b measure site_a site_b",
        """
        comparison    | text    | name   | which comparison it belongs to
        kind          | text    | one of | named, base or replicate, as in comparisons
        agent_a       | text    | name   | one of the pair
        agent_b       | text    | name   | the other
        measure       | text    | name   | norm_correlation or projection_correlation
        site_a        | text    | site   | the earlier of the two
        site_b        | text    | site   | the later
        correlation_a | number? | ratio  | over prompts, in agent_a; null where undefined
        correlation_b | number? | ratio  | in agent_b
        difference    | number? | ratio  | correlation_a minus correlation_b; null where it cannot be tested
        p_adjusted    | number? | probability | swaps of the agents' labels within scenarios, corrected for all pairs of sites (max-T); null where it cannot be tested
        stable        | flag    | yes or no | whether the difference keeps its sign whichever scenario is left out
        survives      | flag    | yes or no | significant among all pairs of sites and of agents, larger than 0.3 of Fisher z, reliable and stable
        """,
    ),
    "pathways": (
        "a pathway, as correlated and as patched",
        "comparison agent_a agent_b measure sender receiver",
        """
        comparison    | text   | name   | which comparison it belongs to
        agent_a       | text   | name   | one of the pair
        agent_b       | text   | name   | the other
        measure       | text   | name   | norm_correlation or projection_correlation
        sender        | text   | site   | the earlier component
        receiver      | text   | site   | the later
        difference    | number | ratio  | change of their correlation, agent_a minus agent_b
        survives      | flag   | yes or no | whether that change survives, as in interaction_changes
        chosen_as     | text   | one of | survivor, largest (of the differences, where none survives) or random (the control)
        effect_a_to_b | number | nats   | on agent_b's log-odds, of the sender's write in agent_a through this receiver alone: mean over scenarios
        effect_b_to_a | number | nats   | the same the other way
        """,
    ),
}
