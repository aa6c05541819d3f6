"""Is it wired differently? Claims about networks of correlations, pair of agents by pair.

The comparison itself is that of ``evidence.wired``: correlations over prompts of what sites write,
labels of the two agents swapped scenario by scenario. Per pair of agents and measure two findings:

*wiring*: does the network differ at all? Asked of the number of pairs of sites that change by more
than 0.3 in Fisher z, which sees many small changes, and of the largest change, which sees few large
ones: p is twice the smaller of both. A pair of sites is named only where it stands among all pairs
(max-T), the differences return from one half of the scenarios to the other, and its sign holds
whichever scenario is left out.

*hub*: do the pairs that stand gather at one site, more than as many placed at random would, and
more than as many of the largest of mere noise do? Pairs that share a site vary together, so that
the largest changes gather without any hub. p is the largest of both and of the network's.

Two training seeds of one reward are compared in the same way; what differs there is not the reward,
and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from moralscope.evidence.findings.inner import Inner
from moralscope.evidence.findings.inner_queries import changed_at, changed_pairs
from moralscope.evidence.gates.sites import SITE_GATES
from moralscope.evidence.ledger import Consulted, Finding, Setting, consult, probability, size
from moralscope.evidence.statistics.correlations import MAX_CORRELATION
from moralscope.evidence.statistics.networks import THRESHOLD, LabelSwap, hub_degree
from moralscope.evidence.wired import SWAPS, Compared, Network, compare_all

INNER_GATES = {
    "norms": (*SITE_GATES, "degenerate correlations"),
    "projections": (*SITE_GATES, "degenerate correlations"),
    "attribution": SITE_GATES,
}
"""The gates that concern single sites of a table of inner values."""

_OF = {"norms": "sizes of what they write", "projections": "pushes along the decision"}
_SUFFIX = {"norms": "", "projections": ":projection"}
_FAMILY = {
    "named": "comparison",
    "base": "comparison of an agent with its base",
    "replicate": "comparison of two seeds of one reward",
}


def wiring_findings(setting: Setting) -> Iterator[Finding]:
    """Per pair of agents and measure: does the network differ, and is there a hub?"""
    for each in compare_all(setting):
        if each.network is None:
            yield _nothing(setting, each)
            continue
        yield _network(setting, each, each.network)
        if each.p_adjusted is not None:
            yield _hub(setting, each, each.network, each.p_adjusted)


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


def family_of(kind: str, tests: int) -> str:
    """What a family of networks is, as it stands after "among"."""
    head, _, rest = _FAMILY[kind].partition(" ")
    return f"{tests} {head}{'s' * (tests != 1)}{' ' * bool(rest)}{rest}"


def _id(what: str, each: Compared) -> str:
    first, second = each.agents
    return f"{what}:{first}:{second}{_SUFFIX[each.table]}"


def _aside(each: Compared) -> str:
    """What the pair is there for, where it is not what was asked."""
    if each.kind != "replicate":
        return ""
    return " Both were trained for one reward, so this is how far apart training seeds lie."


def _nothing(setting: Setting, each: Compared) -> Finding:
    inner, agents = each.inner, each.agents
    sound, total = len(inner.sound(agents)), len(inner.sites)
    words = (
        f"Of {total} sites of {agents[0]} and {agents[1]}, {sound} "
        f"{'is' if sound == 1 else 'are'} a distinct, resolved measurement; a correlation needs "
        "two."
    )
    consulted = consult_inner(setting, inner, agents)
    reason = f"duplicates and resolution: left out are {left_out(inner, agents) or 'none'}."
    return Finding(
        id=_id("wiring", each),
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


def _network(setting: Setting, each: Compared, network: Network) -> Finding:
    swap, agents, tests = network.swap, network.agents, each.tests
    figures = (
        f"{swap.count} of {swap.pairs} pairs of {len(network.sites)} sites change their "
        f"correlation by more than {THRESHOLD:g} in Fisher z ({size(network.distance)} on average, "
        f"root mean square) and the largest change has {probability(_largest_p(swap))} (both "
        f"together {probability(each.p_adjusted)}, corrected for {family_of(each.kind, tests)}; "
        f"{_reliability(network)}); {_strongest(setting, network)}"
    )
    over = f"{len(each.inner.prompts)} prompts in {each.inner.scenarios} scenarios"
    of, aside = _OF[each.table], _aside(each)
    return Finding(
        id=_id("wiring", each),
        found=f"The sites of {agents[0]} and {agents[1]} are correlated differently in the {of}, "
        f"over {over}: {figures}.{aside}",
        observed=f"Between {agents[0]} and {agents[1]}, in the {of} over {over}, {figures}.{aside}",
        estimate=float(swap.count),
        interval=None,
        unit="pairs of sites",
        n=each.inner.scenarios,
        test="swaps of the two agents' labels within scenarios, number of changed pairs and "
        "largest change, twice the smaller p; null: exchangeable once centred",
        query=changed_pairs(each.inner.source, agents, network.sites, THRESHOLD),
        consulted=consult_inner(setting, each.inner, agents),
        p=network.p,
        p_adjusted=each.p_adjusted,
        p_floor=None if swap.p_count is None else min(1.0, 2.0 * swap.floor),
        level=setting.alpha / max(1, tests),
        tests=tests or None,
        family=family_of(each.kind, tests),
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


def _hub(setting: Setting, each: Compared, network: Network, network_p: float) -> Finding:
    """Whether the pairs that stand gather at one site; ``network_p`` is that of the network."""
    agents, inner, sizes, tests = network.agents, network.inner, network.sizes(), each.tests
    standing = network.standing(setting.alpha)
    rng = setting.rng("hub", inner.table, *agents)
    hub = hub_degree(standing.astype(np.float64), rng, min(setting.draws, SWAPS))
    site, pairs = network.sites[hub.site], int(standing.sum()) // 2
    gathered = network.swap.gathered
    p = 1.0 if gathered is None else max(hub.p, gathered.p)
    adjusted = max(min(1.0, p * tests), network_p)
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
    of = _OF[each.table]
    return Finding(
        id=_id("hub", each),
        found=f"The changes of correlation between {agents[0]} and {agents[1]} in the {of} gather "
        f"at one site: {figures}.",
        observed=f"Between {agents[0]} and {agents[1]}, in the {of}, {figures}.",
        estimate=float(hub.degree),
        interval=None,
        unit="pairs of sites",
        n=inner.scenarios,
        test="largest number of standing pairs at one site against as many placed at random, "
        "as many of the largest of mere noise (wild bootstrap over scenarios), and the test of the "
        "network; the largest p",
        query=changed_at(inner.source, agents, network.sites, site, threshold),
        consulted=consult_inner(setting, inner, agents),
        p=max(p, network.p or 0.0),
        p_adjusted=adjusted,
        p_floor=min(1.0, 2.0 * network.swap.floor),
        level=setting.alpha / max(1, tests),
        tests=tests or None,
        family=family_of(each.kind, tests),
    )
