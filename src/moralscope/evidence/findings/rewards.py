"""What does a *reward* do? Claims that only training seeds can carry.

One trained agent per reward is one draw from all the agents that this reward could have produced.
Two rewards are compared by permuting their labels over seeds (exact), with Welch's interval; one
reward is compared with base by sign-flips of its seeds. Holm corrects over the rewards and over
the pairs, so the attainable p must lie below alpha/m. With too few seeds the claim is not
identified, whatever the number of prompts, and says how many seeds would do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from moralscope.evidence.designs import (
    MIN_SEEDS,
    RewardDesign,
    reward_designs,
    seeds_to_compare,
    units_to_differ_from_zero,
)
from moralscope.evidence.findings import queries
from moralscope.evidence.findings.behaviour import Behaviour, Contrast, behaviour, contrast_units
from moralscope.evidence.findings.decision_gates import decision_gates
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
)
from moralscope.evidence.pairs import compared
from moralscope.evidence.statistics.equivalence import corrected_tost
from moralscope.evidence.statistics.intervals import (
    cluster_t,
    smallest_detectable_effect,
    standard_error,
    welch,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import (
    Array,
    permutation_floor,
    permute_labels,
    sign_flip,
    sign_flip_floor,
)


def reward_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per reward and one per pair of rewards trained from the same base."""
    found = behaviour(setting)
    if found is None:
        return
    designs = [
        design
        for design in reward_designs(setting.tables["agents"])
        if all(agent in found.bases for names in design.agents for agent in names)
        and _asked_about(setting, design)
    ]
    means = {design: seed_means(found, design) for design in designs}
    yield from rewards_alone(setting, found, designs, means)
    pairs = [
        (a, b)
        for a, b in itertools.combinations(designs, 2)
        if a.base == b.base and _compared(setting, a, b)
    ]
    yield from rewards_compared(setting, found, pairs, means)


def _asked_about(setting: Setting, design: RewardDesign) -> bool:
    """Whether the study compares any agent of a reward; trainings of parts are judged elsewhere."""
    if not setting.has("comparisons"):
        return True
    asked = {agent for pair in compared(setting.tables) for agent in pair.agents}
    return any(agent in asked for agent in _agents(design))


def _compared(setting: Setting, first: RewardDesign, second: RewardDesign) -> bool:
    """Whether the study compares two rewards."""
    if not setting.has("comparisons"):
        return True
    sides = ({*_agents(first)}, {*_agents(second)})
    return any(
        {pair.first, pair.second} & sides[0] and {pair.first, pair.second} & sides[1]
        for pair in compared(setting.tables)
        if pair.kind == "named"
    )


def seed_means(found: Behaviour, design: RewardDesign) -> Array:
    """(S,) mean change from base per training seed: over scenarios, then over its agents."""
    contrasts = [
        Contrast(agent, agent, design.base, design.base)
        for names in design.agents
        for agent in names
    ]
    units = contrast_units(found, contrasts)
    return np.array(
        [np.mean([units.column(agent).mean() for agent in names]) for names in design.agents],
        dtype=np.float64,
    )


def rewards_alone(
    setting: Setting,
    found: Behaviour,
    designs: Sequence[RewardDesign],
    means: dict[RewardDesign, Array],
) -> Iterator[Finding]:
    """One finding per reward against base; ``means`` are ``seed_means`` by design."""
    level = setting.alpha / max(1, len(designs))
    needed = max(MIN_SEEDS, units_to_differ_from_zero(setting.alpha, max(1, len(designs))))
    p_values = [
        _sign_flip_if(setting, design, means[design], design.seeds >= needed) for design in designs
    ]
    adjusted = _holm(p_values)
    for design, p, p_adjusted in zip(designs, p_values, adjusted, strict=True):
        y = means[design]
        interval = cluster_t(y)
        mean = float(y.mean())
        figures = f"{signed(mean)} nats over {_seeds(design.seeds)} ({between(interval)}"
        margin = found.margins[design.base]
        agents = _agents(design)
        yield Finding(
            id=f"reward:{design.reward}{_of_base(design, designs)}",
            found=f"Training with the {design.reward} reward makes agents "
            f"{'more' if mean > 0 else 'less'} inclined {found.toward} than {design.base}: "
            f"{figures}, adjusted {probability(p_adjusted)}).",
            observed=f"Agents trained with the {design.reward} reward differ from {design.base} "
            f"by {figures}).",
            estimate=mean,
            interval=interval,
            unit="nats",
            n=design.seeds,
            replicate="training seeds",
            test="sign-flips of training seeds, Holm over rewards; null: symmetric about zero",
            query=queries.reward_change(design.reward, design.base, agents, found.family),
            consulted=_consult(setting, [design]),
            p=p,
            p_adjusted=p_adjusted,
            p_floor=min(1.0, sign_flip_floor(design.seeds)),
            level=level,
            noise=noise_floor(setting, [*agents, design.base]),
            equivalence_p=corrected_tost(y, margin, len(designs)),
            margin=margin if margin > 0.0 else None,
            detectable=None
            if design.seeds < 2
            else smallest_detectable_effect(standard_error(y), design.seeds - 1, level),
            tests=len(designs),
            family=f"{len(designs)} reward{'s' * (len(designs) > 1)}",
            missing=None
            if design.seeds >= needed
            else f"a claim about a reward is replicated over training seeds, and "
            f"{_seeds(design.seeds)} cannot carry it; {needed} seeds with this reward would "
            f"identify it (attainable p {sign_flip_floor(needed):.2g} over {len(designs)} "
            "rewards). These checkpoints themselves may differ.",
        )


