"""Is the correlation of two sites different in two agents, as it was published?

Re-tested from the values prompt by prompt: labels of the two agents swapped within scenarios, the
pair corrected for all pairs that could have been named (``statistics.networks``); the matrix of
differences must return from one half of the scenarios to the other (Spearman-Brown .7 or more), and
the sign of the difference whichever scenario is left out. Fisher's z tests are named for screening.

A table of correlations alone does not say which scenarios they come from: n counts prompts, and the
unit is missing.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.evidence.findings.inner import VALUES, Inner, inner_agents, inner_values
from moralscope.evidence.findings.inner_queries import correlation_difference, printed_difference
from moralscope.evidence.findings.wiring import consult_inner, undefined_too_often
from moralscope.evidence.gates.interactions import CORRELATION
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_parts import blame, not_there, said, tables_named
from moralscope.evidence.hypotheses.stating import (
    claim_of,
    consulted_about,
    require_known,
    untested,
)
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Finding,
    Setting,
    Stated,
    probability,
)
from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    ZTest,
    degenerate,
    dependent_correlations,
    independent_correlations,
    pearson,
    prompts_to_tell_apart,
)
from moralscope.evidence.statistics.reliability import NAMED_CLAIM
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.wired import Network, by_layer, compare_networks

_TEST = (
    "swaps of the two agents' labels within scenarios, max-T over {pairs} pairs of sites; null: "
    "exchangeable once centred"
)
_Pair = tuple[str, str]
_Both = tuple[float | None, float | None]


def pathway_difference(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The correlation of two sites in the first agent minus that in the second."""
    (table,) = tables_named(hypothesis, [*VALUES, "interactions"], 1)
    absent = not_there(setting, hypothesis, [table, "prompts"] if table in VALUES else [table])
    if absent is not None:
        return absent
    unmeasured = [a for a in hypothesis.agents if a not in inner_agents(setting.tables, table)]
    if unmeasured:
        reason = f"the table {table} has no rows of {unmeasured[0]}."
        return untested(setting, hypothesis, reason)
    agents, sites = _two(hypothesis.agents), _two(hypothesis.sites)
    if table == "interactions":
        return _from_correlations(setting, hypothesis, agents, sites)
    inner = inner_values(by_layer(setting.tables, table, sites), table, agents)
    if inner is None:
        reason = f"none of the {table} is on a prompt of the table of prompts."
        return untested(setting, hypothesis, reason)
    require_known(hypothesis, "site", sites, inner.sites)
    return _from_values(setting, hypothesis, inner, (agents, sites))


def _two(names: tuple[str, ...]) -> _Pair:
    first, second = names
    return first, second


def _from_values(
    setting: Setting, hypothesis: Hypothesis, inner: Inner, named: tuple[_Pair, _Pair]
) -> Finding:
    agents, sites = named
    first, second = (inner.columns(agent, sites) for agent in agents)
    r = (pearson(first[:, 0], first[:, 1]), pearson(second[:, 0], second[:, 1]))
    consulted = blame(
        consult_inner(setting, inner, agents),
        *_faults(inner, agents, sites),
        *(_too_close(value, sites, agent) for value, agent in zip(r, agents, strict=True)),
    )
    network = None if consulted.failed else compare_networks(setting, inner, agents)
    p = None if network is None else _p_of(network, sites)
    found, observed = said(hypothesis, _figures(inner, named, r, network, p))
    return Finding(
        id=claim_of(hypothesis),
        found=found,
        observed=observed,
        estimate=None if r[0] is None or r[1] is None else r[0] - r[1],
        interval=None,
        unit="ratio",
        n=inner.scenarios,
        test="none" if network is None else _TEST.format(pairs=network.swap.pairs),
        query=correlation_difference(inner.source, agents, sites),
        consulted=consulted,
        p=p,
        p_adjusted=p,
        p_floor=None if network is None or p is None else network.swap.floor,
        level=setting.alpha,
        tests=None if network is None or p is None else network.swap.pairs,
        missing=None if consulted.failed or p is not None else _untestable(network, sites),
        hypothesis=_stated(setting.alpha, hypothesis, r, network),
    )


