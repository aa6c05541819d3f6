"""How far do random directions agree? Random subspaces and random directions, drawn in small.

Two random k-dimensional subspaces of R^d overlap, as the mean squared cosine of their principal
angles, by

    tr(Z (Z + Y)^-1) / k,      Z ~ Wishart_k(k),  Y ~ Wishart_k(d - k),

whose mean is k / d: the first k rows of a random orthonormal (d, k) matrix (Muirhead 1982, section
3.3). Only (k, k) matrices are drawn. Where updates can reach only given subspaces S_a and S_b of
dimensions q_a and q_b (the row spaces of two adapters' ``A``), random directions within them agree
by ``|F_a^T S_a^T S_b F_b|^2 / k`` with random orthonormal F, of mean
``k |S_a^T S_b|^2 / (q_a q_b)``: k / q where both began from the same ``A``.

The share of an update's squared norm along a random unit direction is ``sum_i s_i^2 c_i^2 /
sum_i s_i^2`` with c uniform on the sphere, of mean 1 / d.

Of n draws the ends are order statistics chosen so that a further draw lies beyond either with
probability 2.5% exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moralscope.core.streams import stream

DRAWS = 199
"""Random draws behind each interval; (DRAWS + 1) / 40 is whole."""

TAIL = 0.025
"""Chance that a random draw lies beyond one end of an interval."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """Where random draws lie.

    Attributes:
        expected: their mean, in closed form.
        low, high: the ends beyond which 2.5% of them lie on each side.
    """

    expected: float
    low: float
    high: float


def ends(draws: Array) -> tuple[float, float]:
    """The order statistics beyond which a further draw lies with probability 2.5% each."""
    ordered = np.sort(draws)
    beyond = max(1, int(TAIL * (len(ordered) + 1)))
    return float(ordered[beyond - 1]), float(ordered[-beyond])


@lru_cache(maxsize=512)
def random_overlap(k: int, dimension: int, *place: str | int) -> Band:
    """The overlap of two random k-dimensional subspaces of R^dimension.

    Args:
        k: of both subspaces.
        dimension: of the space.
        place: address of the draws: those of different linear layers are drawn anew, so that a
            count of layers beyond their ends is binomial.
    """
    if k >= dimension:
        return Band(1.0, 1.0, 1.0)
    rng = stream(0, "weights", "subspaces", k, dimension, *place)
    first = rng.normal(size=(DRAWS, k, k))
    z = first.transpose(0, 2, 1) @ first
    y = _wishart(rng, k, dimension - k)
    found = np.trace(np.linalg.solve(z + y, z), axis1=1, axis2=2) / k
    return Band(k / dimension, *ends(found))


def _wishart(rng: np.random.Generator, k: int, freedom: int) -> Array:
    """Draws of Wishart_k(freedom), by Bartlett's factor where there are enough degrees."""
    if freedom < k:
        thin = rng.normal(size=(DRAWS, k, freedom))
        return thin @ thin.transpose(0, 2, 1)
    factor = np.tril(rng.normal(size=(DRAWS, k, k)), -1)
    diagonal = np.arange(k)
    factor[:, diagonal, diagonal] = np.sqrt(rng.chisquare(freedom - diagonal, size=(DRAWS, k)))
    return factor @ factor.transpose(0, 2, 1)


def reached_overlap(first: Array, second: Array, k: int, *place: str | int) -> Band:
    """The overlap of random k-dimensional subspaces within two given ones.

    Args:
        first: (d, q_a) orthonormal basis of what one can reach, q_a >= k.
        second: (d, q_b) of what the other can.
        k: dimensions.
        place: address of the draws, see ``random_overlap``.
    """
    across = first.T @ second
    q_a, q_b = across.shape
    frames_a, frames_b = _frames(k, q_a, "first", *place), _frames(k, q_b, "second", *place)
    # One product for all draws: (q_a, q_b) times (q_b, draws * k).
    moved = (across @ frames_b.transpose(1, 0, 2).reshape(q_b, -1)).reshape(q_a, -1, k)
    agreed = frames_a.transpose(0, 2, 1) @ moved.transpose(1, 0, 2)
    expected = k * float(np.square(across).sum()) / (q_a * q_b)
    return Band(expected, *ends(np.square(agreed).sum(axis=(1, 2)) / k))


@lru_cache(maxsize=64)
def _frames(k: int, dimension: int, *address: str | int) -> Array:
    """(draws, dimension, k) random orthonormal frames."""
    rng = stream(0, "weights", "frames", k, dimension, *address)
    return np.linalg.qr(rng.normal(size=(DRAWS, dimension, k)))[0]


def random_share(values: Array, dimension: int) -> Band:
    """The share of an update along a random direction of the space that it writes to or reads.

    Args:
        values: (r,) its singular values.
        dimension: of the space, r or more.
    """
    squares = _sphere(len(values), dimension)
    weights = values**2 / (values**2).sum()
    return Band(1.0 / dimension, *ends(squares @ weights))


@lru_cache(maxsize=64)
def _sphere(r: int, dimension: int) -> Array:
    """(draws, r) squared coordinates of random unit vectors along r orthonormal ones."""
    rng = stream(0, "weights", "directions", r, dimension)
    own = rng.normal(size=(DRAWS, r)) ** 2
    rest = rng.chisquare(dimension - r, size=(DRAWS, 1)) if dimension > r else 0.0
    return own / (own.sum(axis=1, keepdims=True) + rest)
