"""Would an effect be found if it were there? Effects of known size, added to real noise.

Each claim states the smallest effect that its design would find with 80% power. Here that effect,
and twice it, is added to what the study really measured with every effect taken out:

    y'[g, k] = s[g] (y[g, k] - mean_k) + delta [k = j],   s = +-1 with probability 1/2

column j in turn, in random order, delta the column's own smallest detectable effect at alpha / K;
the share of copies in which j is found by the family's own test must be 0.8 or more, less
Monte-Carlo error.
"""

from __future__ import annotations

import numpy as np

from moralscope.evidence.controls.families import Family
from moralscope.evidence.controls.result import Result, absent
from moralscope.evidence.controls.shuffled import counted, tolerance, unreachable
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.intervals import (
    share_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.resampling import Array

COPIES = 200
"""Copies of the family for each size of the planted effect."""

POWER = 0.8
"""Power at which the smallest detectable effect is stated."""


def judge_planted(setting: Setting, family: Family) -> Result:
    """Share of planted effects that are found, at the smallest detectable size and twice it."""
    unit = "share of planted effects"
    reason = unreachable(setting, family)
    if reason is not None:
        return absent("planted", family.name, "positive", unit, reason)
    once, twice = (_found(setting, family, times) for times in (1.0, 2.0))
    share, double = once / COPIES, twice / COPIES
    wanted = POWER - tolerance(POWER, COPIES)
    passed = share >= wanted and double >= wanted
    meaning = (
        "effects as large as the stated smallest detectable ones are found."
        if passed
        else "the stated smallest detectable effects are too small for these data, so that nothing "
        "was found does not mean that nothing of that size is there."
    )
    return Result(
        control="planted",
        subject=family.name,
        kind="positive",
        measured=share,
        interval=share_interval(once, COPIES),
        expected=POWER,
        unit=unit,
        n=COPIES,
        passed=passed,
        sentence=f"An effect as large as the smallest detectable one, added to one of "
        f"{counted(family)} at a time with all real effects taken out, is found in {share:.0%} of "
        f"{COPIES} copies, and twice that effect in {double:.0%}, where {POWER:.0%} are expected: "
        f"{meaning}",
    )


def _found(setting: Setting, family: Family, times: float) -> int:
    """How many effects are found that are so many times their smallest detectable size."""
    rng = setting.rng("controls", "planted", family.name, f"{times:g}")
    planted = times * _smallest(family.values, setting.alpha)
    centred = family.values - family.values.mean(axis=0)
    groups, columns = centred.shape
    order = rng.permutation(columns)
    found = 0
    for copy in range(COPIES):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (groups, 1))
        values = signs * centred
        column = int(order[copy % columns])
        # The direction of the effect must not matter, so it alternates.
        values[:, column] += planted[column] * (1.0 if copy // columns % 2 == 0 else -1.0)
        p = family.adjusted_p(values, rng, setting.draws)
        found += bool(p[column] < setting.alpha)
    return found


def _smallest(values: Array, alpha: float) -> Array:
    """Smallest detectable effect of each column after correction for all of them, (K,)."""
    groups, columns = values.shape
    error = np.array([standard_error(values[:, k]) for k in range(columns)])
    unit = smallest_detectable_effect(1.0, groups - 1, alpha / columns, POWER)
    return error * (unit or 0.0)
