"""At which level do two rewards differ by more than two training seeds do?

One claim per comparison that a study names and per level that was measured (``synthesis``). Of two
rewards with five seeds or more each the estimate is the mean distance between rewards minus that
within them; its unit is the training seed, its p comes from relabelling the seeds at all levels at
once (max-T). Of two agents the estimate is their distance: nothing can be said of what made them
different, so such a claim is *equivalent*, where they lie within a tenth of what fine-tuning does,
or not identified. An audit of found tables compares nothing and makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from moralscope.evidence.findings.attribution import completeness_error
from moralscope.evidence.findings.cascade_queries import distance_of_agents, distances_of_rewards
from moralscope.evidence.findings.decision_gates import level_gates
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.copies import seeds_subject
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    consult,
    noise_floor,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.replicates import replicate_floor
from moralscope.evidence.synthesis.comparing import Question, questions_of
from moralscope.evidence.synthesis.likeness import difference, likeness_p, margin_of
from moralscope.evidence.synthesis.outcomes import Outcome, outcomes
from moralscope.evidence.synthesis.scale import study_of

IN = {
    "behaviour": "their decisions",
    "attribution": "what their sites contribute to the answer",
    "patching": "what their sites do when they are exchanged",
    "attention": "where their heads look",
    "wiring": "how their components vary together",
    "weights": "what training did to their weights",
    "representations": "what they represent",
}
"""What agents are compared in, by level."""


def cascade_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per named comparison and level; the levels of a comparison are one family."""
    if not setting.has("comparisons", "agents"):
        return
    study = study_of(setting.tables)
    for question in questions_of(setting.tables):
        if question.rewards is None and not question.pairs[0].tested:
            continue
        found = [
            one
            for one in outcomes(
                study, question, alpha=setting.alpha, seed=setting.seed, draws=setting.draws
            )
            if one.primary
        ]
        for one in found:
            if question.rewards is None:
                yield _of_agents(setting, one, len(found))
            else:
                yield _of_rewards(setting, one, found)


def rewards_at_level(setting: Setting, question: Question, level: str) -> Finding | None:
    """The finding about two rewards at one level by itself; None if it was not measured of them.

    Args:
        setting: its tables.
        question: about two rewards.
        level: of the cascade.
    """
    study = study_of(setting.tables, (level,))
    found = outcomes(study, question, alpha=setting.alpha, seed=setting.seed, draws=setting.draws)
    return next((_of_rewards(setting, one, [one]) for one in found if one.primary), None)


def claim_id(question: Question, level: str) -> str:
    """How the claim about a comparison at a level is called: without spaces, as lists have them."""
    return f"cascade:{''.join(question.name.split())}:{level}"


def _of_rewards(setting: Setting, one: Outcome, family: Sequence[Outcome]) -> Finding:
    question, test = one.question, one.test
    levels = sum(other.test is not None for other in family)
    found = difference(one)
    figures = _figures_of_rewards(one, levels)
    consulted = _without_copies(one, _consulted(setting, one))
    inside, rewards = IN[one.measured.level], question.between
    likeness = likeness_p(one)
    sizes = [len(side) for side in question.sides]
    return Finding(
        id=claim_id(question, one.measured.level),
        found=f"In {inside}, agents of the rewards {rewards} lie further apart than training seeds "
        f"of one reward do: {figures}.",
        observed=f"In {inside}, agents of the rewards {rewards} are compared with training seeds "
        f"of one reward: {figures}.",
        estimate=None if found is None else found[0],
        interval=None if found is None else found[1],
        unit=one.measured.unit,
        n=sum(sizes),
        replicate="training seeds",
        test="relabelling of training seeds, max-T over levels, one-sided; null: rewards are "
        "exchangeable",
        query=NOTHING
        if found is None
        else distances_of_rewards(
            one.measured.level,
            one.measured.measure,
            question.agents,
            same_seeds=one.counted is None or bool(one.counted.all()),
        ),
        consulted=consulted,
        p=None if test is None else float(test.p[one.at]),
        p_adjusted=one.p_adjusted,
        p_floor=replicate_floor(sizes) if test is None else test.floor,
        level=setting.alpha,
        noise=_noise(setting, one),
        equivalence_p=None if likeness is None else min(1.0, likeness * levels),
        margin=margin_of(one),
        tests=levels or None,
        family=f"{levels} level{'s' * (levels != 1)}",
        missing=one.missing,
    )


