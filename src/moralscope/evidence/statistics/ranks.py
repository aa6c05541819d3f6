"""Do two numbers rise together over a list of things? Spearman's rank correlation, by permutation.

    rho = corr(rank x, rank y),  ranks of ties averaged    (Spearman 1904, Am. J. Psychol. 15:72)
    p   = share of the rearrangements of y with |rho| at least the observed one

Rearrangements stay within strata: where x and y both depend on a third thing (the depth of a site),
things of one stratum alone are exchangeable. With strata of sizes n_1, n_2, ... p cannot go below
1 / (n_1! n_2! ...), nor below one over the number of draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import Array, finite

MIN_THINGS = 6
"""Fewest things over which ranks may be correlated."""

_TIE = 1.0 - 1e-9
_SPREAD = 1.06
"""The variance of atanh rho is about 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957)."""


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """A rank correlation and its test.

    Attributes:
        rho: in [-1, 1].
        p: two-sided.
        floor: the smallest p that this design can give.
    """

    rho: float
    p: float
    floor: float


def rank_correlation(
    x: Array,
    y: Array,
    strata: Sequence[Hashable],
    rng: np.random.Generator,
    draws: int = 9_999,
) -> RankCorrelation | None:
    """Do x and y rise together, more than within strata by chance? None where one is constant.

    Args:
        x: (n,) one number per thing.
        y: (n,) the other.
        strata: (n,) things of one stratum may exchange their y.
        rng: draws the rearrangements.
        draws: how many, the observed one besides.

    Raises:
        EvidenceError: lengths differ, or there are fewer than six things.
        TableError: a value is undefined.
    """
    a, b = finite(x, "first numbers"), finite(y, "second numbers")
    if not len(a) == len(b) == len(strata) or len(a) < MIN_THINGS:
        raise EvidenceError(
            "Ranks cannot be correlated",
            seen=f"{len(a)} and {len(b)} numbers in {len(strata)} strata",
            allowed=f"{MIN_THINGS} things or more, each with both numbers and a stratum",
            remedy="measure more of them",
        )
    one, other = standard_ranks(a), standard_ranks(b)
    if one is None or other is None:
        return None
    names = list(dict.fromkeys(strata))
    groups = [np.flatnonzero([each == name for each in strata]) for name in names]
    order = np.tile(np.arange(len(a)), (draws + 1, 1))
    for group in groups:
        order[1:, group] = rng.permuted(order[1:, group], axis=1)
    found = np.abs(other[order] @ one)
    return RankCorrelation(
        rho=float(np.clip(one @ other, -1.0, 1.0)),
        p=float((found >= found[0] * _TIE).mean()),
        floor=rank_floor(strata, draws),
    )


def rank_floor(strata: Sequence[Hashable], draws: int) -> float:
    """Smallest p: one over the rearrangements within strata, and over the draws with the observed.

    The rearrangement that turns every order round counts as well only where there is one stratum.
    """
    sizes = Counter(strata).values()
    ways = math.prod(math.factorial(min(size, 20)) for size in sizes)
    mirrored = 2.0 if len(sizes) == 1 else 1.0
    return max(min(1.0, mirrored / ways), 1.0 / (draws + 1))


def detectable_rank_correlation(things: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest rho that n things show: ``tanh((z_{1 - alpha/2} + z_power) sqrt(1.06 / (n - 3)))``.

    Raises:
        EvidenceError: there are fewer than six things.
    """
    if things < MIN_THINGS:
        raise EvidenceError(
            "So few things show no rank correlation",
            seen=things,
            allowed=f"{MIN_THINGS} or more",
            remedy="measure more of them",
        )
    wanted = float(special.ndtri(1.0 - alpha / 2.0) + special.ndtri(power))
    return math.tanh(wanted * math.sqrt(_SPREAD / (things - 3)))


def standard_ranks(values: Array) -> Array | None:
    """Ranks about their mean, of length 1; None where all are equal."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The mean of the ranks that equal values share.
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    ranks -= ranks.mean()
    length = float(np.linalg.norm(ranks))
    return ranks / length if length > 0.0 else None
