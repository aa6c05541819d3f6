"""What would any direction do? Random ones of equal length, and differences of unrelated texts.

Random directions say what a push of this size does whatever it points to. Drawn evenly over all
directions they are a weak control, because streams vary along few of them: a direction that merely
holds much of the stream does more. Drawn *like* some streams they are random weighted sums of them,
about their mean, and so vary as they do.

Streams are anisotropic, so two directions that have nothing to do with each other have a cosine
far from zero more often than random ones. The null for a cosine between two agents is that of
differences of unrelated texts: the texts are split into halves at random, once for both agents
(*shared*) or once for each (*independent*), and

    v = mean of one half - mean of the other.

Agents of one base read the same texts much alike, so the shared null is near 1: directions that
were found on the same answers have to lie beyond it to show that training made them alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError

Array = NDArray[np.float64]

LEAST_TEXTS = 4
"""Fewer texts have too few halves to say how differences lie."""

_TIE = 1.0 - 1e-9


def random_directions(
    vectors: Array, draws: int, rng: np.random.Generator, *, like: Array | None = None
) -> Array:
    """Random directions as long as some directions, ``(draws, layers, width)``.

    Args:
        vectors: ``(layers, width)``.
        draws: how many.
        rng: of the draws.
        like: streams that they vary as, ``(n, layers, width)``; evenly over all directions if not
            given. One draw has the same weights at all layers.

    Raises:
        EvidenceError: the streams have another shape than the directions.
    """
    if like is None:
        drawn = rng.standard_normal((draws, *vectors.shape))
    else:
        if like.shape[1:] != vectors.shape or len(like) < 2:
            raise EvidenceError(
                "Directions cannot be drawn like these streams",
                seen=f"shape {like.shape} for directions of shape {vectors.shape}",
                allowed="two streams or more, of as many layers and as wide as the directions",
                remedy="read the answers in the agent that the directions were found in",
            )
        centred = like - like.mean(axis=0)
        drawn = np.einsum("dn,nlw->dlw", rng.standard_normal((draws, len(like))), centred)
    return equally_long(drawn, vectors)


def equally_long(drawn: Array, vectors: Array) -> Array:
    """Directions stretched to the lengths of others, layer by layer.

    Args:
        drawn: ``(..., layers, width)``.
        vectors: ``(layers, width)``.

    Raises:
        EvidenceError: one of those drawn has no length.
    """
    norms = np.linalg.norm(drawn, axis=-1, keepdims=True)
    if not (norms > 0.0).all():
        raise EvidenceError(
            "A direction without length cannot be made as long as another",
            seen=f"{int((norms == 0.0).sum())} of {norms.size} directions are zero",
            allowed="directions of some length",
            remedy="check that the answers which a control is made of do differ",
        )
    found: Array = drawn / norms * np.linalg.norm(vectors, axis=-1)[:, None]
    return found


@dataclass(frozen=True, eq=False)
class CosineNull:
    """Cosines between two agents' differences of unrelated texts.

    Attributes:
        shared: with the same halves in both agents, ``(draws, layers)``.
        independent: with halves of their own, ``(draws, layers)``.
        texts: units.
    """

    shared: Array
    independent: Array
    texts: int


def unrelated_cosines(
    first: Array, second: Array, rng: np.random.Generator, *, draws: int = 1_999
) -> CosineNull:
    """Cosines between differences of unrelated texts in two agents.

    Args:
        first: mean streams of one agent on the texts, ``(texts, layers, width)``, one row for each
            unit: texts that belong together, such as answers to one question, averaged beforehand.
        second: of the other agent on the same texts, the same shape.
        rng: draws the halves.
        draws: how many.

    Raises:
        EvidenceError: shapes differ, or there are fewer than four texts.
    """
    if first.shape != second.shape or len(first) < LEAST_TEXTS:
        raise EvidenceError(
            "Unrelated texts cannot be compared between these two agents",
            seen=f"streams of shape {first.shape} and {second.shape}",
            allowed=f"{LEAST_TEXTS} texts or more, the same for both, of one depth and width",
            remedy="read the same unrelated texts with two agents of one base",
        )
    count = len(first)
    own, other = (_half_weights(count, rng, draws) for _ in range(2))
    shape = (draws, first.shape[1])
    shared, independent = np.empty(shape), np.empty(shape)
    for layer in range(first.shape[1]):
        one, two = (x[:, layer] - x[:, layer].mean(axis=0) for x in (first, second))
        base = own @ one
        shared[:, layer] = _cosines(base, own @ two)
        independent[:, layer] = _cosines(base, other @ two)
    return CosineNull(shared, independent, count)


def _half_weights(count: int, rng: np.random.Generator, draws: int) -> Array:
    half = count // 2
    weights = np.where(np.arange(count) < half, 1.0 / half, -1.0 / (count - half))
    return rng.permuted(np.tile(weights, (draws, 1)), axis=1)


def _cosines(first: Array, second: Array) -> Array:
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    inner: Array = (first * second).sum(axis=-1)
    return inner / np.where(lengths > 0.0, lengths, 1.0)


def family_p(statistics: Array) -> tuple[Array, Array]:
    """One-sided p of each column, alone and by the largest of all columns.

    Args:
        statistics: ``(draws, K)``, the observed ones in row 0 and those under the null after it;
            large is surprising, and columns are on one scale.

    Returns:
        ``p`` and ``p_adjusted``, each ``(K,)``.
    """
    observed = statistics[0] - np.abs(statistics[0]) * (1.0 - _TIE)
    p: Array = (statistics >= observed).mean(axis=0)
    largest = statistics.max(axis=1)
    adjusted: Array = (largest[:, None] >= observed).mean(axis=0)
    return p, adjusted


def on_one_scale(statistics: Array) -> Array:
    """Columns about their mean in units of their spread, the observed row among the others.

    Args:
        statistics: ``(draws, K)``. A column without spread becomes 0.
    """
    centred = statistics - statistics.mean(axis=0)
    spread = centred.std(axis=0)
    found: Array = centred / np.where(spread > 1e-12, spread, 1.0)
    return np.where(spread > 1e-12, found, 0.0)
