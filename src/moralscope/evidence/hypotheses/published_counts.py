"""How many sites have an effect, as it was published? Counted again on distinct measurements.

Copies of a measurement count once, dead and rounded sites not at all, scenarios are the units and
all sites are one family (sign-flips, max-T). The statement stands if at least the printed number
does: with p_(1) <= ... <= p_(K) the adjusted p, that N sites have an effect is held to p_(N), and
to 1 where there are fewer than N distinct sites.

Beside it, what the printed way of counting gives: rows as units, one t test per site, uncorrected,
every column counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moralscope.evidence.findings.inner_queries import standing_sites
from moralscope.evidence.findings.profiles import PROFILES, Asked, Profile, profile
from moralscope.evidence.findings.sites import sites_to_test
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_parts import (
    blame,
    compared,
    not_there,
    plural,
    said,
    tables_named,
    whole_number,
)
from moralscope.evidence.hypotheses.stating import claim_of, untested
from moralscope.evidence.ledger import CONFIRMED, OPEN, Finding, Setting, Stated
from moralscope.evidence.statistics.intervals import t_upper_tail
from moralscope.evidence.statistics.resampling import Array, MaxT, max_t
from moralscope.evidence.units import Units

LARGEST = 1.0e300
"""Stands for an infinite critical t in a query."""


def significant_count(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The number of sites with an effect, or that differ between two agents."""
    (table,) = tables_named(hypothesis, PROFILES, 1)
    published = whole_number(hypothesis)
    absent = not_there(setting, hypothesis, [table, "prompts"])
    if absent is not None:
        return absent
    agents = compared(setting, hypothesis)
    if agents is None:
        reason = f"no base of {hypothesis.agents[0]} is known to compare it with; name two agents."
        return untested(setting, hypothesis, reason)
    found = profile(setting, asked_by(hypothesis, table, agents))
    if isinstance(found, str):
        return untested(setting, hypothesis, found)
    return _recounted(setting, hypothesis, found, published)


def asked_by(hypothesis: Hypothesis, table: str, agents: tuple[str, str]) -> Asked:
    """The profile that a hypothesis means."""
    return Asked(table, agents, hypothesis.positions, hypothesis.write)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Sites that pass by rows, uncorrected, and why some of them cannot be counted."""

    passing: frozenset[str]
    copies: frozenset[str]
    rounded: frozenset[str]

    @property
    def left(self) -> int:
        """How many remain when copies and rounding are left out."""
        return len(self.passing) - len(self.copies) - len(self.rounded)


def _recounted(setting: Setting, hypothesis: Hypothesis, found: Profile, published: int) -> Finding:
    distinct = sites_to_test(found.units, found.faults)
    naive = _naively(found, setting.alpha)
    tested = _test(setting, hypothesis, found.units.keep(distinct)) if distinct else None
    p = np.ones(0) if tested is None else _adjusted(tested, found, distinct)
    standing = int((p < setting.alpha).sum())
    decisive = float(np.sort(p)[published - 1]) if published <= len(p) else 1.0
    artefact = _removed(setting, hypothesis, found, published) if standing < published else ""
    n, k = len(found.units.names), len(distinct)
    figures = (
        f"over {plural(n, 'scenario')} and corrected for all {k} distinct sites, {standing} stand; "
        f"with rows as units and uncorrected {len(naive.passing)} of {len(found.units.columns)} "
        f"columns pass, {len(naive.copies)} of which repeat another and {len(naive.rounded)} of "
        "which vary by no more than rounding."
    )
    asserted, reported = said(hypothesis, f"of the {found.words}, {figures}")
    critical = LARGEST if tested is None else min(LARGEST, tested.critical_t(setting.alpha))
    return Finding(
        id=claim_of(hypothesis),
        found=asserted,
        observed=reported,
        estimate=float(standing),
        interval=None,
        unit="sites",
        n=n,
        test=f"sign-flips of scenarios, max-T over {k} distinct sites, {published} smallest p; "
        "null: symmetric about zero",
        query=standing_sites(found.evidence, distinct, critical, found.noise),
        consulted=blame(found.consulted, artefact),
        p=decisive,
        p_adjusted=decisive,
        p_floor=None if tested is None else tested.floor,
        level=setting.alpha,
        tests=k or None,
        hypothesis=Stated(
            CONFIRMED if standing >= published else OPEN,
            "" if standing >= published else f"{standing} of {k} distinct sites stand, not "
            f"{published}.",
        ),
    )  # fmt: skip


def _test(setting: Setting, hypothesis: Hypothesis, units: Units) -> MaxT:
    return max_t(units.values, setting.rng(claim_of(hypothesis)), setting.draws)


def _adjusted(tested: MaxT, found: Profile, sites: list[str]) -> Array:
    """(K,) adjusted p; 1 where the mean does not exceed the numerical noise."""
    means = found.units.keep(sites).values.mean(axis=0)
    return np.where(np.abs(means) > found.noise, tested.p_adjusted, 1.0)


def _naively(found: Profile, alpha: float) -> _Counts:
    """What passes with rows as units, a t test for each column and no correction."""
    y = found.rows
    n = len(y)
    passing = frozenset[str]()
    if n > 1:
        mean, error = y.mean(axis=0), y.std(axis=0, ddof=1) / np.sqrt(n)
        t = np.abs(mean) / np.where(error > 0.0, error, 1.0)
        t = np.where(error > 0.0, t, np.where(mean == 0.0, 0.0, np.inf))
        passing = frozenset(
            site
            for site, value in zip(found.units.columns, t.tolist(), strict=True)
            if 2.0 * t_upper_tail(value, n - 1) < alpha
        )
    return _Counts(passing, passing & found.copies(), passing & found.rounded())


def _removed(setting: Setting, hypothesis: Hypothesis, found: Profile, published: int) -> str:
    """Which gate took so many of the printed sites that they cannot stand; empty for none.

    Either the number is reached only with the copies and rounded columns counted in, by the same
    test or by the printed way of counting, or there are not so many distinct sites at all.
    """
    dead, copies, rounded = found.dead(), found.copies(), found.rounded()
    if not copies and not rounded:
        return ""
    alive = [site for site in found.units.columns if site not in dead]
    naive = _naively(found, setting.alpha)
    tested = _test(setting, hypothesis, found.units.keep(alive))
    passing = {
        site
        for site, p in zip(alive, _adjusted(tested, found, alive), strict=True)
        if p < setting.alpha
    }
    counted = passing if len(passing) >= published else naive.passing
    possible = len(alive) - len(copies) - len(rounded)
    if possible >= published and len(counted) < published:
        return ""
    if possible >= published and len(counted - copies - rounded) >= published:
        return ""
    shown = counted if len(counted) >= published else frozenset(alive)
    parts = [
        f"{len(shown & copies)} are copies of another measurement" if shown & copies else "",
        f"{len(shown & rounded)} vary by no more than rounding" if shown & rounded else "",
    ]
    gates = " and ".join(
        name for name, hit in (("duplicates", copies), ("resolution", rounded)) if shown & hit
    )
    return (
        f"{gates}: of the {len(shown)} columns that could be counted "
        f"{' and '.join(part for part in parts if part)}; "
        f"{len(shown - copies - rounded)} distinct, resolved sites remain."
    )
