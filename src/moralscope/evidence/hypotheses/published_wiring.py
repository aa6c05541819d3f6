"""Is the correlation of two sites different in two agents, as it was published?

Re-tested from the values prompt by prompt: labels of the two agents swapped within scenarios, the
pair corrected for all pairs that could have been named (``statistics.networks``); the matrix of
differences must return from one half of the scenarios to the other (Spearman-Brown .7 or more), and
the sign of the difference whichever scenario is left out. Fisher's z tests are named for screening.

A table of correlations alone does not say which scenarios they come from: n counts prompts, and the
unit is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from moralscope.evidence.findings.inner import VALUES, Inner, inner_agents, inner_values
from moralscope.evidence.findings.inner_queries import correlation_difference
from moralscope.evidence.findings.wiring import (
    Network,
    compare_networks,
    consult_inner,
    undefined_too_often,
)
from moralscope.evidence.gates.sites import SiteFaults
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
    Consulted,
    Finding,
    Setting,
    Stated,
    probability,
    size,
)
from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    dependent_correlations,
    independent_correlations,
    pearson,
    prompts_to_tell_apart,
)
from moralscope.evidence.statistics.reliability import NAMED_CLAIM

_TEST = (
    "swaps of the two agents' labels within scenarios, max-T over {pairs} pairs of sites; null: "
    "exchangeable once centred"
)


def pathway_difference(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The correlation of two sites in the first agent minus that in the second."""
    (table,) = tables_named(hypothesis, [*VALUES, "interactions"], 1)
    absent = not_there(setting, hypothesis, ["prompts"] if table in VALUES else [])
    absent = absent or not_there(setting, hypothesis, [table])
    if absent is not None:
        return absent
    if table == "interactions":
        return _from_correlations(setting, hypothesis)
    missing = [a for a in hypothesis.agents if a not in inner_agents(setting.tables, table)]
    if missing:
        reason = f"the table {table} has no rows of {missing[0]}."
        return untested(setting, hypothesis, reason)
    inner = inner_values(setting.tables, table, hypothesis.agents)
    if inner is None:
        reason = f"none of the {table} is on a prompt of the table of prompts."
        return untested(setting, hypothesis, reason)
    require_known(hypothesis, "site", hypothesis.sites, inner.sites)
    return _from_values(setting, hypothesis, inner)


def _from_values(setting: Setting, hypothesis: Hypothesis, inner: Inner) -> Finding:
    agents, sites = _two(hypothesis.agents), _two(hypothesis.sites)
    consulted = blame(consult_inner(setting, inner, agents), *_faults(inner, agents, sites))
    both = [inner.columns(agent, sites) for agent in agents]
    r = [pearson(values[:, 0], values[:, 1]) for values in both]
    for agent, value in zip(agents, r, strict=True):
        consulted = blame(consulted, _degenerate(value, sites, agent))
    network = None if consulted.failed else compare_networks(setting, inner, agents)
    p = None if network is None else _p_of(network, sites)
    figures = (
        f"over {len(inner.prompts)} prompts in {inner.scenarios} scenarios it is {_r(r[0])} in "
        f"{agents[0]} and {_r(r[1])} in {agents[1]}{_screening(both, consulted)}"
    )
    if network is not None:
        figures += (
            f"; among all {network.swap.pairs} pairs of sites adjusted {probability(p)}, "
            f"split-half reliability {_two_digits(network.swap.reliability)}"
        )
    missing = None if network is None else undefined_too_often(network.swap)
    found, observed = said(hypothesis, f"{figures}.")
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
        missing=missing if p is None else None,
        hypothesis=_stated(hypothesis, r, network, sites),
    )


def _two(names: tuple[str, ...]) -> tuple[str, str]:
    first, second = names
    return first, second


def _r(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"


def _two_digits(value: float | None) -> str:
    return "not available" if value is None else f"{value:.2f}"


def _faults(inner: Inner, agents: tuple[str, str], sites: tuple[str, str]) -> list[str]:
    """Why the named sites cannot carry a correlation, one sentence for each fault."""
    reasons: list[str] = []
    for agent in agents:
        found: SiteFaults = inner.faults[agent]
        where = f"({inner.table} {agent})"
        for site in sites:
            if site in found.dead:
                reasons.append(f"dead sites {where}: {site} is exactly zero on every prompt.")
            elif site in found.rounded:
                reasons.append(
                    f"resolution {where}: {site} varies by no more than rounding, and its "
                    "correlations are set by single prompts; measure in float32."
                )
            elif site in found.cloned:
                reasons.append(
                    f"duplicates {where}: {site} repeats the results of another site, bit for bit, "
                    "so no pair with it is located."
                )
    return reasons


def _degenerate(r: float | None, sites: tuple[str, str], agent: str) -> str:
    if r is None or abs(r) <= MAX_CORRELATION:
        return ""
    return (
        f"degenerate correlations ({agent}): |r| of {sites[0]} and {sites[1]} is {abs(r):.4f}, "
        f"above {MAX_CORRELATION:g}; they are one measurement, or take a few values only, and "
        "Fisher's z is without meaning."
    )


def _screening(both: list[pl.Series] | list[object], consulted: Consulted) -> str:
    return "" if consulted.failed or not both else ""


def _p_of(network: Network, sites: tuple[str, str]) -> float | None:
    raise NotImplementedError(network, sites)


@dataclass(frozen=True, slots=True)
class _Printed:
    """One correlation as a table states it."""

    r: float | None
    n: int
