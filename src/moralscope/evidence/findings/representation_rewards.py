"""Do rewards matter more than training seeds for what agents represent?

Per two rewards that a study compares, pairs of agents of different rewards are compared with pairs
of one reward, by relabelling the seeds (``statistics.replicates``), in the distance of their
streams and in ``1 - cos`` of their changes from base, with Holm's correction over rewards and
measures. Unit: the training seed. Pairs with one training seed are left out of both means: such
agents began alike, and lie closer whatever they were trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.designs import RewardDesign, reward_designs
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.representation_distances import AgentPair, Apart
from moralscope.evidence.findings.representation_queries import between_and_within
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.copies import seeds_subject
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    consult,
    probability,
    signed,
    size,
)
from moralscope.evidence.pairs import compared
from moralscope.evidence.replicated import seeds_to_replicate
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.replicates import (
    MIN_SEEDS,
    Replicates,
    replicate_floor,
    seed_replicate,
)
from moralscope.evidence.statistics.resampling import Array

_MEASURES = {
    "distance": ("own.distance", "the distance of their streams, over the base's length"),
    "change": (
        "1.0 - own.change_cosine",
        "one minus the cosine of their changes from base",
    ),
}


@dataclass(frozen=True, eq=False)
class _Question:
    """Two rewards by one measure: an agent per seed, and how far each two lie apart.

    Attributes:
        rewards, base: whose agents.
        measure: ``distance`` or ``change``.
        sides: one agent per training seed of each reward.
        matrix: ``(S, S)`` how far they lie apart.
        counted: ``(S, S)`` which pairs count.
        pairs: those that count, as the table has them, and whether their rewards differ.
        result, adjusted: of the test; None where it could not be made.
    """

    rewards: AgentPair
    base: str
    measure: str
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    matrix: Array
    counted: NDArray[np.bool_]
    pairs: tuple[tuple[AgentPair, bool], ...]
    result: Replicates | None = None
    adjusted: float | None = None


def reward_findings(setting: Setting, apart: Apart) -> Iterator[Finding]:
    """One finding per two rewards and measure; all of them are one family."""
    if not setting.has("agents"):
        return
    asked = list(_questions(setting, apart))
    level = setting.alpha / max(1, len(asked))
    tested = [_tested(setting, one) for one in asked]
    enough = [
        result is not None and result.seeds >= MIN_SEEDS and result.floor < level
        for result in tested
    ]
    # A claim that could not be tested counts with p = 1, as everywhere.
    p = [r.p if r is not None and told else 1.0 for r, told in zip(tested, enough, strict=True)]
    corrected = holm(np.array(p, dtype=np.float64)) if asked else np.empty(0)
    for one, result, told, value in zip(asked, tested, enough, corrected, strict=True):
        known = replace(one, result=result, adjusted=float(value) if told else None)
        yield _reward_finding(setting, apart.family, known, len(asked))


def _questions(setting: Setting, apart: Apart) -> Iterator[_Question]:
    """Rewards that a named comparison joins, all of whose seeds were compared with each other."""
    seeds = dict(setting.tables["agents"].select("agent", "training_seed").iter_rows())
    named = {frozenset(p.agents) for p in compared(setting.tables) if p.kind == "named"}
    for one, other in combinations(reward_designs(setting.tables["agents"]), 2):
        everybody = [[name for names in side.agents for name in names] for side in (one, other)]
        joined = any(frozenset((x, y)) in named for x in everybody[0] for y in everybody[1])
        if one.base != other.base or not joined or max(one.seeds, other.seeds) < 2:
            continue
        for measure, of in (("distance", apart.distances), ("change", apart.changes)):
            found = _question(measure, of, one, other, seeds)
            if found is not None:
                yield found


def _question(
    measure: str,
    of: Mapping[AgentPair, Array],
    one: RewardDesign,
    other: RewardDesign,
    seeds: Mapping[str, int | None],
) -> _Question | None:
    sides = (tuple(n[0] for n in one.agents), tuple(n[0] for n in other.agents))
    names = [*sides[0], *sides[1]]
    n = len(names)
    matrix, counted = np.zeros((n, n)), np.zeros((n, n), dtype=bool)
    pairs: list[tuple[AgentPair, bool]] = []
    for i, j in combinations(range(n), 2):
        a, b = names[i], names[j]
        stored = next((way for way in ((a, b), (b, a)) if way in of), None)
        if stored is None:
            return None
        matrix[i, j] = matrix[j, i] = float(of[stored].mean())
        if seeds.get(a) is not None and seeds.get(a) != seeds.get(b):
            counted[i, j] = counted[j, i] = True
            pairs.append((stored, (a in sides[0]) != (b in sides[0])))
    rewards = (one.reward, other.reward)
    return _Question(rewards, one.base, measure, sides, matrix, counted, tuple(pairs))


def _tested(setting: Setting, one: _Question) -> Replicates | None:
    labels = [one.rewards[side] for side in (0, 1) for _ in one.sides[side]]
    rng = setting.rng("representations", one.measure, *one.rewards, one.base)
    try:
        return seed_replicate(one.matrix, labels, rng, setting.draws, counted=one.counted)
    except EvidenceError:
        return None


def _reward_finding(
    setting: Setting,
    family: str,
    one: _Question,
    tests: int,
) -> Finding:
    result, adjusted = one.result, one.adjusted
    first, second = one.rewards
    sizes = [len(side) for side in one.sides]
    agents = [*one.sides[0], *one.sides[1]]
    value, by = _MEASURES[one.measure]
    figures = "not available, as no two seeds of one reward can be compared"
    if result is not None:
        p = "" if adjusted is None else f"; adjusted {probability(adjusted)}"
        figures = (
            f"{size(result.between)} between rewards and {size(result.within)} within one, "
            f"{signed(result.between - result.within)} ({by}; {sum(sizes)} training seeds{p})"
        )
    level = setting.alpha / tests
    needed = seeds_to_replicate(2, level)
    gates = [(DUPLICATES, "scenarios")]
    copies = [(DUPLICATES, seeds_subject(reward, one.base)) for reward in one.rewards]
    gates += [key for key in copies if key in setting.gates]
    return Finding(
        id=f"representations:{first}:{second}" + (":change" if one.measure == "change" else ""),
        found=f"The streams of agents of the rewards {first} and {second} lie further apart than "
        f"those of agents of one reward from different seeds: {figures}.",
        observed=f"The streams of agents of the rewards {first} and {second} are compared with "
        f"those of agents of one reward from different seeds: {figures}.",
        estimate=None if result is None else result.between - result.within,
        interval=None,
        unit="share of the base's length" if one.measure == "distance" else "cosine",
        n=sum(sizes),
        replicate="training seeds",
        test="relabelling of training seeds, Holm over rewards and measures, one-sided; null: "
        "rewards are exchangeable",
        query=NOTHING if result is None else between_and_within(one.pairs, family, value),
        consulted=consult(setting, agents, gates),
        p=None if adjusted is None or result is None else result.p,
        p_adjusted=adjusted,
        p_floor=replicate_floor(sizes) if result is None else result.floor,
        level=level,
        noise=0.0,
        tests=tests,
        family=f"{tests} measures of rewards",
        missing=None
        if adjusted is not None
        else f"rewards are told from training seeds by relabelling the seeds, and {sizes[0]} and "
        f"{sizes[1]} of them cannot carry it; {needed} seeds of each reward would (attainable p "
        f"{replicate_floor([needed] * 2):.2g}).",
    )
