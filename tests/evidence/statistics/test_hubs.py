"""Hub degrees against every network with as many edges."""

import itertools
import math

import numpy as np
import pytest

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.hubs import hub_degree


def network(sites: int, edges: list[tuple[int, int]]) -> np.ndarray:
    found = np.zeros((sites, sites))
    for i, j in edges:
        found[i, j] = found[j, i] = -1.0 if i % 2 else 1.0
    return found


def largest_degrees(sites: int, edges: int) -> np.ndarray:
    """Of every network, by adding up adjacency matrices."""
    pairs = list(itertools.combinations(range(sites), 2))
    return np.array(
        [
            np.abs(network(sites, list(chosen))).sum(axis=0).max()
            for chosen in itertools.combinations(pairs, edges)
        ]
    )


@pytest.mark.parametrize("edges", range(1, 11))
def test_it_equals_brute_force(edges: int) -> None:
    rng = np.random.default_rng(edges)
    pairs = list(itertools.combinations(range(5), 2))
    every = largest_degrees(5, edges)
    for _ in range(3):
        chosen = [pairs[at] for at in rng.choice(10, edges, replace=False)]
        matrix = network(5, chosen)
        degree = np.abs(matrix).sum(axis=0)
        found = hub_degree(matrix, rng)
        assert found.degree == degree.max()
        assert degree[found.site] == found.degree
        assert found.p == pytest.approx(np.mean(every >= found.degree), abs=1e-12)
        assert found.floor == pytest.approx(np.mean(every == every.max()), abs=1e-12)


def test_a_star_reaches_the_floor() -> None:
    rng = np.random.default_rng(0)
    found = hub_degree(network(6, [(2, j) for j in range(6) if j != 2]), rng)
    assert (found.site, found.degree) == (2, 5)
    assert found.p == pytest.approx(found.floor)
    assert found.floor == pytest.approx(6 / math.comb(15, 5))


def test_many_sites_are_sampled() -> None:
    rng = np.random.default_rng(1)
    star = hub_degree(network(52, [(7, j) for j in range(52) if j != 7]), rng, draws=499)
    assert (star.site, star.degree, star.p, star.floor) == (7, 51, 1 / 500, 1 / 500)
    ring = hub_degree(network(52, [(i, (i + 1) % 52) for i in range(52)]), rng, draws=499)
    assert (ring.degree, ring.p) == (2, 1.0)


def test_sampling_approaches_enumeration() -> None:
    """8 sites and 6 edges: 376,740 networks, whose degrees are counted another way here."""
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (5, 6), (6, 7)]
    found = hub_degree(network(8, edges), np.random.default_rng(2), draws=9_999)
    # No two sites can both have degree 4 or more, as that takes at least 7 of 6 edges.
    exact = 8 * sum(math.comb(7, d) * math.comb(21, 6 - d) for d in (4, 5, 6)) / math.comb(28, 6)
    assert found.degree == 4
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 9_999))


def test_no_edge_is_no_hub() -> None:
    found = hub_degree(np.eye(4), np.random.default_rng(0))
    assert (found.degree, found.p, found.floor) == (0, 1.0, 1.0)


def test_other_matrices_are_refused() -> None:
    rng = np.random.default_rng(0)
    for wrong in (np.ones((3, 4)), np.triu(np.ones((4, 4)), 1)):
        with pytest.raises(EvidenceError, match="network must be symmetric"):
            hub_degree(wrong, rng)
    with pytest.raises(TableError, match="network cannot be tested"):
        hub_degree(np.full((3, 3), np.nan), rng)
