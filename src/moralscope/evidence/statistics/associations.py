"""Do two profiles over sites rise and fall together? A correlation of means, tested twice.

With a_k and b_k the means over scenarios of what two analyses measured at site k of K,

    r = corr(a, b) over sites,       c_g = sum_k (a_k - mean a) (b_gk - mean b_g),

c_g being what scenario g of the second analysis adds to their covariance. Two nulls, and the larger
of their p: *sites*, every assignment of the values of b to the sites is equally likely (permutation
of b, statistic |r|), so a relation must be more than sites drawn at random give; and *scenarios*,
b is symmetric about zero (sign-flips of whole scenarios of b, which keep the dependence between
sites, statistic |mean c_g|), so it must come out of more than a few scenarios. Sites are not a
sample of independent units, which is why neither test is enough by itself. Fisher's interval for r
takes them for one and is for screening.

Analyses of the same scenarios share what is peculiar to them: with no effect anywhere, noise that
is half shared makes 60 to 90% of such pairs correlate under both nulls. There a scenario is held
against the others only, ``M_hg = a_h . b_g`` for h other than g (profiles centred over sites), and
p over scenarios is the largest of three: ``|sum_g M_.g|`` with b_g flipped, ``|sum_h M_h.|`` with
a_h flipped, and ``|sum_hg M_hg|`` with both flipped together.

Copies of a site must be collapsed before, for they would count as further sites.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.correlations import fisher_interval, pearson
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.statistics.resampling import (
    EXACT_LABELLINGS,
    Array,
    finite,
    sign_flip,
    sign_flips,
)

_TIE = 1.0 - 1e-9
MIN_SITES = 4
"""Fewest sites over which two analyses may be correlated."""


@dataclass(frozen=True, slots=True)
class Association:
    """A correlation over sites.

    Attributes:
        r: of the two mean profiles.
        interval: Fisher's, for screening; None where |r| > 0.999.
        p_sites: two-sided, sites permuted.
        p_units: two-sided, scenarios of the second analysis flipped; of the same scenarios, the
            largest of three ways to flip them.
        floor: the smallest that the larger of both can be.
    """

    r: float
    interval: Interval | None
    p_sites: float
    p_units: float
    floor: float

    @property
    def p(self) -> float:
        """The larger of both."""
        return max(self.p_sites, self.p_units)


def associate(
    first: Array,
    second: Array,
    rng: np.random.Generator,
    draws: int = 9_999,
    *,
    same_units: bool = False,
) -> Association | None:
    """Correlate two profiles; None where one of them does not vary over sites.

    Args:
        first: (F, K) unit means of one analysis; its units need not be those of the other.
        second: (G, K) unit means of the other at the same sites.
        rng: draws permutations above 20,000 of them, and signs above 14 units.
        draws: how many of each.
        same_units: whether row g of both is the same scenario.

    Raises:
        EvidenceError: the sites differ in number, or are fewer than four; or rows are said to be
            the same scenarios and differ in number.
        TableError: a value is undefined.
    """
    a, b = finite(first, "first analysis"), finite(second, "second analysis")
    sites = a.shape[1]
    if b.shape[1] != sites or sites < MIN_SITES:
        raise EvidenceError(
            "Two analyses cannot be correlated over these sites",
            seen=f"{sites} and {b.shape[1]} sites",
            allowed=f"the same sites in both, at least {MIN_SITES}",
            remedy="keep the sites that both have measured; a correlation over so few says nothing",
        )
    if same_units and len(a) != len(b):
        raise EvidenceError(
            "Two analyses of the same scenarios must have all of them",
            seen=f"{len(a)} and {len(b)} scenarios",
            allowed="the same scenarios in the same order",
            remedy="keep the scenarios that both have measured",
        )
    r = pearson(a.mean(axis=0), b.mean(axis=0))
    if r is None:
        return None
    profile = _unit(a.mean(axis=0)[None])[0]
    orders, sites_floor = _orders(sites, rng, draws)
    over_sites = np.abs(_unit(b.mean(axis=0)[None])[0][orders] @ profile)
    if same_units:
        p_units, units_floor = _across(a, b, rng, draws)
    else:
        added = (b - b.mean(axis=1, keepdims=True)) @ profile
        p_units, units_floor = sign_flip(added, rng, draws)
    return Association(
        r=r,
        interval=fisher_interval(r, sites),
        p_sites=float((over_sites >= over_sites[0] * _TIE).mean()),
        p_units=p_units,
        floor=max(units_floor, sites_floor),
    )


def _across(a: Array, b: Array, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    """P over scenarios that both analyses have, each held against the others; and its floor."""
    products = (a - a.mean(axis=1, keepdims=True)) @ (b - b.mean(axis=1, keepdims=True)).T
    np.fill_diagonal(products, 0.0)
    alone = [sign_flip(products.sum(axis=axis), rng, draws)[0] for axis in (0, 1)]
    flips = sign_flips(len(a), rng, draws)
    sums = np.abs(((flips.signs @ products) * flips.signs).sum(axis=1))
    together = float((sums >= sums[0] * _TIE).mean())
    return max(*alone, together), flips.floor


def _orders(
    sites: int, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], float]:
    """Orders of the sites, the observed one first, and the smallest p that they can give."""
    ways = math.factorial(sites)
    if ways <= EXACT_LABELLINGS:
        return np.array(list(itertools.permutations(range(sites))), dtype=np.int64), 1.0 / ways
    orders = np.tile(np.arange(sites, dtype=np.int64), (draws + 1, 1))
    orders[1:] = rng.permuted(orders[1:], axis=1)
    return orders, max(1.0 / ways, 1.0 / (draws + 1))


def _unit(rows: Array) -> Array:
    """Each row centred and of length 1; zeros where it does not vary."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = length <= 1e-12 * np.abs(rows).max(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, length))
