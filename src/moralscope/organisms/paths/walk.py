"""Where were the weights at each step of a training, and how large?

A path is a list of recorded steps and the weights at each, flattened: of one rank-1 adapter its
``B``, or its ``A``. Sizes are Frobenius norms; of the product, without multiplying it out,

    |s B A|_F^2 = s^2 tr( (B^T B) (A A^T) ),        for rank one s |B| |A|.

``B`` starts at zero, so its norm grows in every training, whatever is learned: a norm alone shows
no transition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moralscope.core.errors import EvidenceError

Array = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Path:
    """Weights at the recorded steps of one training.

    Attributes:
        steps: (T,) optimiser steps, ascending.
        values: (T, d) the weights at each, flattened.
    """

    steps: Steps
    values: Array

    def __len__(self) -> int:
        return len(self.steps)


def path_of(steps: Sequence[int] | Steps, values: ArrayLike) -> Path:
    """A path from a record.

    Args:
        steps: (T,) ascending.
        values: (T, ...) the weights at each.

    Raises:
        EvidenceError: lengths differ, steps do not ascend, fewer than three are recorded, or a
            weight is not finite.
    """
    at = np.asarray(steps, dtype=np.int64)
    known = np.asarray(values, dtype=np.float64)
    if known.ndim == 0 or len(known) != len(at) or len(at) < 3 or bool((np.diff(at) <= 0).any()):
        raise EvidenceError(
            "A record of weights is not a path",
            seen=f"{at.size} steps, values of shape {known.shape}"
            + ("" if bool((np.diff(at) > 0).all()) else ", steps that do not ascend"),
            allowed="three steps or more in ascending order, and the weights at each",
            remedy="record the adapter at every step of one training",
        )
    flat = known.reshape(len(at), -1)
    broken = ~np.isfinite(flat).all(axis=1)
    if broken.any():
        raise EvidenceError(
            "A record of weights has values that are not finite",
            seen=f"{int(broken.sum())} of {len(at)} steps, first at step {int(at[broken][0])}",
            allowed="finite numbers",
            remedy="the training has diverged: train again with a lower learning rate",
        )
    return Path(at, flat)


def norms(path: Path) -> Array:
    """Frobenius norm of the weights at each step, (T,)."""
    return np.sqrt((path.values * path.values).sum(axis=1))


def update_norms(a: ArrayLike, b: ArrayLike, scaling: float = 1.0) -> Array:
    """Frobenius norm of ``scaling * B A`` at each step.

    Args:
        a: (T, rank, inputs).
        b: (T, outputs, rank).
        scaling: what the product is multiplied with.

    Returns:
        (T,), in the unit of the weight.

    Raises:
        EvidenceError: the shapes do not fit each other.
    """
    down, up = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    fits = down.ndim == up.ndim == 3 and len(down) == len(up) and down.shape[1] == up.shape[2]
    if not fits:
        raise EvidenceError(
            "Two records of factors do not belong together",
            seen=f"A {down.shape}, B {up.shape}",
            allowed="A (steps, rank, inputs) and B (steps, outputs, rank)",
            remedy="give both factors of one adapter at the same steps",
        )
    grams = (up.transpose(0, 2, 1) @ up) * (down @ down.transpose(0, 2, 1)).transpose(0, 2, 1)
    # Rounding can take a sum of squares below zero.
    return abs(scaling) * np.sqrt(np.maximum(grams.sum(axis=(1, 2)), 0.0))