def _figures_of_rewards(one: Outcome, levels: int) -> str:
    unit = one.measured.unit
    if one.matrix is None or difference(one) is None:
        return f"{size(one.distance.whole)} {unit} between rewards{_on_scale(one)}"
    whole, interval = difference(one) or (0.0, None)
    # The distance on the scale is the mean over the same pairs as the first part of the difference.
    within = one.distance.whole - whole
    p = "" if one.p_adjusted is None else f", adjusted {probability(one.p_adjusted)}"
    over = f" over {levels} level{'s' * (levels != 1)}" if one.p_adjusted is not None else ""
    return (
        f"{size(one.distance.whole)} {unit} between rewards and {size(within)} {unit} within one, "
        f"{signed(whole)} ({between(interval)} over training seeds){_on_scale(one)}{p}{over}"
    )


def _on_scale(one: Outcome) -> str:
    if one.relative is None:
        return ""
    interval = "" if one.interval is None else f" ({between(one.interval)})"
    zero = "another seed" if one.scale.kind == "seeds" else "rounding"
    return (
        f"; from {zero} at 0 to fine-tuning itself at 1 it stands at {size(one.relative)}{interval}"
    )


def _of_agents(setting: Setting, one: Outcome, levels: int) -> Finding:
    question, measured = one.question, one.measured
    first, second = question.agents
    likeness = likeness_p(one)
    adjusted = None if likeness is None else min(1.0, likeness * levels)
    like = adjusted is not None and adjusted < setting.alpha
    figures = f"{first} and {second} lie {size(one.distance.whole)} {measured.unit} apart"
    words = f"In {IN[measured.level]}, {figures}{_on_scale(one)}."
    return Finding(
        id=claim_id(question, measured.level),
        found=words,
        observed=words,
        estimate=one.distance.whole,
        interval=None,
        unit=measured.unit,
        n=one.n,
        replicate=one.replicate,
        test="one-sided test that the distance stays below a tenth of what fine-tuning does, "
        "jackknife over scenarios"
        if len(one.distance.without)
        else "none: a distance that is no sample, held against a tenth of what fine-tuning does",
        query=distance_of_agents(measured.level, measured.measure, (first, second)),
        consulted=_consulted(setting, one),
        noise=_noise(setting, one),
        equivalence_p=adjusted,
        margin=margin_of(one),
        # That two agents are alike can be seen in them; what made them differ cannot.
        missing=None if like else one.missing,
    )


def _consulted(setting: Setting, one: Outcome) -> Consulted:
    question, level = one.question, one.measured.level
    agents = question.agents
    gates, shown = level_gates(setting, level, agents)
    if question.rewards is not None:
        keys = [(DUPLICATES, seeds_subject(r, question.base or "")) for r in question.rewards]
        gates += [key for key in keys if key in setting.gates]
    return consult(setting, agents, gates, shown)


def _without_copies(one: Outcome, consulted: Consulted) -> Consulted:
    """With a failed gate for seeds that are copies: they would make any two rewards differ."""
    if one.matrix is None or any(f"{DUPLICATES} (seeds" in reason for reason in consulted.failed):
        return consulted
    agents, first = one.question.agents, len(one.question.sides[0])
    copies = [
        f"{DUPLICATES}: {agents[j]} and {agents[i]} are the same at this level, so they are one "
        "training run under two names; keep one of them."
        for i in range(len(agents))
        for j in range(i)
        if (i < first) == (j < first) and one.matrix[i, j] == 0.0
    ]
    return replace(consulted, failed=(*consulted.failed, *copies))


def _noise(setting: Setting, one: Outcome) -> float:
    agents = list(one.question.agents)
    if one.measured.level == "behaviour":
        return noise_floor(setting, agents)
    if one.measured.level == "attribution":
        return completeness_error(setting, agents)
    return 0.0
