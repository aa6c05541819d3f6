"""How alike are two vectors, and how sure is that? Cosine or correlation, with its interval.

``cos(x, y) = x.y / (|x| |y|)``; Pearson's correlation is the cosine of the centred vectors. The
entries belong to G units (scenarios), so the interval comes from leaving out one unit at a time: on
Fisher's scale ``z = atanh(cos)``, with pseudo-values ``z_g = G z - (G - 1) z_(-g)`` (Tukey 1958),

    tanh( mean(z_g) +- t_{G-1} sd(z_g) / sqrt(G) ).

The likeness of raw vectors of two models that share a base is mostly the base. Give the changes
from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import Interval, cluster_t
from moralscope.evidence.statistics.resampling import Array, finite

Measure = Literal["cosine", "pearson"]

_ONE = 1.0 - 1e-12


@dataclass(frozen=True, slots=True)
class Likeness:
    """A cosine or correlation.

    Attributes:
        value: in [-1, 1].
        interval: over units; None below three units, or where leaving one out makes it undefined
            or exactly 1.
    """

    value: float
    interval: Interval | None


def likeness(
    first: Array, second: Array, units: Sequence[str], measure: Measure = "cosine"
) -> Likeness | None:
    """Compare two vectors; None where one of them is zero (correlation: constant).

    Args:
        first: (n,) entries.
        second: (n,) entries at the same places.
        units: (n,) the unit that each entry belongs to.
        measure: cosine, or Pearson's correlation.

    Raises:
        EvidenceError: the vectors are of different length.
        TableError: a value is undefined.
    """
    x, y = finite(first, "first vector"), finite(second, "second vector")
    if not len(x) == len(y) == len(units):
        raise EvidenceError(
            "Two vectors cannot be compared",
            seen=f"{len(x)} and {len(y)} entries of {len(units)} places",
            allowed="the same places in the same order",
            remedy="join them by prompt and site first",
        )
    names = {name: index for index, name in enumerate(dict.fromkeys(units))}
    member = np.array([names[name] for name in units])
    per_unit = np.stack(
        [
            np.bincount(member, weights=column, minlength=len(names))
            for column in (np.ones_like(x), x, y, x * x, y * y, x * y)
        ]
    )
    whole = per_unit.sum(axis=1)
    value = _value(whole, measure)
    if value is None:
        return None
    without = [_value(whole - per_unit[:, g], measure) for g in range(len(names))]
    return Likeness(value, _interval(value, without))


def _value(sums: Array, measure: Measure) -> float | None:
    """The measure from ``(n, sum x, sum y, sum xx, sum yy, sum xy)``."""
    n, sx, sy, xx, yy, xy = (float(s) for s in sums)
    if n < 1.0:
        return None
    top, first, second = xy, xx, yy
    if measure == "pearson":
        top, first, second = xy - sx * sy / n, xx - sx * sx / n, yy - sy * sy / n
    if first <= 1e-14 * xx or second <= 1e-14 * yy:
        return None
    return max(-1.0, min(1.0, top / math.sqrt(first * second)))


def _interval(value: float, without: Sequence[float | None]) -> Interval | None:
    known = [w for w in (value, *without) if w is not None and abs(w) < _ONE]
    units = len(without)
    if len(known) <= units or units < 3:
        return None
    z = np.arctanh(np.array(known))
    found = cluster_t(units * z[0] - (units - 1) * z[1:])
    return None if found is None else (math.tanh(found[0]), math.tanh(found[1]))
