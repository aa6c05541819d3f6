"""Which answers are compared? Scalars at their tokens, with the class and the question of each.

Question and class must not be confounded. Either every question has answers of both classes
(``matched`` makes it so), or the class belongs to the question, as its domain does. Answers are not
weighed by their length: every answer counts the same, in each question both classes do, and in each
class every question does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.organisms.scalars.logistic import Array, Labels

Index = NDArray[np.int64]
Unit = Literal["answers", "questions"]


@dataclass(frozen=True, eq=False)
class Readings:
    """Scalars at the tokens of answers of two classes.

    Attributes:
        values: (n, K) scalars of K adapters at n tokens.
        answers: (n,) the answer of each token, from 0.
        labels: (R,) the class of each answer.
        questions: (R,) the question of each answer, from 0.
        names: of the questions.
    """

    values: Array
    answers: Index
    labels: Labels
    questions: Index
    names: tuple[str, ...]

    @property
    def unit(self) -> Unit:
        """What labels can be exchanged between.

        Raises:
            EvidenceError: some questions have both classes and others one, or a class is absent.
        """
        both = [len(set(self.labels[self.questions == q])) == 2 for q in range(len(self.names))]
        if all(both) and both:
            return "answers"
        if not any(both) and 0 < int(self.labels.sum()) < len(self.labels):
            return "questions"
        raise EvidenceError(
            "Question and class are confounded",
            seen=f"{sum(both)} of {len(both)} questions with answers of both classes, "
            f"{int(self.labels.sum())} of {len(self.labels)} answers in the positive class",
            allowed="answers of both classes to every question, or one class to each question",
            remedy="keep the questions that have both (answers.matched), or sample more answers",
        )


def readings_of(
    scalars: Sequence[Array], labels: Sequence[bool], questions: Sequence[str]
) -> Readings:
    """Readings from the answers' scalars.

    Args:
        scalars: (tokens, K) of each answer, its own tokens alone.
        labels: the class of each answer.
        questions: the question of each answer.

    Raises:
        EvidenceError: lengths differ, an answer has no token, adapters differ, or a scalar is not
            finite.
    """
    shapes = {np.asarray(each).ndim == 2 and np.asarray(each).shape[1] for each in scalars}
    fits = len(scalars) == len(labels) == len(questions) and len(shapes) == 1
    if not fits or not all(len(each) and np.isfinite(each).all() for each in scalars):
        raise EvidenceError(
            "Scalars of answers cannot be put together",
            seen=f"{len(scalars)} answers, {len(labels)} labels, {len(questions)} questions; "
            f"{sum(len(each) == 0 for each in scalars)} answers without tokens",
            allowed="finite scalars (tokens, adapters) of the same adapters for every answer, "
            "each with a label and a question",
            remedy="leave empty answers out, and say how many they were",
        )
    names = tuple(dict.fromkeys(questions))
    code = {name: at for at, name in enumerate(names)}
    return Readings(
        values=np.concatenate([np.asarray(each, dtype=np.float64) for each in scalars]),
        answers=np.repeat(np.arange(len(scalars)), [len(each) for each in scalars]),
        labels=np.array(labels, dtype=np.bool_),
        questions=np.array([code[name] for name in questions], dtype=np.int64),
        names=names,
    )


@dataclass(frozen=True, eq=False)
class Matched:
    """Readings in which no question favours a class.

    Attributes:
        readings: as many answers of either class to every question.
        left_out: questions with one class only.
        answers_left_out: how many answers are not in them, those of such questions included.
    """

    readings: Readings
    left_out: tuple[str, ...]
    answers_left_out: int


def matched(readings: Readings, rng: np.random.Generator) -> Matched:
    """Keep as many answers of either class of every question; which ones is drawn.

    Raises:
        EvidenceError: no question has answers of both classes.
    """
    kept: list[int] = []
    left_out: list[str] = []
    for at, name in enumerate(readings.names):
        mine = np.flatnonzero(readings.questions == at)
        sides = [mine[readings.labels[mine]], mine[~readings.labels[mine]]]
        size = min(len(side) for side in sides)
        if size == 0:
            left_out.append(name)
        for side in sides:
            kept += rng.permutation(side)[:size].tolist()
    if not kept:
        raise EvidenceError(
            "No question has answers of both classes",
            seen=f"{len(readings.names)} questions, each with one class",
            allowed="one question or more with both",
            remedy="sample more answers to each question",
        )
    return Matched(_some(readings, sorted(kept)), tuple(left_out), len(readings.labels) - len(kept))


def _some(readings: Readings, answers: Sequence[int]) -> Readings:
    """Readings of some of the answers."""
    split = [readings.values[readings.answers == at] for at in answers]
    names = [readings.names[int(readings.questions[at])] for at in answers]
    return readings_of(split, readings.labels[list(answers)].tolist(), names)


def weights_of(readings: Readings, labels: Labels) -> Array:
    """Weights of tokens under each labelling, (n, P), summing to n.

    Both classes weigh the same, in a class every question does, in a question every answer, in an
    answer every token.
    """
    member = readings.questions[:, None] == np.arange(len(readings.names))
    ones: Array = member.T.astype(np.float64) @ labels
    zeros: Array = member.T.astype(np.float64) @ ~labels
    cell: Array = np.where(labels, ones[readings.questions], zeros[readings.questions])
    each = np.ones(len(readings.names))
    cells: Array = np.where(labels, each @ (ones > 0.0), each @ (zeros > 0.0))
    tokens = np.bincount(readings.answers).astype(np.float64)[:, None]
    weight: Array = 1.0 / (tokens * cell * cells)
    scaled: Array = weight[readings.answers] * (len(readings.values) / 2.0)
    return scaled
