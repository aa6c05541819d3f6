"""Do rewards matter more than training seeds for where updates point?

Per two rewards that a study compares, with d_ij one minus the mean overlap over linear layers of
what the updates of two agents write (their k leading output directions, ``update_overlap``),

    T = mean of d_ij over pairs of different rewards - mean of d_ij over pairs of one reward.

Its p comes from relabelling the seeds (``statistics.replicates``), with Holm's correction over
pairs of rewards. Unit: the training seed. The cosine of whole updates is told beside it and not
tested here (the cascade does): adapters read through random ``A``, so that whole updates of two
seeds are nearly orthogonal even where they write alike.

Adapters that began from the same random ``A`` lie closer whatever they were trained for, and two
rewards are often trained from the same seeds. Pairs with one training seed, or with one reach, are
therefore left out of both means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.designs import RewardDesign, reward_designs
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.weight_queries import outputs_apart
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.copies import seeds_subject
from moralscope.evidence.gates.updates import GATE
from moralscope.evidence.ledger import (
    Consulted,
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
from moralscope.evidence.units import Tables

SAME_START = 0.5
"""Mean reach above which two adapters are taken to have begun from the same ``A``."""

AgentPair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Rewards:
    """Two rewards, and how unlike their agents' updates are.

    Attributes:
        rewards: their names.
        sides: one agent per training seed of each.
        apart: one minus the overlap of what two agents write, by their names as the table has them.
        cosines: of their whole updates; left out where one is zero.
        counted: pairs that do not share their start.
        more: agents of a seed that another stands for.
        base: what they were trained from.
        k: how many leading directions.
    """

    rewards: tuple[str, str]
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    apart: Mapping[AgentPair, float]
    cosines: Mapping[AgentPair, float]
    counted: frozenset[AgentPair]
    more: tuple[str, ...]
    base: str
    k: int

    @property
    def agents(self) -> list[str]:
        """Everybody, reward by reward."""
        return [*self.sides[0], *self.sides[1]]

    @property
    def pairs(self) -> list[AgentPair]:
        """All pairs of these agents, as the table has them."""
        own = set(self.agents)
        return [pair for pair in self.apart if set(pair) <= own]

    def matrix(self) -> tuple[Array, NDArray[np.bool_]]:
        """(S, S) how unlike they are, and which pairs count."""
        at = {name: index for index, name in enumerate(self.agents)}
        values = np.zeros((len(at), len(at)))
        counted = np.zeros((len(at), len(at)), dtype=bool)
        for a, b in self.pairs:
            values[at[a], at[b]] = values[at[b], at[a]] = self.apart[a, b]
            counted[at[a], at[b]] = counted[at[b], at[a]] = (a, b) in self.counted
        return values, counted


def weight_reward_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per two rewards that a named comparison joins; all of them are one family."""
    if not setting.has("update_overlap", "update_distances", "agents"):
        return
    asked = list(_questions(setting.tables))
    level = setting.alpha / max(1, len(asked))
    tested = [_tested(setting, one) for one in asked]
    enough = [
        result is not None and result.seeds >= MIN_SEEDS and result.floor < level
        for result in tested
    ]
    # A claim that could not be tested counts with p = 1, as everywhere.
    p = [r.p if r is not None and told else 1.0 for r, told in zip(tested, enough, strict=True)]
    adjusted = holm(np.array(p, dtype=np.float64)) if asked else np.empty(0)
    for one, result, told, value in zip(asked, tested, enough, adjusted, strict=True):
        yield _finding(setting, one, result, float(value) if told else None, len(asked))


def _questions(tables: Tables) -> Iterator[Rewards]:
    """Rewards that a named comparison joins, one of them with two seeds or more."""
    designs = reward_designs(tables["agents"])
    named = {frozenset(pair.agents) for pair in compared(tables) if pair.kind == "named"}
    k, apart = _apart(tables)
    cosines = _cosines(tables)
    counted = frozenset(_other_starts(tables, apart))
    for a, b in combinations(designs, 2):
        joined = any(frozenset((x, y)) in named for x in _everybody(a) for y in _everybody(b))
        if a.base != b.base or not joined or max(a.seeds, b.seeds) < 2:
            continue
        sides = (tuple(n[0] for n in a.agents), tuple(n[0] for n in b.agents))
        more = tuple(name for design in (a, b) for names in design.agents for name in names[1:])
        if _complete((*sides[0], *sides[1]), apart):
            rewards = (a.reward, b.reward)
            yield Rewards(rewards, sides, apart, cosines, counted, more, a.base, k)


def _everybody(design: RewardDesign) -> list[str]:
    return [name for names in design.agents for name in names]


def _complete(agents: Sequence[str], apart: Mapping[AgentPair, float]) -> bool:
    return all((x, y) in apart or (y, x) in apart for x, y in combinations(agents, 2))


def _apart(tables: Tables) -> tuple[int, dict[AgentPair, float]]:
    """The largest number of leading directions, and how unlike two agents' outputs are."""
    overlap = tables["update_overlap"]
    k = int(str(overlap.get_column("k").max()))
    outputs = (
        overlap.filter((pl.col("side") == "outputs") & (pl.col("k") == k))
        .group_by("agent_a", "agent_b", maintain_order=True)
        .agg(1.0 - pl.col("overlap").mean())
    )
    return k, {(a, b): float(value) for a, b, value in outputs.iter_rows()}


