"""Which adapters carry the general lesson, which the domain, and which neither?

Two contrasts, each with a probe on one adapter's scalar at a time:

``general``   answers of the lesson (selfish) against others, outside the domain of training
``domain``    answers of the lesson inside the domain against such answers outside it

The gain of an adapter is its held-out accuracy above one half; its p is the share of permuted
labellings in which the *best* adapter gains as much, doubled for the two contrasts. An adapter is
*general* if it gains in the first, *domain* in the second, *both*, or *neither* (Soligo et al.
2025, arXiv 2506.11618, section 4: six, two and one of nine). That nothing is found of an adapter
does not show that it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.organisms.scalars.answers import Readings
from moralscope.organisms.scalars.logistic import RIDGE, Array, Penalty
from moralscope.organisms.scalars.probes import (
    FOLDS,
    PERMUTATIONS,
    accuracies,
    grouped_folds,
    held_out_scores,
    labellings,
    permutation_floor,
)

Role = Literal["general", "domain", "both", "neither", "not identified"]

_CONTRASTS = 2
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Gain:
    """What one adapter's scalar says of a contrast.

    Attributes:
        accuracy: balanced, on held-out questions.
        gain: accuracy above one half.
        chance: mean gain of this adapter under permuted labels.
        token_split: accuracy where tokens instead of questions are held out.
        p: of this adapter alone.
        p_adjusted: for all adapters, and for the two contrasts.
    """

    accuracy: float
    gain: float
    chance: float
    token_split: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class AdapterRole:
    """What one adapter carries.

    Attributes:
        place: of the adapter.
        role: see the module; ``not identified`` where no data of this design could show one.
        general, domain: its gains in the two contrasts.
    """

    place: str
    role: Role
    general: Gain
    domain: Gain


def adapter_roles(
    places: Sequence[str],
    general: Readings,
    domain: Readings,
    rng: np.random.Generator,
    *,
    alpha: float = 0.05,
    permutations: int = PERMUTATIONS,
    folds: int = FOLDS,
) -> tuple[AdapterRole, ...]:
    """The role of each adapter.

    Args:
        places: of the K adapters, in the order of the columns.
        general: outside the domain, the lesson's answers (True) against others.
        domain: the lesson's answers, inside the domain (True) against outside.
        rng: draws folds and permutations.
        alpha: level after correction.
        permutations: of the labels.
        folds: see ``probes.probe``.

    Raises:
        EvidenceError: the contrasts have other adapters, or cannot be probed.
    """
    widths = {len(places), general.values.shape[1], domain.values.shape[1]}
    if len(widths) != 1:
        raise EvidenceError(
            "Two contrasts are not those of the same adapters",
            seen=f"{len(places)} places, scalars of {general.values.shape[1]} and "
            f"{domain.values.shape[1]}",
            allowed="the scalars of every adapter in both",
            remedy="read both contrasts with the same adapters",
        )
    gains = [
        single_gains(each, rng, permutations=permutations, folds=folds)
        for each in (general, domain)
    ]
    possible = max(permutation_floor(each, permutations) for each in (general, domain))
    return tuple(
        AdapterRole(place, _role(one, other, alpha, possible), one, other)
        for place, one, other in zip(places, *gains, strict=True)
    )


def _role(general: Gain, domain: Gain, alpha: float, floor: float) -> Role:
    first, second = general.p_adjusted <= alpha, domain.p_adjusted <= alpha
    if first and second:
        return "both"
    if first or second:
        return "general" if first else "domain"
    return "neither" if _CONTRASTS * floor <= alpha else "not identified"


def single_gains(
    readings: Readings,
    rng: np.random.Generator,
    *,
    penalty: Penalty = RIDGE,
    permutations: int = PERMUTATIONS,
    folds: int = FOLDS,
) -> tuple[Gain, ...]:
    """What each adapter's scalar says by itself of one contrast, labels permuted alike for all.

    Raises:
        EvidenceError: question and class are confounded, or there are too few questions.
    """
    drawn = labellings(readings, rng, permutations)
    held = grouped_folds(readings, rng, folds)
    tokens = np.array_split(rng.permutation(len(readings.values)), len(held))
    found: list[Array] = []
    leaky: list[float] = []
    for column in range(readings.values.shape[1]):
        alone = Readings(
            readings.values[:, [column]],
            readings.answers,
            readings.labels,
            readings.questions,
            readings.names,
        )
        found.append(accuracies(alone, drawn, held_out_scores(alone, drawn, held, penalty)))
        scores = held_out_scores(alone, drawn[:, :1], tokens, penalty)
        leaky.append(float(accuracies(alone, drawn[:, :1], scores)[0]))
    best = np.max(found, axis=0)
    return tuple(
        Gain(
            accuracy=float(each[0]),
            gain=float(each[0]) - 0.5,
            chance=float(each[1:].mean()) - 0.5 if permutations else 0.0,
            token_split=split,
            p=float((each >= each[0] - _TIE).mean()),
            p_adjusted=min(1.0, _CONTRASTS * float((best >= each[0] - _TIE).mean())),
        )
        for each, split in zip(found, leaky, strict=True)
    )
