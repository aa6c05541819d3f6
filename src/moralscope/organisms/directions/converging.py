"""Do organisms converge on one direction? Cosines layer by layer, against unrelated texts.

    cos_l = v_l . w_l / (|v_l| |w_l|)

of the directions of two organisms of one base. The null is that of ``nulls.unrelated_cosines``: of
differences of texts that have nothing to do with the lesson. Where both directions were found on
answers that are the same, halves are shared between the agents, because any difference of texts
looks alike to two fine-tunes of one base; where no answer is the same, each agent has its own. The
alternative is one-sided: converging directions point the same way. Layers are one family: cosines
are taken about their mean in units of their spread under the null, the observed ones among them,
and the largest over layers corrects (max-T).

A direction that is known from few questions cannot reach a cosine of 1 with anything; where both
have a split-half cosine s, the ceiling is about ``sqrt(2 s_v / (1 + s_v) * 2 s_w / (1 + s_w))``
(Spearman 1904, Brown 1910).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.organisms.directions.means import AnswerDirection
from moralscope.organisms.directions.nulls import CosineNull, family_p, on_one_scale

Array = NDArray[np.float64]

Halves = Literal["shared", "independent"]


@dataclass(frozen=True, eq=False)
class Convergence:
    """How alike the directions of two organisms are; all arrays ``(layers,)``.

    Attributes:
        first, second: the organisms.
        cosine: in [-1, 1].
        halves: which null it is held against.
        null_mean, null_high: mean and 95% quantile of that null.
        p, p_adjusted: share of the null, the observed one among it, with at least this cosine;
            alone and over all layers.
        floor: the smallest p that the null can give.
        shared_answers: answers that both directions were found on.
        texts: unrelated texts, the units of the null.
    """

    first: str
    second: str
    cosine: Array
    halves: Halves
    null_mean: Array
    null_high: Array
    p: Array
    p_adjusted: Array
    floor: float
    shared_answers: int
    texts: int


def converge(first: AnswerDirection, second: AnswerDirection, null: CosineNull) -> Convergence:
    """Compare the directions of two organisms.

    Args:
        first: of one organism.
        second: of the other, with the same weighting over the same tokens.
        null: of these two organisms.

    Raises:
        EvidenceError: the directions differ in depth, width, weighting or tokens, or the null is
            of models of another depth.
    """
    _refuse_unlike(first, second, null)
    shared = len(first.ids & second.ids)
    halves: Halves = "shared" if shared else "independent"
    drawn = null.shared if shared else null.independent
    cosine = cosines(first.vectors, second.vectors)
    p, adjusted = family_p(on_one_scale(np.vstack([cosine, drawn])))
    return Convergence(
        first.agent,
        second.agent,
        cosine,
        halves,
        drawn.mean(axis=0),
        np.quantile(drawn, 0.95, axis=0),
        p,
        adjusted,
        1.0 / (len(drawn) + 1),
        shared,
        null.texts,
    )


def cosines(first: Array, second: Array) -> Array:
    """Cosines of directions of some length, layer by layer, ``(layers,)``, in [-1, 1].

    Args:
        first: ``(layers, width)``.
        second: the same shape.

    Raises:
        EvidenceError: shapes differ, or a direction is zero.
    """
    if first.shape != second.shape:
        raise EvidenceError(
            "Directions of models of different shape have no cosine",
            seen=f"(layers, width) {first.shape} and {second.shape}",
            allowed="two organisms of one base",
            remedy="compare fine-tunes of one base",
        )
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    if not (lengths > 0.0).all():
        raise EvidenceError(
            "A direction of zero length has no cosine",
            seen=f"zero after layer {int(np.flatnonzero(~(lengths > 0.0))[0])}",
            allowed="directions of some length",
            remedy="compare directions of answers that do differ",
        )
    found: Array = (first * second).sum(axis=-1) / lengths
    return np.clip(found, -1.0, 1.0)


def ceiling(first: Array, second: Array) -> Array:
    """The cosine that two noisy directions could reach at most, about; in [0, 1].

    Args:
        first: split-half cosines of one, any shape; below zero counts as zero.
        second: of the other, the same shape.
    """
    one, other = (2.0 * np.maximum(s, 0.0) / (1.0 + np.maximum(s, 0.0)) for s in (first, second))
    found: Array = np.sqrt(one * other)
    return found


def _refuse_unlike(first: AnswerDirection, second: AnswerDirection, null: CosineNull) -> None:
    ways = [(one.weighting, one.over) for one in (first, second)]
    if ways[0] != ways[1] or null.shared.shape[1] != len(first.vectors):
        raise EvidenceError(
            "These directions cannot be compared",
            seen=f"{ways[0]} and {ways[1]}, {len(first.vectors)} layers; "
            f"a null of {null.shared.shape[1]} layers",
            allowed="one weighting and one choice of tokens, and a null of the same agents",
            remedy="find both directions in the same way",
        )
