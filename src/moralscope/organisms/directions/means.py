"""In which direction do two classes of answers differ? Differences of means, and their luck.

Of matched answers, with P_q and N_q the sums over question ``q``'s positive and negative answers
and a_q and b_q what they are divided by,

    v_l = sum_q P_q,l / sum_q a_q - sum_q N_q,l / sum_q b_q         (after layer l)

    token-weighted:     P sums tokens,       a counts tokens         (arXiv 2506.11618)
    response-weighted:  P sums answer means, a counts answers

The unit is the question. Under the null that the classes are names, the answers to a question could
as well have carried the others' names; names are exchanged within a question, all its pairs
together, in all 2^Q ways or a sample (the same for all layers), and a layer is judged by

    r_l = |v_l| / sqrt(mean over q of |P_q,l / a_q - N_q,l / b_q|^2),

whose denominator no exchange changes; the largest over layers corrects for having looked at all
(max-T, ``resampling``). A difference of means is never zero, so its length is given beside that
under exchanged names. Split-half cosine: of the directions of two random halves of the questions.

Every direction considered is a weighted sum of the 2Q class sums, so lengths and cosines come from
their Gram matrix, ``|v|^2 = w G w``, and no direction is built twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import sign_flips
from moralscope.organisms.directions.matching import FACTOR, BoolArray, Matched, match_lengths
from moralscope.organisms.directions.nulls import family_p
from moralscope.organisms.directions.reading import AnswerStreams, Over

Array = NDArray[np.float64]

Weighting = Literal["token", "response"]

DRAWS = 1_999
"""Exchanges of names beyond 14 questions, and splits into halves, unless told otherwise."""


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums of the streams of two classes of answers, by question.

    Attributes:
        questions: each once.
        sums: positive and negative, ``(2, questions, layers, width)``.
        counts: what they are divided by, ``(2, questions)``.
    """

    questions: tuple[str, ...]
    sums: Array
    counts: Array

    @property
    def differences(self) -> Array:
        """The difference of means of each question alone, ``(questions, layers, width)``."""
        means = self.sums / self.counts[:, :, None, None]
        found: Array = means[0] - means[1]
        return found


@dataclass(frozen=True, eq=False)
class AnswerDirection:
    """How the streams of two classes of answers differ in one agent.

    Attributes:
        agent: whose streams.
        weighting: by token or by response.
        over: which tokens count.
        vectors: positive minus negative after each layer, ``(layers, width)``, model units.
        relative: their length over the mean length of the stream there, ``(layers,)``.
        sums: what they are made of.
        matched: which answers were compared.
        ids: of those answers.
    """

    agent: str
    weighting: Weighting
    over: Over
    vectors: Array
    relative: Array
    sums: ClassSums
    matched: Matched
    ids: frozenset[str]

    @property
    def norms(self) -> Array:
        """Length after each layer, ``(layers,)``, model units."""
        return np.linalg.norm(self.vectors, axis=-1)


def find_direction(
    streams: AnswerStreams,
    positive: BoolArray,
    *,
    weighting: Weighting = "response",
    factor: float = FACTOR,
) -> AnswerDirection:
    """The difference of means of two classes of answers, matched by question and length.

    Args:
        streams: of one agent on answers of both classes.
        positive: the class of each, ``(answers,)``.
        weighting: whether each token or each answer counts alike.
        factor: see ``match_lengths``.

    Raises:
        EvidenceError: a class has no answers, no question has a pair, or the classes do not
            differ after some layer.
        ConfigError: the factor is below 1.
    """
    matched = match_lengths(streams.questions, streams.lengths, positive, factor=factor)
    sums = _class_sums(streams, matched, weighting)
    totals = sums.sums.sum(axis=1) / sums.counts.sum(axis=1)[:, None, None]
    vectors: Array = totals[0] - totals[1]
    refuse_zero(vectors, "The classes of answers do not differ", "compare answers that do differ")
    used = np.concatenate([matched.positive, matched.negative])
    size = np.average(streams.sizes[used], axis=0, weights=_weights(streams, used, weighting))
    chosen: list[int] = used.tolist()
    ids = frozenset(streams.ids[index] for index in chosen)
    relative: Array = np.linalg.norm(vectors, axis=-1) / size
    return AnswerDirection(
        streams.agent, weighting, streams.over, vectors, relative, sums, matched, ids
    )


def refuse_zero(vectors: Array, problem: str, remedy: str) -> None:
    """Refuse directions without length.

    Args:
        vectors: ``(layers, width)``.
        problem: what is wrong then.
        remedy: what to do.

    Raises:
        EvidenceError: a direction has no length, or none that is a number.
    """
    norms = np.linalg.norm(vectors, axis=-1)
    bad = np.flatnonzero(~(norms > 0.0) | ~np.isfinite(norms))
    if len(bad):
        raise EvidenceError(
            problem,
            seen=f"a direction of length {norms[bad[0]]:g} after layer {bad[0]} "
            f"({len(bad)} of {len(norms)} layers)",
            allowed="directions of some finite length",
            remedy=remedy,
        )


