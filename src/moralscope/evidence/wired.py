"""Which agents are wired differently, and where? Networks of correlations, compared pair by pair.

``r_jk`` is the correlation over prompts of what sites j and k write: of the sizes of their writes
(``norms``) or of their pushes along the decision (``projections``), in each of two agents on the
same prompts. Unit: the scenario. Null: within a scenario the two agents' values could be exchanged
once each is centred (``statistics.networks``). One network is asked two questions, of the number of
pairs that change by more than 0.3 of Fisher z and of the largest change; its p is twice the smaller
of both, corrected by Holm over all pairs of agents of one kind (``pairs``) and both measures.

A pair of sites *survives* where the network does, the pair stands among all pairs (max-T) and
changes by more than 0.3, the differences return from one half of the scenarios to the other, and
its sign holds whichever scenario is left out. Fisher's z alone would let pairs survive that are
nearly one in both agents, .990 and .985.

Heads are parts of their attention sub-layer, so where both are there networks are made of
sub-layers: correlations of a whole with its parts are no wiring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.findings.inner import Inner, inner_agents, inner_values
from moralscope.evidence.ledger import Setting
from moralscope.evidence.pairs import Pair, compared
from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    correlation_matrix,
    prompts_to_tell_apart,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.networks import THRESHOLD, LabelSwap, label_swap
from moralscope.evidence.statistics.reliability import NAMED_CLAIM
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables

MEASURES: Mapping[str, str] = {
    "norms": "norm_correlation",
    "projections": "projection_correlation",
}
"""Tables that networks are made of, and what the correlations are called."""

SWAPS = 999
"""Fewest swaps of labels that are drawn where there are too many to enumerate."""

MANY = 100_000
"""Pairs of sites, over all pairs of agents, above which agents are compared with their base only
and no more than ``FEWER_SWAPS`` are drawn, unless the study said which pairs it compares."""

FEWER_SWAPS = 499

_HEAD = r"\.h\d+$"
_ATTENTION = r"\.attn$"


@dataclass(frozen=True, eq=False)
class Network:
    """The correlations of two agents over the sites that are sound in both.

    Attributes:
        agents: first and second.
        inner: the values.
        sites: the k sites compared.
        first, second: (k, k) correlations of each agent.
        swap: the test of their difference.
    """

    agents: tuple[str, str]
    inner: Inner
    sites: tuple[str, ...]
    first: Array
    second: Array
    swap: LabelSwap

    @property
    def reliable(self) -> bool:
        """Whether a single pair may be named."""
        return self.swap.reliability is not None and self.swap.reliability >= NAMED_CLAIM

    @property
    def p(self) -> float | None:
        """That the network does not differ: twice the smaller of the p of count and largest."""
        if self.swap.p_count is None:
            return None
        largest = float(np.nanmin(self.swap.p_adjusted))
        return min(1.0, 2.0 * min(self.swap.p_count, largest))

    @property
    def tested(self) -> NDArray[np.bool_]:
        """(k, k) pairs of different sites whose difference could be tested."""
        return np.isfinite(self.swap.difference) & ~np.eye(len(self.sites), dtype=bool)

    @property
    def distance(self) -> float | None:
        """Root mean square difference of Fisher z over the tested pairs; None without any."""
        sizes = self.sizes()[self.tested]
        return float(np.sqrt(np.mean(sizes**2))) if sizes.size else None

    def sizes(self) -> Array:
        """(k, k) absolute difference of Fisher z, 0 for pairs that were not tested."""
        one, other = (
            np.arctanh(np.clip(r, -MAX_CORRELATION, MAX_CORRELATION))
            for r in (self.first, self.second)
        )
        return np.where(self.tested, np.abs(one - other), 0.0)

    def standing(self, alpha: float) -> NDArray[np.bool_]:
        """(k, k) which pairs differ, corrected for all pairs."""
        return (self.swap.p_adjusted < alpha) & (self.sizes() > 0.0)


@dataclass(frozen=True, eq=False)
class Compared:
    """One pair of agents by one measure.

    Attributes:
        pairs: the comparisons that they belong to; the first one's kind is theirs.
        table: ``norms`` or ``projections``.
        inner: the values of all agents.
        network: None where fewer than two sites are sound in both.
        p_adjusted: of the network, after Holm; None where it was not tested.
        tests: networks of this kind that were tested, over both measures.
    """

    pairs: tuple[Pair, ...]
    table: str
    inner: Inner
    network: Network | None
    p_adjusted: float | None = None
    tests: int = 0

    @property
    def agents(self) -> tuple[str, str]:
        """First and second."""
        return self.pairs[0].agents

    @property
    def kind(self) -> str:
        """Named, base or replicate."""
        return self.pairs[0].kind

    @property
    def measure(self) -> str:
        """What is correlated."""
        return MEASURES[self.table]

    def surviving(self, alpha: float) -> NDArray[np.bool_]:
        """(k, k) pairs of sites that survive everything; none without a network."""
        if self.network is None:
            return np.zeros((0, 0), dtype=np.bool_)
        network = self.network
        found = network.standing(alpha) & network.swap.stable & (network.sizes() > THRESHOLD)
        whole = self.p_adjusted is not None and self.p_adjusted < alpha and network.reliable
        return found & whole


def compare_networks(
    setting: Setting, inner: Inner, agents: tuple[str, str], swaps: int = SWAPS
) -> Network | None:
    """Compare the correlations of two agents; None where fewer than two sites are sound in both."""
    sites = inner.sound(agents)
    if len(sites) < 2:
        return None
    first, second = (inner.columns(agent, sites) for agent in agents)
    swap = label_swap(
        first,
        second,
        inner.clusters,
        setting.rng("wiring", inner.table, *agents),
        draws=min(setting.draws, swaps),
        threshold=THRESHOLD,
        alpha=setting.alpha,
    )
    correlations = (correlation_matrix(first), correlation_matrix(second))
    return Network(agents, inner, tuple(sites), *correlations, swap)


def compare_all(setting: Setting) -> tuple[Compared, ...]:
    """Every pair of agents that is compared, by both measures as far as they are there.

    Args:
        setting: with ``prompts`` and ``norms`` or ``projections``; ``comparisons`` or ``agents``
            say which agents are compared, and without both every two of them are.

    Raises:
        TableError: agents that are compared were measured on different prompts or sites.
    """
    measured = [table for table in MEASURES if setting.has("prompts", table)]
    chosen = {table: pairs_with(setting, table) for table in measured}
    tests = _most_tests([pairs[0] for every in chosen.values() for pairs in every])
    found: list[Compared] = []
    for table, every in chosen.items():
        names = list(dict.fromkeys(name for pairs in every for name in pairs[0].agents))
        inner = inner_values(by_layer(setting.tables, table), table, names) if names else None
        if inner is None:
            continue
        many = "comparisons" not in setting.tables and _many(inner, len(every))
        swaps = FEWER_SWAPS if many else swaps_for(tests, setting.alpha)
        for pairs in ([p for p in every if p[0].kind == "base"] or every) if many else every:
            network = compare_networks(setting, inner, pairs[0].agents, swaps)
            found.append(Compared(pairs, table, inner, network))
    return tuple(_corrected(found))


def pairs_with(setting: Setting, table: str) -> list[tuple[Pair, ...]]:
    """The tested pairs whose agents both have rows in a table, once each with all comparisons."""
    names = inner_agents(setting.tables, table)
    known = compared(setting.tables) or [
        Pair(f"{first}-{second}", "named", first, second)
        for first, second in combinations(names, 2)
    ]
    found: dict[tuple[str, str], list[Pair]] = {}
    for pair in known:
        if pair.tested and set(pair.agents) <= set(names):
            found.setdefault(pair.agents, []).append(pair)
    return [tuple(pairs) for pairs in found.values()]


def by_layer(tables: Tables, table: str, named: Sequence[str] = ()) -> Tables:
    """The tables, with sub-layers alone where the table has heads and their whole.

    Args:
        tables: checked ones.
        table: ``norms``, ``projections`` or another with sites.
        named: sites that must stay; if one of them is a head, the wholes are left out instead.
    """
    site = pl.col("site")
    rows = tables[table]
    names = rows.get_column("site").unique()
    if not (names.str.contains(_ATTENTION).any() and names.str.contains(_HEAD).any()):
        return tables
    heads = pl.Series(named, dtype=pl.String).str.contains(_HEAD).any()
    without = rows.filter(~site.str.contains(_ATTENTION if heads else _HEAD))
    return {**tables, table: without}


def swaps_for(tests: int, alpha: float) -> int:
    """Swaps whose smallest p can pass Holm's first step: p is twice a share of the draws."""
    return max(SWAPS, math.ceil(4.0 * tests / alpha))


