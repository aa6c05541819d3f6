"""Is a distance practically nothing? One-sided and two one-sided tests on jackknifed distances.

The margin is a tenth of what fine-tuning does at this level: a tenth of the distance c of the base
from the agents that are compared. Of two agents, whose distance d cannot be negative, with the
standard error of d - c / 10 from leaving each scenario out,

    t = (c / 10 - d) / se,   p = P(T_{G-1} > t).

Of two rewards the difference T of the mean distances between and within them is held against c / 10
from both sides, and p is the larger. Leaving each training seed out understates how much T varies
where rewards hardly matter: the part of T that is linear in the seeds is then next to nothing. So
its standard error is no smaller than the standard deviation of T over relabellings, and its
interval reaches as far as the middle 95% of them do, at least. Weights are no sample: d is either
within the margin or not.
"""

from __future__ import annotations

import math

import numpy as np

from moralscope.evidence.statistics.equivalence import DEFAULT_MARGIN_SHARE, MIN_UNITS
from moralscope.evidence.statistics.intervals import Interval, t_upper_tail
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.distances import jackknife, jackknife_error
from moralscope.evidence.synthesis.outcomes import Outcome
from moralscope.evidence.synthesis.relabelling import means, without_seeds


def margin_of(found: Outcome) -> float | None:
    """A tenth of what fine-tuning does at this level; None where that was not measured or is 0."""
    control = found.scale.control
    if control is None or control.whole <= 0.0:
        return None
    return DEFAULT_MARGIN_SHARE * control.whole


def likeness_p(found: Outcome) -> float | None:
    """P that the difference reaches the margin; None without a margin or enough units."""
    margin = margin_of(found)
    if margin is None:
        return None
    if found.question.rewards is not None:
        return _of_rewards(found, margin)
    distance, control = found.distance, found.scale.control
    units = len(distance.without)
    if control is None or (units and units < MIN_UNITS):
        return None
    if not units:
        if found.replicate == "scenarios":
            return None
        return 0.0 if distance.whole < margin else 1.0
    end = control.without if len(control.without) == units else np.full(units, control.whole)
    left = distance.without - DEFAULT_MARGIN_SHARE * end
    return _below(distance.whole - margin, left)


def difference(found: Outcome) -> tuple[float, Interval | None] | None:
    """Mean distance between two rewards minus that within them, and its interval over seeds."""
    matrix = found.matrix
    if matrix is None or max(map(len, found.question.sides)) < 2:
        return None
    first = len(found.question.sides[0])
    between, within = means(matrix, first, found.counted)
    if not math.isfinite(between - within):
        return None
    left, inside = without_seeds(matrix, first, found.counted)
    interval = jackknife(between - within, left - inside)
    if interval is not None and found.test is not None:
        half = (interval[1] - interval[0]) / 2.0
        below, above = (max(half, float(reach)) for reach in found.test.reach[found.at])
        # Turned round: how far relabellings exceed nothing is how far the truth may lie below.
        interval = between - within - above, between - within + below
    return between - within, interval


def _of_rewards(found: Outcome, margin: float) -> float | None:
    whole = difference(found)
    if whole is None or found.matrix is None or found.test is None:
        return None
    between, within = without_seeds(found.matrix, len(found.question.sides[0]), found.counted)
    left = between - within
    if not np.isfinite(left).all():
        return None
    least = float(found.test.spread[found.at])
    return max(_below(end, left, least) for end in (whole[0] - margin, -whole[0] - margin))


def _below(value: float, without: Array, least: float = 0.0) -> float:
    """P of the one-sided test that a statistic is not below 0, by its jackknife error or more."""
    error = max(jackknife_error(without), least)
    if error == 0.0:
        return 0.0 if value < 0.0 else 1.0
    return t_upper_tail(-value / error, len(without) - 1)
