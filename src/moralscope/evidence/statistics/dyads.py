"""Do two numbers of pairs rise together, where pairs share members? A jackknife over members.

Pairs (pathways between components) that share a member do not vary independently, and a permutation
of pairs takes them to. With z the Fisher transform of Spearman's rho of x and y over the pairs, and
z_(-k) that of the pairs without member k, for m members,

    V = (m - 2) / (2 m) sum over k of (z_(-k) - mean z_(-k))^2,    t = z / sqrt(V)

(Snijders and Borgatti 1999, Connections 22:161: each pair is left out with either of its members,
whence the 2), against Student's t. The degrees of freedom follow the members, not the pairs:
``min(m, n) // 2 - 2`` for n pairs, at least 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.correlations import MAX_CORRELATION
from moralscope.evidence.statistics.intervals import t_upper_tail
from moralscope.evidence.statistics.ranks import MIN_THINGS, standard_ranks
from moralscope.evidence.statistics.resampling import Array, finite

_LEAST_LEFT = 4
"""Pairs without which a correlation, of ranks too, is next to nothing."""


def dyadic_rank_p(x: Array, y: Array, members: Sequence[tuple[str, str]]) -> float | None:
    """Two-sided p that the ranks of x and y are unrelated; None if one of them is constant.

    It is 1 where everything hangs on one member: without it fewer than four pairs are left, or
    pairs that are all alike.

    Args:
        x: (n,) one number per pair.
        y: (n,) the other.
        members: (n,) both members of each pair.

    Raises:
        EvidenceError: lengths differ, or there are fewer than six pairs.
        TableError: a value is undefined.
    """
    a, b = finite(x, "first numbers"), finite(y, "second numbers")
    n = len(members)
    if not len(a) == len(b) == n or n < MIN_THINGS:
        raise EvidenceError(
            "Ranks of pairs cannot be correlated",
            seen=f"{len(a)} and {len(b)} numbers of {n} pairs",
            allowed=f"{MIN_THINGS} pairs or more, each with both numbers and both members",
            remedy="measure more of them",
        )
    whole = _fisher(a, b)
    if whole is None:
        return None
    names = sorted({name for pair in members for name in pair})
    without: list[float] = []
    for name in names:
        left = np.array([name not in pair for pair in members])
        z = _fisher(a[left], b[left]) if left.sum() >= _LEAST_LEFT else None
        if z is None:
            return 1.0
        without.append(z)
    m = len(names)
    variance = (m - 2) / (2 * m) * float(np.square(np.array(without) - np.mean(without)).sum())
    if variance <= 0.0:
        return 0.0 if whole else 1.0
    return 2.0 * t_upper_tail(abs(whole) / math.sqrt(variance), max(1, min(m, n) // 2 - 2))


def _fisher(x: Array, y: Array) -> float | None:
    one, other = standard_ranks(x), standard_ranks(y)
    if one is None or other is None:
        return None
    return math.atanh(min(MAX_CORRELATION, max(-MAX_CORRELATION, float(one @ other))))
