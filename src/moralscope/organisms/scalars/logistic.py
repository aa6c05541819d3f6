"""Which linear score tells two classes apart best? Logistic regression with an L2 or L1 penalty.

For rows x_i with classes y_i of -1 or +1 and weights v_i,

    L2:  min over w, b:  |w|^2 / 2 + C sum_i v_i log(1 + exp(-y_i (w.x_i + b)))
    L1:  min over w, b:  |w|_1     + C sum_i v_i log(1 + exp(-y_i (w.x_i + b)))

with C as in liblinear (Fan et al. 2008, J. Mach. Learn. Res. 9:1871), which penalises the intercept
b as well; here it is free. L2 is solved by Newton's method for many labellings of the same rows at
once. L1 is solved by L-BFGS-B over ``w = u - v, u >= 0, v >= 0``, then by Newton's method on the
coefficients that are not zero, whose signs are known by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from moralscope.core.errors import EvidenceError

Array = NDArray[np.float64]
Labels = NDArray[np.bool_]

_ITERATIONS = 100
_HALVINGS = 30
_DECREMENT = 1e-22
_ROUNDING = 1e-12
_ZERO = 1e-7
_minimise = cast("Callable[..., Any]", optimize.minimize)  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True, slots=True)
class Penalty:
    """How coefficients are held small.

    Attributes:
        kind: ``l2`` or ``l1``.
        c: weight of the loss against the penalty, above 0; small is strict.
    """

    kind: Literal["l1", "l2"]
    c: float


RIDGE: Final = Penalty("l2", 1.0)
PUBLISHED: Final = Penalty("l1", 0.01)
"""The probes of arXiv 2506.11618, appendix F."""


def fit_logistic(values: Array, labels: Labels, penalty: Penalty, weights: Array) -> Array:
    """Fit one probe for each labelling of the same rows.

    Args:
        values: (n, d) features, on one scale.
        labels: (n, P) the class of each row in each labelling, both in every one.
        penalty: of the coefficients.
        weights: (n, P) of each row, not negative, above zero somewhere in both classes.

    Returns:
        (d + 1, P) coefficients, the intercept last.

    Raises:
        EvidenceError: C is not positive, or a labelling has only one class.
    """
    both = (weights * labels).max(axis=0) * (weights * ~labels).max(axis=0) > 0.0
    if not penalty.c > 0.0 or not both.all():
        raise EvidenceError(
            "A logistic probe cannot be fitted",
            seen=f"C = {penalty.c:g}, {int((~both).sum())} labellings of "
            f"{labels.shape[1]} with one class",
            allowed="C above 0 and rows of both classes",
            remedy="give answers of both classes",
        )
    design = np.column_stack([values, np.ones(len(values))])
    loss = penalty.c * weights
    if penalty.kind == "l2":
        ridge = np.append(np.ones(values.shape[1]), 0.0)
        none = np.zeros((design.shape[1], labels.shape[1]))
        return _newton(_Smooth(design, labels, loss, ridge, none), none)
    fits = [_lasso(design, labels[:, [at]], loss[:, [at]]) for at in range(labels.shape[1])]
    return np.column_stack(fits)


@dataclass(frozen=True, eq=False)
class _Smooth:
    """``ridge theta^2 / 2 + slope theta + loss`` of each labelling.

    Attributes:
        design: (n, d + 1) features and a column of ones.
        labels: (n, P).
        loss: (n, P) weight of each row's loss.
        ridge: (d + 1,).
        slope: (d + 1, P).
    """

    design: Array
    labels: Labels
    loss: Array
    ridge: Array
    slope: Array

    def values(self, theta: Array) -> Array:
        """The function at (d + 1, P), for each labelling."""
        signed = np.where(self.labels, -1.0, 1.0) * (self.design @ theta)
        kept = 0.5 * self.ridge[:, None] * theta * theta + self.slope * theta
        total: Array = (self.loss * np.logaddexp(0.0, signed)).sum(axis=0) + kept.sum(axis=0)
        return total


def _newton(of: _Smooth, start: Array) -> Array:
    """Minimise for each labelling by Newton's method with steps that are halved, (d + 1, P)."""
    theta, size = start.copy(), of.design.shape[1]
    products = (of.design[:, :, None] * of.design[:, None, :]).reshape(-1, size * size)
    now = of.values(theta)
    for _ in range(_ITERATIONS):
        chance: Array = special.expit(of.design @ theta)
        off: Array = of.loss * (chance - of.labels)
        gradient: Array = of.design.T @ off + of.ridge[:, None] * theta + of.slope
        curvature = (products.T @ (of.loss * chance * (1.0 - chance))).T.reshape(-1, size, size)
        curvature += np.diag(of.ridge)
        solved = np.linalg.solve(curvature, gradient.T[:, :, None])
        step: Array = np.asarray(solved[:, :, 0].T, dtype=np.float64)
        decrement: Array = (gradient * step).sum(axis=0)
        if (decrement <= _DECREMENT * (1.0 + np.abs(now))).all():
            break
        # Near the optimum a decrease is lost in the rounding of the value.
        least = now + _ROUNDING * (1.0 + np.abs(now))
        length = np.ones(theta.shape[1])
        for _ in range(_HALVINGS):
            tried = of.values(theta - length * step)
            worse = tried > least - 0.25 * length * decrement
            if not worse.any():
                break
            length = np.where(worse, length / 2.0, length)
        theta = theta - length * step
        now = of.values(theta)
    return theta


def _lasso(design: Array, labels: Labels, loss: Array) -> Array:
    """The L1 fit of one labelling, (d + 1,)."""
    count = design.shape[1] - 1
    sign = np.where(labels[:, 0], 1.0, -1.0)

    def value_and_slope(parts: Array) -> tuple[float, Array]:
        theta = np.append(parts[:count] - parts[count:-1], parts[-1])
        margin = sign * (design @ theta)
        value = float(loss[:, 0] @ np.logaddexp(0.0, -margin)) + float(parts[:-1].sum())
        slope = design.T @ (-loss[:, 0] * sign * special.expit(-margin))
        return value, np.concatenate([slope[:count] + 1.0, 1.0 - slope[:count], slope[count:]])

    found = _minimise(
        value_and_slope,
        np.zeros(2 * count + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * (2 * count) + [(None, None)],
        options={"maxiter": 5_000, "ftol": 0.0, "gtol": 1e-9},
    )
    parts: Array = found.x
    theta = np.append(parts[:count] - parts[count:-1], parts[-1])
    theta[:count][np.abs(theta[:count]) <= _ZERO] = 0.0
    active = np.append(np.flatnonzero(theta[:count]), count)
    slope = np.append(np.sign(theta[active[:-1]]), 0.0)[:, None]
    piece = _Smooth(design[:, active], labels, loss, np.zeros(len(active)), slope)
    polished = _newton(piece, theta[active][:, None])[:, 0]
    # A coefficient that would change its sign has left the piece on which the penalty is linear.
    if (np.sign(polished[:-1]) == slope[:-1, 0]).all():
        theta[active] = polished
    return theta
