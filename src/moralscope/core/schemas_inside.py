"""Schemas of what is found inside agents: lens, attribution, patching, circuits and the rest.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "lens": (
        "a depth of a model on a prompt, read at an answer token",
        "agent prompt token layer sublayer",
        """
        agent      | text    | name   | who decides
        prompt     | text    | name   | on what
        token      | integer | count  | answer token, 0 for the first
        is_branch  | flag    | yes or no | whether the options part at this token: the decision itself
        layer      | integer | count  | decoder layer from 0; -1 for the embedding
        sublayer   | text    | one of | embed, attn (after attention), mlp (after the MLP)
        logit_diff | number  | nats   | positive minus negative, read out at this depth
        """,
    ),
    "lens_controls": (
        "a depth read where there is nothing to decide",
        "agent prompt control draw layer sublayer",
        """
        agent      | text    | name   | who decides
        prompt     | text    | name   | the prompt whose lens this controls
        control    | text    | one of | random_pair (of tokens) or unrelated_prompt (same stem, same options)
        draw       | integer | count  | which pair, the same for every prompt; or which neutral question
        layer      | integer | count  | decoder layer from 0; -1 for the embedding
        sublayer   | text    | one of | embed, attn (after attention), mlp (after the MLP)
        logit_diff | number  | nats   | the pair's, or the decision's own on the neutral question; prompts with equal stem and options share it
        scale      | number  | ratio  | length of the decision's direction over that of the direction read; 1 for unrelated prompts
        """,
    ),
    "stabilisation": (
        "an agent on a prompt",
        "agent prompt",
        """
        agent            | text    | name   | who decides
        prompt           | text    | name   | on what
        scenario         | text    | name   | the prompt's cluster
        depth            | number? | layers | from here on the lens has its final sign: 0 embedding, l + 0.5 after attention of layer l, l + 1 after its MLP; null: the final reading is zero
        final_logit_diff | number  | nats   | the reading at the last depth
        """,
    ),
    "stabilisation_summary": (
        "an agent",
        "agent",
        """
        agent                    | text    | name   | who decides
        depth                    | number? | layers | mean of stabilisation.depth over scenarios; null: none has one
        low                      | number? | layers | 95% interval over scenarios; null: fewer than two, or no spread
        high                     | number? | layers | its upper end
        n_scenarios              | integer | count  | clusters, the units of replication
        n_prompts                | integer | count  | prompts averaged over
        beyond_random_pairs      | number? | layers | from here on the decision exceeds the 95% range of random option pairs; null: not at the last depth, or not measured
        beyond_unrelated_prompts | number? | layers | the same for unrelated prompts
        beyond_controls          | number? | layers | the same for both; null: for one of them not
        """,
    ),
    "attribution": (
        "a component's contribution on a prompt",
        "agent prompt token site part",
        """
        agent        | text     | name   | who decides
        prompt       | text     | name   | on what
        token        | integer  | count  | answer token, 0 for the first; -1 for the sum over the answer
        site         | text     | site   | the component
        layer        | integer? | count  | its layer
        kind         | text     | one of | embed, head, mlp or bias
        head         | integer? | count  | its head
        contribution | number   | nats   | to the logit difference, norm scales frozen
        part         | text     | one of | whole, weights or input
        """,
    ),
    "completeness": (
        "an agent on a prompt",
        "agent prompt",
        """
        agent      | text   | name   | who decides
        prompt     | text   | name   | on what
        error      | number | nats   | sum of contributions minus logit_diff
        logit_diff | number | nats   | pre-softcap logit difference that is attributed
        remainder  | number | nats   | log_odds minus logit_diff: soft-cap, several forms or tokens; 0 where equal
        """,
    ),
    "patching": (
        "a patch on a prompt",
        "source target prompt source_prompt site positions write",
        """
        source            | text     | name   | agent that the activation comes from
        target            | text     | name   | agent that it is put into
        prompt            | text     | name   | the target's prompt
        source_prompt     | text     | name   | the source's prompt
        site              | text     | site   | what is patched, several joined by +; all: the full swap
        layer             | integer? | count  | its layer
        kind              | text     | one of | head, q, k, v, attn, mlp, embed, resid_pre, resid_mid, resid_post, set, all
        head              | integer? | count  | its head, or key/value head
        positions         | text     | one of | answer_span, all, or a named span
        write             | text     | one of | write (source's own contribution) or z
        baseline_log_odds | number?  | nats   | the target's own; null: not recorded
        patched_log_odds  | number?  | nats   | with the patch; null: not recorded
        effect            | number   | nats   | patched minus baseline
        margin            | number?  | nats   | patched log-odds towards the option preferred before; negative: flipped
        flipped           | flag?    | yes or no | whether the preferred option changed; null: not recorded
        first_patched     | integer? | tokens | absolute position in the rendered prompt of the first token that is replaced, from 0; of the full swap 0; null: not recorded
        first_scored      | integer? | tokens | absolute position of the first answer token that is scored; null: not recorded
        """,
    ),
    "directions": (
        "a site patched in both directions of a pair",
        "agent_a prompt_a agent_b prompt_b site positions write",
        """
        agent_a       | text   | name   | one of the pair, first in the alphabet
        prompt_a      | text   | name   | its prompt
        agent_b       | text   | name   | the other
        prompt_b      | text   | name   | its prompt
        site          | text   | site   | what is patched
        positions     | text   | one of | answer_span, all, or a named span
        write         | text   | one of | write or z
        effect_a_to_b | number | nats   | of putting a's activity into b
        effect_b_to_a | number | nats   | of putting b's activity into a
        symmetric     | number | nats   | half the difference of the two effects
        asymmetry     | number | nats   | half their sum; 0 where effects are equal and opposite
        """,
    ),
    "ablation": (
        "an ablated site on a prompt",
        "agent prompt site how positions",
        """
        agent             | text     | name   | who decides
        prompt            | text     | name   | on what
        site              | text     | site   | what is ablated
        layer             | integer? | count  | its layer
        kind              | text     | one of | head, q, k, v, attn, mlp, embed, resid_pre, resid_mid, resid_post
        head              | integer? | count  | its head, or key/value head
        how               | text     | one of | zero, mean or resample
        positions         | text     | one of | all or answer_span
        donor             | text?    | name   | the prompt that the value comes from; null: zero or a mean
        baseline_log_odds | number   | nats   | the agent's own
        ablated_log_odds  | number   | nats   | with the ablation
        effect            | number   | nats   | ablated minus baseline
        flipped           | flag     | yes or no | whether the preferred option changed
        """,
    ),
    "approximations": (
        "an estimated patch on a prompt",
        "source target prompt source_prompt site positions method",
        """
        source        | text     | name   | agent that the activation would come from
        target        | text     | name   | agent that it would be put into
        prompt        | text     | name   | the target's prompt
        source_prompt | text     | name   | the source's prompt
        site          | text     | site   | what would be patched
        layer         | integer? | count  | its layer
        kind          | text     | one of | embed, head, attn, mlp
        head          | integer? | count  | its head
        positions     | text     | one of | answer_span
        method        | text     | one of | attribution_patching, integrated_gradients, relp
        estimate      | number   | nats   | estimated effect on the log-odds of writing the source's own contribution
        """,
    ),
    "agreement": (
        "an approximation against exact patches",
        "source target method kind",
        """
        source   | text    | name   | agent that activations come from
        target   | text    | name   | agent that they are put into
        method   | text    | one of | attribution_patching, integrated_gradients, relp
        kind     | text    | one of | embed, head, attn, mlp, or all of them together
        n        | integer | count  | patches (site and prompt) that were both estimated and measured
        pearson  | number? | ratio  | correlation of estimate and effect; null below 3 patches or without variance
        spearman | number? | ratio  | the same of their ranks
        """,
    ),
    "controls": (
        "a numerical control on a prompt",
        "control subject prompt",
        """
        control | text   | name | self_patch (an agent patched into itself) or write_all (every site written)
        subject | text   | name | the agent, or SOURCE>TARGET
        prompt  | text   | name | on what
        value   | number | nats | largest deviation from what must hold exactly, absolute
        """,
    ),
    "replicas": (
        "an untrained agent on a prompt, measured once more in another way",
        "agent prompt change",
        """
        agent              | text   | name | the base
        prompt             | text   | name | on what
        change             | text   | one of | kernel (other order of the same sums) or dtype (weights rounded)
        setting            | text    | name | the kernel or dtype, such as eager or bfloat16
        log_odds           | number? | nats | measured so; null: neither option has any probability
        reference_log_odds | number? | nats | as everything else in the study is measured
        """,
    ),
    "control_patches": (
        "a vector written where a patch would write",
        "control source target prompt site draw",
        """
        control       | text    | one of | random_direction (drawn, as long as the patch's own change) or planted (known effect)
        source        | text    | name   | agent whose patch gives the length
        target        | text    | name   | agent that is patched
        prompt        | text    | name   | on what
        site          | text    | site   | where it is added
        draw          | integer | count  | which random direction, from 0; of planted: 0 at full length, 1 at half
        norm          | number  | model units | length of the vector that was added
        effect        | number? | nats   | what it did, measured as patches are; null: the patch changes nothing, so that no length is given
        expected      | number? | nats   | of planted: its effect in an ordinary forward of the whole model; null for random
        source_effect | number? | nats   | effect of the patch itself at the site; null: not patched
        """,
    ),
    "edges": (
        "a path on a prompt",
        "source target prompt source_prompt sender receiver positions write",
        """
        source            | text   | name   | agent that the sender's activation comes from
        target            | text   | name   | agent that is patched
        prompt            | text   | name   | the target's prompt
        source_prompt     | text   | name   | the source's prompt
        sender            | text   | site   | sender
        receiver          | text   | site   | receiver; the last layer's resid_post: straight to the decision
        positions         | text   | one of | where the sender is replaced: answer_span, all, or a named span
        write             | text   | one of | write (source's own contribution) or z
        baseline_log_odds | number | nats   | the target's own
        patched_log_odds  | number | nats   | with the path patched
        effect            | number | nats   | patched minus baseline log-odds through this path only
        """,
    ),
    "circuits": (
        "a circuit: a set of sites that was searched for",
        "source target positions write circuit",
        """
        source       | text     | name   | agent that activations come from
        target       | text     | name   | agent that they are put into
        positions    | text     | one of | answer_span, all, or a named span
        write        | text     | one of | write (source's own contribution) or z
        circuit      | text     | name   | tells circuits of one pair apart
        method       | text     | one of | forward, backward, forward_backward, exhaustive
        goal         | text     | one of | share (of the full swap's effect), match (with it, prompt by prompt) or flip (of the decision)
        threshold    | number   | share  | what was asked for: of the effect, the match, or of the prompts that the full swap flips
        sites        | text     | site   | most important first, joined by +
        n_sites      | integer  | count  | sites
        share        | number   | share  | of the full swap's effect that they reach together, mean towards the source
        flipped      | number?  | share  | of the prompts flipped by the full swap that they flip; null: it flips none
        reached      | flag     | yes or no | whether they reach the goal; if not, the best set that the search met
        minimal      | flag     | yes or no | whether every smaller set of candidates was tried
        n_candidates | integer  | count  | sites to choose from
        top_k        | integer? | count  | only so many of them, with the largest single effects, were used; null: all
        n_sets       | integer  | count  | sets that were evaluated
        n_prompts    | integer  | count  | prompts averaged over
        """,
    ),
    "circuit_curves": (
        "a set of sites, or everything but it",
        "source target positions write circuit curve sets size draw",
        """
        source    | text    | name   | agent that activations come from
        target    | text    | name   | agent that they are put into
        positions | text    | one of | answer_span, all, or a named span
        write     | text    | one of | write or z
        circuit   | text    | name   | as in circuits
        curve     | text    | one of | faithfulness (the set is patched) or completeness (everything but it is)
        sets      | text    | one of | circuit (its first sites), random (sets of the same kinds) or layers (whole layers)
        size      | integer | count  | sites of the set
        draw      | integer | count  | which growing sequence of random sets, from 0; 0 for the others
        share     | number  | share  | of the full swap's effect that is reached
        """,
    ),
    "circuit_stability": (
        "a circuit of one wording in another",
        "source target positions write wording_a wording_b",
        """
        source          | text   | name   | agent that activations come from
        target          | text   | name   | agent that they are put into
        positions       | text   | one of | answer_span, all, or a named span
        write           | text   | one of | write or z
        wording_a       | text   | name   | where the circuit was found
        wording_b       | text   | name   | where it is tried
        overlap         | number | share  | Jaccard index of the circuits of the two wordings
        overlap_random  | number | share  | mean of random sets of the same sizes and kinds
        overlap_p       | number | probability | of the mean overlap over all pairs under random sets, one-sided; the same in every row
        transfer        | number | share  | of the full swap's effect in wording b that the circuit of a reaches
        transfer_random | number | share  | mean of random sets of the same size and kinds
        transfer_p      | number | probability | of the mean transfer over all pairs under random sets, one-sided; the same in every row
        """,
    ),
    "localisation": (
        "an ordered pair of agents",
        "source target positions write",
        """
        source      | text    | name   | agent that activations come from
        target      | text    | name   | agent that they are put into
        positions   | text    | one of | answer_span, all, or a named span
        write       | text    | one of | write or z
        n_eff       | number? | sites  | participation ratio of the mean effects of single sites; null: all are zero
        gini        | number? | ratio  | Gini coefficient of their sizes; null: all are zero
        null_low    | number? | sites  | 5% quantile of n_eff with effects permuted over sites of a kind in every unit; null: fewer than two units
        null_median | number? | sites  | its median
        null_high   | number? | sites  | its 95% quantile
        p           | number? | probability | of an n_eff this small under that null, one-sided
        p_floor     | number? | probability | smallest p that this design can reach
        top_share   | number  | share  | of the full swap's effect that the top sites reach together
        n_top       | integer | count  | top sites
        threshold   | number  | share  | what they were to reach
        word        | text    | one of | localised, distributed, neither shown, not identified by this design
        n_sites     | integer | count  | sites
        n_prompts   | integer | count  | prompts
        unit        | text    | one of | unit of replication: prompt or scenario
        n_units     | integer | count  | units
        """,
    ),
}  # fmt: skip
