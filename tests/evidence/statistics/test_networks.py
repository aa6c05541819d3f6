"""Label swaps against brute force with numpy's correlations; what is undefined stays undefined."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.networks import LabelSwap, label_swap


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clusters(groups: int, prompts: int) -> list[str]:
    return [f"s{g}" for g in range(groups) for _ in range(prompts)]


def agents(seed: int, groups: int, prompts: int, sites: int) -> tuple[np.ndarray, np.ndarray]:
    draw = rng(seed)
    shared = draw.normal(size=(groups * prompts, sites)) @ draw.normal(size=(sites, sites))
    first, second = (shared + draw.normal(size=shared.shape) for _ in range(2))
    return first, 5.0 + 3.0 * second


def planted(seed: int, groups: int = 12, prompts: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Six unrelated sites, of which the first two move together in the first agent only."""
    first, second = rng(seed).normal(size=(2, groups * prompts, 6))
    first[:, 1] = first[:, 0] + 0.2 * first[:, 1]
    return first, second


def standard(values: np.ndarray) -> np.ndarray:
    about = values - np.median(values, axis=0)
    return about / np.median(abs(about), axis=0)


def fisher(values: np.ndarray) -> np.ndarray:
    r = np.corrcoef(values, rowvar=False)[np.triu_indices(values.shape[1], 1)]
    return np.arctanh(np.clip(r, -0.999, 0.999))


def brute_force(
    first: np.ndarray, second: np.ndarray, names: list[str], threshold: float
) -> tuple[np.ndarray, float, int, float]:
    """Adjusted p per pair, p of the count, the count, and p of the largest degree."""
    a, b, labels = standard(first), standard(second), np.array(names)
    found = []
    for swapped in itertools.product((False, True), repeat=len(set(names))):
        moved = np.isin(labels, [n for n, s in zip(sorted(set(names)), swapped, strict=True) if s])
        left = np.where(moved[:, None], b, a)
        right = np.where(moved[:, None], a, b)
        found.append(np.abs(fisher(left) - fisher(right)))
    drawn = np.array(found)
    p = (drawn.max(axis=1)[:, None] >= drawn[0] * (1 - 1e-9)).mean(axis=0)
    counts = (drawn > threshold).sum(axis=1)
    square = np.zeros((len(drawn), a.shape[1], a.shape[1]))
    i, j = np.triu_indices(a.shape[1], 1)
    square[:, i, j] = square[:, j, i] = drawn > threshold
    hubs = square.sum(axis=1).max(axis=1)
    return p, float((counts >= counts[0]).mean()), int(counts[0]), float((hubs >= hubs[0]).mean())


