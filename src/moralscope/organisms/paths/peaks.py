"""At which step is a series highest, and at which does it change for good?

*Peak*: the highest value, its excess over the median of the series, and for how long it stays
above half of that. Every series has a highest value; one at the first or last step is a trend, not
a peak, and what an excess is worth only a matched control can say (``transitions``).

*Change point*: the step that divides a series into two levels,

    min over t:  sum_{s < t} (y_s - mean_before)^2 + sum_{s >= t} (y_s - mean_after)^2,

for behaviour, which rises and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.walk import Array, Steps

_TIE = 1e-12


@dataclass(frozen=True, eq=False)
class Series:
    """One number at each recorded step of a training.

    Attributes:
        seed: of the training.
        steps: (T,) ascending.
        values: (T,) NaN where there is none.
    """

    seed: int
    steps: Steps
    values: Array


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest value of a series.

    Attributes:
        step: where it is.
        height: the value there, in the unit of the series.
        baseline: the median of the series.
        excess: height minus baseline; on the log scale the logarithm of their ratio.
        since, until: first and last step of the stretch around it above half of the excess.
        interior: neither the first nor the last step.
        available: values that the series has.
    """

    step: int
    height: float
    baseline: float
    excess: float
    since: int
    until: int
    interior: bool
    available: int


def peak_of(series: Series, *, since: int = 0, scale: Literal["linear", "log"] = "linear") -> Peak:
    """The peak of a series.

    Args:
        series: a local cosine, a norm of gradients, ...
        since: the first step that counts; those before it are warm-up.
        scale: ``log`` for what is positive and grows by factors, such as norms of gradients.

    Raises:
        EvidenceError: fewer than three values from that step on, or one that has no logarithm.
    """
    used = np.isfinite(series.values) & (series.steps >= since)
    steps, values = series.steps[used], series.values[used]
    if len(values) < 3 or (scale == "log" and values.min() <= 0.0):
        raise EvidenceError(
            "A series has no peak",
            seen=f"seed {series.seed}: {len(values)} values from step {since} on"
            + (f", the smallest {values.min():g}" if len(values) else ""),
            allowed="three values or more" + (" above zero" if scale == "log" else ""),
            remedy="record more steps, or loosen the filter that leaves steps out",
        )
    known = np.log(values) if scale == "log" else values
    at = int(np.argmax(known))
    baseline = float(np.median(known))
    excess = float(known[at]) - baseline
    low = np.flatnonzero(known < baseline + excess / 2.0)
    before, after = low[low < at], low[low > at]
    first = int(before[-1]) + 1 if len(before) else 0
    last = int(after[0]) - 1 if len(after) else len(known) - 1
    return Peak(
        step=int(steps[at]),
        height=float(values[at]),
        baseline=float(np.exp(baseline)) if scale == "log" else baseline,
        excess=excess,
        since=int(steps[first]),
        until=int(steps[last]),
        interior=0 < at < len(known) - 1,
        available=len(values),
    )


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Where a series goes from one level to another.

    Attributes:
        step: the first step at the new level.
        before, after: the two levels, in the unit of the series.
        explained: share of the variance over steps that the two levels explain, in [0, 1].
    """

    step: int
    before: float
    after: float
    explained: float


def change_point(steps: Sequence[int] | Steps, values: Sequence[float] | Array) -> ChangePoint:
    """The step at which a series changes its level.

    Args:
        steps: (T,) ascending.
        values: (T,) finite.

    Raises:
        EvidenceError: fewer than three values, one that is not finite, or all alike.
    """
    at, y = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)
    finite = bool(np.isfinite(y).all())
    if len(y) < 3 or len(at) != len(y) or not finite or np.ptp(y) == 0.0:
        raise EvidenceError(
            "A series has no change point",
            seen=f"{len(y)} values at {len(at)} steps"
            + ("" if finite else ", some not finite")
            + (", all alike" if len(y) and finite and np.ptp(y) == 0.0 else ""),
            allowed="three finite values or more, not all alike",
            remedy="measure behaviour at more steps; what never changes has no transition",
        )
    centred = y - y.mean()
    before = np.arange(1, len(y))
    sums = centred.cumsum()[:-1]
    # Centred values sum to zero, so what is left of the split sums to minus the rest.
    between = sums**2 * (1.0 / before + 1.0 / (len(y) - before))
    # Of equally good splits the first.
    split = 1 + int(np.argmax(between >= between.max() * (1.0 - _TIE)))
    return ChangePoint(
        step=int(at[split]),
        before=float(y[:split].mean()),
        after=float(y[split:].mean()),
        explained=float(between.max() / (centred @ centred)),
    )
