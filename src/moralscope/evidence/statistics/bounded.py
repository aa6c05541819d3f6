"""How sure is a mean of quantities that cannot leave a range, over a handful of units?

Student's interval assumes units spread symmetrically about their mean. Probabilities near 0 or 1
do not: over eight texts of which most give .01 and one gives .2, it misses the mean of the
population in one case of six. Here the units are taken to be normal on the log-odds scale,
``x = log(y / (1 - y)) ~ N(mu, sigma^2)``, and what is asked for is still the mean of y,

    theta = E[sigmoid(mu + sigma Z)].

Its generalised pivot (Weerahandi 1993, JASA 88:899; for functions of a normal mean and variance
Krishnamoorthy and Mathew 2003, J. Stat. Plan. Inference 115:103) puts
``sigma* = s sqrt((n - 1) / W)`` and ``mu* = m + V sigma* / sqrt(n)`` into theta, with W chi-squared
on n - 1 degrees and V standard normal: the interval lies between the quantiles of theta*. Nothing
is drawn at random: W and V run over a grid of their distributions. For units close together in
the middle of the range it is Student's interval.

A weighted sum of such means, some of them subtracted, gets its interval from those of its terms by
the method of variance estimates recovery (Zou and Donner 2008, Stat. Med. 27:1693),

    L = theta - sqrt(sum_ij c_ij d_i d_j),   c_ij = sign(w_i w_j) r_ij,

with d_i the distance of a term from the end of its own interval that pulls the sum down, and r_ij
the correlation of two terms over the units that both were measured on, 0 where they share none.
With symmetric intervals that is exactly the t interval of the paired differences. Units on the two
slopes of the sigmoid make it shorter than that, so of it and Student's interval (Welch's, where
terms were measured on different units) the further end is taken on either side: the coverage that
simulation finds is above the nominal one where terms lie far apart, and close to it elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from scipy import special

from moralscope.evidence.statistics.intervals import Interval, standard_error, t_quantile
from moralscope.evidence.statistics.resampling import Array, finite

RESOLUTION = 1e-6
"""Shares of the range closer than this to one of its ends are not told apart from it."""

_NODES = 40
_HERMITE = 15
_FINEST = 1e-6


def bounded_interval(
    values: Array, level: float = 0.95, top: float = 1.0, resolution: float = RESOLUTION
) -> Interval | None:
    """Interval for the mean of quantities in [0, top]; None for one unit or no spread.

    Args:
        values: (n,) one per unit, in [0, top].
        level: coverage, between 0 and 1.
        top: the upper end of the range; the lower one is 0.
        resolution: share of the range below which values are not told apart.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "unit means")
    if len(y) < 2 or np.ptp(y) == 0.0:
        return None
    pivots, weights = _pivots(y / top, resolution)
    order = np.argsort(pivots)
    below = np.cumsum(weights[order]) - weights[order] / 2.0
    tails = np.interp([0.5 - level / 2.0, 0.5 + level / 2.0], below, pivots[order])
    mean = float(y.mean())
    # Units that follow another law can push the pivot off their own mean.
    low, high = min(float(tails[0]) * top, mean), max(float(tails[1]) * top, mean)
    return max(0.0, low), min(top, high)


