"""What do studies of known truth look like? Unit means under each condition, as plain arrays.

Under every condition the null of the randomisation tests holds exactly: unit means are symmetric
about the planted effect, and the units of two groups are exchangeable where none is planted.
Effects are in standard deviations between units; Student's t with 2 degrees of freedom has none,
and its scale stands in.

*clustered* draws rows and averages them: a unit has one to six prompts, whose residuals are as
large as the effect of the unit. *rounded* stores two values near 10, where bfloat16 moves in steps
of 1/16, about as large as the spread between units; the difference of two such values is symmetric
because both are drawn from one law.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.statistics.resampling import Array

PROMPTS = 3
"""Prompts in each unit of two groups, where unequal numbers would undo exchangeability."""

_FACTOR = 0.5
"""Share of the variance of a column that is common to all columns."""
_LEVEL, _SPREAD = 10.0, 0.1
_DEGREES = 2


def unit_means(
    condition: str, shape: tuple[int, ...], rng: np.random.Generator, effect: Array | float = 0.0
) -> Array:
    """Differences of unit means about a planted effect.

    Args:
        condition: one of ``CONDITIONS``.
        shape: (..., G, K), studies by units by columns; studies are independent.
        rng: where they come from.
        effect: (K,) or one for all, in standard deviations between units.
    """
    if condition == "clustered":
        planted = np.asarray(effect) * unit_scale(condition, shape[-2])
        return _averaged(shape, _sizes(shape[-2]), rng) + planted
    if condition == "rounded":
        first, second = _near_level(shape, rng), _near_level(shape, rng)
        planted = np.asarray(effect) * unit_scale(condition, shape[-2])
        return to_bfloat16(first + planted) - to_bfloat16(second)
    if condition == "heavy_tailed":
        return _correlated(_student(shape, rng), _student((*shape[:-1], 1), rng)) + effect
    return rng.normal(size=shape) + effect


def unit_scale(condition: str, clusters: int) -> float:
    """Standard deviation between the units of ``unit_means``, in the unit of its values."""
    if condition == "clustered":
        return float(np.sqrt(1.0 + np.mean(1.0 / _sizes(clusters))))
    return _SPREAD * math.sqrt(2.0) if condition == "rounded" else 1.0


def two_groups(
    condition: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    effect: Array | float = 0.0,
    spread: float = 1.0,
) -> tuple[Array, Array]:
    """Two groups of units (seeds), each of ``shape`` (..., S, K).

    Args:
        condition: one of ``CONDITIONS``; *clustered* units are means over three prompts that both
            groups were asked.
        shape: studies by units by columns.
        rng: where they come from.
        effect: how much higher the first group is, in standard deviations between its units.
        spread: standard deviation of the first group as a multiple of the second's; the groups
            are exchangeable only where it is 1.
    """
    own = [_seeds(condition, shape, rng) for _ in range(2)]
    first, second = (own[0] + effect) * spread, own[1]
    if condition == "clustered":
        shared = rng.normal(size=(*shape[:-2], 1, PROMPTS, shape[-1])).mean(axis=-2)
        return first + shared, second + shared
    if condition == "rounded":
        low, high = (_LEVEL + _SPREAD * each for each in (first, second))
        return to_bfloat16(low), to_bfloat16(high)
    return first, second


def two_agents(
    condition: str, clusters: int, sites: int, rng: np.random.Generator, *, changed: float = 0.0
) -> tuple[Array, Array, list[str]]:
    """Results of two agents at the same sites on the same prompts, and the cluster of each prompt.

    Both share half of their variance, and all sites share a factor, so that both correlation
    matrices are the same and not zero. Two prompts in each cluster. ``changed`` above 0 mixes a
    second factor, with that loading, into the first half of the sites of the first agent.

    Returns:
        (n, K), (n, K) and n cluster names.
    """
    index = np.repeat(np.arange(clusters), 2)
    n = len(index)

    def noise(columns: int) -> Array:
        if condition == "heavy_tailed":
            return rng.standard_t(3, size=(n, columns))
        drawn = rng.normal(size=(n, columns))
        if condition == "clustered":
            drawn += rng.normal(size=(clusters, columns))[index]
        return drawn

    common, own = noise(1) + noise(sites), [noise(1) + noise(sites) for _ in range(2)]
    first, second = common + own[0], common + own[1]
    if changed:
        first[:, : sites // 2] += changed * noise(1)
    if condition == "rounded":
        first, second = (to_bfloat16(_LEVEL + _SPREAD * each) for each in (first, second))
    return first, second, [f"c{i}" for i in index]


def to_bfloat16(values: Array) -> Array:
    """Values rounded to the 8 significant bits of bfloat16, halves to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def _sizes(clusters: int) -> NDArray[np.int64]:
    """Prompts of each cluster."""
    return 1 + np.arange(clusters) % 6


def _averaged(shape: tuple[int, ...], sizes: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Means of clusters of unequal size over rows, whose columns share a factor."""
    rows = rng.normal(size=(*shape[:-2], int(sizes.sum()), shape[-1]))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    means = np.add.reduceat(rows, starts, axis=-2) / sizes[:, None]
    return _correlated(rng.normal(size=shape), rng.normal(size=(*shape[:-1], 1))) + means


def _seeds(condition: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Units of one group about 0, with standard deviation 1 (Student's t: scale 1)."""
    if condition == "clustered":
        rows = rng.normal(size=(*shape[:-1], PROMPTS, shape[-1])).mean(axis=-2)
        return (rng.normal(size=shape) + rows) / math.sqrt(1.0 + 1.0 / PROMPTS)
    drawn = _student if condition == "heavy_tailed" else _normal
    if condition == "independent":
        return _normal(shape, rng)
    return _correlated(drawn(shape, rng), drawn((*shape[:-1], 1), rng))


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.normal(size=shape)


def _correlated(own: Array, factor: Array) -> Array:
    return np.sqrt(1.0 - _FACTOR) * own + np.sqrt(_FACTOR) * factor


def _student(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return np.asarray(rng.standard_t(_DEGREES, size=shape))


def _near_level(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    factor = rng.normal(size=(*shape[:-1], 1))
    return _LEVEL + _SPREAD * _correlated(rng.normal(size=shape), factor)
