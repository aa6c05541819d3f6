"""Where does the path of a training turn? The cosine between where it came from and where it goes.

With weights B_t at step t and a lag of k steps,

    c_t = cos( B_{t-k} - B_t,  B_{t+k} - B_t ),

-1 where the path is straight, 0 at a right angle, +1 where it goes back (Turner et al. 2025, arXiv
2506.11613, section 4). Where hardly anything moves the cosine is that of noise, so steps are kept
by one of two filters on the lengths of the two displacements:

``published``   the larger of the two exceeds a fixed length, in the unit of the weights: 0.0035
                for the main run, 0.002 for the others and in the published script
``relative``    the smaller of the two exceeds a share of the path's median displacement, which
                does not change with the scale of the weights

Adam's first steps, the end of the warm-up and the border of an epoch turn paths as well, so that a
turn says something only beside the same cosine of a matched control (``transitions``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.walk import Array, Path, Steps


@dataclass(frozen=True, slots=True)
class StepFilter:
    """Which steps move enough for their cosine to mean something.

    Attributes:
        kind: ``published`` or ``relative``, see the module.
        threshold: a length in the unit of the weights, or a share of the median displacement.
    """

    kind: Literal["published", "relative"]
    threshold: float


PUBLISHED: Final = StepFilter("published", 0.0035)
PUBLISHED_OTHERS: Final = StepFilter("published", 0.002)
RELATIVE: Final = StepFilter("relative", 0.1)


@dataclass(frozen=True, eq=False)
class LocalCosine:
    """The local cosine of a path.

    Attributes:
        lag: k, in steps.
        steps: (n,) every step that has recorded neighbours k steps before and after.
        values: (n,) in [-1, 1]; NaN at steps that the filter left out.
        kept: (n,) which steps it kept.
        step_filter: by which they were kept.
    """

    lag: int
    steps: Steps
    values: Array
    kept: NDArray[np.bool_]
    step_filter: StepFilter


def local_cosine(path: Path, lag: int, step_filter: StepFilter = RELATIVE) -> LocalCosine:
    """The local cosine at every step that has neighbours at the lag.

    Args:
        path: of one training.
        lag: k, in optimiser steps; published are 5, 10 and 15.
        step_filter: which steps are kept.

    Raises:
        EvidenceError: the lag is not positive, or no step has recorded neighbours at it.
    """
    index = {step: at for at, step in enumerate(path.steps.tolist())}
    middle = [s for s in index if lag > 0 and s - lag in index and s + lag in index]
    if not middle:
        raise EvidenceError(
            "No step of the path has neighbours at this lag",
            seen=f"lag {lag}; {len(path)} steps from {path.steps[0]} to {path.steps[-1]}",
            allowed="a lag above zero at which steps were recorded before and after others",
            remedy="take a multiple of the distance between recorded steps",
        )
    here = path.values[[index[s] for s in middle]]
    back = path.values[[index[s - lag] for s in middle]] - here
    forth = path.values[[index[s + lag] for s in middle]] - here
    kept = _kept(back, forth, step_filter)
    values = np.full(len(middle), np.nan)
    values[kept] = cosines(back[kept], forth[kept])
    return LocalCosine(lag, np.array(middle, dtype=np.int64), values, kept, step_filter)


def _kept(back: Array, forth: Array, step_filter: StepFilter) -> NDArray[np.bool_]:
    lengths = np.stack([np.linalg.norm(back, axis=1), np.linalg.norm(forth, axis=1)])
    # Where one of them is zero there is no angle.
    defined = lengths.min(axis=0) > 0.0
    if step_filter.kind == "published":
        return defined & (lengths.max(axis=0) > step_filter.threshold)
    least = step_filter.threshold * float(np.median(lengths))
    return defined & (lengths.min(axis=0) > least)


def cosines(first: Array, second: Array) -> Array:
    """Cosine of each pair of rows, exact for parallel and for orthogonal ones.

    Args:
        first: (n, d), no row of zeros.
        second: (n, d), no row of zeros.
    """
    a = first / np.abs(first).max(axis=1, keepdims=True)
    b = second / np.abs(second).max(axis=1, keepdims=True)
    # One root of a product, not a product of roots, which would round a straight path off -1.
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.clip((a * b).sum(axis=1) / lengths, -1.0, 1.0)
