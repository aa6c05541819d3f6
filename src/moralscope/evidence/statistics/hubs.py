"""Do changed pairs gather at one site? The largest degree against random networks.

A network of K sites has an edge for each pair of sites that changed; the degree of a site is the
number of its edges. With as many edges placed at random on the K(K-1)/2 pairs (Erdos and Renyi
1959, Publ. Math. Debrecen 6:290),

    p = share of such networks whose largest degree is at least the observed one,

over all of them where there are no more than 20,000. The smallest p that can come out belongs to
the star, in which every edge that has room shares one site:

    floor = K C(K-1, M) / C(P, M)                                         for 1 < M < K - 1,
    floor = sum_j (-1)^(j+1) C(K, j) C(P - e_j, M - e_j) / C(P, M)        for M >= K - 1,

with P pairs, M edges and e_j = j(K-1) - j(j-1)/2 the edges that j complete sites have.

The null says nothing of how the pairs were found to have changed; see ``networks``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import EXACT_LABELLINGS, Array, finite

_Index = NDArray[np.int64]

_CHUNK = 2**21


@dataclass(frozen=True, slots=True)
class Hub:
    """The site with the largest degree.

    Attributes:
        site: its index, the first one of several.
        degree: its changed pairs.
        p: of a largest degree of this size or more under the null.
        floor: the smallest p that this design can give.
    """

    site: int
    degree: int
    p: float
    floor: float


def degrees(
    edges: NDArray[np.bool_], rows: _Index, columns: _Index, sites: int
) -> NDArray[np.int64]:
    """Degree of every site in each network, (networks, K).

    Args:
        edges: (networks, P) whether each pair is an edge.
        rows: (P,) one site of each pair.
        columns: (P,) its other site.
        sites: K.
    """
    network, pair = np.nonzero(edges)
    at = np.concatenate([network * sites + rows[pair], network * sites + columns[pair]])
    return np.bincount(at, minlength=len(edges) * sites).reshape(len(edges), sites)


def hub_degree(adjacency: Array, rng: np.random.Generator, draws: int = 999) -> Hub:
    """Is the largest degree larger than in random networks with as many edges?

    Args:
        adjacency: (K, K) anything but 0 off the diagonal is an edge, its sign does not matter;
            symmetric.
        rng: draws the networks where there are more than 20,000.
        draws: how many, the observed one besides.

    Raises:
        EvidenceError: the network is not square and symmetric.
        TableError: a value is undefined.
    """
    found = finite(adjacency, "network") != 0.0
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not (found == found.T).all():
        raise EvidenceError(
            "A network must be symmetric",
            seen=f"shape {found.shape}",
            allowed="a square matrix with the same edges on either side of its diagonal",
            remedy="fill in both sides, or give the changed pairs of an undirected network",
        )
    sites = len(found)
    rows, columns = np.triu_indices(sites, 1)
    edges = found[rows, columns]
    count = int(edges.sum())
    if count == 0:
        return Hub(0, 0, 1.0, 1.0)
    seen = degrees(edges[None, :], rows, columns, sites)[0]
    floor = _star_floor(sites, count)
    if math.comb(len(rows), count) <= EXACT_LABELLINGS:
        picks = np.array(list(itertools.combinations(range(len(rows)), count)))
        largest = _largest(picks, rows, columns, sites)
    else:
        largest = np.append(_drawn(count, (rows, columns), sites, rng, draws), seen.max())
        floor = max(floor, 1.0 / (draws + 1))
    site = int(seen.argmax())
    return Hub(site, int(seen[site]), float((largest >= seen[site]).mean()), floor)


def _drawn(
    count: int, ends: tuple[_Index, _Index], sites: int, rng: np.random.Generator, draws: int
) -> NDArray[np.int64]:
    """Largest degrees of random networks, some at a time: dense ones take much memory."""
    rows, columns = ends
    step = max(1, _CHUNK // count)
    parts: list[NDArray[np.int64]] = []
    for start in range(0, draws, step):
        picks = [
            rng.choice(len(rows), count, replace=False, shuffle=False)
            for _ in range(min(step, draws - start))
        ]
        parts.append(_largest(np.array(picks), rows, columns, sites))
    return np.concatenate(parts)


def _largest(picks: _Index, rows: _Index, columns: _Index, sites: int) -> NDArray[np.int64]:
    """Largest degree in each network, whose edges are rows of ``picks`` (networks, M)."""
    ends = np.concatenate([rows[picks], columns[picks]], axis=1)
    at = (np.arange(len(picks))[:, None] * sites + ends).ravel()
    return np.bincount(at, minlength=len(picks) * sites).reshape(len(picks), sites).max(axis=1)


def _star_floor(sites: int, count: int) -> float:
    """Probability of the largest degree that this many edges can give, under the null."""
    pairs = math.comb(sites, 2)
    every = math.comb(pairs, count)
    if count == 1:
        return 1.0
    if count < sites - 1:
        return sites * math.comb(sites - 1, count) / every
    total = 0
    for full in range(1, sites + 1):
        used = full * (sites - 1) - math.comb(full, 2)
        if used > count:
            break
        total += (-1) ** (full + 1) * math.comb(sites, full) * math.comb(pairs - used, count - used)
    return total / every
