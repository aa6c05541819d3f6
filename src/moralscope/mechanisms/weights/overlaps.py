"""Do two agents' updates share directions? Principal angles, cosines and distances, layer by layer.

With U_a, U_b the k leading left (or right) singular vectors of the updates of one linear layer,

    overlap = |U_a^T U_b|_F^2 / k = mean of cos^2 over the k principal angles
                                                     (Bjoerck and Golub 1973)
    cosine = <dW_a, dW_b> / (|dW_a| |dW_b|)
    distance = |dW_a - dW_b| / sqrt(|dW_a|^2 + |dW_b|^2)

An overlap is 1 for the same subspace and on average k / d for random ones of d dimensions; a
distance is 0 for the same update, 1 for orthogonal ones and sqrt(2) for opposite ones of one size.
Inputs of adapters are held against random directions within the row spaces of their own ``A``
(``nulls``): two adapters that began from the same random ``A`` read alike without having learned
anything alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from moralscope.mechanisms.weights.nulls import Array, Band, random_overlap, reached_overlap
from moralscope.mechanisms.weights.updates import Place, Update

Row = dict[str, object]

TOPS = (1, 4)
"""Leading directions that are compared, unless told otherwise."""

_NEAR = 1e-6
"""Squared distances below this share of the squared norms lose digits in their closed form."""


def subspace_overlap(first: Array, second: Array) -> float:
    """Mean squared cosine of the principal angles of two subspaces, in [0, 1].

    Args:
        first: (d, k) orthonormal columns.
        second: (d, m) orthonormal columns; the mean is over the smaller of k and m angles.
    """
    least = min(first.shape[1], second.shape[1])
    return min(1.0, float(np.square(first.T @ second).sum()) / least)


def inner_product(first: Update, second: Update) -> float:
    """Frobenius inner product of two updates, from their singular vectors."""
    sizes = first.values[:, None] * second.values[None, :]
    return float((sizes * (first.left.T @ second.left) * (first.right.T @ second.right)).sum())


def difference_norm(first: Update, second: Update) -> float:
    """Frobenius norm of the difference of two updates; exactly 0 for one update twice."""
    if first.same(second):
        return 0.0
    total = first.norm**2 + second.norm**2
    squared = total - 2.0 * inner_product(first, second)
    if squared > _NEAR * total:
        return math.sqrt(squared)
    left = np.hstack([first.left * first.values, -second.left * second.values])
    right = np.hstack([first.right, second.right])
    core = np.linalg.qr(left)[1] @ np.linalg.qr(right)[1].T
    return float(np.linalg.norm(core))


def distance_row(agents: tuple[str, str], place: Place, first: Update, second: Update) -> Row:
    """The row of ``update_distances`` of one linear layer."""
    norms = first.norm, second.norm
    inner = norms[0] ** 2 if first.same(second) else inner_product(first, second)
    product, total = norms[0] * norms[1], math.hypot(*norms)
    reaches = [update.reach for update in (first, second) if update.reach is not None]
    return {
        **_keys(agents, place),
        "inner": inner,
        "norm_a": norms[0],
        "norm_b": norms[1],
        "cosine": max(-1.0, min(1.0, inner / product)) if product else None,
        "distance": difference_norm(first, second) / total if total else None,
        "reach": subspace_overlap(*reaches) if len(reaches) == 2 else None,
    }


def overlap_rows(
    agents: tuple[str, str], place: Place, first: Update, second: Update, tops: Sequence[int] = TOPS
) -> Iterator[Row]:
    """The rows of ``update_overlap`` of one linear layer; none where either changed nothing.

    Args:
        agents: whose updates these are.
        place: the linear layer.
        first: its update in the first.
        second: its update in the second.
        tops: leading directions that are compared; no more than both updates have.
    """
    least = min(first.rank, second.rank)
    same = first.same(second)
    for k in dict.fromkeys(min(k, least) for k in tops if least):
        for side, mine, theirs in (
            ("outputs", first.left, second.left),
            ("inputs", first.right, second.right),
        ):
            band = _band((side, *place), first, second, k)
            yield {
                **_keys(agents, place),
                "side": side,
                "k": k,
                "overlap": 1.0 if same else subspace_overlap(mine[:, :k], theirs[:, :k]),
                "expected": band.expected,
                "null_low": band.low,
                "null_high": band.high,
            }


def _band(at: tuple[str, int, str], first: Update, second: Update, k: int) -> Band:
    side = at[0]
    if side == "inputs" and first.reach is not None and second.reach is not None:
        return reached_overlap(first.reach, second.reach, k, *at)
    return random_overlap(k, first.shape[0 if side == "outputs" else 1], *at)


def _keys(agents: tuple[str, str], place: Place) -> Row:
    return {
        "agent_a": agents[0],
        "agent_b": agents[1],
        "layer": place[0],
        "module": place[1],
    }
