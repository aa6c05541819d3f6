"""Do two analyses agree about the sites, as it was published?

``r`` over distinct sites of the scenario means of two analyses (contributions and patch effects,
say). It must hold against both nulls of ``statistics.associations``: sites permuted, and scenarios
flipped, each held against the others. Copies of a site would count as further sites, columns of two
values correlate perfectly with anything, and |r| above .999 says that both are one measurement:
each makes an artefact of the printed figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moralscope.evidence.findings.inner_queries import profiles_correlation
from moralscope.evidence.findings.profiles import PROFILES, Profile, profile
from moralscope.evidence.findings.sites import sites_to_test
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_counts import asked_by
from moralscope.evidence.hypotheses.published_parts import (
    blame,
    compared,
    not_there,
    plural,
    said,
    tables_named,
)
from moralscope.evidence.hypotheses.stating import claim_of, untested
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Consulted,
    Finding,
    Setting,
    Stated,
    between,
    probability,
)
from moralscope.evidence.statistics.associations import MIN_SITES, Association, associate
from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    degenerate,
    fisher_interval,
    pearson,
)
from moralscope.evidence.statistics.resampling import Array

_TEST = (
    "sites permuted, and scenarios flipped, each held against the others, the largest p; null: "
    "unrelated"
)


def analyses_correlation(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The correlation over sites of two analyses of the same agents."""
    tables = tables_named(hypothesis, PROFILES, 2)
    absent = not_there(setting, hypothesis, [*tables, "prompts"])
    if absent is not None:
        return absent
    agents = compared(setting, hypothesis)
    if agents is None:
        reason = f"no base of {hypothesis.agents[0]} is known to compare it with; name two agents."
        return untested(setting, hypothesis, reason)
    found: list[Profile] = []
    for table in tables:
        one = profile(setting, asked_by(hypothesis, table, agents))
        if isinstance(one, str):
            return untested(setting, hypothesis, one)
        found.append(one)
    first, second = found
    common = [site for site in first.units.columns if site in second.units.columns]
    sites = _sound(first, second, common)
    if len(common) < MIN_SITES:
        reason = (
            f"the two analyses have {plural(len(common), 'site')} in common, and {MIN_SITES} are "
            "needed; measure the same sites."
        )
        return untested(setting, hypothesis, reason)
    return _answer(setting, hypothesis, (first, second), common, sites)


def _sound(first: Profile, second: Profile, common: list[str]) -> list[str]:
    kept = set(sites_to_test(first.units, first.faults))
    kept &= set(sites_to_test(second.units, second.faults))
    return [site for site in common if site in kept]


@dataclass(frozen=True, slots=True)
class _Over:
    """Both mean profiles over some sites.

    Attributes:
        sites: which.
        first, second: (K,) means over scenarios.
    """

    sites: list[str]
    first: Array
    second: Array

    @property
    def r(self) -> float | None:
        """Their correlation."""
        return pearson(self.first, self.second)


def _over(both: tuple[Profile, Profile], sites: list[str]) -> _Over:
    first, second = (
        np.asarray(one.units.keep(sites).values.mean(axis=0), dtype=np.float64) for one in both
    )
    return _Over(sites, first, second)


def _answer(
    setting: Setting,
    hypothesis: Hypothesis,
    both: tuple[Profile, Profile],
    common: list[str],
    sites: list[str],
) -> Finding:
    every = _over(both, common)
    sound = _over(both, sites)
    tested = _associate(setting, hypothesis, both, sites) if len(sites) >= MIN_SITES else None
    consulted = _blamed(setting.alpha, both, every, sound, tested)
    n = len(_common(both)) or min(len(one.units.names) for one in both)
    asserted, reported = said(hypothesis, _figures(both, every, sites, tested, n))
    p = None if tested is None else tested.p
    missing = (
        f"{plural(len(sites), 'distinct site')} remain, and a correlation over fewer than "
        f"{MIN_SITES} says nothing; measure more sites."
        if len(sites) < MIN_SITES
        else "one analysis is the same at every site, and has no correlation."
    )
    return Finding(
        id=claim_of(hypothesis),
        found=asserted,
        observed=reported,
        estimate=None if tested is None else tested.r,
        interval=None if tested is None else tested.interval,
        unit="ratio",
        n=n,
        test=_TEST,
        query=profiles_correlation(both[0].evidence, both[1].evidence, sites),
        consulted=consulted,
        p=p,
        p_adjusted=p,
        p_floor=None if tested is None else tested.floor,
        level=setting.alpha,
        tests=None if tested is None else 1,
        missing=missing if tested is None else None,
        hypothesis=_stated(setting.alpha, hypothesis, tested, len(sites)),
    )