def _weights(streams: AnswerStreams, used: NDArray[np.int64], weighting: Weighting) -> Array:
    return streams.lengths[used].astype(np.float64) if weighting == "token" else np.ones(len(used))


def _class_sums(streams: AnswerStreams, matched: Matched, weighting: Weighting) -> ClassSums:
    questions = tuple(dict.fromkeys(matched.questions))
    place = {question: index for index, question in enumerate(questions)}
    rows = np.array([place[question] for question in matched.questions])
    sums = np.zeros((2, len(questions), *streams.sums.shape[1:]))
    counts = np.zeros((2, len(questions)))
    values = streams.sums if weighting == "token" else streams.means
    for side, chosen in enumerate((matched.positive, matched.negative)):
        np.add.at(sums[side], rows, values[chosen])
        np.add.at(counts[side], rows, _weights(streams, chosen, weighting))
    return ClassSums(questions, sums, counts)


@dataclass(frozen=True, eq=False)
class DirectionEvidence:
    """How far a direction is more than luck, layer by layer; all arrays ``(layers,)``.

    Attributes:
        length: of the direction, model units.
        null_length, null_high: its median and 95% quantile under exchanged names.
        p: share of exchanges with at least this length.
        p_adjusted: corrected for all layers.
        floor: the smallest p that so many questions can give.
        split_half: mean cosine of directions from two halves of the questions, in [-1, 1]; None
            with a single question.
        questions: units.
    """

    length: Array
    null_length: Array
    null_high: Array
    p: Array
    p_adjusted: Array
    floor: float
    split_half: Array | None
    questions: int


def direction_evidence(
    sums: ClassSums, rng: np.random.Generator, *, draws: int = DRAWS
) -> DirectionEvidence:
    """Hold a direction against exchanged names, and against itself in halves.

    Args:
        sums: of the direction.
        rng: draws exchanges beyond 14 questions, and halves.
        draws: how many of either.
    """
    count, layers = len(sums.questions), sums.sums.shape[2]
    flips = sign_flips(count, rng, draws)
    named = flips.signs > 0.0
    exchanged = _difference_weights(sums.counts, named, np.ones_like(named))
    halves = _halves(count, rng, draws)
    kept = np.ones_like(halves)
    one, other = (_difference_weights(sums.counts, kept, half) for half in (halves, ~halves))
    scales = np.sqrt(np.square(sums.differences).sum(-1).mean(axis=0))
    lengths = np.empty((len(named), layers))
    split = np.empty(layers)
    for layer in range(layers):
        gram = _gram(sums, layer)
        lengths[:, layer] = _length(exchanged, gram)
        if len(halves):
            size = _length(one, gram) * _length(other, gram)
            inner = np.einsum("ij,ij->i", one @ gram, other)
            split[layer] = (inner / np.where(size > 0.0, size, 1.0)).mean()
    p, adjusted = family_p(lengths / scales)
    return DirectionEvidence(
        lengths[0],
        np.median(lengths, axis=0),
        np.quantile(lengths, 0.95, axis=0),
        p,
        adjusted,
        flips.floor,
        split if len(halves) else None,
        count,
    )


def _difference_weights(counts: Array, named: BoolArray, kept: BoolArray) -> Array:
    """Weights of the 2Q class sums in each difference of means, ``(patterns, 2Q)``.

    Args:
        counts: ``(2, Q)``.
        named: which questions keep their names, ``(patterns, Q)``.
        kept: which questions take part, ``(patterns, Q)``.
    """
    part = np.concatenate([kept, kept], axis=1)
    positive = np.concatenate([named, ~named], axis=1) & part
    negative = ~positive & part
    flat = counts.reshape(-1)
    above = positive / (positive @ flat)[:, None]
    below = negative / (negative @ flat)[:, None]
    weights: Array = above - below
    return weights


def _gram(sums: ClassSums, layer: int) -> Array:
    rows = sums.sums[:, :, layer].reshape(-1, sums.sums.shape[-1])
    counts = sums.counts.reshape(-1, 1)
    # What all answers share cancels in every difference, and would cost it its digits.
    rows = rows - counts * (rows.sum(axis=0) / counts.sum())
    gram: Array = rows @ rows.T
    return gram


def _length(weights: Array, gram: Array) -> Array:
    squares: Array = np.einsum("ij,ij->i", weights @ gram, weights)
    return np.sqrt(np.maximum(squares, 0.0))


def _halves(count: int, rng: np.random.Generator, draws: int) -> BoolArray:
    if count < 2:
        return np.zeros((0, count), dtype=np.bool_)
    first = np.arange(count) < count // 2
    return rng.permuted(np.tile(first, (draws, 1)), axis=1)
