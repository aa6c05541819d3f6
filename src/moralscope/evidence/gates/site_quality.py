"""Are these separate, resolved measurements? Clones, dead sites and rounding, found in vectors.

A site's results over all prompts form a vector. Two sites with the same vector are one measurement
under two names (a whole-layer hook counted once per head), and the same is what differs on no
prompt by more than ``1e-5 max |x|``: the last digits of a float depend on the order of its sums. A
vector of exact zeros is a site that was never reached. A vector whose spread is of the order of one
unit in the last place of its number format is rounding: ``ULP(x) = 2^(floor(log2 |x|) - p)`` with p
stored bits of mantissa, and ``SD / ULP >= 4`` with more than three distinct values is demanded.

Numbers that were printed with few decimals show no mantissa. Where values are tied and lie on a
lattice, all their gaps being multiples of the smallest, that gap is the rounding step if it is the
larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.statistics.resampling import Array

MANTISSA_BITS = {"bfloat16": 7, "float16": 10, "float32": 23, "float64": 52}
"""Stored bits of mantissa of each number format."""

MIN_STEPS = 4.0
"""Smallest standard deviation, in units in the last place, that counts as resolved."""

MIN_DISTINCT = 4
"""Fewest distinct values of a resolved vector: more than three."""


SAME = 1e-5
"""Vectors that differ nowhere by more than this share of their largest value are the same."""

FEWEST_COMPARED = 3
"""Prompts below which vectors are the same only bit for bit: few numbers are alike by chance."""

_ROUNDING = 1e-12
_TIED = 1e-4
_EXACT = 1e-3
_COARSE, _MANY = 0.15, 5


@dataclass(frozen=True, slots=True)
class Distinct:
    """The columns of a result matrix, sorted by what they are worth.

    Attributes:
        distinct: one index per different non-zero vector, the first that carries it.
        clones: groups of indices with identical vectors, each of two or more.
        dead: indices of columns that are exactly zero everywhere.
    """

    distinct: tuple[int, ...]
    clones: tuple[tuple[int, ...], ...]
    dead: tuple[int, ...]


def distinct_columns(values: Array) -> Distinct:
    """Group the columns of a (prompts, sites) matrix by contents that are the same."""
    groups: dict[bytes, list[int]] = {}
    dead: list[int] = []
    for index, column in enumerate(np.ascontiguousarray(values.T)):
        if not column.any():
            dead.append(index)
        else:
            # Adding zero turns -0.0 into 0.0, so that equal numbers have equal bytes.
            groups.setdefault((column + 0.0).tobytes(), []).append(index)
    merged = _merged(values, list(groups.values()))
    return Distinct(
        distinct=tuple(members[0] for members in merged),
        clones=tuple(tuple(members) for members in merged if len(members) > 1),
        dead=tuple(dead),
    )


def _merged(values: Array, groups: list[list[int]]) -> list[list[int]]:
    """Groups of columns that are the same but for their last digits put together, in order."""
    if len(values) < FEWEST_COMPARED or len(groups) < 2:
        return groups
    columns = values[:, [members[0] for members in groups]]
    size = np.abs(columns).max(axis=0)
    # Weighted means of columns that are the same lie no further apart than the columns do.
    weights = np.linspace(1.0, 2.0, len(values))
    keys = (weights / weights.sum()) @ columns
    order = np.argsort(keys, kind="stable")
    joined = list(range(len(groups)))
    for at, one in enumerate(order):
        reach = keys[one] + (SAME * (1.0 + SAME) + _ROUNDING) * size[one]
        for other in order[at + 1 :]:
            if keys[other] > reach:
                break
            gap = np.abs(columns[:, one] - columns[:, other]).max()
            if gap <= SAME * max(size[one], size[other]):
                # What comes next is compared with this one in turn, so one is enough.
                _join(joined, int(one), int(other))
                break
    whole: dict[int, list[int]] = {}
    for index, members in enumerate(groups):
        whole.setdefault(_first(joined, index), []).extend(members)
    return [sorted(members) for members in whole.values()]


def _join(joined: list[int], one: int, other: int) -> None:
    low, high = sorted((_first(joined, one), _first(joined, other)))
    joined[high] = low


def _first(joined: list[int], index: int) -> int:
    while joined[index] != index:
        index = joined[index]
    return index


def mantissa_bits(dtype: str) -> int | None:
    """Stored mantissa bits of a dtype's name (``float32``, ``torch.bfloat16``, ``bf16``).

    None for a format without a mantissa or not known, whose resolution cannot be judged.
    """
    short = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
    name = dtype.removeprefix("torch.")
    return MANTISSA_BITS.get(short.get(name, name))


def stored_bits(values: Array, claimed: int) -> int:
    """Mantissa bits that the values really use: fewer than claimed if they were rounded before.

    Values that are all exactly representable in a coarser format were stored in it at some point,
    whatever the table says.
    """
    return int(column_bits(values.reshape(-1, 1), claimed)[0])


def column_bits(values: Array, claimed: int) -> NDArray[np.int64]:
    """``stored_bits`` of each column of (prompts, K) values: (K,). Zeros tell nothing."""
    used = np.full(values.shape[1], claimed, dtype=np.int64)
    if not len(values):
        return used
    mantissa, _ = np.frexp(values)
    # From fine to coarse, so that the coarsest format that holds a column stays.
    for bits in sorted((b for b in MANTISSA_BITS.values() if b < claimed), reverse=True):
        scaled = mantissa * 2.0 ** (bits + 1)
        used[(scaled == np.round(scaled)).all(axis=0) & values.any(axis=0)] = bits
    return used


def ulp(size: Array, bits: int | NDArray[np.int64]) -> Array:
    """Unit in the last place at magnitudes ``size`` above zero, for ``bits`` stored bits."""
    return np.exp2(np.floor(np.log2(size)) - bits)


@dataclass(frozen=True, slots=True)
class Resolution:
    """How finely the columns of a matrix were resolved.

    Attributes:
        steps: (K,) standard deviation in units in the last place.
        values: (K,) number of distinct values.
        bits: mantissa bits that the stored numbers really use, of the coarsest column.
        printed: (K,) the step of numbers that were rounded to a lattice coarser than that; else 0.
    """

    steps: Array
    values: Array
    bits: int
    printed: Array

    @property
    def resolved(self) -> tuple[bool, ...]:
        """Per column: whether it varies by more than rounding does."""
        good = (self.steps >= MIN_STEPS) & (self.values >= MIN_DISTINCT)
        return tuple(bool(g) for g in good)


def resolution(values: Array, stored: Array, bits: int) -> Resolution:
    """Resolution of (prompts, sites) values whose rounding happened in ``stored``.

    Args:
        values: what is analysed (an effect).
        stored: the numbers that were rounded (the patched log-odds), of the same shape; the unit
            in the last place is taken at each column's largest magnitude.
        bits: mantissa bits of the format that the table claims.
    """
    used = column_bits(stored, bits)
    largest = np.abs(stored).max(axis=0)
    step = ulp(np.where(largest > 0.0, largest, 1.0), used)
    lattice = np.array([_lattice(column) for column in stored.T])
    printed = np.where(lattice > step, lattice, 0.0)
    step = np.maximum(step, printed)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    changes = np.diff(np.sort(values, axis=0), axis=0) != 0.0
    distinct = changes.sum(axis=0).astype(np.float64) + 1.0
    return Resolution(spread / step, distinct, int(used.min(initial=bits)), printed)


def _lattice(column: Array) -> float:
    """The step of numbers that were printed with few decimals; 0 where they show none.

    Without a tie nothing was rounded that could be seen: 14 or more different values spread over
    four of their smallest gaps in any case.
    """
    ordered = np.sort(column[column != 0.0])
    if len(ordered) < MIN_DISTINCT:
        return 0.0
    gaps = np.diff(ordered)
    apart = gaps > _TIED * float(gaps.max())
    if apart.all() or not apart.any():
        return 0.0
    step = float(gaps[apart].min())
    multiples = gaps[apart] / step
    off = float(np.abs(multiples - np.round(multiples)).max())
    # Numbers that were rounded twice lie beside the lattice; a few gaps would do so by chance.
    on_it = off <= _EXACT or (off <= _COARSE and len(multiples) >= _MANY)
    return step if on_it else 0.0
