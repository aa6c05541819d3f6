"""Which answers are compared? Pairs of both classes that answer one question at like length.

Answers of one class are often longer, and what differs over an answer's course differs between
classes of unequal length for no other reason. So within each question answers of the two classes
are paired one to one, with the least sum of ``|ln(length_p / length_n)|`` over the pairs among all
ways to make as many pairs as possible (Kuhn 1955, Nav. Res. Logist. 2:83) in which no answer is
longer than the other by more than a factor. Answers left over are counted. Every question thus
gives both classes equally many answers, and no question makes up one class alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from moralscope.core.errors import ConfigError, EvidenceError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_optimize: Any = optimize  # its types say nothing of what is found

FACTOR = 1.25
"""How much longer one answer of a pair may be."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Pairs of answers, and what could not be paired.

    Attributes:
        positive, negative: for each pair, the indices of its answers, ``(pairs,)``.
        questions: for each pair, its question, in order of appearance.
        left_positive, left_negative: answers without a partner of like length.
        alone: questions that have no pair, in order of appearance.
        ratio: mean over the pairs of length of the positive over that of the negative answer,
            geometric; 1 where lengths are the same.
    """

    positive: IntArray
    negative: IntArray
    questions: tuple[str, ...]
    left_positive: int
    left_negative: int
    alone: tuple[str, ...]
    ratio: float


def match_lengths(
    questions: Sequence[str], lengths: IntArray, positive: BoolArray, *, factor: float = FACTOR
) -> Matched:
    """Pair the answers of two classes.

    Args:
        questions: of each answer.
        lengths: tokens of each answer, one or more, ``(answers,)``.
        positive: the class of each answer, ``(answers,)``.
        factor: how much longer one of a pair may be, 1 or more; infinity takes any.

    Raises:
        ConfigError: the factor is below 1.
        EvidenceError: a class has no answers, or no question has a pair.
    """
    if not factor >= 1.0:
        raise ConfigError(
            "No answer can be paired under this factor between lengths",
            seen=factor,
            allowed="1 (equal lengths only) or more",
            remedy=f"leave it at {FACTOR}",
        )
    sides = int(positive.sum()), int((~positive).sum())
    if min(sides) == 0:
        raise EvidenceError(
            f"There are no answers of the {'positive' if sides[0] == 0 else 'negative'} class",
            seen=f"{sides[0]} positive and {sides[1]} negative answers",
            allowed="answers of both classes to the same questions",
            remedy="add answers of that class, or sample more until there are some",
        )
    by_question: dict[str, tuple[list[int], list[int]]] = {}
    for index, question in enumerate(questions):
        by_question.setdefault(question, ([], []))[0 if positive[index] else 1].append(index)
    pairs: list[tuple[int, int]] = []
    owners: list[str] = []
    for question, (first, second) in by_question.items():
        found = _assign(first, second, np.log(lengths), float(np.log(factor)))
        pairs += found
        owners += [question] * len(found)
    if not pairs:
        raise EvidenceError(
            "No question has answers of both classes at like length",
            seen=f"{sides[0]} positive and {sides[1]} negative answers to {len(by_question)} "
            "questions",
            allowed=f"lengths that differ by a factor of at most {factor:g} within a question",
            remedy="give both classes answers to the same questions, or allow a larger factor",
        )
    chosen = np.array(pairs, dtype=np.int64)
    apart = np.log(lengths[chosen[:, 0]] / lengths[chosen[:, 1]])
    kept = set(owners)
    return Matched(
        chosen[:, 0],
        chosen[:, 1],
        tuple(owners),
        sides[0] - len(pairs),
        sides[1] - len(pairs),
        tuple(question for question in by_question if question not in kept),
        float(np.exp(apart.mean())),
    )


def _assign(
    first: Sequence[int], second: Sequence[int], log_lengths: NDArray[np.float64], limit: float
) -> list[tuple[int, int]]:
    if not first or not second:
        return []
    apart = np.abs(log_lengths[list(first)][:, None] - log_lengths[list(second)][None])
    good = apart <= limit + 1e-12
    # A pair that is not allowed costs more than all allowed ones together could.
    forbidden = 1.0 + float(apart[good].sum())
    rows, columns = _optimize.linear_sum_assignment(np.where(good, apart, forbidden))
    return [(first[r], second[c]) for r, c in zip(rows, columns, strict=True) if good[r, c]]
