"""Are the sites of two agents wired differently? Label swaps for differences of correlations.

For sites i, j over the same n prompts, with r the correlation in the first agent and s that in the
second, the statistic of a pair is the difference of Fisher z,

    D_ij = atanh r_ij - atanh s_ij.

Under the null that the agents' profiles are exchangeable once each column is centred and scaled
within its agent, the labels of the two agents may be swapped in any set of clusters (scenarios),
all prompts of a cluster together. With D^b from the b-th such swap,

    p_adj(ij) = share of b with max |D^b| >= |D_ij|             (max-T: Westfall and Young 1993)
    p_count   = share of b with #{|D^b| > c} >= #{|D| > c}      (one test of the whole network)

All 2^(G-1) swaps up to 14 clusters, else random ones. Means and variances of a site may differ
between agents without the wiring being different; that is why both are taken out.

Sums and cross-products are kept per cluster, so every swap, every half of the clusters and every
cluster left out is one row of a matrix product.

A hub is a site that many changed pairs share. Whether its degree is large is asked twice: against
label swaps (``LabelSwap.hub``: is there so large a hub without any difference?), and against
random networks with as many edges (``hub_degree``: do the changes gather at one site?). Noise in
one site makes a hub under the second null alone, so a named hub needs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.correlations import (
    MAX_CORRELATION,
    correlation_matrix,
    degenerate,
)
from moralscope.evidence.statistics.hubs import Hub, degrees, hub_degree
from moralscope.evidence.statistics.intervals import UNDEFINED_RESAMPLES
from moralscope.evidence.statistics.reliability import halves, spearman_brown
from moralscope.evidence.statistics.resampling import Array, finite, sign_flips

__all__ = ["Hub", "LabelSwap", "hub_degree", "label_swap"]

THRESHOLD = 0.3
"""Difference of Fisher z above which a pair counts as changed."""

_TIE = 1.0 - 1e-9
_FLAT = 1e-12
_CHUNK = 2**22

_Flags = NDArray[np.bool_]
_Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelSwap:
    """How the correlations of K sites differ between two agents.

    A pair is tested if both its sites take at least four values in either agent, vary whichever
    cluster is left out, and correlate with |r| <= 0.999 in both. Others are NaN.

    Attributes:
        difference: (K, K) correlation in the first agent minus that in the second; 0 on the
            diagonal, NaN for pairs that are not tested.
        p_count: p that so many pairs or more differ by more than the threshold; None where it is
            undefined.
        count: pairs that differ by more than the threshold.
        p_adjusted: (K, K) p of each pair, corrected for all pairs; 1 on the diagonal, NaN where
            undefined.
        floor: the smallest p that this design can give.
        reliability: of the pattern of differences over pairs between halves of the clusters,
            stepped up to all; None below three pairs or where halves are undefined.
        stable: (K, K) whether the difference keeps its sign whichever cluster is left out.
        defined: share of the swaps in which every tested pair has a correlation.
        pairs: pairs tested.
        clusters: G, the units that are swapped.
        hub: the site with most pairs above the threshold, against label swaps; None where
            undefined.
    """

    difference: Array
    p_count: float | None
    count: int
    p_adjusted: Array
    floor: float
    reliability: float | None
    stable: _Flags
    defined: float
    pairs: int
    clusters: int
    hub: Hub | None


@dataclass(frozen=True, slots=True)
class _Sums:
    """Per cluster: prompts (G,), sums and squares (G, K), products of the pairs (G, P)."""

    sizes: Array
    sums: Array
    squares: Array
    products: Array


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both agents' sums over the same clusters, and the sites of each pair."""

    first: _Sums
    second: _Sums
    rows: _Index
    columns: _Index
    sites: int


@dataclass(frozen=True, slots=True)
class _Null:
    """Each draw's largest |D|, number of pairs above the threshold, and largest degree."""

    largest: Array
    counts: Array
    degrees: Array
    defined: float


