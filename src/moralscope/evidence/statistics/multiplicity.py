"""How much of this is luck after so many tests? Adjusted p values for a family of tests.

Holm (1979, Scand. J. Stat. 6:65), with p_(1) <= ... <= p_(m),

    p_adj(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),

controls the chance of any false rejection under every dependence: for named claims. Benjamini and
Hochberg (1995, JRSS B 57:289),

    q_(i) = min_{j >= i} min(1, m p_(j) / j),

controls the expected share of false ones among the rejections, where tests are independent or
positively dependent: for screening, where some false finds among many are bearable.
"""

from __future__ import annotations

import numpy as np

from moralscope.evidence.statistics.resampling import Array, finite


def holm(p: Array) -> Array:
    """Holm's step-down adjusted p: family-wise error under any dependence.

    Args:
        p: (m,) in [0, 1], one per test of the family.

    Returns:
        (m,) in the order given.

    Raises:
        TableError: a p is undefined, or there is none.
    """
    raw = finite(p, "p values")
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted


def benjamini_hochberg(p: Array) -> Array:
    """Step-up adjusted p, called q: false discovery rate over the family.

    Args:
        p: (m,) in [0, 1], one per test of the family.

    Returns:
        (m,) in the order given; rejecting q <= a keeps the false discovery rate at a.

    Raises:
        TableError: a p is undefined, or there is none.
    """
    raw = finite(p, "p values")
    count = len(raw)
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * count / np.arange(1, count + 1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return adjusted
