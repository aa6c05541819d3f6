"""Does a direction work in other organisms too? The same vectors, tried again on one base.

An organism's shift is what it measures minus what its base does, question by question. The share of
it that an intervention undoes is

    -mean(effect) / mean(shift)        (1: all of it; 0: none)

with Fieller's interval over questions (1954, JRSS B 16:175): all ratios r for which the mean of
``-effect_q - r shift_q`` is not clear of zero by the one-sample t. Where the shift itself is not
clear of zero that interval has no end, and no share is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.progress import Progress, silent
from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.evidence.statistics.resampling import finite
from moralscope.models.roster import Roster
from moralscope.organisms.directions.effects import (
    Effect,
    Trial,
    checked,
    judge_effects,
    try_directions,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Undone:
    """A share of a shift and its interval; 1 for all of it."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Transfer:
    """What directions do in one organism.

    Attributes:
        agent: the organism.
        shift: its measure minus the base's, by question, ``(questions,)``.
        effects: in the order of the interventions.
        undone: for each of them the share of the shift that it undoes; None where the shift is
            not clear of zero.
    """

    agent: str
    shift: Array
    effects: tuple[Effect, ...]
    undone: tuple[Undone | None, ...]


def transfer(
    roster: Roster,
    organisms: Sequence[str],
    trial: Trial,
    *,
    base: str = "base",
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Transfer, ...]:
    """Try directions on organisms of one base.

    Args:
        roster: who speaks.
        organisms: in whom they are tried; the one that they were found in may be among them.
        trial: what is tried.
        base: name of the base.
        seed: of sampled sign-flips and resamples.
        progress: told after each measurement.

    Raises:
        AgentError: there is no such agent.
        EvidenceError, ModelError, SiteError: as ``try_directions``.
    """
    with roster.speaking(base) as model:
        unshifted = checked(trial.measure(model))
    found: list[Transfer] = []
    for name in organisms:
        with roster.speaking(name) as model:
            shift = checked(trial.measure(model), len(unshifted)) - unshifted
            tried = try_directions(
                model, roster.anatomy(name), trial, task=f"intervene in {name}", progress=progress
            )
        effects = tuple(judge_effects(tried, seed=seed))
        undone = tuple(share_undone(one.effect, shift) for one in tried)
        found.append(Transfer(name, shift, effects, undone))
    return tuple(found)


def share_undone(effect: Array, shift: Array, level: float = 0.95) -> Undone | None:
    """Share of a shift that an effect undoes; None where the mean shift is not clear of zero.

    Args:
        effect: by question, ``(questions,)``.
        shift: by question, ``(questions,)``.
        level: coverage of the interval, between 0 and 1.

    Raises:
        TableError: a value is undefined.
    """
    x, y = -finite(effect, "effects"), finite(shift, "shifts")
    count = len(y)
    if count < 2:
        return None
    square = t_quantile(0.5 + level / 2.0, count - 1) ** 2 / count
    covariance = np.cov(x, y)
    a = float(y.mean()) ** 2 - square * float(covariance[1, 1])
    if a <= 0.0:
        return None
    b = float(x.mean() * y.mean()) - square * float(covariance[0, 1])
    c = float(x.mean()) ** 2 - square * float(covariance[0, 0])
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Undone(float(x.mean() / y.mean()), (b - half) / a, (b + half) / a)