def _associate(
    setting: Setting, hypothesis: Hypothesis, both: tuple[Profile, Profile], sites: list[str]
) -> Association | None:
    first, second = (one.units.keep(sites).values for one in both)
    rng = setting.rng(claim_of(hypothesis))
    whole = associate(first, second, rng, setting.draws)
    common = _common(both)
    if whole is None or not common:
        return whole
    # What is peculiar to a scenario that both have is no agreement.
    rows = [[one.units.names.index(name) for name in common] for one in both]
    held = associate(first[rows[0]], second[rows[1]], rng, setting.draws, same_units=True)
    return None if held is None else replace(held, r=whole.r, interval=whole.interval)


def _common(both: tuple[Profile, Profile]) -> list[str]:
    """Scenarios that both analyses have."""
    others = set(both[1].units.names)
    return [name for name in both[0].units.names if name in others]


def _blamed(
    alpha: float,
    both: tuple[Profile, Profile],
    every: _Over,
    sound: _Over,
    tested: Association | None,
) -> Consulted:
    """The gates of both analyses, and what makes an artefact of a printed correlation."""
    first, second = (one.consulted for one in both)
    alive = (
        False if False in (first.alive, second.alive)
        else None if None in (first.alive, second.alive) else True
    )  # fmt: skip
    text = "; ".join(dict.fromkeys([*first.text.split("; "), *second.text.split("; ")]))
    merged = replace(
        first,
        text=text,
        failed=tuple(dict.fromkeys([*first.failed, *second.failed])),
        alive=alive,
        subjects=tuple(dict.fromkeys([*first.subjects, *second.subjects])),
    )
    reasons: list[str] = []
    enough = len(sound.sites) >= MIN_SITES
    if enough and (degenerate(sound.first) or degenerate(sound.second)):
        reasons.append(
            "degenerate correlations: one analysis takes fewer than four different values over the "
            "sites, and such columns correlate with anything."
        )
    elif tested is not None and abs(tested.r) > MAX_CORRELATION:
        reasons.append(
            f"degenerate correlations: |r| is {abs(tested.r):.4f}, above {MAX_CORRELATION:g}; both "
            "analyses are one measurement."
        )
    reasons.append(_inflated(alpha, every, sound, tested))
    return blame(merged, *reasons)


def _inflated(alpha: float, every: _Over, sound: _Over, tested: Association | None) -> str:
    """Whether copies and rounded columns make the printed correlation; empty where they do not."""
    removed = len(every.sites) - len(sound.sites)
    r = every.r
    if not removed or r is None:
        return ""
    naive = fisher_interval(r, len(every.sites))
    passes = naive is None or naive[0] * naive[1] > 0.0
    stands = tested is not None and tested.p < alpha and tested.r * r > 0.0
    if not passes or stands:
        return ""
    return (
        f"duplicates: r = {r:+.2f} over {len(every.sites)} columns counts {removed} that repeat "
        f"another, are dead or vary by rounding; over the "
        f"{len(sound.sites)} distinct ones it is "
        f"{'undefined' if tested is None else f'{tested.r:+.2f} ({probability(tested.p)})'}."
    )


def _figures(
    both: tuple[Profile, Profile],
    every: _Over,
    sites: list[str],
    tested: Association | None,
    n: int,
) -> str:
    words = f"the {both[0].words} and the {both[1].words}"
    if tested is None:
        return f"{words} cannot be correlated over {plural(len(sites), 'distinct site')}."
    counted = "" if every.r is None else f" ({every.r:+.3f} over all {len(every.sites)} columns)"
    return (
        f"{words} correlate at r = {tested.r:+.3f} over {len(sites)} distinct sites{counted}; "
        f"sites permuted {probability(tested.p_sites)}, {n} scenarios flipped "
        f"{probability(tested.p_units)} (as if sites were independent, "
        f"{between(tested.interval)}, for screening)."
    )


def _stated(alpha: float, hypothesis: Hypothesis, tested: Association | None, sites: int) -> Stated:
    if tested is None:
        return Stated(OPEN)
    expected = {"above": 1.0, "below": -1.0}.get(str(hypothesis.direction), 0.0)
    if hypothesis.direction is None:
        expected = float(np.sign(hypothesis.published or 0.0))
    if tested.p >= alpha:
        return Stated(
            OPEN,
            f"r = {tested.r:+.3f} over {sites} distinct sites is not more than sites in another "
            "order, or scenarios with another sign, give.",
        )
    if expected * tested.r < 0.0:
        return Stated(CONTRADICTED, f"it has the other sign, r = {tested.r:+.3f}.")
    return Stated(CONFIRMED)