def label_swap(
    first: Array,
    second: Array,
    clusters: Sequence[str],
    rng: np.random.Generator,
    *,
    draws: int = 999,
    threshold: float = THRESHOLD,
    max_undefined: float = UNDEFINED_RESAMPLES,
) -> LabelSwap:
    """Do the correlations between sites differ between two agents?

    Args:
        first: (n, K) values of the first agent, one row per prompt and one column per site.
        second: (n, K) values of the second, same prompts and sites in the same order.
        clusters: (n,) scenario of each prompt.
        rng: draws swaps above 14 clusters, and halves of the clusters.
        draws: how many swaps.
        threshold: difference of Fisher z above which a pair counts as changed.
        max_undefined: without p values if more than this share of the swaps has a pair without
            correlation; fewer count as though they were as extreme as any.

    Raises:
        EvidenceError: the agents have different prompts or sites, or not one cluster per prompt.
        TableError: a value is undefined.
    """
    a, b = finite(first, "first agent's values"), finite(second, "second agent's values")
    _check(a, b, clusters)
    names = sorted(set(clusters))
    codes = np.array([names.index(name) for name in clusters], dtype=np.int64)
    both = _pair(a, b, codes)
    flips = sign_flips(len(names), rng, draws)
    # A label that is swapped has its sign flipped; the first pattern is the observed one.
    null = _null(both, (1.0 - flips.signs) / 2.0, threshold)
    whole = np.ones((1, len(names)))
    seen = np.abs(_differences(both, whole)[0])
    tested = len(both.rows) > 0 and 1.0 - null.defined <= max_undefined
    below = np.searchsorted(np.sort(null.largest), seen * _TIE, side="left")
    p = 1.0 - np.asarray(below, dtype=np.float64) / len(null.largest)
    count = int((seen > threshold).sum())
    return LabelSwap(
        difference=_square(both, _plain(both, whole), 0.0),
        p_count=float((null.counts >= count).mean()) if tested else None,
        count=count,
        p_adjusted=_square(both, p if tested else np.full(len(p), np.nan), 1.0),
        floor=flips.floor,
        reliability=_reliability(both, halves(len(names), rng), max_undefined),
        stable=_square(both, _stable(both).astype(np.float64), 0.0) == 1.0,
        defined=null.defined,
        pairs=len(both.rows),
        clusters=len(names),
        hub=_hub(both, seen > threshold, null, flips.floor) if tested else None,
    )


def _pair(a: Array, b: Array, codes: _Index) -> _Pair:
    """Sums per cluster for the pairs that can be tested."""
    usable = _usable(a, codes) & _usable(b, codes)
    rows, columns = np.triu_indices(a.shape[1], 1)
    together = np.maximum(
        np.abs(correlation_matrix(a)[rows, columns]), np.abs(correlation_matrix(b)[rows, columns])
    )
    # A constant column makes NaN here, which compares as false.
    kept = usable[rows] & usable[columns] & (together <= MAX_CORRELATION)
    rows, columns = rows[kept], columns[kept]
    one, other = (_sums(_scaled(values), codes, rows, columns) for values in (a, b))
    return _Pair(one, other, rows, columns, a.shape[1])


def _usable(values: Array, codes: _Index) -> _Flags:
    """Columns with enough distinct values that vary whichever cluster is left out."""
    kept = np.array([not degenerate(column) for column in values.T], dtype=np.bool_)
    scaled = _scaled(values)
    for code in range(int(codes.max()) + 1):
        rest = scaled[codes != code]
        kept &= (rest.var(axis=0) > _FLAT) if len(rest) else False
    return kept


