"""Is it wired differently? Correlations between sites over prompts, compared between two agents.

``r_jk`` is the correlation over prompts of what sites j and k write (``norms``), in each of two
agents on the same prompts. Unit: the scenario. Null: within a scenario the two agents' values could
be exchanged once each is centred, so the labels of the two agents are swapped scenario by scenario
(``statistics.networks``). Per pair of agents two findings:

*wiring*: does the network differ at all? Asked of the number of pairs of sites that change by more
than 0.3 in Fisher z, which sees many small changes, and of the largest change, which sees few large
ones: p is twice the smaller of both. A pair of sites is named only where it stands among all pairs
(max-T), the differences return from one half of the scenarios to the other, and its sign holds
whichever scenario is left out.

*hub*: do the pairs that stand gather at one site, more than as many placed at random would? A site
that is noisy in one agent shares its noise among all its pairs, but pairs that stand by chance are
rare together, so p is that of the placing, and no smaller than that of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.findings.inner import Inner, inner_agents, inner_values
from moralscope.evidence.findings.inner_queries import changed_at, changed_pairs
from moralscope.evidence.gates.sites import SITE_GATES
from moralscope.evidence.ledger import Consulted, Finding, Setting, consult, probability
from moralscope.evidence.statistics.correlations import MAX_CORRELATION, correlation_matrix
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.networks import THRESHOLD, LabelSwap, hub_degree, label_swap
from moralscope.evidence.statistics.reliability import NAMED_CLAIM
from moralscope.evidence.statistics.resampling import Array

SWAPS = 999
"""Most swaps of labels that are drawn where there are too many to enumerate."""

MANY = 100_000
"""Pairs of sites, over all pairs of agents, above which agents are compared with their base only
and fewer swaps are drawn. A published statement about any two agents is still tested."""

FEWER_SWAPS = 499

INNER_GATES = {
    "norms": (*SITE_GATES, "degenerate correlations"),
    "attribution": SITE_GATES,
}
"""The gates that concern single sites of a table of inner values."""


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

    def sizes(self) -> Array:
        """(k, k) absolute difference of Fisher z, 0 for pairs that were not tested."""
        one, other = (
            np.arctanh(np.clip(r, -MAX_CORRELATION, MAX_CORRELATION))
            for r in (self.first, self.second)
        )
        tested = np.isfinite(self.swap.difference) & ~np.eye(len(self.sites), dtype=bool)
        return np.where(tested, np.abs(one - other), 0.0)

    def standing(self, alpha: float) -> NDArray[np.bool_]:
        """(k, k) which pairs differ, corrected for all pairs."""
        return (self.swap.p_adjusted < alpha) & (self.sizes() > 0.0)


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
    )
    correlations = (correlation_matrix(first), correlation_matrix(second))
    return Network(agents, inner, tuple(sites), *correlations, swap)


def wiring_findings(setting: Setting) -> Iterator[Finding]:
    """Per pair of agents with ``norms`` on the same prompts: does the network differ, and a hub?"""
    if not setting.has("prompts", "norms"):
        return
    names = inner_agents(setting.tables, "norms")
    if len(names) < 2:
        return
    inner = inner_values(setting.tables, "norms", names)
    if inner is None:
        return
    pairs = list(combinations(names, 2))
    many = len(pairs) * len(inner.sites) ** 2 / 2 > MANY
    if many:
        pairs = _with_base(setting, names) or pairs
    swaps = FEWER_SWAPS if many else SWAPS
    networks = [compare_networks(setting, inner, pair, swaps) for pair in pairs]
    tested = {n.agents: p for n in networks if n is not None and (p := n.p) is not None}
    adjusted = holm(np.array(list(tested.values()))) if tested else np.empty(0)
    corrected = {pair: float(p) for pair, p in zip(tested, adjusted, strict=True)}
    for pair, network in zip(pairs, networks, strict=True):
        if network is None:
            yield _nothing(setting, inner, pair)
            continue
        yield _network(setting, network, corrected.get(pair), len(tested))
        if pair in corrected:
            yield _hub(setting, network, corrected[pair], len(tested))


def _with_base(setting: Setting, names: Sequence[str]) -> list[tuple[str, str]]:
    """Each trained agent with its base, where both are there."""
    if not setting.has("agents"):
        return []
    agents = setting.tables["agents"]
    found = [(base_of(agents, name), name) for name in trained_agents(agents) if name in names]
    return [(base, name) for base, name in found if base is not None and base in names]


def consult_inner(setting: Setting, inner: Inner, agents: Sequence[str]) -> Consulted:
    """The gates behind a claim about what agents compute inside."""
    gates = INNER_GATES[inner.table]
    return consult(
        setting,
        agents,
        gates=[("duplicates", "scenarios")],
        shown=[(gate, f"{inner.table} {agent}") for agent in agents for gate in gates],
    )


def left_out(inner: Inner, agents: Sequence[str]) -> str:
    """Which sites cannot be compared, and why; empty where all can."""
    found = [inner.faults[agent] for agent in agents]
    dead = frozenset[str]().union(*(fault.dead for fault in found))
    rounded = frozenset[str]().union(*(fault.rounded for fault in found)) - dead
    copies = {s for s in inner.sites if any(s not in fault.distinct for fault in found)} - dead
    counts = (
        (len(copies), "that repeat another"),
        (len(dead), "that are dead"),
        (len(rounded), "that vary by no more than rounding"),
    )
    return ", ".join(f"{count} {words}" for count, words in counts if count)


def _nothing(setting: Setting, inner: Inner, agents: tuple[str, str]) -> Finding:
    sound, total = len(inner.sound(agents)), len(inner.sites)
    words = (
        f"Of {total} sites of {agents[0]} and {agents[1]}, {sound} "
        f"{'is' if sound == 1 else 'are'} a distinct, resolved measurement; a correlation needs "
        "two."
    )
    consulted = consult_inner(setting, inner, agents)
    reason = f"duplicates and resolution: left out are {left_out(inner, agents) or 'none'}."
    return Finding(
        id=f"wiring:{agents[0]}:{agents[1]}",
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="pairs of sites",
        n=inner.scenarios,
        test="none",
        query=changed_pairs(inner.source, agents, inner.sound(agents), THRESHOLD),
        consulted=replace(consulted, failed=(*consulted.failed, reason))
        if total > 1
        else consulted,
        missing=None if total > 1 else "one site has no correlations; measure more sites.",
    )


def _network(setting: Setting, network: Network, adjusted: float | None, tests: int) -> Finding:
    swap, agents = network.swap, network.agents
    figures = (
        f"{swap.count} of {swap.pairs} pairs of {len(network.sites)} sites change their "
        f"correlation by more than {THRESHOLD:g} in Fisher z and the largest change has "
        f"{probability(_largest_p(swap))} (both together {probability(adjusted)}, corrected for "
        f"{_pairs_of_agents(tests)}; {_reliability(network)}); "
        f"{_strongest(setting, network)}"
    )
    return Finding(
        id=f"wiring:{agents[0]}:{agents[1]}",
        found=f"The sites of {agents[0]} and {agents[1]} are correlated differently: {figures}.",
        observed=f"Between {agents[0]} and {agents[1]}, {figures}.",
        estimate=float(swap.count),
        interval=None,
        unit="pairs of sites",
        n=network.inner.scenarios,
        test="swaps of the two agents' labels within scenarios, number of changed pairs and "
        "largest change, twice the smaller p; null: exchangeable once centred",
        query=changed_pairs(network.inner.source, agents, network.sites, THRESHOLD),
        consulted=consult_inner(setting, network.inner, agents),
        p=network.p,
        p_adjusted=adjusted,
        p_floor=None if swap.p_count is None else min(1.0, 2.0 * swap.floor),
        level=setting.alpha / max(1, tests),
        tests=tests or None,
        family=_pairs_of_agents(tests),
        missing=undefined_too_often(swap),
    )


def undefined_too_often(swap: LabelSwap) -> str | None:
    """Why a comparison abstains; None where it does not."""
    if swap.p_count is not None:
        return None
    if not swap.pairs:
        return (
            f"no pair of sites has a correlation that could be tested: each takes fewer than four "
            f"values, depends on one scenario, or is correlated above {MAX_CORRELATION:g}. Measure "
            "in float32, in more scenarios."
        )
    return (
        f"correlations are undefined in {1.0 - swap.defined:.1%} of the swaps, because a site does "
        "not vary without some scenario; leaving those out would bias the test. Ask in more "
        "scenarios."
    )


def _largest_p(swap: LabelSwap) -> float | None:
    return None if swap.p_count is None else float(np.nanmin(swap.p_adjusted))


def _pairs_of_agents(tests: int) -> str:
    return f"{tests} pair{'s' * (tests != 1)} of agents"


def _reliability(network: Network) -> str:
    found = network.swap.reliability
    return (
        "split-half reliability not available"
        if found is None
        else f"split-half reliability {found:.2f}"
    )


def _strongest(setting: Setting, network: Network) -> str:
    """The pair that stands most clearly, or why none is named."""
    swap = network.swap
    standing = np.triu(network.standing(setting.alpha) & swap.stable, 1)
    if not standing.any():
        return "no single pair stands among all of them"
    if not network.reliable:
        return (
            "no single pair is named, because the differences of one half of the scenarios do not "
            "return in the other"
        )
    size_of = np.where(standing, np.abs(swap.difference), -np.inf)
    a, b = (int(i) for i in np.unravel_index(int(np.argmax(size_of)), size_of.shape))
    first, second = network.agents
    return (
        f"the largest change that stands is that of {network.sites[a]} with {network.sites[b]}, "
        f"correlated {network.first[a, b]:+.2f} in {first} and {network.second[a, b]:+.2f} in "
        f"{second} (adjusted {probability(float(swap.p_adjusted[a, b]))}, the same sign whichever "
        "scenario is left out)"
    )


def _hub(setting: Setting, network: Network, network_p: float, tests: int) -> Finding:
    """Whether the pairs that stand gather at one site; ``network_p`` is that of the network."""
    agents, inner, sizes = network.agents, network.inner, network.sizes()
    standing = network.standing(setting.alpha)
    rng = setting.rng("hub", inner.table, *agents)
    hub = hub_degree(standing.astype(np.float64), rng, min(setting.draws, SWAPS))
    site, pairs = network.sites[hub.site], int(standing.sum()) // 2
    adjusted = max(min(1.0, hub.p * tests), network_p)
    figures = (
        f"{site} is part of {hub.degree} of the {pairs} pairs that stand among all "
        f"{network.swap.pairs} ({probability(adjusted)})"
        if pairs
        else f"none of {network.swap.pairs} pairs stands, so there is nothing that could gather"
    )
    # Pairs stand in the order of their size, so one threshold parts them from the others.
    threshold = (
        (float(sizes[standing].min()) + float(sizes[~standing].max())) / 2.0
        if pairs
        else float(sizes.max()) + 1.0
    )
    return Finding(
        id=f"hub:{agents[0]}:{agents[1]}",
        found=f"The changes of correlation between {agents[0]} and {agents[1]} gather at one site: "
        f"{figures}.",
        observed=f"Between {agents[0]} and {agents[1]}, {figures}.",
        estimate=float(hub.degree),
        interval=None,
        unit="pairs of sites",
        n=inner.scenarios,
        test="largest number of standing pairs at one site against as many placed at random, and "
        "the test of the network; the larger p",
        query=changed_at(inner.source, agents, network.sites, site, threshold),
        consulted=consult_inner(setting, inner, agents),
        p=max(hub.p, network.p or 0.0),
        p_adjusted=adjusted,
        p_floor=min(1.0, 2.0 * network.swap.floor),
        level=setting.alpha / max(1, tests),
        tests=tests or None,
        family=_pairs_of_agents(tests),
    )
