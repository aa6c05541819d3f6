"""Do two groups of units differ in any of several columns? Exact permutation with max-T.

Under the null that the units of both groups are exchangeable, every assignment of the group labels
is equally likely, whatever the dependence between columns. Assignments are ordered by the pooled
two-sample t, or, where the groups differ in size, by Welch's (``resampling.between_groups``), and

    p_adj(j) = share of assignments b with max_k r_k^b >= r_j

controls the family-wise error over columns (Westfall and Young 1993).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from moralscope.evidence.statistics.resampling import (
    EXACT_LABELLINGS,
    Array,
    between_groups,
    finite,
    permutation_floor,
)

_TIE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Results per column.

    Attributes:
        p: (K,) two-sided p of each column alone.
        p_adjusted: (K,) corrected for all columns.
        floor: the smallest p that this design can give.
    """

    p: Array
    p_adjusted: Array
    floor: float


def exchange_max_t(
    first: Array, second: Array, rng: np.random.Generator, draws: int = 9_999
) -> Exchanged:
    """Which columns differ between the groups, corrected for having looked at all of them?

    Args:
        first: (n, K), one row per unit.
        second: (m, K), the other group, the same columns.
        rng: draws the assignments where there are more than 20,000.
        draws: how many, the observed one besides.

    Raises:
        TableError: a value is undefined.
    """
    a, b = finite(first, "first group"), finite(second, "second group")
    pooled = np.vstack([a, b])
    n, total = len(a), len(pooled)
    floor = permutation_floor(n, total - n)
    if math.comb(total, n) <= EXACT_LABELLINGS:
        picks = np.array(list(itertools.combinations(range(total), n)))
    else:
        order = np.tile(np.arange(total), (draws + 1, 1))
        order[1:] = rng.permuted(order[1:], axis=1)
        picks, floor = order[:, :n], max(floor, 1.0 / (draws + 1))
    centred = pooled - pooled.mean(axis=0)
    size = np.sqrt((centred * centred).sum(axis=0))
    chosen = np.zeros((len(picks), total))
    np.put_along_axis(chosen, picks, 1.0, axis=1)
    drawn = between_groups(chosen, centred / np.where(size > 1e-12, size, 1.0), n)
    observed = drawn[0] * _TIE
    return Exchanged(
        p=(drawn >= observed).mean(axis=0),
        p_adjusted=(drawn.max(axis=1)[:, None] >= observed).mean(axis=0),
        floor=floor,
    )