def bounded_tail(
    values: Array, threshold: float, top: float = 1.0, resolution: float = RESOLUTION
) -> float | None:
    """P of the one-sided test that the mean of quantities in [0, top] is ``threshold`` or more.

    Small where the mean is clearly below. None for one unit; without any spread the mean decides,
    0 below and 1 otherwise. The grid cannot tell what is smaller than one in a million.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "unit means")
    if len(y) < 2:
        return None
    if np.ptp(y) == 0.0:
        return 0.0 if float(y[0]) < threshold else 1.0
    pivots, weights = _pivots(y / top, resolution)
    above = float(weights[pivots * top >= threshold].sum())
    return min(max(above, _FINEST), 1.0 - _FINEST)


def combined_interval(
    groups: Sequence[Array], weights: Sequence[Array], level: float = 0.95
) -> Interval | None:
    """Interval for a weighted sum of mean probabilities; None where nothing varies or n is 1.

    Args:
        groups: arrays (n_g, K_g) of probabilities, one row per unit and one column per term.
            Columns of one array are measured on the same units, those of different arrays on
            different ones.
        weights: arrays (K_g,), what each term is multiplied with.
        level: coverage, between 0 and 1.

    Returns:
        The interval, cut to what the weights allow: [-1, 1] for a difference of two means.

    Raises:
        TableError: a value is undefined.
    """
    estimate = below = above = least = most = 0.0
    errors: list[tuple[float, int]] = []
    for matrix, weight in zip(groups, weights, strict=True):
        y = finite(matrix, "unit means")
        if len(y) < 2:
            return None
        means = y.mean(axis=0)
        ends = np.array([_ends(tuple(column.tolist()), level) for column in y.T])
        to_low: Array = means - ends[:, 0]
        to_high: Array = ends[:, 1] - means
        correlation = _correlation(y)
        added = weight > 0.0
        below += _spread(weight, np.where(added, to_low, to_high), correlation)
        above += _spread(weight, np.where(added, to_high, to_low), correlation)
        errors.append((standard_error(y @ weight), len(y) - 1))
        estimate += float(weight @ means)
        least += float(np.minimum(weight, 0.0).sum())
        most += float(np.maximum(weight, 0.0).sum())
    if below <= 0.0 and above <= 0.0:
        return None
    student = _welch_half(errors, level)
    low = estimate - max(math.sqrt(below), student)
    high = estimate + max(math.sqrt(above), student)
    return max(low, least), min(high, most)


@lru_cache(maxsize=4096)
def _ends(values: tuple[float, ...], level: float) -> Interval:
    """The interval of one term, or its mean twice; kept, as terms return in many sums."""
    y = np.array(values)
    mean = float(y.mean())
    return bounded_interval(y, level) or (mean, mean)


def _welch_half(errors: Sequence[tuple[float, int]], level: float) -> float:
    """Half of Welch's interval for a sum over independent groups of (standard error, degrees)."""
    variance = sum(error**2 for error, _ in errors)
    if variance == 0.0:
        return 0.0
    degrees = variance**2 / sum(error**4 / n for error, n in errors)
    return t_quantile(0.5 + level / 2.0, degrees) * math.sqrt(variance)


def _spread(weight: Array, distance: Array, correlation: Array) -> float:
    signed = weight * distance
    return max(0.0, float(signed @ correlation @ signed))


def _correlation(y: Array) -> Array:
    """Correlations between columns; 0 for one without spread, whose distance is 0 anyway."""
    centred = y - y.mean(axis=0)
    size = np.sqrt((centred * centred).sum(axis=0))
    scaled = centred / np.where(size > 0.0, size, 1.0)
    return scaled.T @ scaled


def _pivots(share: Array, resolution: float) -> tuple[Array, Array]:
    """Theta* over the grid of W and V, and its weights, for units that are shares of a range."""
    stretched = (np.clip(share, 0.0, 1.0) + resolution) / (1.0 + 2.0 * resolution)
    x = special.logit(stretched)
    ratio, normal, weights = _grid(len(x))
    sigma = float(np.std(x, ddof=1)) * ratio
    mu = float(x.mean()) + normal * sigma / math.sqrt(len(x))
    nodes, of_node = _hermite()
    theta = special.expit(mu[:, None] + sigma[:, None] * nodes) @ of_node
    return (1.0 + 2.0 * resolution) * theta - resolution, weights


@cache
def _grid(units: int) -> tuple[Array, Array, Array]:
    """Sigma*/s, V and their weight at Gauss-Legendre nodes, which are dense in the tails."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    shares, weights = (nodes + 1.0) / 2.0, weights / 2.0
    chi_squared = 2.0 * special.gammaincinv((units - 1) / 2.0, shares)
    ratio = np.sqrt((units - 1) / chi_squared)
    normal = special.ndtri(shares)
    return np.repeat(ratio, _NODES), np.tile(normal, _NODES), np.outer(weights, weights).ravel()


@cache
def _hermite() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_HERMITE)
    return nodes, weights / weights.sum()
