"""Is there a transition, or did the schedule make one? Judged over seeds, beside matched controls.

For each training its peak (``peaks``) has an excess e over the series' own median. A maximum always
lies above a median, so e alone shows nothing. What is tested is the difference from a benign
control of the same data format, length, schedule and seeds,

    d_s = e_organism,s - e_control,s,

with the seed as unit: sign-flips where the seeds are the same (interval: Student), reassigned
labels where they are not (interval: Welch). Decided in this order:

``transition``      p <= alpha and the mean of d is at least ``least``
``schedule``        the control has the peak itself: its mean excess is at least ``least`` and half
                    of the organism's, at the same steps up to ``tolerance``
``not identified``  no data of so few seeds could reach alpha
``none``            anything else

A transition that shows under one schedule and not under another is one of that schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import cluster_interval, welch
from moralscope.evidence.statistics.resampling import permute_labels, sign_flip
from moralscope.organisms.paths.peaks import Peak

Outcome = Literal["transition", "schedule", "not identified", "none"]

LEAST: Final = 0.05
"""Smallest excess that counts as a turn: a twentieth of a cosine, or 5% of a norm (log scale)."""

SHARE: Final = 0.5
"""Share of the organism's excess from which on a control shows the same peak."""


@dataclass(frozen=True, slots=True)
class Transition:
    """What became of the question whether there is a transition.

    Attributes:
        outcome: see the module.
        reason: one sentence with the numbers.
        organism, control: mean excess over seeds.
        difference, low, high: organism minus control, and its 95% interval; None without one.
        p: two-sided.
        floor: the smallest p that so many seeds can give.
        organism_step, control_step: median step of the peaks.
        paired: whether organism and control share their seeds.
        seeds: of the organism, of the control.
    """

    outcome: Outcome
    reason: str
    organism: float
    control: float
    difference: float
    low: float | None
    high: float | None
    p: float
    floor: float
    organism_step: float
    control_step: float
    paired: bool
    seeds: tuple[int, int]


def judge_transition(
    organism: Mapping[int, Peak],
    control: Mapping[int, Peak],
    rng: np.random.Generator,
    *,
    tolerance: int,
    least: float = LEAST,
    alpha: float = 0.05,
) -> Transition:
    """Is the organism's peak more than that of its matched control?

    Args:
        organism: peaks by training seed.
        control: those of the benign control under the same schedule.
        rng: draws reassignments where there are too many to enumerate.
        tolerance: steps up to which two peaks are at the same place.
        least: smallest excess that counts, in the unit of the excess.
        alpha: level of the test.

    Raises:
        EvidenceError: one of the two has no training.
    """
    if not organism or not control:
        raise EvidenceError(
            "A transition cannot be judged",
            seen=f"{len(organism)} organisms, {len(control)} controls",
            allowed="one training or more of each",
            remedy="train the benign control with the same schedule and seeds",
        )
    paired = set(organism) == set(control)
    order = sorted(organism)
    mine = np.array([organism[seed].excess for seed in order])
    theirs = np.array([control[seed].excess for seed in (order if paired else sorted(control))])
    if paired:
        p, floor = sign_flip(mine - theirs, rng)
        interval = cluster_interval(mine - theirs, rng)
    else:
        p, floor = permute_labels(mine, theirs, rng)
        interval = welch(mine, theirs)
    found = Transition(
        outcome="none",
        reason="",
        organism=float(mine.mean()),
        control=float(theirs.mean()),
        difference=float(mine.mean() - theirs.mean()),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        p=p,
        floor=floor,
        organism_step=float(np.median([peak.step for peak in organism.values()])),
        control_step=float(np.median([peak.step for peak in control.values()])),
        paired=paired,
        seeds=(len(mine), len(theirs)),
    )
    apart = _steps_apart(organism, control, paired=paired)
    return _decided(found, apart=apart, tolerance=tolerance, least=least, alpha=alpha)


def _steps_apart(
    organism: Mapping[int, Peak], control: Mapping[int, Peak], *, paired: bool
) -> float:
    """Median distance between the peaks of organism and control, over seeds or over all pairs."""
    pairs = (
        [(organism[seed], control[seed]) for seed in organism]
        if paired
        else [(one, other) for one in organism.values() for other in control.values()]
    )
    return float(np.median([abs(one.step - other.step) for one, other in pairs]))


def _decided(
    found: Transition, *, apart: float, tolerance: int, least: float, alpha: float
) -> Transition:
    outcome: Outcome
    same = found.control >= max(least, SHARE * found.organism) and apart <= tolerance
    sizes = (
        f"mean excess {found.organism:.3g} (peaks at step {found.organism_step:g}) against "
        f"{found.control:.3g} (step {found.control_step:g}) of the matched control, "
        f"p = {found.p:.2g}"
    )
    if found.p <= alpha and found.difference >= least:
        outcome, reason = "transition", f"More than the control shows: {sizes}"
        if same:
            reason += "; the control has a smaller peak at the same steps"
    elif same:
        outcome, reason = "schedule", f"The benign control shows the same peak: {sizes}"
    elif found.floor > alpha:
        outcome = "not identified"
        reason = f"No data of {found.seeds[0]} and {found.seeds[1]} seeds could show it: {sizes}"
    else:
        outcome, reason = "none", f"No more than the control shows: {sizes}"
    return replace(found, outcome=outcome, reason=reason)


def over_schedules(judged: Mapping[str, Transition]) -> tuple[Outcome, str]:
    """One outcome of the same question under several schedules, and its reason.

    Args:
        judged: by the schedule's name, such as ``constant`` and ``linear``.

    Raises:
        EvidenceError: there are fewer than two schedules.
    """
    if len(judged) < 2:
        raise EvidenceError(
            "A schedule cannot be ruled out",
            seen=", ".join(judged) or "no schedule",
            allowed="trainings under two schedules or more",
            remedy="train organism and control once more with a constant learning rate",
        )
    by_outcome: dict[Outcome, list[str]] = {}
    for name, each in judged.items():
        by_outcome.setdefault(each.outcome, []).append(name)
    listed = "; ".join(f"{', '.join(names)}: {outcome}" for outcome, names in by_outcome.items())
    if len(by_outcome) == 1:
        return next(iter(by_outcome)), f"The same under every schedule ({listed})"
    if "schedule" in by_outcome or {"transition", "none"} <= set(by_outcome):
        return "schedule", f"It hangs on the schedule ({listed})"
    if "not identified" in by_outcome:
        return "not identified", f"Not every schedule could show it ({listed})"
    return "none", f"Under no schedule more than the control shows ({listed})"