@pytest.mark.parametrize(("groups", "prompts", "sites"), [(4, 3, 3), (6, 2, 5), (7, 4, 4)])
def test_it_equals_brute_force(groups: int, prompts: int, sites: int) -> None:
    first, second = agents(groups, groups, prompts, sites)
    names = clusters(groups, prompts)
    found = label_swap(first, second, names, rng(), threshold=0.3)
    p, p_count, count, p_hub = brute_force(first, second, names, 0.3)
    upper = np.triu_indices(sites, 1)
    assert found.p_adjusted[upper].tolist() == pytest.approx(p.tolist(), abs=1e-12)
    assert found.p_adjusted.T[upper].tolist() == pytest.approx(p.tolist(), abs=1e-12)
    assert (found.p_count, found.count) == (pytest.approx(p_count, abs=1e-12), count)
    assert found.hub is not None
    assert found.hub.p == pytest.approx(p_hub, abs=1e-12)
    assert found.floor == 2 / 2**groups
    difference = np.corrcoef(first, rowvar=False) - np.corrcoef(second, rowvar=False)
    assert found.difference == pytest.approx(difference, abs=1e-10)
    assert (found.defined, found.clusters, found.pairs) == (1.0, groups, sites * (sites - 1) // 2)


def test_reliability_equals_all_halvings() -> None:
    first, second = agents(3, 6, 5, 5)
    first[:, :2] += 2.0 * first[:, [4]]
    labels = np.array(clusters(6, 5))
    r = []
    for half in itertools.combinations(sorted(set(labels)), 3):
        inside = np.isin(labels, half)
        one = fisher(first[inside]) - fisher(second[inside])
        other = fisher(first[~inside]) - fisher(second[~inside])
        r.append(np.corrcoef(one, other)[0, 1])
    expected = 2 * np.mean(r) / (1 + np.mean(r))
    assert 0.1 < expected < 0.99
    found = label_swap(first, second, labels.tolist(), rng()).reliability
    assert found == pytest.approx(expected, abs=1e-10)


def test_stability_equals_leaving_out_each_cluster() -> None:
    first, second = agents(5, 7, 3, 6)
    labels = np.array(clusters(7, 3))
    whole = np.sign(fisher(first) - fisher(second))
    stable = np.ones(15, dtype=bool)
    for name in set(labels):
        kept = labels != name
        stable &= np.sign(fisher(first[kept]) - fisher(second[kept])) == whole
    found = label_swap(first, second, labels.tolist(), rng())
    assert found.stable[np.triu_indices(6, 1)].tolist() == stable.tolist()
    assert (found.stable == found.stable.T).all()
    assert not found.stable.diagonal().any()
    assert 0 < stable.sum() < 15


def test_a_planted_wire_is_found_and_is_stable() -> None:
    first, second = planted(1)
    found = label_swap(first, second, clusters(12, 3), rng())
    assert np.argwhere(np.triu(found.p_adjusted < 0.05, 1)).tolist() == [[0, 1]]
    assert found.difference[0, 1] > 0.8
    assert found.stable[0, 1]


def test_a_planted_network_is_reliable_and_its_hub_is_named() -> None:
    draw = rng(2)
    first, second = draw.normal(size=(2, 80, 9))
    first[:, 4] = first[:, :2].sum(axis=1) + 0.3 * first[:, 4]
    second[:, 4] = second[:, 2:4].sum(axis=1) + 0.3 * second[:, 4]
    found = label_swap(first, second, clusters(20, 4), rng(), draws=499)
    assert found.p_count is not None
    assert found.p_count < 0.05
    assert found.reliability is not None
    assert found.reliability > 0.7
    assert found.hub is not None
    assert found.hub.site == 4
    assert found.hub.p < 0.05
    noise = label_swap(*draw.normal(size=(2, 80, 9)), clusters(20, 4), rng(), draws=499)
    assert noise.reliability is not None
    assert noise.reliability < 0.7


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 500), st.floats(0.01, 100), st.floats(-50, 50))
def test_level_scale_and_order_of_agents_do_not_matter(
    seed: int, scale: float, shift: float
) -> None:
    first, second = agents(seed, 6, 2, 4)
    names = clusters(6, 2)
    found = label_swap(first, second, names, rng())
    moved = label_swap(first * scale + shift, second, names, rng())
    back = label_swap(second, first, names, rng())
    for other, sign in ((moved, 1.0), (back, -1.0)):
        assert other.p_count == found.p_count
        assert other.p_adjusted == pytest.approx(found.p_adjusted, abs=1e-12)
        assert other.difference == pytest.approx(sign * found.difference, abs=1e-9)


def test_the_same_agent_twice_differs_nowhere() -> None:
    first, _ = agents(8, 8, 3, 5)
    found = label_swap(first, first, clusters(8, 3), rng())
    assert (found.count, found.p_count) == (0, 1.0)
    assert (found.p_adjusted == 1.0).all()
    assert not found.stable.any()
    assert found.reliability is None


def without(found: LabelSwap, site: int) -> np.ndarray:
    return np.delete(np.delete(found.p_adjusted, site, 0), site, 1)


@pytest.mark.parametrize("defect", ["constant", "two values", "one cluster", "clone"])
def test_a_site_that_cannot_be_tested_is_undefined_and_touches_nothing_else(defect: str) -> None:
    first, second = agents(9, 8, 3, 5)
    match defect:
        case "constant":
            second[:, 3] = 0.1
        case "two values":
            first[:, 3] = np.arange(24) % 2
        case "one cluster":
            first[3:, 3] = 2.5
            first[:3, 3] = [1.0, 3.0, 4.0]
            first[3, 3] = 2.5 + 1e-9
        case _:
            second[:, 3] = 2 * second[:, 4] + 1
    names = clusters(8, 3)
    found = label_swap(first, second, names, rng())
    if defect == "clone":
        assert np.isnan(found.difference[3, 4])
        assert np.isnan(found.p_adjusted[4, 3])
        assert found.pairs == 9
    else:
        others = np.arange(5) != 3
        assert np.isnan(found.difference[3, others]).all()
        assert np.isnan(found.p_adjusted[others, 3]).all()
        assert not found.stable[3].any()
        assert found.pairs == 6
        alone = label_swap(first[:, others], second[:, others], names, rng())
        assert without(found, 3) == pytest.approx(alone.p_adjusted, abs=1e-12)
        assert found.p_count == alone.p_count


