"""Is anything found where nothing can be? Agents whose labels were shuffled.

Swapping the labels of agent and base (of source and target, for patches) within a scenario turns
the sign of that scenario's mean. Done at random, for every agent or site by itself, no difference
can be left, so a test at level alpha finds something in at most alpha of the shuffles:

    y'[g, k] = s[g, k] y[g, k],   s = +-1 with probability 1/2;   reject if min_k p_adj(k) < alpha

The sizes of the differences, their ties and their rounding stay as they were measured.
"""

from __future__ import annotations

import math

import numpy as np

from moralscope.evidence.controls.families import Family
from moralscope.evidence.controls.result import Result, absent
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.intervals import share_interval
from moralscope.evidence.statistics.resampling import sign_flip_floor

SHUFFLES = 200
"""Shuffled copies of each family."""

MORE = 1000
"""Further copies where those find too much."""

MONTE_CARLO = 3.0
"""Standard errors that a simulated rate may lie on the wrong side of its nominal value."""


def tolerance(share: float, runs: int) -> float:
    """Three Monte-Carlo standard errors of a share."""
    return MONTE_CARLO * math.sqrt(share * (1.0 - share) / runs)


def unreachable(setting: Setting, family: Family) -> str | None:
    """Why no data of this family could be significant; None if some could."""
    groups, columns = family.values.shape
    if columns == 0:
        return f"no {family.what} with any spread over scenarios."
    floor = sign_flip_floor(groups, setting.draws)
    if floor >= setting.alpha:
        return (
            f"with {groups} scenarios no p can be below {floor:.3g}, so the test finds nothing "
            "whatever the data; add scenarios."
        )
    return None


def judge_shuffled(setting: Setting, family: Family) -> Result:
    """Share of label shuffles in which anything is found, against alpha."""
    reason = unreachable(setting, family)
    if reason is not None:
        return absent("shuffled", family.name, "negative", "share of shuffles", reason)
    rng = setting.rng("controls", "shuffled", family.name)
    runs, found, alpha = SHUFFLES, _found(setting, family, rng, SHUFFLES), setting.alpha
    if found / runs > alpha + tolerance(alpha, runs):
        # One family in some hundreds gets here by chance, and its claims would fall with it.
        runs, found = runs + MORE, found + _found(setting, family, rng, MORE)
    share = found / runs
    passed = share <= alpha + tolerance(alpha, runs)
    meaning = (
        "the test keeps to its level on these data."
        if passed
        else "the test finds differences where there are none, so its claims cannot be trusted."
    )
    return Result(
        control="shuffled",
        subject=family.name,
        kind="negative",
        measured=share,
        interval=share_interval(found, runs),
        expected=alpha,
        unit="share of shuffles",
        n=runs,
        passed=passed,
        sentence=f"With the labels of the two that are compared swapped at random in each "
        f"scenario, something is found among {counted(family)} in {found} of {runs} shuffles, "
        f"where {alpha:.0%} may be: {meaning}",
    )


def _found(setting: Setting, family: Family, rng: np.random.Generator, runs: int) -> int:
    """In how many shuffles anything is found."""
    found = 0
    for _ in range(runs):
        signs = 1.0 - 2.0 * rng.integers(0, 2, family.values.shape)
        p = family.adjusted_p(family.values * signs, rng, setting.draws)
        found += bool((p < setting.alpha).any())
    return found


def counted(family: Family) -> str:
    """``300 sites``, ``1 agent``, or how many were used of how many."""
    columns = family.values.shape[1]
    what = family.what if columns != 1 else family.what.removesuffix("s")
    if not family.left_out:
        return f"{columns} {what}"
    return f"{columns} of {columns + family.left_out} {what}, drawn at random,"
