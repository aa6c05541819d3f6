"""Would the same profile come out again? Split halves and variance components.

Split-half: units are halved at random, the profile over K columns is averaged in each half, and
the two profiles are correlated; the mean over halvings is stepped up to the whole number of units
(Spearman 1910, Brown 1910; Br. J. Psychol. 3),

    r_whole = f r / (1 + (f - 1) r),   f = 2.

Variance components of sites by prompts without replication, both random (Searle, Casella and
McCulloch 1992, chapter 4), from the mean squares of the two-way table of S sites and P prompts:

    var_site = (MS_site - MS_residual) / P,   var_prompt = (MS_prompt - MS_residual) / S,
    reliability = var_site / (var_site + var_residual / P),

the correlation that the site means over these P prompts would have with those over P new ones.
Negative estimates of a variance are reported as 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.correlations import pearson
from moralscope.evidence.statistics.intervals import UNDEFINED_RESAMPLES
from moralscope.evidence.statistics.resampling import Array, finite

NAMED_CLAIM = 0.7
"""A claim that names a site or a pair needs at least this reliability."""

SPLITS = 200
"""Halvings that are averaged; all of them where there are no more."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of a table of sites by prompts.

    Attributes:
        site: variance between sites, in the square of the values' unit.
        prompt: variance between prompts.
        residual: what neither explains: site by prompt, and noise.
        reliability: of the site means, in [0, 1]; None where nothing varies over sites or within.
    """

    site: float
    prompt: float
    residual: float
    reliability: float | None


def spearman_brown(r: float, factor: float = 2.0) -> float:
    """Reliability of ``factor`` times as many units; cut to [-1, 1].

    Args:
        r: reliability, or correlation between parts, in [-1, 1].
        factor: how many times as many units, above 0.

    Raises:
        EvidenceError: r is not a correlation, or the factor not positive.
    """
    if not (-1.0 <= r <= 1.0 and factor > 0.0):
        raise EvidenceError(
            "A reliability cannot be stepped up",
            seen=f"r = {r}, factor {factor}",
            allowed="r in [-1, 1] and a factor above 0",
            remedy="give the correlation between the halves",
        )
    below = 1.0 + (factor - 1.0) * r
    return min(1.0, max(-1.0, factor * r / below)) if below > 0.0 else -1.0


def halves(units: int, rng: np.random.Generator, splits: int = SPLITS) -> NDArray[np.bool_]:
    """Ways to halve units, (ways, units) with True in the first half of units // 2.

    All of them where there are no more than ``splits``, else that many random ones. For an even
    number a halving and its mirror are one.
    """
    size = units // 2
    even = units % 2 == 0
    ways = math.comb(units, size) // (2 if even else 1)
    if size and ways <= splits:
        chosen = itertools.combinations(range(units), size)
        picks = np.array([pick for pick in chosen if not even or pick[0] == 0])
    else:
        picks = rng.permuted(np.tile(np.arange(units), (splits, 1)), axis=1)[:, :size]
    first = np.zeros((len(picks), units), dtype=np.bool_)
    np.put_along_axis(first, picks, True, axis=1)
    return first


def split_half(values: Array, rng: np.random.Generator, splits: int = SPLITS) -> float | None:
    """Reliability of the mean profile over K columns, from random halves of the units.

    Args:
        values: (units, K), one row per unit of replication.
        rng: draws the halvings where there are more than ``splits``.
        splits: how many.

    Returns:
        Spearman-Brown corrected, in [-1, 1]. None below two units or three columns, and where more
        than 1% of the halvings leave a profile without spread.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "profiles")
    if y.shape[0] < 2 or y.shape[1] < 3:
        return None
    found: list[float] = []
    ways = halves(len(y), rng, splits)
    for first in ways:
        r = pearson(y[first].mean(axis=0), y[~first].mean(axis=0))
        if r is not None:
            found.append(r)
    if 1.0 - len(found) / len(ways) > UNDEFINED_RESAMPLES:
        return None
    return spearman_brown(float(np.clip(np.mean(found), -1.0, 1.0)))


def variance_components(values: Array) -> Components:
    """How much of the spread is between sites, between prompts, and neither?

    Args:
        values: (sites, prompts), one value each, both at least 2.

    Raises:
        EvidenceError: there are fewer than two sites or two prompts.
        TableError: a value is undefined.
    """
    y = finite(values, "sites by prompts")
    sites, prompts = y.shape
    if min(sites, prompts) < 2:
        raise EvidenceError(
            "Variance components need sites and prompts to compare",
            seen=f"{sites} sites and {prompts} prompts",
            allowed="at least two of each",
            remedy="measure more, or make no claim about a single site",
        )
    mean = y.mean()
    of_site, of_prompt = y.mean(axis=1) - mean, y.mean(axis=0) - mean
    rest = y - mean - of_site[:, None] - of_prompt
    square_site = prompts * float(of_site @ of_site) / (sites - 1)
    square_prompt = sites * float(of_prompt @ of_prompt) / (prompts - 1)
    residual = float((rest * rest).sum()) / ((sites - 1) * (prompts - 1))
    site = max(0.0, (square_site - residual) / prompts)
    whole = site + residual / prompts
    return Components(
        site=site,
        prompt=max(0.0, (square_prompt - residual) / sites),
        residual=residual,
        reliability=site / whole if whole > 0.0 else None,
    )