def vanishing() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A site that varies in half of the clusters of one agent and in the other half of the other.

    Swapping one half leaves it constant in an agent.
    """
    first, second = agents(10, 4, 4, 3)
    first[:8, 0], second[8:, 0] = 0.0, 0.0
    first[8:, 0] = second[:8, 0] = [-4.0, 1.0, -2.0, 3.0, -1.0, 2.0, 4.0, -3.0]
    return first, second, clusters(4, 4)


def test_it_abstains_where_swaps_are_undefined() -> None:
    found = label_swap(*vanishing(), rng())
    assert found.defined == 7 / 8
    assert found.p_count is None
    assert found.hub is None
    assert np.isnan(found.p_adjusted[np.triu_indices(3, 1)]).all()
    assert np.isfinite(found.difference).all()


def test_tolerated_undefined_swaps_count_against_the_finding() -> None:
    found = label_swap(*vanishing(), rng(), max_undefined=0.2)
    assert found.p_count is not None
    off = found.p_adjusted[np.triu_indices(3, 1)]
    assert off.min() >= 2 / 8, "the observed swap, and the undefined one"


def test_one_cluster_has_no_test() -> None:
    first, second = agents(1, 1, 12, 3)
    found = label_swap(first, second, ["s"] * 12, rng())
    assert (found.p_count, found.pairs, found.reliability) == (None, 0, None)
    assert np.isnan(found.p_adjusted[0, 1])


def test_many_clusters_are_sampled() -> None:
    first, second = planted(4, groups=30)
    found = label_swap(first, second, clusters(30, 3), rng(), draws=199)
    assert found.floor == 1 / 200
    assert found.p_adjusted[0, 1] == 1 / 200


def test_many_sites_take_seconds_and_many_clusters_then_are_sampled() -> None:
    first, second = agents(6, 14, 3, 120)
    start = time.perf_counter()
    found = label_swap(first, second, clusters(14, 3), rng(), draws=199)
    assert time.perf_counter() - start < 8.0
    assert found.floor == 1 / 200
    assert found.pairs == 7_140


def test_type_one_error_of_clustered_and_heavy_tailed_values() -> None:
    draw, runs = rng(7), 100
    mix = draw.normal(size=(6, 6))
    for heavy in (False, True):
        wrong = counted = 0
        for _ in range(runs):
            drawn = (
                draw.standard_t(2, size=(3, 8, 2, 6)) if heavy
                else draw.normal(size=(3, 8, 2, 6)) + draw.normal(size=(3, 8, 1, 6))
            )  # fmt: skip
            first, second = (((drawn[k] + 0.7 * drawn[2]) @ mix).reshape(-1, 6) for k in (0, 1))
            found = label_swap(first, 4.0 * second + 1.0, clusters(8, 2), draw)
            wrong += bool((found.p_adjusted[np.triu_indices(6, 1)] <= 0.05).any())
            counted += found.p_count is not None and found.p_count <= 0.05
        limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
        assert 0 < wrong / runs <= limit
        assert counted / runs <= limit


def test_agents_that_do_not_fit_are_refused() -> None:
    first, second = agents(1, 4, 2, 3)
    names = clusters(4, 2)
    with pytest.raises(EvidenceError, match="8 x 3 and 7 x 3 values, 8 clusters"):
        label_swap(first, second[:7], names, rng())
    with pytest.raises(EvidenceError, match="wiring of two agents cannot be compared"):
        label_swap(first, second, names[:5], rng())
    second[2, 2] = np.nan
    with pytest.raises(TableError, match="second agent's values cannot be tested"):
        label_swap(first, second, names, rng())
