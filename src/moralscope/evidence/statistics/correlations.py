"""How strongly do two columns move together, and is that different in another agent?

With Fisher's ``z = atanh(r)``, whose standard error is 1/sqrt(n - 3) under normality: intervals;
two correlations from different prompts,

    Z = (z1 - z2) / sqrt(1/(n1 - 3) + 1/(n2 - 3));

and two from the same prompts, without a column in common (ZPF: Raghunathan, Rosenthal and Rubin
1996, Psychol. Methods 1:178; pooled as in Steiger 1980, Psychol. Bull. 87:245),

    Z = sqrt((n - 3)/2) (z1 - z2) / sqrt(1 - k / (2 (1 - rbar^2)^2)),   rbar = (r12 + r34)/2,
    k = (r13 - rbar r23)(r24 - rbar r23) + (r14 - rbar r13)(r23 - rbar r13)
      + (r13 - rbar r14)(r24 - rbar r14) + (r14 - rbar r24)(r23 - rbar r24).

Both are for screening only: they take prompts for independent and values for normal. The test of a
claim swaps labels within clusters (``networks``).

A correlation with a column that does not vary is undefined: it is None or NaN, and never 0. Two
values make |r| = 1 with ease, and an infinite z; such columns, and |r| > 0.999, are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.statistics.resampling import Array, finite

MAX_CORRELATION = 0.999
"""Above this |r| two columns are one measurement and z means nothing."""

MIN_DISTINCT = 4
"""Columns with fewer distinct values are degenerate."""

_FLAT = 1e-12
"""A spread below this share of the largest value is rounding error."""


@dataclass(frozen=True, slots=True)
class ZTest:
    """A difference of Fisher z in standard errors, positive where the first is larger, and its p.

    Two-sided, from the normal distribution; for screening only.
    """

    z: float
    p: float


def degenerate(x: Array) -> bool:
    """Does a column take fewer than four distinct values? Its correlations are then no finding.

    Raises:
        TableError: a value is undefined.
    """
    values = finite(x, "column")
    return _flat(values) or len(np.unique(values)) < MIN_DISTINCT


def pearson(x: Array, y: Array) -> float | None:
    """Pearson's correlation of two columns; None below three rows or where one is constant.

    Args:
        x: (n,) one column.
        y: (n,) the other, of the same rows.

    Raises:
        EvidenceError: the columns are of different length.
        TableError: a value is undefined.
    """
    first, second = _paired(x, y)
    if len(first) < 3 or _flat(first) or _flat(second):
        return None
    a, b = _unit(first), _unit(second)
    return float(np.clip(a @ b, -1.0, 1.0))


def correlation_matrix(values: Array) -> Array:
    """Correlations of all columns, (K, K); NaN in the rows and columns of one that is constant.

    Args:
        values: (n, K) one row per prompt; below three rows everything is undefined.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "columns")
    width = y.shape[1]
    if len(y) < 3:
        return np.full((width, width), np.nan)
    flat = np.array([_flat(column) for column in y.T])
    scaled = np.zeros_like(y)
    for at in np.flatnonzero(~flat):
        scaled[:, at] = _unit(y[:, at])
    found = np.clip(scaled.T @ scaled, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    found[flat] = np.nan
    found[:, flat] = np.nan
    return found


def fisher_interval(r: float, n: int, level: float = 0.95) -> Interval | None:
    """Interval ``tanh(atanh(r) +- z_{(1 + level)/2} / sqrt(n - 3))``, for independent prompts.

    None below four prompts and where |r| > 0.999, for which z means nothing.
    """
    if n < 4 or not abs(r) <= MAX_CORRELATION:
        return None
    half = float(special.ndtri(0.5 + level / 2.0)) / math.sqrt(n - 3)
    middle = math.atanh(r)
    return math.tanh(middle - half), math.tanh(middle + half)


def independent_correlations(r1: float, n1: int, r2: float, n2: int) -> ZTest:
    """Do two correlations from different prompts differ? Screening only.

    Args:
        r1: the first correlation.
        n1: its prompts, 4 or more.
        r2: the second.
        n2: its prompts, 4 or more.

    Raises:
        EvidenceError: |r| > 0.999, or fewer than four prompts.
    """
    difference = _fisher(r1) - _fisher(r2)
    _enough(min(n1, n2))
    return _z_test(difference / math.sqrt(1.0 / (n1 - 3) + 1.0 / (n2 - 3)))


def dependent_correlations(a1: Array, a2: Array, b1: Array, b2: Array) -> ZTest:
    """Does corr(a1, a2) in one agent differ from corr(b1, b2) in another, on the same prompts?

    Screening only: see the module.

    Args:
        a1: (n,) one site of the first agent, one value per prompt.
        a2: (n,) another site of it.
        b1: (n,) the first site in the second agent, same prompts in the same order.
        b2: (n,) the other site.

    Raises:
        EvidenceError: a column is degenerate, |r| > 0.999, lengths differ, or n < 4.
        TableError: a value is undefined.
    """
    columns = [_paired(a1, other)[1] for other in (a1, a2, b1, b2)]
    _enough(len(columns[0]))
    for number, column in enumerate(columns, start=1):
        if degenerate(column):
            raise EvidenceError(
                "A degenerate column has no correlation that can be tested",
                seen=f"{len(np.unique(column))} distinct values in column {number} of 4",
                allowed=f"at least {MIN_DISTINCT} distinct values",
                remedy="leave the site out and say so; measure in float32 if it was rounded",
            )
    r = correlation_matrix(np.column_stack(columns))
    difference = _fisher(float(r[0, 1])) - _fisher(float(r[2, 3]))
    share = 1.0 - _shared(r)
    if share <= _FLAT:
        # The same measurement twice: nothing varies between the agents, so nothing differs.
        return ZTest(0.0, 1.0)
    return _z_test(math.sqrt((len(columns[0]) - 3) / 2.0) * difference / math.sqrt(share))


def prompts_to_tell_apart(r1: float, r2: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many independent prompts in each agent would tell these correlations apart?

    ``n = 2 ((z_{1 - alpha/2} + z_power) / (atanh r1 - atanh r2))^2 + 3``, rounded up.

    Raises:
        EvidenceError: the correlations are equal, or |r| > 0.999.
    """
    difference = _fisher(r1) - _fisher(r2)
    if difference == 0.0:
        raise EvidenceError(
            "No number of prompts tells equal correlations apart",
            seen=f"{r1} and {r2}",
            allowed="two different correlations",
            remedy="name the smallest difference that would matter",
        )
    wanted = float(special.ndtri(1.0 - alpha / 2.0) + special.ndtri(power))
    return math.ceil(2.0 * (wanted / difference) ** 2 + 3.0)


def _shared(r: Array) -> float:
    """Correlation of the two z: ``k / (2 (1 - rbar^2)^2)``."""
    mean = (r[0, 1] + r[2, 3]) / 2.0
    r13, r14, r23, r24 = r[0, 2], r[0, 3], r[1, 2], r[1, 3]
    k = (
        (r13 - mean * r23) * (r24 - mean * r23)
        + (r14 - mean * r13) * (r23 - mean * r13)
        + (r13 - mean * r14) * (r24 - mean * r14)
        + (r14 - mean * r24) * (r23 - mean * r24)
    )
    return float(k / (2.0 * (1.0 - mean * mean) ** 2))


def _z_test(z: float) -> ZTest:
    return ZTest(z, 2.0 * float(special.ndtr(-abs(z))))


def _fisher(r: float) -> float:
    if not abs(r) <= MAX_CORRELATION:
        raise EvidenceError(
            "A correlation this close to 1 cannot be tested",
            seen=r,
            allowed=f"between -{MAX_CORRELATION} and {MAX_CORRELATION}",
            remedy="look whether both columns are one measurement, or take only a few values",
        )
    return math.atanh(r)


def _enough(n: int) -> None:
    if n < 4:
        raise EvidenceError(
            "A correlation over so few prompts cannot be tested",
            seen=f"{n} prompts",
            allowed="at least 4",
            remedy="ask more prompts",
        )


def _paired(x: Array, y: Array) -> tuple[Array, Array]:
    first, second = finite(x, "first column"), finite(y, "second column")
    if first.shape != second.shape:
        raise EvidenceError(
            "Two columns cannot be correlated",
            seen=f"{len(first)} and {len(second)} rows",
            allowed="the same prompts in the same order",
            remedy="join them by prompt first",
        )
    return first, second


def _flat(column: Array) -> bool:
    return float(np.ptp(column)) <= _FLAT * float(np.abs(column).max())


def _unit(column: Array) -> Array:
    centred = column - column.mean()
    return centred / np.linalg.norm(centred)