def _faults(inner: Inner, agents: _Pair, sites: _Pair) -> list[str]:
    """Why the named sites cannot carry a correlation, one sentence for each fault."""
    reasons: list[str] = []
    for agent in agents:
        found, where = inner.faults[agent], f"({inner.table} {agent})"
        for site in sites:
            if site in found.dead:
                reasons.append(f"dead sites {where}: {site} is exactly zero on every prompt.")
            elif site in found.rounded or degenerate(inner.columns(agent, [site])[:, 0]):
                reasons.append(
                    f"resolution {where}: {site} varies by no more than rounding or takes fewer "
                    "than four values, so its correlations are set by single prompts; measure in "
                    "float32."
                )
            elif site in found.cloned:
                reasons.append(
                    f"duplicates {where}: {site} repeats the results of another site on every "
                    "prompt, so no pair with it is located."
                )
    return reasons


def _too_close(r: float | None, sites: _Pair, agent: str) -> str:
    if r is None or abs(r) <= MAX_CORRELATION:
        return ""
    return (
        f"degenerate correlations ({agent}): |r| of {sites[0]} and {sites[1]} is {abs(r):.4f}, "
        f"above {MAX_CORRELATION:g}; they are one measurement, or take a few values only, and any "
        "z test passes."
    )


def _p_of(network: Network, sites: _Pair) -> float | None:
    """The pair's adjusted p; None where it could not be tested."""
    if not set(sites) <= set(network.sites):
        return None
    p = float(network.swap.p_adjusted[_at(network, sites)])
    return None if math.isnan(p) else p


def _at(network: Network, sites: _Pair) -> tuple[int, int]:
    return network.sites.index(sites[0]), network.sites.index(sites[1])


def _untestable(network: Network | None, sites: _Pair) -> str:
    if network is not None and (reason := undefined_too_often(network.swap)) is not None:
        return reason
    return (
        f"the correlation of {sites[0]} and {sites[1]} depends on a single scenario, without which "
        "one of them does not vary; ask in more scenarios."
    )


def _figures(
    inner: Inner,
    named: tuple[_Pair, _Pair],
    r: _Both,
    network: Network | None,
    p: float | None,
) -> str:
    agents, sites = named
    words = (
        f"over {len(inner.prompts)} prompts in {inner.scenarios} scenarios it is {_r(r[0])} in "
        f"{agents[0]} and {_r(r[1])} in {agents[1]}"
    )
    if network is None:
        return f"{words}."
    z = _screen(*(inner.columns(agent, sites) for agent in agents))
    reliability = network.swap.reliability
    return (
        f"{words}; among all {network.swap.pairs} pairs of sites adjusted {probability(p)}, "
        f"split-half reliability {'not available' if reliability is None else f'{reliability:.2f}'}"
        f"{'' if z is None else f' (as if prompts were independent z = {z.z:.2f}, for screening)'}."
    )


def _screen(first: Array, second: Array) -> ZTest | None:
    if any(degenerate(column) for column in np.hstack([first, second]).T) or len(first) < 4:
        return None
    return dependent_correlations(first[:, 0], first[:, 1], second[:, 0], second[:, 1])


