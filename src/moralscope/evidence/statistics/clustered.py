"""What are the correlations of all pairs of sites over any set of clusters, of either agent?

With n_g prompts in cluster g, and sums and cross-products kept per cluster, the correlation over
a set of clusters w (weights 0 or 1 for each cluster of the first and of the second agent) is

    r_ij = (sum_g w_g C_ijg / n - m_i m_j) / (s_i s_j),   n = sum_g w_g n_g,

with the means m and standard deviations s from the same sums. So label swaps, halves of the
clusters and clusters left out are all columns of one matrix product.

Two correlations are compared by ``u = (r - s) / (1 - r s) = tanh(atanh r - atanh s)``, which
orders pairs as their difference of Fisher z does and needs no logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    correlation_matrix,
    degenerate,
)
from moralscope.evidence.statistics.resampling import Array

FLAT = 1e-12
"""Variances below this share of a column's own are rounding error."""

Flags = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Per cluster: prompts (G,), sums and squares (K, G), products of the pairs (P, G)."""

    sizes: Array
    sums: Array
    squares: Array
    products: Array


@dataclass(frozen=True, slots=True)
class Wiring:
    """Both agents' sums over the same clusters, the sites of each pair, and how many sites."""

    first: Sums
    second: Sums
    rows: Index
    columns: Index
    sites: int

    @property
    def clusters(self) -> int:
        """G, the clusters."""
        return len(self.first.sizes)


def wire(first: Array, second: Array, codes: Index) -> Wiring:
    """Sums per cluster for the pairs that can be tested, each column about its median.

    Args:
        first: (n, K) values of the first agent.
        second: (n, K) values of the second, same prompts and sites.
        codes: (n,) cluster of each prompt, from 0 to G - 1.
    """
    usable = _usable(first, codes) & _usable(second, codes)
    rows, columns = np.triu_indices(first.shape[1], 1)
    one, other = (np.abs(correlation_matrix(each)[rows, columns]) for each in (first, second))
    # NaN, from a constant column, compares as false.
    kept = usable[rows] & usable[columns] & (np.maximum(one, other) <= MAX_CORRELATION)
    rows, columns = rows[kept], columns[kept]
    return Wiring(
        _sums(_scaled(first), codes, rows, columns),
        _sums(_scaled(second), codes, rows, columns),
        rows,
        columns,
        first.shape[1],
    )


def correlations(wiring: Wiring, of_first: Array, of_second: Array) -> Array:
    """Correlation of every pair over clusters of the first and of the second agent together.

    Args:
        wiring: of both agents.
        of_first: (G, sets) 1 for the clusters of the first agent that are in a set, else 0.
        of_second: (G, sets) the same for the second agent.

    Returns:
        (P, sets) in [-1, 1] up to rounding; NaN where a column does not vary over the set, or it
        has fewer than four prompts.
    """
    one, two = wiring.first, wiring.second
    n = one.sizes @ of_first + two.sizes @ of_second
    per = 1.0 / np.where(n > 3.0, n, np.nan)
    mean = (one.sums @ of_first + two.sums @ of_second) * per
    variance = (one.squares @ of_first + two.squares @ of_second) * per - mean * mean
    scale = 1.0 / np.sqrt(np.where(variance > FLAT, variance, np.nan))
    mean *= scale
    found = one.products @ of_first
    found += two.products @ of_second
    found *= per
    found *= scale[wiring.rows]
    found *= scale[wiring.columns]
    found -= mean[wiring.rows] * mean[wiring.columns]
    return found


def contrast(first: Array, second: Array) -> Array:
    """``tanh(atanh r - atanh s)`` of correlations, each taken as no larger than 0.999."""
    r = np.clip(first, -MAX_CORRELATION, MAX_CORRELATION)
    s = np.clip(second, -MAX_CORRELATION, MAX_CORRELATION)
    return (r - s) / (1.0 - r * s)


def agent_contrast(wiring: Wiring, kept: Array) -> Array:
    """Contrast of the two agents, (P, sets), over the clusters that each set keeps (G, sets)."""
    none = np.zeros_like(kept)
    return contrast(correlations(wiring, kept, none), correlations(wiring, none, kept))


def _usable(values: Array, codes: Index) -> Flags:
    """Columns with enough distinct values that vary whichever cluster is left out."""
    kept = np.array([not degenerate(column) for column in values.T], dtype=np.bool_)
    scaled = _scaled(values)
    for code in range(int(codes.max()) + 1):
        rest = scaled[codes != code]
        kept &= (rest.var(axis=0) > FLAT) if len(rest) else False
    return kept


def _scaled(values: Array) -> Array:
    """Columns about their median, in median absolute deviations; those without spread are 0.

    With mean and standard deviation one outlier would shrink the rest of its column, so that
    swapping it to the other agent changes more than the label: under Student's t with 2 degrees
    max-T would then reject in 13 to 20% of studies without any difference, instead of 5%.
    """
    centred = values - np.median(values, axis=0)
    size = np.abs(centred)
    usual = np.median(size, axis=0)
    # More than half of the values may be equal.
    spread = np.where(usual > 0.0, usual, size.mean(axis=0))
    return centred / np.where(spread > 0.0, spread, 1.0)


def _sums(values: Array, codes: Index, rows: Index, columns: Index) -> Sums:
    groups = [values[codes == code] for code in range(int(codes.max()) + 1)]
    grams = [group.T @ group for group in groups]
    return Sums(
        sizes=np.array([float(len(group)) for group in groups]),
        sums=np.array([group.sum(axis=0) for group in groups]).T,
        squares=np.array([np.diag(gram) for gram in grams]).T,
        products=np.array([gram[rows, columns] for gram in grams]).T.copy(),
    )
