"""Are the sites of two agents wired differently? Label swaps for differences of correlations.

For sites i, j over the same n prompts, with r the correlation in the first agent and s that in the
second, the statistic of a pair is the difference of Fisher z,

    D_ij = atanh r_ij - atanh s_ij.

Under the null that the agents' profiles are exchangeable once each column is taken about its median
and in median absolute deviations within its agent, the labels of the two agents may be swapped in
any set of clusters (scenarios), all prompts of a cluster together. With D^b from the b-th swap,

    p_adj(ij) = share of b with max |D^b| >= |D_ij|             (max-T: Westfall and Young 1993)
    p_count   = share of b with #{|D^b| > c} >= #{|D| > c}      (one test of the whole network)

All 2^(G-1) swaps up to 14 clusters (10 above 64 sites), else random ones. Level and spread of a
site may differ between agents without the wiring being different; both are taken out.

A hub is a site that many changed pairs share. Whether its degree is large is asked three times.
Against label swaps (``LabelSwap.hub``: is there so large a hub without any difference?). Against
random networks with as many edges (``hub_degree``: do the changes gather at one site?), which takes
pairs to be independent; differences of pairs that share a site are not, so that the largest ones
gather without any hub. And against the m largest of mere noise, where m pairs stand
(``LabelSwap.gathered``): differences drawn with the covariances that pairs have by sampling, so
that what pairs of one site have in common is kept. A named hub needs the last two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.clustered import (
    FLAT,
    Flags,
    Wiring,
    agent_contrast,
    contrast,
    correlations,
    wire,
)
from moralscope.evidence.statistics.hubs import Hub, degrees, hub_degree
from moralscope.evidence.statistics.intervals import UNDEFINED_RESAMPLES
from moralscope.evidence.statistics.reliability import halves, spearman_brown
from moralscope.evidence.statistics.resampling import EXACT_UNITS, Array, finite, sign_flips

__all__ = ["Hub", "LabelSwap", "hub_degree", "label_swap"]

THRESHOLD = 0.3
"""Difference of Fisher z above which a pair counts as changed."""

_MOST_EXACT = 2**25
"""All swaps of up to 14 clusters are tried for up to 2,048 pairs (64 sites), else of up to 10."""

_FEW_UNITS = 10
_TIE = 1.0 - 1e-9
_CHUNK = 2**19


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
        gathered: the site with most of the pairs that stand, against as many of the largest of
            mere noise; None where undefined or where none stands.
    """

    difference: Array
    p_count: float | None
    count: int
    p_adjusted: Array
    floor: float
    reliability: float | None
    stable: Flags
    defined: float
    pairs: int
    clusters: int
    hub: Hub | None
    gathered: Hub | None


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
    alpha: float = 0.05,
    max_undefined: float = UNDEFINED_RESAMPLES,
) -> LabelSwap:
    """Do the correlations between sites differ between two agents?

    Args:
        first: (n, K) values of the first agent, one row per prompt and one column per site.
        second: (n, K) values of the second, same prompts and sites in the same order.
        clusters: (n,) scenario of each prompt.
        rng: draws swaps where there are too many, and halves of the clusters.
        draws: how many swaps.
        threshold: difference of Fisher z above which a pair counts as changed.
        alpha: a pair stands where its corrected p lies below.
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
    wiring = wire(a, b, codes)
    # Swapping a cluster's labels is flipping its sign; the first pattern is the observed one.
    few = len(wiring.rows) << EXACT_UNITS <= _MOST_EXACT
    flips = sign_flips(len(names), rng, draws, EXACT_UNITS if few else _FEW_UNITS)
    moved = (1.0 - flips.signs.T) / 2.0
    null = _null(wiring, moved, math.tanh(threshold))
    whole = np.ones((len(names), 1))
    seen = agent_contrast(wiring, whole)[:, 0]
    changed = np.abs(seen) > math.tanh(threshold)
    tested = len(wiring.rows) > 0 and 1.0 - null.defined <= max_undefined
    p = _share_reaching(null.largest, np.abs(seen)) if tested else np.full(len(seen), np.nan)
    plain = correlations(wiring, whole, 0.0 * whole) - correlations(wiring, 0.0 * whole, whole)
    return LabelSwap(
        difference=_square(wiring, plain[:, 0], 0.0),
        p_count=float((null.counts >= changed.sum()).mean()) if tested else None,
        count=int(changed.sum()),
        p_adjusted=_square(wiring, p, 1.0),
        floor=flips.floor,
        reliability=_reliability(wiring, halves(len(names), rng), max_undefined),
        stable=_square(wiring, _stable(wiring, seen).astype(np.float64), 0.0) == 1.0,
        defined=null.defined,
        pairs=len(wiring.rows),
        clusters=len(names),
        hub=_hub(wiring, changed, null.degrees, flips.floor) if tested else None,
        gathered=_gathered(wiring, p < alpha, flips.signs) if tested else None,
    )


def _null(wiring: Wiring, moved: Array, threshold: float) -> _Null:
    """Statistics of every swap; one with an undefined pair counts as the most extreme of all.

    Args:
        wiring: of both agents.
        moved: (G, draws) 1 for clusters whose labels are swapped.
        threshold: of the contrast.
    """
    largest: list[Array] = []
    counts: list[Array] = []
    most: list[Array] = []
    for drawn in _swapped(wiring, moved):
        top = drawn.max(axis=0, initial=0.0)
        whole = np.isfinite(top)  # a maximum with NaN among its values is NaN
        changed = drawn > threshold
        of_site = degrees(changed.T, wiring.rows, wiring.columns, wiring.sites)
        largest.append(np.where(whole, top, np.inf))
        counts.append(np.where(whole, changed.sum(axis=0), np.inf))
        most.append(np.where(whole, of_site.max(axis=1), np.inf))
    every = np.concatenate(largest)
    return _Null(
        every, np.concatenate(counts), np.concatenate(most), float(np.isfinite(every).mean())
    )


def _swapped(wiring: Wiring, moved: Array) -> Iterator[Array]:
    """|D^b| of every swap, ``(pairs, some swaps)`` at a time."""
    step = max(1, _CHUNK // max(1, len(wiring.rows)))
    for start in range(0, moved.shape[1], step):
        other = moved[:, start : start + step]
        own = 1.0 - other
        yield np.abs(contrast(correlations(wiring, own, other), correlations(wiring, other, own)))


def _share_reaching(null: Array, seen: Array) -> Array:
    below = np.asarray(np.searchsorted(np.sort(null), seen * _TIE), dtype=np.float64)
    return (len(null) - below) / len(null)


def _hub(wiring: Wiring, changed: Flags, null: Array, floor: float) -> Hub:
    of_site = degrees(changed[None, :], wiring.rows, wiring.columns, wiring.sites)[0]
    site = int(of_site.argmax())
    return Hub(site, int(of_site[site]), float((null >= of_site[site]).mean()), floor)


def _gathered(wiring: Wiring, standing: Flags, signs: Array) -> Hub | None:
    """The largest degree of the pairs that stand against as many of the largest of mere noise.

    Args:
        wiring: of both agents.
        standing: (pairs,) which stand.
        signs: (draws, G) of the clusters, the first of which is left out: it is all ones.
    """
    count = int(standing.sum())
    if count == 0:
        return None
    most: list[Array] = []
    for drawn in _noise(wiring, signs[1:]):
        if not np.isfinite(drawn).all():
            return None
        largest = np.argpartition(drawn, -count, axis=0)[-count:]
        edges = np.zeros(drawn.shape, dtype=np.bool_)
        np.put_along_axis(edges, largest, values=True, axis=0)
        most.append(degrees(edges.T, wiring.rows, wiring.columns, wiring.sites).max(axis=1))
    of_site = degrees(standing[None, :], wiring.rows, wiring.columns, wiring.sites)[0]
    site, floor = int(of_site.argmax()), 1.0 / len(signs)
    p = (1.0 + float((np.concatenate(most) >= of_site[site]).sum())) / len(signs)
    return Hub(site, int(of_site[site]), p, floor)


def _noise(wiring: Wiring, signs: Array) -> Iterator[Array]:
    """|D| without any difference, ``(pairs, some draws)`` at a time: influences with random signs.

    The influence of cluster c is ``(G - 1) (mean over c of D_(-c) - D_(-c))``, with D_(-c) the
    difference without c; its signed sum has the covariances over pairs that D has by sampling (the
    wild bootstrap: Wu 1986), whatever D is.
    """
    without = np.arctanh(agent_contrast(wiring, 1.0 - np.eye(wiring.clusters)))
    influence = without.mean(axis=1, keepdims=True) - without
    step = max(1, _CHUNK // max(1, len(wiring.rows)))
    for start in range(0, len(signs), step):
        yield np.abs(influence @ signs[start : start + step].T)


def _reliability(wiring: Wiring, first: Flags, max_undefined: float) -> float | None:
    """Mean correlation over pairs between the D of two halves of the clusters, stepped up."""
    if len(wiring.rows) < 3 or wiring.clusters < 2:
        return None
    one = np.arctanh(agent_contrast(wiring, first.T.astype(np.float64)))
    other = np.arctanh(agent_contrast(wiring, (~first).T.astype(np.float64)))
    one -= one.mean(axis=0)
    other -= other.mean(axis=0)
    size = np.sqrt((one * one).sum(axis=0) * (other * other).sum(axis=0))
    usable = size > FLAT  # false for NaN
    if 1.0 - float(usable.mean()) > max_undefined:
        return None
    r = (one * other).sum(axis=0)[usable] / size[usable]
    return spearman_brown(float(np.clip(r.mean(), -1.0, 1.0)))


def _stable(wiring: Wiring, seen: Array) -> Flags:
    left_out = np.sign(agent_contrast(wiring, 1.0 - np.eye(wiring.clusters)))
    # Undefined compares as false, so it is never stable.
    return (seen != 0.0) & (left_out == np.sign(seen)[:, None]).all(axis=1)


def _square(wiring: Wiring, of_pairs: Array, diagonal: float) -> Array:
    found = np.full((wiring.sites, wiring.sites), np.nan)
    found[wiring.rows, wiring.columns] = of_pairs
    found[wiring.columns, wiring.rows] = of_pairs
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
