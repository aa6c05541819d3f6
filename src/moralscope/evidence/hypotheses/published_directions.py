"""Are effects asymmetric, and does no patch flip anything, as it was published?

*Asymmetry.* In a linear model, patching A into B and B into A have effects of equal size and
opposite sign. Opposite signs are therefore what symmetry looks like: all sites have them where
effects are symmetric, half of them where there are none. The asymmetry of a site is ``(A + B)/2``,
tested against zero (sign-flips of scenarios, max-T over distinct sites). That a share of sites is
asymmetric is held to the p of that many sites.

*Zero flips.* That no single patch flips the decision is told with what swapping everything flips,
with the margin that a patch would have to cross, and with the largest share of scenarios that zero
of G leaves open, ``1 - 0.05^(1/G)``. Where the full swap flips nothing, zero says nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.evidence.findings.inner_queries import effect_rows, opposite_share
from moralscope.evidence.findings.patching import (
    Sweep,
    both_ways_rows,
    consult_sweeps,
    flips_finding,
    found_sweeps,
    pair_rows,
    ways_there,
)
from moralscope.evidence.findings.sites import sites_to_test
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_parts import blame, not_there, said, share
from moralscope.evidence.hypotheses.stating import claim_of, untested
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Finding,
    Setting,
    Stated,
    size,
)
from moralscope.evidence.statistics.resampling import Array, max_t
from moralscope.evidence.units import inference_family, matrix, on_family

AGREES = 0.05
"""A share of opposite signs this close to the printed one, or above, counts as found again."""


def asymmetry_share(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The share of sites whose effects have opposite signs, published as an asymmetry."""
    share(hypothesis)
    absent = not_there(setting, hypothesis, ["patching", "prompts"])
    if absent is not None:
        return absent
    first, second = hypothesis.agents
    ahead = _sweep(setting, hypothesis, (first, second))
    back = _sweep(setting, hypothesis, (second, first))
    if ahead is None or back is None:
        lacking = (first, second) if ahead is None else (second, first)
        instead = ways_there(setting.tables["patching"], lacking)
        reason = f"there is no sweep {'>'.join(lacking)}{instead}; both directions are needed."
        return untested(setting, hypothesis, reason)
    joined = both_ways_rows(ahead[0], back[0]).filter(pl.col("site") != "all")
    blamed = [ahead[0].faults, back[0].faults]
    sites = sites_to_test(matrix(joined, "scenario", "site", "asymmetry"), blamed)
    if not sites:
        reason = "no site is a distinct, resolved measurement in both directions."
        return untested(setting, hypothesis, reason)
    sound = joined.filter(pl.col("site").is_in(sites))
    return _asymmetries(setting, hypothesis, (ahead[0], back[0], ahead[1]), sound)


def _sweep(
    setting: Setting, hypothesis: Hypothesis, pair: tuple[str, str]
) -> tuple[Sweep, str] | None:
    """The sweep of a pair and its prompt family; None where there is none."""
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    own = pair_rows(patching, pair, hypothesis.positions, hypothesis.write)
    family = inference_family(prompts, own.get_column("prompt"))
    if family is None:
        return None
    found = list(found_sweeps(setting, on_family(own, prompts, family)))
    return (found[0], family) if found else None


