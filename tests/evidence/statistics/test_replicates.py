"""The seed-replicate null against every permutation of the labels."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.replicates import replicate_floor, seed_replicate


def distances(seed: int, rewards: str, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = rng.normal(size=(len(rewards), 3)) + shift * np.array([[ord(r) - 97.0] for r in rewards])
    return np.linalg.norm(at[:, None] - at[None], axis=2)


def statistic(d: np.ndarray, rewards: tuple[str, ...]) -> tuple[float, float]:
    pairs = list(itertools.combinations(range(len(rewards)), 2))
    return (
        float(np.mean([d[i, j] for i, j in pairs if rewards[i] != rewards[j]])),
        float(np.mean([d[i, j] for i, j in pairs if rewards[i] == rewards[j]])),
    )


@pytest.mark.parametrize("rewards", ["aaabbb", "aabbcc", "aaaabbb", "abacab", "aaab"])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_it_equals_brute_force(rewards: str, shift: float) -> None:
    d = distances(len(rewards), rewards, shift)
    between, within = statistic(d, tuple(rewards))
    drawn = []
    for labels in itertools.permutations(rewards):
        b, w = statistic(d, labels)
        drawn.append(b - w)
    expected = np.mean(np.array(drawn) >= between - within - 1e-9)
    found = seed_replicate(d, list(rewards), np.random.default_rng(0))
    assert found.between == pytest.approx(between, abs=1e-12)
    assert found.within == pytest.approx(within, abs=1e-12)
    assert found.p == pytest.approx(expected, abs=1e-12)
    assert found.p >= found.floor - 1e-12


@pytest.mark.parametrize(
    ("sizes", "floor"),
    [([3, 3], 0.10), ([4, 4], 2 / 70), ([5, 5], 2 / 252), ([7, 7], 2 / 3432), ([4, 3], 1 / 35),
     ([2, 2, 2], 6 / 90)],
)  # fmt: skip
def test_floor(sizes: list[int], floor: float) -> None:
    assert replicate_floor(sizes) == pytest.approx(floor)


@pytest.mark.parametrize("rewards", ["aaabbb", "aaaabbbb", "aaaaabbb", "aaabbbccc"])
def test_rewards_far_apart_reach_the_floor(rewards: str) -> None:
    """Equal distances tie in floating point; without the tolerance p would fall below."""
    code = np.array([ord(r) for r in rewards])
    d = np.where(code[:, None] == code, 0.1, 0.3)
    found = seed_replicate(d, list(rewards), np.random.default_rng(0))
    assert found.p == pytest.approx(found.floor)
    assert found.seeds == min(rewards.count(r) for r in set(rewards))


def test_sampled_reassignments_approach_the_exact_p() -> None:
    """Nine seeds of two rewards have 48,620 assignments, all of which are written out here."""
    rewards = "a" * 9 + "b" * 9
    d = distances(11, rewards, 0.25)
    found = seed_replicate(d, list(rewards), np.random.default_rng(1), draws=9_999)
    inside = np.array(
        [
            d[np.ix_(pick, pick)].sum() / 2 + d[np.ix_(rest, rest)].sum() / 2
            for pick in map(list, itertools.islice(itertools.combinations(range(18), 9), 24_310))
            if (rest := [i for i in range(18) if i not in pick])
        ]
    )
    seen = d[:9, :9].sum() / 2 + d[9:, 9:].sum() / 2
    exact = float((inside <= seen + 1e-9).mean())  # half of them: the others are their mirrors
    assert found.p != exact
    assert abs(found.p - exact) < 4 * math.sqrt(exact * (1 - exact) / 9_999)
    assert found.floor == pytest.approx(1e-4)


@given(st.integers(0, 300), st.floats(0.1, 10))
def test_scale_and_names_do_not_matter(seed: int, scale: float) -> None:
    d = distances(seed, "aaabbb", 0.5)
    rng = np.random.default_rng(0)
    found = seed_replicate(d, list("aaabbb"), rng)
    assert seed_replicate(scale * d, list("yyyxxx"), rng).p == found.p


def test_level_under_the_null() -> None:
    """Distances share agents, so pairs are dependent; reassigning labels stays exact."""
    rng, runs = np.random.default_rng(3), 400
    p = [seed_replicate(distances(s, "aaaabbbb"), list("aaaabbbb"), rng).p for s in range(runs)]
    share = float(np.mean(np.array(p) <= 0.05))
    assert 0.01 < share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_impossible_designs_are_refused() -> None:
    rng = np.random.default_rng(0)
    for rewards in ("aaaa", "abcd"):
        with pytest.raises(EvidenceError, match="Rewards cannot be told from training seeds"):
            seed_replicate(distances(0, rewards), list(rewards), rng)
    d = distances(0, "aabb")
    with pytest.raises(EvidenceError, match="Distances between agents do not fit"):
        seed_replicate(d, list("aabbb"), rng)
    d[0, 1] += 1.0
    with pytest.raises(EvidenceError, match="symmetric matrix"):
        seed_replicate(d, list("aabb"), rng)
    d[1, 0] = d[0, 1] = math.nan
    with pytest.raises(TableError, match="distances cannot be tested"):
        seed_replicate(d, list("aabb"), rng)