def _scaled(values: Array) -> Array:
    """Columns centred and scaled; those without spread are left at 0, and are not tested."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)


def _sums(values: Array, codes: _Index, rows: _Index, columns: _Index) -> _Sums:
    groups = [values[codes == code] for code in range(int(codes.max()) + 1)]
    grams = [group.T @ group for group in groups]
    return _Sums(
        sizes=np.array([float(len(group)) for group in groups]),
        sums=np.array([group.sum(axis=0) for group in groups]),
        squares=np.array([np.diag(gram) for gram in grams]),
        products=np.array([gram[rows, columns] for gram in grams]),
    )


def _correlations(both: _Pair, weights: Array, other: Array) -> Array:
    """Correlations (draws, pairs) over some clusters of the first agent and others of the second.

    NaN where a column does not vary, or where there are fewer than four prompts.
    """
    one, two = both.first, both.second
    n = (weights @ one.sizes + other @ two.sizes)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (weights @ one.sums + other @ two.sums) / n
        variance = (weights @ one.squares + other @ two.squares) / n - mean**2
        scale = 1.0 / np.sqrt(np.where((variance > _FLAT) & (n > 3.0), variance, np.nan))
        r = (weights @ one.products + other @ two.products) / n
        r -= mean[:, both.rows] * mean[:, both.columns]
        r *= scale[:, both.rows] * scale[:, both.columns]
    return r


def _fisher(r: Array) -> Array:
    return np.arctanh(np.clip(r, -MAX_CORRELATION, MAX_CORRELATION))


def _differences(both: _Pair, weights: Array) -> Array:
    """D (draws, pairs) over the clusters that each row of ``weights`` (draws, G) keeps."""
    none = np.zeros_like(weights)
    return _fisher(_correlations(both, weights, none)) - _fisher(_correlations(both, none, weights))


def _plain(both: _Pair, weights: Array) -> Array:
    none = np.zeros_like(weights)
    return (_correlations(both, weights, none) - _correlations(both, none, weights))[0]


def _null(both: _Pair, swapped: Array, threshold: float) -> _Null:
    """Statistics of every swap; one with an undefined pair counts as the most extreme of all."""
    largest: list[Array] = []
    counts: list[Array] = []
    most: list[Array] = []
    defined = 0
    step = max(1, _CHUNK // max(1, len(both.rows)))
    for start in range(0, len(swapped), step):
        moved = swapped[start : start + step]
        kept = 1.0 - moved
        drawn = np.abs(
            _fisher(_correlations(both, kept, moved)) - _fisher(_correlations(both, moved, kept))
        )
        whole = np.isfinite(drawn).all(axis=1)
        changed = drawn > threshold
        defined += int(whole.sum())
        largest.append(np.where(whole, drawn.max(axis=1, initial=0.0), np.inf))
        counts.append(np.where(whole, changed.sum(axis=1), np.inf))
        of_site = degrees(changed, both.rows, both.columns, both.sites)
        most.append(np.where(whole, of_site.max(axis=1), np.inf))
    return _Null(
        np.concatenate(largest), np.concatenate(counts), np.concatenate(most),
        defined / len(swapped),
    )  # fmt: skip


def _hub(both: _Pair, changed: _Flags, null: _Null, floor: float) -> Hub:
    of_site = degrees(changed[None, :], both.rows, both.columns, both.sites)[0]
    site = int(of_site.argmax())
    p = float((null.degrees >= of_site[site]).mean())
    return Hub(site, int(of_site[site]), p, floor)


def _reliability(both: _Pair, first: _Flags, max_undefined: float) -> float | None:
    """Mean correlation over pairs between the D of two halves of the clusters, stepped up."""
    if len(both.rows) < 3 or len(both.first.sizes) < 2:
        return None
    one = _differences(both, first.astype(np.float64))
    other = _differences(both, (~first).astype(np.float64))
    one, other = (half - half.mean(axis=1, keepdims=True) for half in (one, other))
    size = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    usable = size > _FLAT
    if 1.0 - float(usable.mean()) > max_undefined:
        return None
    r = (one * other).sum(axis=1)[usable] / size[usable]
    return spearman_brown(float(np.clip(r.mean(), -1.0, 1.0)))


def _stable(both: _Pair) -> _Flags:
    groups = len(both.first.sizes)
    left_out = np.sign(_differences(both, 1.0 - np.eye(groups)))
    whole = np.sign(_differences(both, np.ones((1, groups))))
    # Undefined compares as false, so it is never stable.
    return (whole[0] != 0.0) & (left_out == whole).all(axis=0)


def _square(both: _Pair, of_pairs: Array, diagonal: float) -> Array:
    found = np.full((both.sites, both.sites), np.nan)
    found[both.rows, both.columns] = of_pairs
    found[both.columns, both.rows] = of_pairs
    np.fill_diagonal(found, diagonal)
    return found


def _check(a: Array, b: Array, clusters: Sequence[str]) -> None:
    if a.shape != b.shape or a.ndim != 2 or len(clusters) != len(a):
        sizes = [" x ".join(str(n) for n in values.shape) for values in (a, b)]
        raise EvidenceError(
            "The wiring of two agents cannot be compared",
            seen=f"{sizes[0]} and {sizes[1]} values, {len(clusters)} clusters",
            allowed="the same prompts and sites in both agents, one cluster per prompt",
            remedy="join both agents by prompt and site first",
        )
