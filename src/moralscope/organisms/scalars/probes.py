"""Can the class of an answer be read from the adapters' scalars, on questions not seen before?

Rows are the tokens of answers; what is repeated is the question. Published probes of these scalars
(Soligo et al. 2025, arXiv 2506.11618, appendix F) divide *tokens* at random, so that tokens of one
answer lie on both sides; here whole questions are held out, and the accuracy of a token-level split
of the same rows stands beside it: the difference is the leak.

Permuted labels are exchanged where they could have been: between the answers of a question where
questions have both classes, else between questions. Features are scaled by mean and spread of the
training rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import cluster_interval, welch
from moralscope.organisms.scalars.answers import Index, Readings, Unit, weights_of
from moralscope.organisms.scalars.logistic import RIDGE, Array, Labels, Penalty, fit_logistic

FOLDS = 5
PERMUTATIONS = 199

_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Probed:
    """How well a probe tells held-out answers apart, token by token.

    Attributes:
        accuracy: mean of both classes' shares on the right side, every answer weighing the same.
        low, high: its 95% interval over questions; None where there is none.
        auc: share of pairs of tokens of a fold, one of each class, in the right order.
        chance: mean accuracy under permuted labels.
        p: share of labellings, the observed one among them, with at least this accuracy.
        floor: the smallest p that the design can give.
        token_split: accuracy where tokens instead of questions are held out.
        unit: what labels were exchanged between.
        questions, answers: how many.
    """

    accuracy: float
    low: float | None
    high: float | None
    auc: float
    chance: float
    p: float
    floor: float
    token_split: float
    unit: Unit
    questions: int
    answers: int

    @property
    def leak(self) -> float:
        """What dividing tokens instead of questions would have added."""
        return self.token_split - self.accuracy


def probe(
    readings: Readings,
    rng: np.random.Generator,
    *,
    penalty: Penalty = RIDGE,
    permutations: int = PERMUTATIONS,
    folds: int = FOLDS,
) -> Probed:
    """Fit a probe on all adapters' scalars with questions held out.

    Args:
        readings: of two classes.
        rng: draws folds and permutations.
        penalty: of the coefficients.
        permutations: how many; 0 leaves chance at 0.5 and p at 1.
        folds: how many at least; more where a class has few questions.

    Raises:
        EvidenceError: question and class are confounded, or there are too few questions.
    """
    drawn = labellings(readings, rng, permutations)
    held = grouped_folds(readings, rng, folds)
    scores = held_out_scores(readings, drawn, held, penalty)
    accuracy = accuracies(readings, drawn, scores)
    tokens = np.array_split(rng.permutation(len(readings.values)), len(held))
    leaky = held_out_scores(readings, drawn[:, :1], tokens, penalty)
    interval = _interval(readings, scores[:, 0], rng)
    return Probed(
        accuracy=float(accuracy[0]),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        auc=_auc(readings, scores[:, 0], held),
        chance=float(accuracy[1:].mean()) if permutations else 0.5,
        p=float((accuracy >= accuracy[0] - _TIE).mean()),
        floor=permutation_floor(readings, permutations),
        token_split=float(accuracies(readings, drawn[:, :1], leaky)[0]),
        unit=readings.unit,
        questions=len(readings.names),
        answers=len(readings.labels),
    )


def labellings(readings: Readings, rng: np.random.Generator, permutations: int) -> Labels:
    """Labels of answers, (R, 1 + permutations): the observed ones first."""
    drawn = np.repeat(readings.labels[:, None], permutations + 1, axis=1)
    if readings.unit == "answers":
        for question in range(len(readings.names)):
            mine = np.flatnonzero(readings.questions == question)
            drawn[mine, 1:] = rng.permuted(drawn[mine, 1:], axis=0)
        return drawn
    first = _of_questions(readings)
    order = np.repeat(first[:, None], permutations, axis=1)
    drawn[:, 1:] = rng.permuted(order, axis=0)[readings.questions]
    return drawn


def _of_questions(readings: Readings) -> Labels:
    """The class of each question, where it has one."""
    found = np.zeros(len(readings.names), dtype=np.bool_)
    found[readings.questions] = readings.labels
    return found


def permutation_floor(readings: Readings, permutations: int) -> float:
    """Smallest p: over all labellings, and over those drawn.

    A probe does not know which class is which, so where the labels can all be turned round, that
    labelling is as good as the observed one.
    """
    if readings.unit == "questions":
        groups = [_of_questions(readings)]
    else:
        groups = [
            readings.labels[readings.questions == question]
            for question in range(len(readings.names))
        ]
    ways = math.prod(math.comb(len(group), int(group.sum())) for group in groups)
    turned = all(2 * int(group.sum()) == len(group) for group in groups)
    return max(min(1.0, (2.0 if turned else 1.0) / ways), 1.0 / (permutations + 1))


def grouped_folds(readings: Readings, rng: np.random.Generator, folds: int) -> list[Index]:
    """Tokens of each fold, whole questions together.

    Raises:
        EvidenceError: no division leaves both classes in what is fitted.
    """
    questions = len(readings.names)
    rarer = questions
    if readings.unit == "questions":
        ones = int(_of_questions(readings).sum())
        rarer = min(ones, questions - ones)
    if questions < 2 or rarer < 2:
        raise EvidenceError(
            "A probe cannot be held to questions that it has not seen",
            seen=f"{questions} questions, {rarer} in the rarer class",
            allowed="two questions or more in each class",
            remedy="ask more questions",
        )
    # However labels are permuted, a fold must not hold all questions of a class.
    count = min(max(folds, 2), questions)
    while readings.unit == "questions" and math.ceil(questions / count) >= rarer:
        count += 1
    parts = np.array_split(rng.permutation(questions), count)
    of_token = readings.questions[readings.answers]
    return [np.flatnonzero(np.isin(of_token, part)) for part in parts]


def held_out_scores(
    readings: Readings, labels: Labels, folds: Sequence[Index], penalty: Penalty
) -> Array:
    """Score of each token by a probe fitted without its fold, under each labelling, (n, P)."""
    weights, of_token = weights_of(readings, labels), labels[readings.answers]
    length = 1.0 / np.bincount(readings.answers)[readings.answers]
    scores = np.zeros(of_token.shape)
    for fold in folds:
        train = np.setdiff1d(np.arange(len(of_token)), fold)
        share = length[train] / length[train].sum()
        mean = share @ readings.values[train]
        spread = np.sqrt(share @ (readings.values[train] - mean) ** 2)
        values = (readings.values - mean) / np.where(spread > 0.0, spread, 1.0)
        fitted = fit_logistic(values[train], of_token[train], penalty, weights[train])
        scores[fold] = values[fold] @ fitted[:-1] + fitted[-1]
    return scores


def accuracies(readings: Readings, labels: Labels, scores: Array) -> Array:
    """Balanced accuracy under each labelling, (P,); a score of zero is half right."""
    right = np.heaviside(np.where(labels[readings.answers], scores, -scores), 0.5)
    weighted: Array = (weights_of(readings, labels) * right).sum(axis=0) / len(right)
    return weighted


def _interval(
    readings: Readings, scores: Array, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Interval of the balanced accuracy over questions, the probe taken as it is."""
    right = np.heaviside(np.where(readings.labels[readings.answers], scores, -scores), 0.5)
    tokens = np.bincount(readings.answers)
    of_answer = np.bincount(readings.answers, right) / tokens
    shares = [
        np.array(
            [
                of_answer[(readings.questions == question) & side].mean()
                for question in np.unique(readings.questions[side])
            ]
        )
        for side in (readings.labels, ~readings.labels)
    ]
    if readings.unit == "answers":
        return cluster_interval((shares[0] + shares[1]) / 2.0, rng)
    summed = welch(shares[0], -shares[1])
    return None if summed is None else (summed[0] / 2.0, summed[1] / 2.0)


def _auc(readings: Readings, scores: Array, folds: Sequence[Index]) -> float:
    weights = weights_of(readings, readings.labels[:, None])[:, 0]
    of_token = readings.labels[readings.answers]
    won, pairs = 0.0, 0.0
    for fold in folds:
        one, other = fold[of_token[fold]], fold[~of_token[fold]]
        order = np.argsort(scores[other])
        below = np.concatenate([[0.0], weights[other][order].cumsum()])
        ranked = scores[other][order]
        left = below[np.searchsorted(ranked, scores[one], side="left")]
        right = below[np.searchsorted(ranked, scores[one], side="right")]
        won += float(weights[one] @ (left + right)) / 2.0
        pairs += float(weights[one].sum() * weights[other].sum())
    return won / pairs if pairs else 0.5
