"""Localised or distributed? How concentrated the effects of single sites are, against a null.

With ``m_s`` the mean over units of the effect of site s, signed towards the source
(``circuits.effects``),

    N_eff = (sum_s |m_s|)^2 / sum_s m_s^2               participation ratio, from 1
    Gini  = sum_i (2 i - n - 1) |m|_(i) / (n sum |m|)   0 equal, towards 1 for one site alone

Any mean over few units looks concentrated by chance, so N_eff is compared with a null that keeps
the size of every effect and destroys which site it belongs to: within each unit, effects are
permuted over the sites of the same kind. Consistent sites then lie below the null:
``p = (1 + #{N_null <= N_eff}) / (draws + 1)``. A unit is a prompt, or a scenario whose prompts are
averaged first. With U units and kinds of k sites no p is below ``1 / prod(k!)^(U - 1)``.

The words, for a level of 5%:

    localised     p <= 0.05, so that N_eff is below the null's 5% quantile, and the top tenth of the
                  sites, patched together, reach the share that is asked for
    distributed   p > 0.05: no more concentrated than sites that take turns from unit to unit
    neither shown concentrated, but the top sites do not suffice; or no site does anything alone
    not identified by this design   fewer than two units, or no p as low as 0.05 is possible
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.tables import from_rows
from moralscope.evidence.verdicts import NOT_IDENTIFIED
from moralscope.mechanisms.circuits.effects import (
    DEFAULT_SHARE,
    FloatArray,
    Goal,
    SetEffects,
    score,
)

LOCALISED = "localised"
DISTRIBUTED = "distributed"
NEITHER = "neither shown"

LEVEL = 0.05
"""Largest p that counts as more concentrated than the null."""

TOP = 0.1
"""Share of the sites that must suffice where effects are localised."""

DRAWS = 999
"""Permutations unless told otherwise."""

_SAME = 1.0 + 1e-9
_CHUNK = 2**22


@dataclass(frozen=True)
class Concentration:
    """How concentrated effects are, and how concentrated the null is.

    Attributes:
        n_eff: participation ratio of the mean effects; None where all are zero.
        gini: Gini coefficient of their sizes; None likewise.
        null_low, null_median, null_high: 5%, 50% and 95% quantiles of N_eff under the null; None
            with fewer than two units.
        p: one-sided; None likewise.
        p_floor: the smallest p that the design can give; None likewise.
        n_units: units of replication.
    """

    n_eff: float | None
    gini: float | None
    null_low: float | None
    null_median: float | None
    null_high: float | None
    p: float | None
    p_floor: float | None
    n_units: int


@dataclass(frozen=True)
class Localisation:
    """The statistic, what the top sites do together, and the word.

    Attributes:
        concentration: of the single effects.
        top_share: share of the full swap's effect that the top sites reach together.
        n_top: how many they are.
        share: what they were to reach.
        word: see the module.
        n_sites, n_prompts: what was measured.
    """

    concentration: Concentration
    top_share: float
    n_top: int
    share: float
    word: str
    n_sites: int
    n_prompts: int


def participation_ratio(sizes: FloatArray) -> FloatArray:
    """``(sum |m|)^2 / sum m^2`` over the last axis; NaN where all are zero.

    Args:
        sizes: ``(..., sites)``.
    """
    # Scaled first, so that tiny effects do not vanish when squared.
    largest = np.abs(sizes).max(-1, keepdims=True)
    scaled = np.abs(sizes) / np.where(largest > 0.0, largest, np.nan)
    return scaled.sum(-1) ** 2 / (scaled**2).sum(-1)


def gini(sizes: FloatArray) -> float | None:
    """Gini coefficient of ``|m|``; None where all are zero.

    Args:
        sizes: ``(sites,)``.
    """
    ordered = np.sort(np.abs(sizes))
    total = float(ordered.sum())
    if total <= 0.0:
        return None
    n = len(ordered)
    return float((2.0 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def concentration(
    values: FloatArray, kinds: Sequence[str], generator: np.random.Generator, *, draws: int = DRAWS
) -> Concentration:
    """Are the mean effects more concentrated than when sites take turns?

    Args:
        values: effect of each site in each unit, ``(units, sites)``, nats, signed alike.
        kinds: kind of each site; effects change places within a kind only.
        generator: of the permutations.
        draws: how many.

    Raises:
        EvidenceError: a value is undefined, or the shapes do not fit.
        ConfigError: there is no draw.
    """
    if draws < 1:
        raise ConfigError(
            "A permutation test needs permutations",
            seen=f"{draws} draws",
            allowed="1 or more",
            remedy=f"give draws={DRAWS}",
        )
    if values.ndim != 2 or not values.size or values.shape[1] != len(kinds):
        raise _unfit(f"shape {values.shape} for {len(kinds)} kinds")
    if not np.isfinite(values).all():
        raise _unfit(f"{int((~np.isfinite(values)).sum())} values that are not finite")
    means = values.mean(0)
    sizes = gini(means)
    units = len(values)
    if sizes is None or units < 2:
        n_eff = None if sizes is None else float(participation_ratio(means))
        return Concentration(n_eff, sizes, None, None, None, None, None, units)
    n_eff = float(participation_ratio(means))
    # Where all effects of a permutation cancel, nothing is concentrated.
    null = np.nan_to_num(_null(values, kinds, generator, draws), nan=float(values.shape[1]))
    low, median, high = (float(q) for q in np.quantile(null, (0.05, 0.5, 0.95)))
    p = (1 + int((null <= n_eff * _SAME).sum())) / (draws + 1)
    floor = max(1.0 / (draws + 1), _floor(kinds, units))
    return Concentration(n_eff, sizes, low, median, high, p, floor, units)


def _unfit(seen: str) -> EvidenceError:
    return EvidenceError(
        "The concentration of these effects is undefined",
        seen=seen,
        allowed="finite effects, one row a unit and one column a site, and a kind for every site",
        remedy="patch every site on every prompt",
    )


def _null(
    values: FloatArray, kinds: Sequence[str], generator: np.random.Generator, draws: int
) -> FloatArray:
    """N_eff with effects permuted over sites of a kind in every unit, ``(draws,)``."""
    columns = [np.flatnonzero(np.array(kinds) == kind) for kind in sorted(set(kinds))]
    found: list[FloatArray] = []
    step = max(1, _CHUNK // values.size)
    for start in range(0, draws, step):
        drawn = np.repeat(values[None], min(step, draws - start), 0)
        for of_kind in columns:
            drawn[:, :, of_kind] = generator.permuted(drawn[:, :, of_kind], axis=-1)
        found.append(participation_ratio(drawn.mean(1)))
    return np.concatenate(found)


def _floor(kinds: Sequence[str], units: int) -> float:
    """The share of permutations that leave the mean effects what they are, up to their order."""
    counts = [list(kinds).count(kind) for kind in set(kinds)]
    return math.exp(-(units - 1) * sum(math.lgamma(count + 1) for count in counts))


def localisation(
    effects: SetEffects,
    generator: np.random.Generator,
    *,
    units: Sequence[str] | None = None,
    share: float = DEFAULT_SHARE,
    top: float = TOP,
    draws: int = DRAWS,
) -> Localisation:
    """Measure every site alone, the top sites together, and say which word fits.

    Args:
        effects: what sets do; the sites are its candidates.
        generator: of the permutations.
        units: the unit of replication of each prompt, such as its scenario; every prompt its own
            unless given.
        share: what the top sites must reach together.
        top: how many they are, as a share of the sites; at least one.
        draws: permutations.

    Raises:
        ConfigError: a share is not above 0 and up to 1, or there is no draw.
        EvidenceError: units do not fit the prompts, or an effect is undefined.
    """
    goal = Goal("share", share)
    if not 0.0 < top <= 1.0:
        raise ConfigError(
            "The top sites must be a share of all sites",
            seen=top,
            allowed="above 0 and up to 1",
            remedy=f"give top={TOP}",
        )
    sites = sorted(effects.candidates)
    singles = score(effects, [frozenset((site,)) for site in sites])
    values = _by_unit(singles.towards.T, units)
    found = concentration(values, [site.kind for site in sites], generator, draws=draws)
    n_top = max(1, math.ceil(top * len(sites) - 1e-9))
    means = [round(float(column.mean()), 12) for column in values.T]
    best = sorted(range(len(sites)), key=means.__getitem__, reverse=True)[:n_top]
    together = score(effects, [frozenset(sites[index] for index in best)], goal)
    return Localisation(
        concentration=found,
        top_share=float(together.share[0]),
        n_top=n_top,
        share=share,
        word=_word(found, reached=bool(together.reached[0])),
        n_sites=len(sites),
        n_prompts=len(effects.baseline),
    )


def _by_unit(values: FloatArray, units: Sequence[str] | None) -> FloatArray:
    """Means over the prompts of each unit, ``(units, sites)``."""
    if units is None:
        return values
    if len(units) != len(values):
        raise EvidenceError(
            "Units of replication do not fit the prompts",
            seen=f"{len(units)} units for {len(values)} prompts",
            allowed="the unit of every prompt, in the order of the prompts",
            remedy="take scenario from the table prompts",
        )
    names = np.array(units)
    return np.stack([values[names == unit].mean(0) for unit in dict.fromkeys(units)])


def _word(found: Concentration, *, reached: bool) -> str:
    if found.n_eff is None:
        return NEITHER
    if found.p is None or found.p_floor is None or found.p_floor > LEVEL:
        return NOT_IDENTIFIED
    if found.p > LEVEL:
        return DISTRIBUTED
    return LOCALISED if reached else NEITHER


def localisation_table(
    effects: SetEffects, found: Localisation, *, unit: str = "prompt"
) -> pl.DataFrame:
    """The table ``localisation``: one row.

    Args:
        effects: what was measured.
        found: the result.
        unit: what a unit of replication is, ``prompt`` or ``scenario``.
    """
    of = found.concentration
    row: dict[str, object] = {
        **effects.subject.columns(),
        "n_eff": of.n_eff,
        "gini": of.gini,
        "null_low": of.null_low,
        "null_median": of.null_median,
        "null_high": of.null_high,
        "p": of.p,
        "p_floor": of.p_floor,
        "top_share": found.top_share,
        "n_top": found.n_top,
        "threshold": found.share,
        "word": found.word,
        "n_sites": found.n_sites,
        "n_prompts": found.n_prompts,
        "unit": unit,
        "n_units": of.n_units,
    }
    return from_rows("localisation", [row])