def _cosines(tables: Tables) -> dict[AgentPair, float]:
    """Cosines of whole updates."""
    norms = [(pl.col(name) ** 2).sum() for name in ("norm_a", "norm_b")]
    whole = (
        tables["update_distances"]
        .group_by("agent_a", "agent_b", maintain_order=True)
        .agg(pl.col("inner").sum(), (norms[0] * norms[1]).sqrt().alias("product"))
        .filter(pl.col("product") > 0.0)
    )
    return {(a, b): inner / product for a, b, inner, product in whole.iter_rows()}


def _other_starts(tables: Tables, apart: Mapping[AgentPair, float]) -> Iterator[AgentPair]:
    """The pairs that did not begin alike, as far as seeds and reach tell."""
    seeds = dict(tables["agents"].select("agent", "training_seed").iter_rows())
    reach = {
        (a, b): value
        for a, b, value in tables["update_distances"]
        .group_by("agent_a", "agent_b")
        .agg(pl.col("reach").mean())
        .iter_rows()
    }
    for a, b in apart:
        seed = seeds.get(a)
        near = reach.get((a, b))
        if (seed is None or seed != seeds.get(b)) and (near is None or near < SAME_START):
            yield a, b


def _tested(setting: Setting, one: Rewards) -> Replicates | None:
    """The test; None where no two agents that count can be compared."""
    labels = [side for side, names in enumerate(one.sides) for _ in names]
    values, counted = one.matrix()
    rng = setting.rng("weights", *one.rewards, one.base)
    try:
        rewards = [one.rewards[label] for label in labels]
        return seed_replicate(values, rewards, rng, setting.draws, counted=counted)
    except EvidenceError:
        return None


def _finding(
    setting: Setting, one: Rewards, result: Replicates | None, adjusted: float | None, tests: int
) -> Finding:
    level = setting.alpha / tests
    figures, aside = _figures(one, result, adjusted), _asides(one)
    first, second = one.rewards
    counted = [pair for pair in one.pairs if pair in one.counted]
    return Finding(
        id=f"weights:{first}:{second}",
        found=f"In what their updates write, agents of the rewards {first} and {second} are less "
        f"alike than agents of one reward from different seeds: {figures}.{aside}",
        observed=f"In what their updates write, agents of the rewards {first} and {second} are "
        f"compared with agents of one reward from different seeds: {figures}.{aside}",
        estimate=None if result is None else result.between - result.within,
        interval=None,
        unit="share",
        n=len(one.agents),
        replicate="training seeds",
        test="relabelling of training seeds, Holm over pairs of rewards, one-sided; null: "
        "rewards are exchangeable",
        query=NOTHING if result is None else outputs_apart(counted, one.k),
        consulted=_consulted(setting, one),
        p=None if adjusted is None or result is None else result.p,
        p_adjusted=adjusted,
        p_floor=replicate_floor([len(side) for side in one.sides])
        if result is None
        else result.floor,
        level=level,
        noise=0.0,
        tests=tests,
        family=f"{tests} pair{'s' * (tests != 1)} of rewards",
        missing=None if adjusted is not None else _missing(one, level),
    )


def _figures(one: Rewards, result: Replicates | None, adjusted: float | None) -> str:
    if result is None:
        return "not available, as no two agents of one reward can be compared"
    p = "" if adjusted is None else f"; adjusted {probability(adjusted)}"
    return (
        f"they lie {size(result.between)} apart between rewards and {size(result.within)} within "
        f"one, {signed(result.between - result.within)} "
        f"(one minus the overlap of their {one.k} leading outputs, {len(one.agents)} training "
        f"seeds{p}){_cosines_of(one)}"
    )


def _cosines_of(one: Rewards) -> str:
    """The mean cosine of whole updates between and within rewards, in words."""
    first = set(one.sides[0])
    found: dict[bool, list[float]] = {True: [], False: []}
    for a, b in one.pairs:
        if (a, b) in one.counted and (a, b) in one.cosines:
            found[(a in first) == (b in first)].append(one.cosines[a, b])
    if not (found[True] and found[False]):
        return ""
    between, within = (signed(float(np.mean(found[alike]))) for alike in (False, True))
    return f"; whole updates have a mean cosine of {between} between and {within} within"


def _asides(one: Rewards) -> str:
    left = len(one.pairs) - sum(pair in one.counted for pair in one.pairs)
    words = ""
    if left:
        words += (
            f" {left} of {len(one.pairs)} pairs began from the same seed and are left out: they "
            "lie closer whatever they were trained for."
        )
    if one.more:
        words += f" One agent stands for each seed; left out are {', '.join(one.more)}."
    return words


def _missing(one: Rewards, level: float) -> str:
    sizes = [len(side) for side in one.sides]
    needed = seeds_to_replicate(2, level)
    return (
        f"rewards are told from training seeds by relabelling the seeds, and {sizes[0]} and "
        f"{sizes[1]} of them cannot carry it; {needed} seeds of each reward would (attainable p "
        f"{replicate_floor([needed] * 2):.2g})."
    )


def _consulted(setting: Setting, one: Rewards) -> Consulted:
    gates = [(GATE, agent) for agent in one.agents]
    gates += [(DUPLICATES, seeds_subject(reward, one.base)) for reward in one.rewards]
    judged = [key for key in gates if key[0] != DUPLICATES or key in setting.gates]
    return consult(setting, one.agents, judged)
