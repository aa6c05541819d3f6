"""Do profiles over depth rise and fall together, given that neighbouring layers are alike?

With x_a and y_a the ranks of two profiles over L layers in each of several agents,

    rho = mean over agents of corr(x_a, y_a)           (Spearman's, ties sharing their mean rank)

and two nulls, of which the larger p counts, each rearranging the layers of y in all agents alike:
*layers*, every order is equally likely; and *turns*, the profile is turned round by any number of
layers, or read backwards and turned, which keeps neighbours beside each other. Profiles are smooth
over depth, so two that have nothing to do with each other agree under many orders' null; of the 2 L
turns they agree in several. p cannot fall below 1 / (2 L).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import Array, finite

MIN_LAYERS = 6
"""Fewest layers over which profiles may be compared."""

_TIE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Together:
    """A rank correlation over layers.

    Attributes:
        rho: mean over agents, in [-1, 1].
        each: (A,) of each agent.
        p_layers: two-sided, layers in any order.
        p_turns: two-sided, profiles turned.
        floor: the smallest that the larger of both can be.
    """

    rho: float
    each: Array
    p_layers: float
    p_turns: float
    floor: float

    @property
    def p(self) -> float:
        """The larger of both."""
        return max(self.p_layers, self.p_turns)


def profiles_together(
    first: Array, second: Array, rng: np.random.Generator, draws: int = 9_999
) -> Together | None:
    """Correlate two profiles over layers in several agents; None where one of them is flat.

    Args:
        first: (A, L) one row per agent.
        second: (A, L) the other profile of the same agents at the same layers.
        rng: draws the orders.
        draws: how many, the observed one besides.

    Raises:
        EvidenceError: the shapes differ, or there are fewer than six layers.
        TableError: a value is undefined.
    """
    x, y = finite(first, "first profiles"), finite(second, "second profiles")
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] < MIN_LAYERS:
        raise EvidenceError(
            "Profiles over layers cannot be compared",
            seen=f"{' x '.join(map(str, x.shape))} and {' x '.join(map(str, y.shape))}",
            allowed=f"the same agents and layers in both, {MIN_LAYERS} layers or more",
            remedy="keep the layers that both have measured",
        )
    a, b = _standard(x), _standard(y)
    if a is None or b is None:
        return None
    layers = x.shape[1]
    places = np.arange(layers, dtype=np.int64)
    forwards = (places[:, None] + places) % layers
    turns = np.concatenate([forwards, forwards[:, ::-1]])
    orders = np.tile(places, (draws + 1, 1)).astype(np.int64)
    orders[1:] = rng.permuted(orders[1:], axis=1)
    each = np.clip((a * b).sum(axis=1), -1.0, 1.0)
    return Together(
        rho=float(each.mean()),
        each=each,
        p_layers=_share(a, b, orders),
        p_turns=_share(a, b, turns),
        floor=max(1.0 / (draws + 1), 1.0 / (2 * layers)),
    )


def _share(a: Array, b: Array, orders: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> float:
    """Share of rearrangements that agree as well as the first one, which is the observed one."""
    found = np.abs(np.einsum("al,anl->n", a, b[:, orders]))
    return float((found >= found[0] * _TIE).mean())


def _standard(values: Array) -> Array | None:
    """Ranks of each row about their mean, of length 1; None where a row is flat."""
    others = values[:, None, :]
    # The mean of the ranks that equal values share.
    below, equal = others < values[:, :, None], others == values[:, :, None]
    ranks: Array = below.sum(axis=2) + (equal.sum(axis=2) + 1) / 2.0
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return None if (length <= 0.0).any() else ranks / length
