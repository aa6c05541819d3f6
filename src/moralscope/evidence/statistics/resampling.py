"""How surprising is it? Exact and sampled randomisation tests on units of replication.

Sign-flips: under the null of symmetry about zero, every pattern of signs of the G unit means is
equally likely. Studentised max-T (Westfall and Young 1993): with t_k the one-sample t of column
k, ``p_adj(j) = share of patterns b with max_k |t_k^b| >= |t_j|``, which controls the family-wise
error under any dependence between columns. Permutation: under the null that two groups are
exchangeable, every assignment of their labels is equally likely; groups of different sizes are
compared by Welch's t, so that unequal spread alone is not found.

The sum of squares of a column does not change when signs flip, so t is a monotone function of
``r = mean / sqrt(mean of squares)``, and a whole test is one matrix product of signs and values.
Statistics are compared with the tolerance ``|T| >= |T_obs| (1 - 1e-9)``: otherwise float ties
produce a p below the smallest that the design can reach.

Does not aggregate rows to units (``units``), nor say what a p means (``verdicts``).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import TableError

Array = NDArray[np.float64]

EXACT_UNITS = 14
"""Up to this many units all sign patterns are enumerated."""

EXACT_LABELLINGS = 20_000
"""Up to this many labellings a permutation test enumerates all of them."""

_TIE = 1.0 - 1e-9
_CHUNK = 2**22


@dataclass(frozen=True, slots=True)
class SignFlips:
    """Sign patterns of G units.

    Attributes:
        signs: (patterns, G) of +1 and -1; the first row is the observed pattern, all +1.
        floor: the smallest p that they can give.
    """

    signs: Array
    floor: float


@dataclass(frozen=True, slots=True)
class MaxT:
    """Results of one test per column.

    Attributes:
        t: (K,) one-sample t of each column; 0 where a column is zero in every unit, infinite
            where it is constant and not zero.
        p: (K,) two-sided sign-flip p of each column alone.
        p_adjusted: (K,) corrected for all K columns by the maximum of the family.
        floor: the smallest p that this design can give, adjusted or not.
        null: sorted null distribution of the family's largest ``r = mean / root mean square``.
        units: G, the units of replication.
    """

    t: Array
    p: Array
    p_adjusted: Array
    floor: float
    null: Array
    units: int

    def critical_t(self, alpha: float) -> float:
        """The |t| above which a column is rejected at family-wise level ``alpha``.

        ``mean +- critical_t * standard error`` holds for all columns at once and leaves out zero
        exactly where ``p_adjusted`` is below alpha, because t grows with r:
        ``t = r sqrt(G - 1) / sqrt(1 - r^2)``. Infinite where the design cannot reject at all.
        """
        allowed = math.ceil(alpha * len(self.null) * _TIE) - 1
        r = float(self.null[-(allowed + 1)])
        if allowed < 1 or r >= _TIE:
            return math.inf
        # A tie with the null is no rejection, so its interval must just reach zero.
        return r / _TIE * math.sqrt(self.units - 1) / math.sqrt(1.0 - r * r)


def finite(values: Array, what: str) -> Array:
    """The values as float64, refused when any of them is undefined.

    Raises:
        TableError: a value is NaN or infinite, or there is none.
    """
    checked = np.asarray(values, dtype=np.float64)
    undefined = int(np.count_nonzero(~np.isfinite(checked)))
    if undefined or checked.size == 0:
        raise TableError(
            f"The {what} cannot be tested because values are undefined",
            seen=f"{undefined} of {checked.size} values are NaN or infinite",
            allowed="finite values, at least one",
            remedy="find out why they are undefined; leaving them out would change the null",
        )
    return checked


def sign_flip_floor(units: int, draws: int = 0) -> float:
    """Smallest two-sided p of a sign-flip test: 2/2^G, and no less than 1/(draws + 1) if sampled.

    ``draws`` of 0 means that every pattern is enumerated, however many units there are.
    """
    exact = 2.0 ** (1 - units)  # this way round it underflows to 0 for thousands of units
    return max(exact, 1.0 / (draws + 1)) if draws else exact


def sign_flips(
    units: int, rng: np.random.Generator, draws: int = 9_999, exact: int = EXACT_UNITS
) -> SignFlips:
    """The sign patterns to test with: all of them for up to 14 units, else the given number.

    A pattern and its negative give the same two-sided statistic, so the exact set holds the
    2^(G-1) patterns whose first sign is +1. The sampled set holds the observed pattern besides
    the ``draws`` random ones, which makes the p valid: (1 + hits) / (draws + 1). ``exact`` moves
    the limit of 14 for a statistic that is dear to compute.
    """
    if units <= exact:
        tails = np.array(list(itertools.product((1.0, -1.0), repeat=max(units - 1, 0))))
        signs = np.hstack([np.ones((len(tails), 1)), tails.reshape(len(tails), -1)])
        return SignFlips(signs[:, :units], min(1.0, sign_flip_floor(units)))
    signs = np.ones((draws + 1, units))
    signs[1:] -= 2.0 * rng.integers(0, 2, size=(draws, units))
    return SignFlips(signs, sign_flip_floor(units, draws))


def max_t(values: Array, rng: np.random.Generator, draws: int = 9_999) -> MaxT:
    """Which columns differ from zero, corrected for having looked at all of them?

    Args:
        values: (G, K), one row per unit of replication and one column per hypothesis; all
            columns share the same units, and each pattern flips whole rows.
        rng: draws the patterns when there are more than 14 units.
        draws: how many.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "columns")
    flips = sign_flips(y.shape[0], rng, draws)
    observed = np.abs(bounded_t(flips.signs[:1], y)[0])
    hits = np.zeros(y.shape[1])
    maxima: list[Array] = []
    step = max(1, _CHUNK // max(1, y.shape[1]))
    for start in range(0, len(flips.signs), step):
        drawn = np.abs(bounded_t(flips.signs[start : start + step], y))
        hits += (drawn >= observed * _TIE).sum(axis=0)
        maxima.append(drawn.max(axis=1))
    largest = np.sort(np.concatenate(maxima))
    below = np.asarray(np.searchsorted(largest, observed * _TIE, side="left"), dtype=np.float64)
    patterns = len(flips.signs)
    return MaxT(
        t=_student_t(y),
        p=hits / patterns,
        p_adjusted=(patterns - below) / patterns,
        floor=flips.floor,
        null=largest,
        units=y.shape[0],
    )


def sign_flip(values: Array, rng: np.random.Generator, draws: int = 9_999) -> tuple[float, float]:
    """Two-sided sign-flip p of one column of unit means, and its floor."""
    result = max_t(np.asarray(values, dtype=np.float64)[:, None], rng, draws)
    return float(result.p[0]), result.floor


def bounded_t(signs: Array, y: Array) -> Array:
    """``r = mean / root mean square`` in [-1, 1], (patterns, K); 0 for a column of zeros.

    Args:
        signs: (patterns, G) of +1 and -1.
        y: (G, K) unit means.
    """
    size = np.sqrt((y * y).mean(axis=0))
    scale = np.where(size > 0.0, size, 1.0)
    return (signs @ (y / scale)) / y.shape[0]


def _student_t(y: Array) -> Array:
    mean = y.mean(axis=0)
    if y.shape[0] < 2:
        return np.where(mean == 0.0, 0.0, np.copysign(np.inf, mean))
    error = y.std(axis=0, ddof=1) / math.sqrt(y.shape[0])
    unbounded = np.where(mean == 0.0, 0.0, np.copysign(np.inf, mean))
    return np.where(error > 0.0, mean / np.where(error > 0.0, error, 1.0), unbounded)


def permutation_floor(first: int, second: int) -> float:
    """Smallest p of the two-sided permutation of labels over ``first + second`` units.

    2/C(2S, S) for groups of equal size S, 1/C(n, k) otherwise: with unequal groups no exchange
    of the labels mirrors the observed difference.
    """
    ways = math.comb(first + second, first)
    return min(1.0, (2.0 if first == second else 1.0) / ways)


def permute_labels(
    first: Array, second: Array, rng: np.random.Generator, draws: int = 9_999
) -> tuple[float, float]:
    """Do two independent groups of units differ in their mean? Two-sided p, and its floor.

    The statistic is that of ``between_groups``; all assignments of labels up to 20,000 of them,
    else ``draws`` random ones with the observed one included.

    Raises:
        TableError: a value is undefined.
    """
    a, b = finite(first, "first group"), finite(second, "second group")
    pooled = np.concatenate([a, b])
    ways = math.comb(len(pooled), len(a))
    if ways <= EXACT_LABELLINGS:
        picks = np.array(list(itertools.combinations(range(len(pooled)), len(a))))
        floor = permutation_floor(len(a), len(b))
    else:
        order = np.tile(np.arange(len(pooled)), (draws + 1, 1))
        order[1:] = rng.permuted(order[1:], axis=1)
        picks = order[:, : len(a)]
        floor = max(permutation_floor(len(a), len(b)), 1.0 / (draws + 1))
    chosen = np.zeros((len(picks), len(pooled)))
    np.put_along_axis(chosen, picks, 1.0, axis=1)
    differences = between_groups(chosen, (pooled - pooled.mean())[:, None], len(a))[:, 0]
    return float((differences >= differences[0] * _TIE).mean()), floor


def between_groups(chosen: Array, centred: Array, size: int) -> Array:
    """How far two groups lie apart under each assignment of units to them: (assignments, K).

    ``|mean - mean|`` where the groups are of one size: it orders assignments as the two-sample t
    does. A smaller group that varies more would be found too often by it (four units with three
    times the spread of sixteen others in 28% of studies without a difference), so groups of
    different sizes are compared by Welch's ``|mean - mean| / sqrt(v / n + w / m)`` (Janssen 1997,
    Stat. Probab. Lett. 36:9), which finds it in 10%; infinite where neither group varies and they
    differ.

    Args:
        chosen: (assignments, N) 1 for the units of the first group, else 0.
        centred: (N, K) values about the mean of each column.
        size: units of the first group.
    """
    n, m = size, len(centred) - size
    sums = chosen @ centred
    # Centred columns sum to zero, so the sum of one group is that of the other.
    apart = np.abs(sums) * (1.0 / n + 1.0 / m)
    if n == m or min(n, m) < 2:
        return apart
    squares = chosen @ (centred * centred)
    whole = (centred * centred).sum(axis=0)
    first = np.maximum(squares - sums * sums / n, 0.0) / (n - 1)
    second = np.maximum(whole - squares - sums * sums / m, 0.0) / (m - 1)
    error = np.sqrt(first / n + second / m)
    least = 1e-12 * np.sqrt(whole)
    unbounded = np.where(apart > least, np.inf, 0.0)
    return np.where(error > least, apart / np.where(error > least, error, 1.0), unbounded)