def prompts_needed(difference: float = THRESHOLD, alpha: float = 0.05) -> int:
    """Independent prompts that tell a correlation of 0 from one this far away in Fisher z.

    With 80% power, one pair at a time; prompts of one scenario are not independent, so it is the
    least that could do.
    """
    return prompts_to_tell_apart(math.tanh(difference), 0.0, alpha)


def _many(inner: Inner, pairs: int) -> bool:
    return pairs * len(inner.sites) ** 2 / 2 > MANY


def _most_tests(pairs: Sequence[Pair]) -> int:
    """Networks of the kind that has most of them."""
    kinds = [pair.kind for pair in pairs]
    return max((kinds.count(kind) for kind in set(kinds)), default=0)


def _corrected(found: Sequence[Compared]) -> list[Compared]:
    """Holm's correction over the pairs of one kind and all measures."""
    result = list(found)
    for kind in dict.fromkeys(each.kind for each in found):
        p_of = {
            index: p
            for index, each in enumerate(found)
            if each.kind == kind and each.network is not None
            if (p := each.network.p) is not None
        }
        adjusted = holm(np.array(list(p_of.values()))) if p_of else np.empty(0)
        for index, each in enumerate(found):
            if each.kind == kind:
                result[index] = replace(each, tests=len(p_of))
        for index, p in zip(p_of, adjusted, strict=True):
            result[index] = replace(result[index], p_adjusted=float(p))
    return result