def _asymmetries(
    setting: Setting,
    hypothesis: Hypothesis,
    both: tuple[Sweep, Sweep, str],
    joined: pl.DataFrame,
) -> Finding:
    """The answer from rows of both directions at the sites that are sound in both."""
    ahead, back, family = both
    published = share(hypothesis)
    units = matrix(joined, "scenario", "site", "asymmetry")
    sites = list(units.columns)
    tested = max_t(units.values, setting.rng(claim_of(hypothesis)), setting.draws)
    noise, k = max(ahead.noise, back.noise), len(sites)
    p = np.where(np.abs(units.values.mean(axis=0)) > noise, tested.p_adjusted, 1.0)
    standing = int((p < setting.alpha).sum())
    wanted = max(1, math.ceil(published * k - 1e-9))
    decisive = float(np.sort(p)[wanted - 1])
    opposite = _opposite(joined, sites)
    holds = standing >= wanted
    moved = _effects(setting, hypothesis, joined, noise)
    symmetric = opposite >= published - AGREES and not holds and moved > 0
    reason = (
        "direction of effects: opposite signs are symmetry, not asymmetry; a linear model gives "
        f"them at 100% of sites, noise at 50%, here they are at {opposite:.0%}; the effect "
        f"(A - B)/2 differs from zero in {moved} of {k} sites, the asymmetry (A + B)/2 in "
        f"{standing}."
    )
    asserted, reported = said(
        hypothesis,
        f"of {k} distinct sites {opposite:.0%} have opposite signs (symmetry: 100%, noise: 50%); "
        f"the asymmetry (A + B)/2 differs from zero in {standing} of them, over "
        f"{len(units.names)} scenarios and corrected for all sites.",
    )
    return Finding(
        id=claim_of(hypothesis),
        found=asserted,
        observed=reported,
        estimate=opposite,
        interval=None,
        unit="share of sites",
        n=len(units.names),
        test=f"sign-flips of scenarios on (A + B)/2, max-T over {k} sites, p of {wanted} of them; "
        "null: symmetric about zero",
        query=opposite_share(
            effect_rows(ahead.key, family), effect_rows(back.key, family), sites
        ),
        consulted=blame(consult_sweeps(setting, ahead, back), reason if symmetric else ""),
        p=decisive,
        p_adjusted=decisive,
        p_floor=tested.floor,
        level=setting.alpha,
        tests=k,
        hypothesis=Stated(
            CONFIRMED if holds else OPEN,
            "" if holds else f"the asymmetry differs from zero in {standing} of {k} sites, not in "
            f"{wanted}.",
        ),
    )  # fmt: skip


def _effects(setting: Setting, hypothesis: Hypothesis, joined: pl.DataFrame, noise: float) -> int:
    """How many sites have an effect (A - B)/2, which has opposite signs in the two directions."""
    units = matrix(joined, "scenario", "site", "effect")
    tested = max_t(units.values, setting.rng("effect", claim_of(hypothesis)), setting.draws)
    stands = (tested.p_adjusted < setting.alpha) & (np.abs(units.values.mean(axis=0)) > noise)
    return int(stands.sum())


def _opposite(joined: pl.DataFrame, sites: list[str]) -> float:
    """Share of sites whose mean effects in the two directions have opposite signs."""

    def of(column: str) -> Array:
        return matrix(joined, "scenario", "site", column).keep(sites).values.mean(axis=0)

    return float((of("of_first") * of("of_second") < 0.0).mean())


def zero_flips(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """That no patch of a single site flips the preferred option.

    Raises:
        ConfigError: another number than zero was published.
    """
    if hypothesis.published not in (None, 0.0):
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} is about zero flips and has another number",
            seen=hypothesis.published,
            allowed="published: 0, or none",
            remedy="use the quantity 'flips' with a direction for any other",
        )
    absent = not_there(setting, hypothesis, ["patching", "prompts"])
    if absent is not None:
        return absent
    pair = (hypothesis.agents[0], hypothesis.agents[1])
    found = _sweep(setting, hypothesis, pair)
    if found is None:
        instead = ways_there(setting.tables["patching"], pair)
        reason = f"there is no sweep of single sites {pair[0]}>{pair[1]} on known prompts{instead}."
        return untested(setting, hypothesis, reason)
    made = flips_finding(setting, *found)
    seen = bool(made.estimate)
    asserted, reported = said(hypothesis, made.observed)
    none = (
        "none was seen, but "
        f"{size((made.interval or (0.0, 1.0))[1])} of the scenarios may still have one."
    )
    against = f"such patches exist, in {made.estimate or 0.0:.1%} of scenarios." if seen else none
    return replace(
        made,
        id=claim_of(hypothesis),
        found=asserted,
        observed=reported,
        hypothesis=Stated(CONTRADICTED if seen else CONFIRMED, against),
    )