def _r(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"


def _stated(alpha: float, hypothesis: Hypothesis, r: _Both, network: Network | None) -> Stated:
    """What the numbers say of the statement as it was printed."""
    sites = _two(hypothesis.sites)
    if network is None or r[0] is None or r[1] is None:
        return Stated(OPEN)
    difference = r[0] - r[1]
    p = _p_of(network, sites)
    if p is None or p >= alpha:
        return Stated(
            OPEN,
            f"a difference of {difference:+.3f} is not more than swapping the agents' labels "
            f"gives, corrected for {network.swap.pairs} pairs.",
        )
    if _expected_sign(hypothesis) * difference < 0.0:
        return Stated(CONTRADICTED, f"the difference has the other sign, {difference:+.3f}.")
    if not network.reliable:
        reliability = network.swap.reliability
        return Stated(
            OPEN,
            "the differences between the two agents in one half of the scenarios do not return in "
            f"the other (reliability "
            f"{'not available' if reliability is None else f'{reliability:.2f}'}, "
            f"{NAMED_CLAIM:g} is needed to name a pair).",
        )
    if not bool(network.swap.stable[_at(network, sites)]):
        return Stated(OPEN, "its sign turns round when one scenario is left out.")
    return Stated(CONFIRMED)


def _expected_sign(hypothesis: Hypothesis) -> float:
    """+1 or -1 as it was said or printed, 0 where no sign was."""
    if hypothesis.direction is not None:
        return {"above": 1.0, "below": -1.0}.get(hypothesis.direction, 0.0)
    return float(np.sign(hypothesis.published or 0.0))


def _from_correlations(
    setting: Setting, hypothesis: Hypothesis, agents: _Pair, sites: _Pair
) -> Finding:
    """From correlations alone: the unit of replication is not among them."""
    measure = _measure(setting, hypothesis)
    (r_first, n_first), (r_second, n_second) = (
        _printed(setting, hypothesis, (agent, measure), sites) for agent in agents
    )
    r = (r_first, r_second)
    consulted = blame(
        consulted_about(setting, agents),
        *(_too_close(value, sites, agent) for value, agent in zip(r, agents, strict=True)),
        *_faults_of_norms(setting, agents, sites),
    )
    figures = f"the table has {_r(r[0])} in {agents[0]} and {_r(r[1])} in {agents[1]} over n = "
    found, observed = said(hypothesis, f"{figures}{n_first} and {n_second}.")
    return Finding(
        id=claim_of(hypothesis),
        found=found,
        observed=observed,
        estimate=None if r[0] is None or r[1] is None else r[0] - r[1],
        interval=None,
        unit="ratio",
        n=0,
        test="none: correlations without the values that they were computed from",
        query=printed_difference(agents, sites, measure),
        consulted=consulted,
        missing=_no_unit(r, (n_first, n_second)),
        hypothesis=Stated(OPEN),
    )


def _measure(setting: Setting, hypothesis: Hypothesis) -> str:
    """Which measure of ``interactions`` is meant.

    Raises:
        ConfigError: several of them are correlations and none was named, or none is one.
    """
    every = setting.tables["interactions"].get_column("measure").unique().sort()
    if hypothesis.metric is not None:
        require_known(hypothesis, "metric", [hypothesis.metric], every.to_list())
        return hypothesis.metric
    known = every.filter(every.str.contains(CORRELATION)).to_list()
    if len(known) == 1:
        return str(known[0])
    raise ConfigError(
        f"Hypothesis {hypothesis.id!r} does not say which correlation it is about",
        seen=f"the measures {', '.join(every.to_list())} in the table interactions",
        allowed="one measure that is a correlation, or the key 'metric'",
        remedy="add metric: NAME",
    )


def _printed(
    setting: Setting, hypothesis: Hypothesis, of: tuple[str, str], sites: _Pair
) -> tuple[float | None, int]:
    """The correlation of two sites in an agent as the table has it, in either order, and its n."""
    agent, measure = of
    own = setting.tables["interactions"].filter(
        (pl.col("agent") == agent) & (pl.col("measure") == measure)
    )
    known = set(own.get_column("site_a").to_list()) | set(own.get_column("site_b").to_list())
    require_known(hypothesis, "site", sites, sorted(known))
    rows = own.filter(
        ((pl.col("site_a") == sites[0]) & (pl.col("site_b") == sites[1]))
        | ((pl.col("site_a") == sites[1]) & (pl.col("site_b") == sites[0]))
    )
    if rows.is_empty():
        return None, 0
    value = rows.get_column("value")[0]
    return (None if value is None else float(value)), int(rows.get_column("n")[0])


def _faults_of_norms(setting: Setting, agents: _Pair, sites: _Pair) -> list[str]:
    """What the sizes themselves say of the named sites, where they are there too."""
    if not setting.has("norms", "prompts"):
        return []
    measured = set(inner_agents(setting.tables, "norms"))
    if not set(agents) <= measured:
        return []
    inner = inner_values(by_layer(setting.tables, "norms", sites), "norms", agents)
    return [] if inner is None or not set(sites) <= set(inner.sites) else _faults(
        inner, agents, sites
    )  # fmt: skip


def _no_unit(r: _Both, n: tuple[int, int]) -> str:
    if r[0] is None or r[1] is None:
        return (
            "the correlation is undefined in one of the agents, and what is undefined is not 0; "
            "give the values prompt by prompt (table norms)."
        )
    words = (
        f"n = {min(n)} counts prompts, and prompts of one scenario are not independent; the values "
        "prompt by prompt (table norms) with their scenarios would identify it."
    )
    if min(n) < 4 or max(abs(r[0]), abs(r[1])) > MAX_CORRELATION or r[0] == r[1]:
        return words
    z = independent_correlations(r[0], n[0], r[1], n[1])
    return (
        f"{words} Even as independent prompts they give z = {z.z:.2f} ({probability(z.p)}), and "
        f"{prompts_to_tell_apart(r[0], r[1])} prompts in each agent would be needed."
    )
