"""Which sites? One test over all sites of a sweep, and the largest that stands.

Sites are tested together by sign-flips of scenarios with max-T, after clones are collapsed and
dead or merely rounded sites left out. The site that is named was chosen because it is large, so
its interval is widened for the choice: ``mean +- c * standard error`` with c the critical value of
the same max-T test, so that interval and test never disagree. A claim that names a site needs sites
that would come out alike on other scenarios: the variance of scenario means splits into site,
scenario and residual, and the reliability of the sites' means must reach .7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moralscope.evidence.findings.queries import failed_gates
from moralscope.evidence.gates.sites import SiteFaults
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.intervals import (
    Interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.reliability import Components, variance_components
from moralscope.evidence.statistics.resampling import Array, MaxT, max_t
from moralscope.evidence.units import Units


@dataclass(frozen=True, slots=True)
class SiteTest:
    """The outcome over all sites of a sweep.

    Attributes:
        sites: how many distinct, resolved sites were tested.
        standing: how many have an effect: adjusted p below alpha, mean above the noise floor.
        site: the largest of those, or, if none stands, the one with the smallest p.
        mean, interval: of that site, in nats; the interval holds for all sites at once.
        p, p_adjusted, p_floor: of that site.
        detectable: smallest effect found with 80% power at alpha/K, with its spread.
        n: scenarios.
        components: variance of the scenario means by site, scenario and residual, nats squared;
            None for a single site or scenario.
    """

    sites: int
    standing: int
    site: str
    mean: float
    interval: Interval | None
    p: float
    p_adjusted: float
    p_floor: float
    detectable: float | None
    n: int
    components: Components | None

    @property
    def reliability(self) -> float | None:
        """Of the sites' means; None where there is nothing to tell apart."""
        return None if self.components is None else self.components.reliability

    @property
    def figures(self) -> str:
        """The named site's numbers in words."""
        return (
            f"{self.site}, {signed(self.mean)} nats over {self.n} scenarios "
            f"({between(self.interval)}, widened for {self.sites} sites; adjusted "
            f"{probability(self.p_adjusted)})"
        )


def sites_to_test(units: Units, faults: Sequence[SiteFaults]) -> list[str]:
    """Sites that are distinct and resolved in every sweep concerned, in order of appearance."""
    return [
        site
        for site in units.columns
        if all(site in fault.distinct and site not in fault.rounded for fault in faults)
    ]


def run_site_test(setting: Setting, address: str, units: Units, noise: float) -> SiteTest:
    """Test every column of ``units`` (G scenarios, K sites) as one family.

    Args:
        setting: level, seed and draws.
        address: name of the random stream, the claim's id.
        units: scenario means per site, at least one site.
        noise: numerical noise floor in nats; a smaller mean is no effect.
    """
    tested = max_t(units.values, setting.rng(address), setting.draws)
    means = units.values.mean(axis=0)
    stands = (tested.p_adjusted < setting.alpha) & (np.abs(means) > noise)
    ranked = np.where(stands, np.abs(means), -np.inf)
    best = int(np.argmax(ranked)) if stands.any() else int(np.argmax(np.abs(tested.t)))
    values = units.values[:, best]
    level = setting.alpha / len(units.columns)
    n = len(values)
    return SiteTest(
        sites=len(units.columns),
        standing=int(stands.sum()),
        site=units.columns[best],
        mean=float(means[best]),
        interval=_simultaneous(tested, values, setting.alpha),
        p=float(tested.p[best]),
        p_adjusted=float(tested.p_adjusted[best]),
        p_floor=tested.floor,
        detectable=None
        if n < 2
        else smallest_detectable_effect(standard_error(values), n - 1, level),
        n=n,
        components=variance_components(units.values.T) if min(units.values.shape) > 1 else None,
    )


def _simultaneous(tested: MaxT, values: Array, alpha: float) -> Interval | None:
    """The chosen site's interval, which holds for all sites at once; None where undefined."""
    if len(values) < 2:
        return None
    half = tested.critical_t(alpha) * standard_error(values)
    mean = float(values.mean())
    return (mean - half, mean + half) if 0.0 < half < math.inf else None


def site_finding(
    outcome: SiteTest,
    *,
    name: str,
    found: str,
    observed: str,
    query: str,
    consulted: Consulted,
    alpha: float,
    noise: float,
) -> Finding:
    """The finding about the site that a test named.

    Args:
        outcome: of the test.
        name: the claim's id.
        found: the statement if the test rejects.
        observed: the statement if it does not.
        query: recomputes the estimate.
        consulted: gates, clones blamed already.
        alpha: level of the family.
        noise: numerical noise floor in nats.
    """
    return Finding(
        id=name,
        found=found,
        observed=observed,
        estimate=outcome.mean,
        interval=outcome.interval,
        unit="nats",
        n=outcome.n,
        test=f"sign-flips of scenarios, max-T over {outcome.sites} sites; null: symmetric about "
        f"zero{_components(outcome)}",
        query=query,
        consulted=consulted,
        p=outcome.p,
        p_adjusted=outcome.p_adjusted,
        p_floor=outcome.p_floor,
        level=alpha,
        noise=noise,
        detectable=outcome.detectable,
        tests=outcome.sites,
        family=f"{outcome.sites} sites",
        reliability=outcome.reliability,
    )


def _components(outcome: SiteTest) -> str:
    """The reliability that a named site needs, and the variances that it is made of."""
    parts = outcome.components
    if parts is None or parts.reliability is None:
        return ""
    return (
        f"; reliability of the profile over sites {parts.reliability:.2f} (variance by site "
        f"{size(parts.site)}, by scenario {size(parts.prompt)}, residual {size(parts.residual)})"
    )


def blame_clones(consulted: Consulted, site: str, faults: Sequence[SiteFaults]) -> Consulted:
    """A claim that names one of several identical sites is an artefact of the duplication."""
    copies = sorted({copy for fault in faults if site in fault.cloned for copy in fault.cloned})
    if not copies:
        return consulted
    reason = (
        f"duplicates: {site} has the same results as another site, on every prompt; "
        f"{len(copies)} sites are clones, so no single one of them is located."
    )
    return replace(consulted, failed=(*consulted.failed, reason))


def nothing_resolved(
    name: str, subject: str, units: Units, faults: Sequence[SiteFaults], consulted: Consulted
) -> Finding:
    """The finding for a sweep in which no site is a distinct, resolved measurement."""
    dead = sum(len(fault.dead) for fault in faults)
    rounded = sum(len(fault.rounded) for fault in faults)
    reason = f"dead sites and resolution: {dead} sites are dead and {rounded} are rounding."
    words = f"No site of {subject} is a distinct, resolved measurement."
    return Finding(
        id=name,
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="nats",
        n=len(units.names),
        test="none",
        query=failed_gates(consulted.subjects),
        consulted=replace(consulted, failed=(*consulted.failed, reason)),
    )


def share_of(part: float, whole: float, noise: float) -> str:
    """``, 31% of the full swap's -1.35 nats``, or why there is no share."""
    if abs(whole) <= noise:
        return f"; the full swap itself has no effect ({signed(whole)} nats)"
    return f", {part / whole:.0%} of the full swap's {signed(whole)} nats"
