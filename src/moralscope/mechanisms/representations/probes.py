"""Which directions tell two groups of streams apart, also on scenarios that were not seen?

Two linear probes. *Mean difference*: ``w = m1 - m0``, the threshold half-way between the two means.
*Logistic*: with streams centred and scaled to a mean square length of 1,

    min over w:  sum_i log(1 + exp(-y_i w.x_i)) + |w|^2 / 2,

solved for many labellings at once in the space of the n readings, by steps against the fixed bound
``X'X / 4 + 1`` of the Hessian (Boehning and Lindsay 1988, Ann. Inst. Stat. Math. 40:641).

What differs most between readings is their wording and their game, not what is asked for. Designs
balance one against the other, and a probe that leaves out one reading of a balanced set learns the
opposite of what it is tested on: it is wrong every time. Scenarios are therefore put together into
*blocks* (neighbours in the alphabet, such as the states of a game) in which every wording occurs in
both classes; readings are centred within block and wording, without looking at their class; and a
block is left out as a whole.

Any two groups of a few dozen points can be separated in hundreds of dimensions, and held-out
accuracy has no known law under clustering, so the same probe is fitted to labels that are permuted
within blocks: those of single readings of a wording, or those of whole scenarios where their label
is one. The observed labels are among the permutations, so that p cannot be 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.mechanisms.representations.streams import Array

Method = Literal["mean_difference", "logistic"]
METHODS: Final[tuple[Method, ...]] = ("mean_difference", "logistic")

PERMUTATIONS = 99
"""Permuted labellings of a probe."""

_RIDGE = 1.0
_STEPS = 500
_CONVERGED = 1e-9
_TIE = 1e-12

_LEAST_BLOCKS = 3

Labels = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Probed:
    """How well a probe tells held-out readings apart.

    Attributes:
        accuracy: mean of the shares of both classes on the right side.
        auc: share of pairs within a fold, one of each class, in the right order; a tie is half.
        chance: mean accuracy over permuted labels.
        low, high: between these lie 95% of those.
        p: share of labellings, the observed one among them, with at least this accuracy.
        permuted: within blocks, ``prompts`` of a wording or whole ``scenarios``.
    """

    accuracy: float
    auc: float
    chance: float
    low: float
    high: float
    p: float
    permuted: Literal["prompts", "scenarios"]


@dataclass(frozen=True, eq=False)
class Asked:
    """Readings of two classes.

    Attributes:
        values: ``(n, d)``.
        labels: ``(n,)`` the class of each.
        units: ``(n,)`` the scenario of each.
        strata: ``(n,)`` the wording of each.
    """

    values: Array
    labels: Labels
    units: tuple[str, ...]
    strata: tuple[str, ...]


def probe(
    asked: Asked,
    method: Method,
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Probed:
    """Fit a probe with each block left out, and compare it with permuted labels.

    Args:
        asked: the readings.
        method: which probe.
        rng: draws the permutations.
        permutations: how many; 0 for none, which leaves chance at 0.5 and p at 1.

    Raises:
        EvidenceError: there are too few blocks that hold both classes in every wording.
    """
    blocks = blocks_of(asked)
    whole = _whole_scenarios(asked)
    drawn = _permuted(asked, blocks, rng, permutations, whole=whole)
    folds = [np.flatnonzero(blocks == block) for block in range(int(blocks.max()) + 1)]
    scores = _scores(centred(asked, blocks), drawn, folds, method)
    accuracy = _accuracy(scores, drawn)
    of_chance = accuracy[1:] if permutations else np.array([0.5])
    low, high = (float(end) for end in np.quantile(of_chance, [0.025, 0.975]))
    return Probed(
        accuracy=float(accuracy[0]),
        auc=_auc(scores[:, 0], asked.labels, folds),
        chance=float(of_chance.mean()),
        low=low,
        high=high,
        p=float((accuracy >= accuracy[0] - _TIE).mean()),
        permuted="scenarios" if whole else "prompts",
    )


def blocks_of(asked: Asked) -> Index:
    """The block of each reading, from 0: whole scenarios, every wording in both classes.

    Raises:
        EvidenceError: there are fewer than three.
    """
    block: dict[str, int] = {}
    pending: list[str] = []
    done = 0
    for unit in sorted(set(asked.units)):
        pending.append(unit)
        rows = [at for at, name in enumerate(asked.units) if name in pending]
        both: dict[str, set[bool]] = {}
        for row in rows:
            both.setdefault(asked.strata[row], set()).add(bool(asked.labels[row]))
        if all(len(classes) == 2 for classes in both.values()):
            block |= dict.fromkeys(pending, done)
            pending, done = [], done + 1
    if done < _LEAST_BLOCKS:
        raise EvidenceError(
            "A probe cannot be held to scenarios that it has not seen",
            seen=f"{done} blocks of scenarios that hold both classes in every wording",
            allowed=f"{_LEAST_BLOCKS} or more",
            remedy="ask in more scenarios",
        )
    # Scenarios that are left over join the last block, which has both classes already.
    block |= dict.fromkeys(pending, done - 1)
    return np.array([block[unit] for unit in asked.units], dtype=np.int64)


def centred(asked: Asked, blocks: Index) -> Array:
    """Readings about the mean of their block and wording, ``(n, d)``."""
    found = np.empty_like(asked.values)
    for rows in _cells(asked, blocks):
        found[rows] = asked.values[rows] - asked.values[rows].mean(axis=0)
    return found


def _cells(asked: Asked, blocks: Index) -> list[Index]:
    cells: dict[tuple[int, str], list[int]] = {}
    for row, (block, stratum) in enumerate(zip(blocks.tolist(), asked.strata, strict=True)):
        cells.setdefault((block, stratum), []).append(row)
    return [np.array(rows, dtype=np.int64) for rows in cells.values()]


def _whole_scenarios(asked: Asked) -> bool:
    classes: dict[str, set[bool]] = {}
    for unit, label in zip(asked.units, asked.labels.tolist(), strict=True):
        classes.setdefault(unit, set()).add(label)
    return all(len(found) == 1 for found in classes.values())


def _permuted(
    asked: Asked, blocks: Index, rng: np.random.Generator, count: int, *, whole: bool
) -> Labels:
    """``(n, 1 + count)`` labellings, the observed one first."""
    drawn = np.repeat(asked.labels[:, None], count + 1, axis=1)
    if not whole:
        for rows in _cells(asked, blocks):
            drawn[rows, 1:] = rng.permuted(drawn[rows, 1:], axis=0)
        return drawn
    names = np.array(asked.units)
    for block in range(int(blocks.max()) + 1):
        units = sorted(set(names[blocks == block].tolist()))
        first = np.array([asked.labels[names == unit][0] for unit in units])
        order = rng.permuted(np.tile(np.arange(len(units))[:, None], count), axis=0)
        for at, unit in enumerate(units):
            drawn[names == unit, 1:] = first[order[at]]
    return drawn


def _scores(values: Array, labels: Labels, folds: Sequence[Index], method: Method) -> Array:
    """Held-out scores ``(n, P)``."""
    gram = values @ values.T
    scores = np.zeros(labels.shape)
    fit = _mean_difference if method == "mean_difference" else _logistic
    for fold in folds:
        train = np.delete(np.arange(len(values)), fold)
        scores[fold] = fit(gram[np.ix_(train, train)], gram[np.ix_(fold, train)], labels[train])
    return scores


def _mean_difference(own: Array, cross: Array, labels: Labels) -> Array:
    """Scores of left-out readings: distance from half-way between the means, along their line."""
    one, none = labels.astype(np.float64), (~labels).astype(np.float64)
    one, none = one / one.sum(axis=0), none / none.sum(axis=0)
    sizes = [(x * (own @ x)).sum(axis=0) for x in (one, none)]
    scores: Array = cross @ (one - none) - 0.5 * (sizes[0] - sizes[1])
    return scores


def _logistic(own: Array, cross: Array, labels: Labels) -> Array:
    """Scores of left-out readings under the regularised logistic probe."""
    mean = own.mean(axis=0)
    centred = own - mean - mean[:, None] + mean.mean()
    scale = max(float(np.trace(centred)) / len(own), np.finfo(np.float64).tiny)
    size, basis = np.linalg.eigh(centred / scale)
    size = np.maximum(size, 0.0)
    kept = size > 1e-12 * size[-1] if size[-1] > 0.0 else np.zeros_like(size, dtype=bool)
    root = np.sqrt(size[kept])
    features = basis[:, kept] * root
    target = labels.astype(np.float64)
    weight = np.zeros((features.shape[1], labels.shape[1]))
    bound = (size[kept] / 4.0 + _RIDGE)[:, None]
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(features @ weight)))
        step = (features.T @ (chance - target) + _RIDGE * weight) / bound
        weight -= step
        if np.abs(step).max(initial=0.0) < _CONVERGED:
            break
    held = (cross - cross.mean(axis=1, keepdims=True) - mean + mean.mean()) / scale
    scores: Array = held @ (basis[:, kept] / root) @ weight
    return scores


def _accuracy(scores: Array, labels: Labels) -> Array:
    """Balanced accuracy of each labelling, ``(P,)``; a score of zero is half right."""
    right = np.heaviside(scores, 0.5)
    shares = [
        np.where(member, hits, 0.0).sum(axis=0) / member.sum(axis=0)
        for member, hits in ((labels, right), (~labels, 1.0 - right))
    ]
    return (shares[0] + shares[1]) / 2.0


def _auc(scores: Array, labels: Labels, folds: Sequence[Index]) -> float:
    won, pairs = 0.0, 0
    for fold in folds:
        one, none = scores[fold[labels[fold]]], scores[fold[~labels[fold]]]
        won += float(np.heaviside(one[:, None] - none[None, :], 0.5).sum())
        pairs += len(one) * len(none)
    return won / pairs if pairs else 0.5
