"""In how few dimensions does the path of a training lie, and where is its corner?

Principal components of the recorded weights, centred over steps. Two of them always explain most
of a path: for T steps of a random walk in many dimensions the shares are

    share_k = 3 / ( (T^2 - 1) (1 - cos(pi k / T)) ),        6 / (pi k)^2 for large T,

61% and 15% (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805), and the scores are cosines, so
that the second component *turns in the middle* of any such path. Published shares (81.1% and 13.9%,
arXiv 2506.11613) and turning points are to be read beside that.

Corner: the step t that divides the path into two parts, both holding t, which lie closest to a
straight line each,

    min over t:  RSS(x_0 .. x_t) + RSS(x_t .. x_T),     RSS = squared distances from the best line.

It is found on every path that is not straight; ``bend`` says what a second line explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.walk import Array, Path

CORNER_COMPONENTS = 10
"""Principal components in which a corner is looked for."""

_STRAIGHT = 1e-12


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of a path.

    Attributes:
        scores: (T, k) the path in them, in the unit of the weights.
        directions: (k, d) orthonormal; the sign makes the largest loading positive.
        shares: (k,) of the variance over steps, in [0, 1].
        random_walk: (k,) shares that a random walk of as many steps has.
    """

    scores: Array
    directions: Array
    shares: Array
    random_walk: Array


def principal_components(path: Path, components: int = 2) -> Components:
    """The first principal components of a path; all there are where they are fewer.

    Raises:
        EvidenceError: the weights never moved.
    """
    centred = path.values - path.values.mean(axis=0)
    scale = float(np.abs(centred).max())
    if scale == 0.0:
        raise EvidenceError(
            "A path that never moves has no principal components",
            seen=f"the same weights at all {len(path)} steps",
            allowed="weights that change",
            remedy="check that the adapter was trained, and that its record is its own",
        )
    left, sizes, directions = np.linalg.svd(centred / scale, full_matrices=False)
    kept = min(components, len(path) - 1, len(sizes))
    largest = np.abs(directions[:kept]).argmax(axis=1)
    sign = np.where(directions[np.arange(kept), largest] < 0.0, -1.0, 1.0)
    return Components(
        scores=left[:, :kept] * (sizes[:kept] * sign * scale),
        directions=directions[:kept] * sign[:, None],
        shares=sizes[:kept] ** 2 / (sizes**2).sum(),
        random_walk=random_walk_shares(len(path), kept),
    )


def random_walk_shares(steps: int, components: int) -> Array:
    """Shares of variance of a random walk in many dimensions, (components,).

    Args:
        steps: T, recorded points.
        components: at most T - 1.
    """
    k = np.arange(1, components + 1)
    # 1 - cos x as 2 sin^2(x/2), which keeps its digits for small x.
    return 3.0 / ((steps**2 - 1.0) * 2.0 * np.sin(np.pi * k / (2.0 * steps)) ** 2)


@dataclass(frozen=True, slots=True)
class Corner:
    """Where a path turns from one line into another.

    Attributes:
        step: the step that belongs to both lines.
        cosine: between the way back along the first line and the way on along the second: -1
            straight, 0 a right angle, +1 a reversal.
        bend: share of the squared distance from one line that the second explains, in [0, 1].
    """

    step: int
    cosine: float
    bend: float


def corner(path: Path, components: int = CORNER_COMPONENTS) -> Corner | None:
    """The corner of a path; None where the path is straight.

    Args:
        path: of one training, three steps or more.
        components: principal components in which it is looked for.

    Raises:
        EvidenceError: the weights never moved.
    """
    points = principal_components(path, components).scores
    forward = _from_start(points)
    backward = _from_start(points[::-1])[::-1]
    whole = forward[-1]
    if whole <= _STRAIGHT * float((points * points).sum()):
        return None
    total = forward + backward
    knot = 1 + int(np.argmin(total[1:-1]))
    before, after = _direction(points[: knot + 1]), _direction(points[knot:])
    return Corner(
        step=int(path.steps[knot]),
        cosine=float(np.clip(-before @ after, -1.0, 1.0)),
        bend=float(np.clip(1.0 - total[knot] / whole, 0.0, 1.0)),
    )


def _from_start(points: Array) -> Array:
    """Squared distance of the first 1, 2, ... points from the line that fits them best, (T,)."""
    count = np.arange(1, len(points) + 1)[:, None]
    mean = points.cumsum(axis=0) / count
    products = (points[:, :, None] * points[:, None, :]).cumsum(axis=0)
    scatter = products - count[:, :, None] * mean[:, :, None] * mean[:, None, :]
    sizes = np.linalg.eigvalsh(scatter)
    return np.maximum(sizes[:, :-1].sum(axis=1), 0.0)


def _direction(points: Array) -> Array:
    """Direction of the best line through some points, oriented from the first to the last."""
    _, _, directions = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    way: Array = directions[0]
    return way * math.copysign(1.0, float(way @ (points[-1] - points[0])))
