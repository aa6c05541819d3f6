"""How large is it, over questions? Means by question, their interval, and paired differences.

Wordings, orders and samples of one question share its quirks, so they are averaged before anything
is estimated: with G questions,

    y_g = mean over what was measured on question g,   estimate = mean_g y_g,

and the interval is that of ``evidence.statistics.intervals`` over the G means. More samples make
each y_g more exact; only more questions say more about questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import cluster_interval
from moralscope.evidence.statistics.resampling import Array, finite

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions.

    Attributes:
        mean: of the question means, in their unit.
        low, high: ends of its interval; None where one question, or no spread between them, leaves
            it undefined.
        questions: G, the units of inference.
    """

    mean: float
    low: float | None
    high: float | None
    questions: int


def means_by(groups: Sequence[Group], values: Sequence[float]) -> tuple[tuple[Group, ...], Array]:
    """Mean of each group.

    Args:
        groups: what each value was measured on.
        values: as many.

    Returns:
        The groups in order of first appearance, and their means ``(G,)``.

    Raises:
        TableError: a value is undefined, or there is none.
    """
    checked = finite(np.asarray(values, dtype=np.float64), "values")
    names = tuple(dict.fromkeys(groups))
    place = {name: index for index, name in enumerate(names)}
    index = np.array([place[group] for group in groups])
    sums = np.bincount(index, weights=checked, minlength=len(names))
    return names, sums / np.bincount(index, minlength=len(names))


def estimate_mean(values: Array, rng: np.random.Generator, level: float = 0.95) -> Estimate:
    """Mean of question means and its interval.

    Args:
        values: (G,) one mean per question.
        rng: draws the resamples, from 20 questions on.
        level: coverage, between 0 and 1.

    Raises:
        TableError: a value is undefined, or there is none.
    """
    checked = finite(values, "question means")
    low, high = cluster_interval(checked, rng, level) or (None, None)
    return Estimate(float(checked.mean()), low, high, len(checked))


def require_same_questions(first: Sequence[str], second: Sequence[str], what: str) -> None:
    """Refuse to pair what was not measured on the same questions.

    Raises:
        EvidenceError: says which question one of the two lacks.
    """
    alone = sorted(set(first) ^ set(second))
    if alone:
        raise EvidenceError(
            f"The {what} cannot be paired by question",
            seen=f"{len(alone)} questions on one side only, first {alone[0]!r}",
            allowed="both measured on the same questions",
            remedy="measure both on one set of questions",
        )