def rewards_compared(
    setting: Setting,
    found: Behaviour,
    pairs: Sequence[tuple[RewardDesign, RewardDesign]],
    means: dict[RewardDesign, Array],
) -> Iterator[Finding]:
    """One finding per pair of rewards; ``means`` are ``seed_means`` by design."""
    level = setting.alpha / max(1, len(pairs))
    tested = [_permute_if(setting, a, b, means, level) for a, b in pairs]
    adjusted = _holm(tested)
    for (a, b), p, p_adjusted in zip(pairs, tested, adjusted, strict=True):
        ya, yb = means[a], means[b]
        difference = float(ya.mean() - yb.mean())
        interval = welch(ya, yb)
        figures = f"{signed(difference)} nats with {_both(a.seeds, b.seeds)} ({between(interval)}"
        agents = [*_agents(a), *_agents(b)]
        suffix = _of_base(a, [d for pair in pairs for d in pair])
        needed = seeds_to_compare(setting.alpha, len(pairs))
        yield Finding(
            id=f"rewards:{a.reward}:{b.reward}{suffix}",
            found=f"Training with the {a.reward} reward makes agents "
            f"{'more' if difference > 0 else 'less'} inclined {found.toward} than training with "
            f"the {b.reward} reward: {figures}, adjusted {probability(p_adjusted)}).",
            observed=f"Agents trained with the {a.reward} and {b.reward} rewards differ by "
            f"{figures}).",
            estimate=difference,
            interval=interval,
            unit="nats",
            n=a.seeds + b.seeds,
            replicate="training seeds",
            test="permutation of reward labels over seeds, Holm over pairs, Welch interval; null: "
            "the rewards are exchangeable",
            query=queries.reward_difference(
                (a.reward, _agents(a)), (b.reward, _agents(b)), a.base, found.family
            ),
            consulted=_consult(setting, [a, b]),
            p=p,
            p_adjusted=p_adjusted,
            p_floor=permutation_floor(a.seeds, b.seeds),
            level=level,
            noise=noise_floor(setting, [*agents, a.base]),
            detectable=_detectable(ya, yb, level),
            tests=len(pairs),
            family=f"{len(pairs)} pair{'s' * (len(pairs) > 1)} of rewards",
            missing=None
            if p is not None
            else "claims about rewards are replicated over training seeds, and "
            f"{_both(a.seeds, b.seeds)} cannot carry one; {needed} seeds per reward would "
            f"identify it (attainable p {permutation_floor(needed, needed):.2g} over "
            f"{len(pairs)} pair{'s' * (len(pairs) > 1)}). These checkpoints themselves may differ.",
        )


def _sign_flip_if(setting: Setting, design: RewardDesign, y: Array, enough: bool) -> float | None:
    if not enough:
        return None
    return sign_flip(y, setting.rng("reward", design.reward, design.base), setting.draws)[0]


def _permute_if(
    setting: Setting,
    a: RewardDesign,
    b: RewardDesign,
    means: dict[RewardDesign, Array],
    level: float,
) -> float | None:
    enough = min(a.seeds, b.seeds) >= MIN_SEEDS and permutation_floor(a.seeds, b.seeds) < level
    if not enough:
        return None
    rng = setting.rng("rewards", a.reward, b.reward, a.base)
    return permute_labels(means[a], means[b], rng, setting.draws)[0]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm over the whole family; hypotheses that could not be tested count with p = 1."""
    if not p_values:
        return []
    adjusted = holm(np.array([1.0 if p is None else p for p in p_values]))
    return [None if p is None else float(q) for p, q in zip(p_values, adjusted, strict=True)]


def _detectable(a: Array, b: Array, level: float) -> float | None:
    if min(len(a), len(b)) < 2:
        return None
    error = math.hypot(standard_error(a), standard_error(b))
    return smallest_detectable_effect(error, len(a) + len(b) - 2, level)


def _consult(setting: Setting, designs: Sequence[RewardDesign]) -> Consulted:
    agents = [agent for design in designs for agent in _agents(design)]
    seeds = [(DUPLICATES, seeds_subject(design.reward, design.base)) for design in designs]
    return consult(
        setting,
        agents,
        [
            *decision_gates(setting, [*agents, designs[0].base]),
            *(key for key in seeds if key in setting.gates),
        ],
    )


def _agents(design: RewardDesign) -> list[str]:
    return [agent for names in design.agents for agent in names]


def _of_base(design: RewardDesign, designs: Sequence[RewardDesign]) -> str:
    return f":{design.base}" if len({d.base for d in designs}) > 1 else ""


def _seeds(count: int) -> str:
    return "one training seed" if count == 1 else f"{count} training seeds"


def _both(first: int, second: int) -> str:
    return f"{_seeds(first)} each" if first == second else f"{first} and {_seeds(second)}"
