"""Do several adapters arrive together? Their similarity to what they will be at the end.

With M the ``B`` of n adapters at one step, stacked to (n, d), and N that of the last step,

    comp(M, N) = |M^T N|_F / ( |M|_F |N|_F )        (Turner et al. 2025, arXiv 2506.11613)

after taking a mean away. The text and the code of that paper differ in which:

``per_step``      the mean over adapters at each step (the text)
``per_adapter``   the mean over steps of each adapter (the code), which makes the first steps
                  anti-parallel to the last where ``B`` grows from zero
``none``          nothing

Two things follow from the formula. ``|M^T N|_F^2 = tr(M M^T N N^T)`` holds nothing but the products
*between adapters of one step*: if all of them rotate together it stays as it is, so it cannot show
that they turn towards anything. And comp(N, N) is not 1 but |N N^T|_F / |N|_F^2, between 1/sqrt(n)
and 1: the ceiling. Beside it stand ``normalised = comp(M, N) / sqrt(comp(M, M) comp(N, N))``, whose
ceiling is 1 (the root of the RV coefficient, Robert and Escoufier 1976), and ``cosine``, that of
all entries of M and N, which does see a common rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.walk import Array

Demeaning = Literal["per_step", "per_adapter", "none"]
DEMEANINGS: Final[tuple[Demeaning, ...]] = ("per_step", "per_adapter", "none")


@dataclass(frozen=True, eq=False)
class Composite:
    """Similarity of several adapters at each step to the last one.

    Attributes:
        demeaning: which mean was taken away.
        composite: (T,) comp(M_t, M_T), in [0, 1]; NaN where M_t is zero.
        normalised: (T,) in [0, 1], 1 at the last step.
        cosine: (T,) of all entries, in [-1, 1], 1 at the last step.
        ceiling: comp(M_T, M_T).
    """

    demeaning: Demeaning
    composite: Array
    normalised: Array
    cosine: Array
    ceiling: float


def composite_similarity(first: Array, second: Array) -> float:
    """``comp(M, N)`` of two stacks of vectors, (n, d) each; NaN where one is zero."""
    one, other = first @ first.T, second @ second.T
    lengths = float(np.trace(one)) * float(np.trace(other))
    # A sum of squares that rounding may take below zero.
    return float(np.sqrt(max(float((one * other).sum()), 0.0) / lengths)) if lengths else np.nan


def similarity_to_last(values: ArrayLike, demeaning: Demeaning) -> Composite:
    """Similarity of several adapters at each step to the last step.

    Args:
        values: (T, adapters, d) the ``B`` of each adapter at each step.
        demeaning: which mean is taken away.

    Raises:
        EvidenceError: there are fewer than two adapters, a weight is not finite, or nothing is
            left at the last step once the mean is taken away.
    """
    known = np.asarray(values, dtype=np.float64)
    if known.ndim != 3 or known.shape[1] < 2 or not np.isfinite(known).all():
        raise EvidenceError(
            "Adapters cannot be compared together",
            seen=f"values of shape {known.shape}"
            + ("" if np.isfinite(known).all() else ", some not finite"),
            allowed="finite values (steps, adapters, outputs) of two adapters or more",
            remedy="record all adapters of one training at the same steps; a single adapter has "
            "its local cosine",
        )
    centred = _demeaned(known, demeaning)
    last = centred[-1]
    # Of equal adapters their mean leaves rounding.
    if np.linalg.norm(last) <= 1e-12 * np.linalg.norm(known[-1]):
        raise EvidenceError(
            "Nothing is left of the adapters at the last step",
            seen=f"zero after taking the mean away ({demeaning})",
            allowed="adapters that differ from that mean",
            remedy="check that they were trained, or take another mean away",
        )
    composite = np.array([composite_similarity(each, last) for each in centred])
    own = np.array([composite_similarity(each, each) for each in centred])
    sizes = np.linalg.norm(centred, axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):  # a step at which all are zero
        cosine = (centred * last).sum(axis=(1, 2)) / (sizes * sizes[-1])
    return Composite(
        demeaning=demeaning,
        composite=composite,
        normalised=composite / np.sqrt(own * own[-1]),
        cosine=np.clip(cosine, -1.0, 1.0),
        ceiling=float(own[-1]),
    )


def _demeaned(values: Array, demeaning: Demeaning) -> Array:
    if demeaning == "per_step":
        return values - values.mean(axis=1, keepdims=True)
    if demeaning == "per_adapter":
        return values - values.mean(axis=0, keepdims=True)
    return values
