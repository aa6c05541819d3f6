"""All levels at once, against every exchange of labels by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.replicates import seed_replicate
from moralscope.evidence.synthesis import relabelling
from moralscope.evidence.synthesis.relabelling import relabel, without_seeds


def distances(seed: int, first: int, second: int, shift: tuple[float, ...]) -> np.ndarray:
    """One matrix per level, the rewards apart by ``shift`` at each."""
    rng = np.random.default_rng(seed)
    found = []
    for by in shift:
        at = rng.normal(size=(first + second, 3))
        at[:first] += by
        found.append(np.linalg.norm(at[:, None] - at[None], axis=2))
    return np.array(found)


def every_exchange(d: np.ndarray, first: int, *, shared: bool = True) -> np.ndarray:
    """T by way to choose the first reward's agents, the observed one first, and by level.

    Where they are not ``shared``, pairs of the k-th agents of both rewards do not count.
    """
    agents = d.shape[1]
    pairs = list(itertools.combinations(range(agents), 2))
    if not shared:
        pairs = [(i, j) for i, j in pairs if j - i != first]
    table = []
    for chosen in itertools.combinations(range(agents), first):
        same = [(i in chosen) == (j in chosen) for i, j in pairs]
        row = []
        for level in d:
            values = [level[i, j] for i, j in pairs]
            within = [v for v, s in zip(values, same, strict=True) if s]
            between = [v for v, s in zip(values, same, strict=True) if not s]
            row.append(math.fsum(between) / len(between) - math.fsum(within) / len(within))
        table.append(row)
    return np.array(table)


def by_hand(d: np.ndarray, first: int, *, shared: bool = True) -> tuple[list[float], list[float]]:
    """Raw and adjusted p over all exchanges."""
    drawn = every_exchange(d, first, shared=shared)
    standard = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    observed, largest = standard[0], standard.max(axis=1)
    raw = [float(np.mean(standard[:, k] >= observed[k] - 1e-9)) for k in range(len(d))]
    return raw, [float(np.mean(largest >= value - 1e-9)) for value in observed]


@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (5, 5), (1, 4)])
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (2.0, 0.0, 0.4)])
def test_p_values_are_those_of_every_exchange(
    sizes: tuple[int, int], shift: tuple[float, ...]
) -> None:
    d = distances(sum(sizes), *sizes, shift)
    found = relabel(d, sizes[0], np.random.default_rng(0))
    raw, adjusted = by_hand(d, sizes[0])
    assert found.p == pytest.approx(raw, abs=1e-12)
    assert found.p_adjusted == pytest.approx(adjusted, abs=1e-12)
    drawn = every_exchange(d, sizes[0])
    centred = drawn - drawn.mean(axis=0)
    assert found.spread == pytest.approx(drawn.std(axis=0), rel=1e-9)
    ends = np.abs(np.quantile(centred, [0.025, 0.975], axis=0)).T
    assert found.reach == pytest.approx(ends, rel=1e-9)
    rewards = ["a"] * sizes[0] + ["b"] * sizes[1]
    for k, level in enumerate(d):
        alone = seed_replicate(level, rewards, np.random.default_rng(0))
        assert found.p[k] == pytest.approx(alone.p, abs=1e-12)
        assert found.between[k] - found.within[k] == pytest.approx(
            alone.between - alone.within, abs=1e-12
        )
        assert found.floor == pytest.approx(alone.floor)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.5, 0.2)])
def test_pairs_that_do_not_count_are_left_out_of_every_mean(shift: tuple[float, ...]) -> None:
    d = distances(4, 4, 4, shift)
    counted = np.array([[abs(i - j) != 4 for i in range(8)] for j in range(8)])
    found = relabel(d, 4, np.random.default_rng(0), counted=counted)
    raw, adjusted = by_hand(d, 4, shared=False)
    assert found.p == pytest.approx(raw, abs=1e-12)
    assert found.p_adjusted == pytest.approx(adjusted, abs=1e-12)
    rewards = ["a"] * 4 + ["b"] * 4
    for k, level in enumerate(d):
        alone = seed_replicate(level, rewards, np.random.default_rng(0), counted=counted)
        assert (found.between[k], found.within[k]) == pytest.approx((alone.between, alone.within))
    with pytest.raises(EvidenceError, match="from different seeds"):
        relabel(d, 4, np.random.default_rng(0), counted=np.zeros((8, 8), dtype=bool))


def test_shared_starts_neither_hide_rewards_nor_make_them() -> None:
    """What agents of one seed have in common is larger than anything that rewards do."""
    rng = np.random.default_rng(1)
    counted = np.array([[abs(i - j) != 5 for i in range(10)] for j in range(10)])
    found = {}
    for apart in (0.0, 1.5):
        start = np.tile(3.0 * rng.normal(size=(5, 40)), (2, 1))
        own = start + 0.3 * rng.normal(size=(10, 40))
        own[:5] += apart * rng.normal(size=40)
        d = np.linalg.norm(own[:, None] - own[None], axis=2)[None]
        found[apart] = relabel(d, 5, rng, counted=counted).p[0]
        everybody = relabel(d, 5, rng).p[0]
    assert found[0.0] > 0.05
    assert found[1.5] < 0.05 < everybody


def test_the_floor_does_not_rise_with_the_levels() -> None:
    d = distances(1, 5, 5, (9.0,) * 7)
    found = relabel(d, 5, np.random.default_rng(0))
    assert found.p_adjusted == pytest.approx(2 / 252)
    assert found.floor == pytest.approx(2 / 252)


def test_many_seeds_are_sampled_and_agree_with_all_exchanges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relabelling, "EXACT_LABELLINGS", 100)
    d = distances(3, 5, 5, (0.45, 0.0))
    found = relabel(d, 5, np.random.default_rng(2), draws=4_999)
    raw, adjusted = by_hand(d, 5)
    for ours, theirs in ((found.p, raw), (found.p_adjusted, adjusted)):
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one - other) < 5 * math.sqrt(other * (1 - other) / 5_000) + 1e-3
    assert found.floor == pytest.approx(2 / 252)
    few = relabel(d, 5, np.random.default_rng(2), draws=50)
    assert few.floor == pytest.approx(1 / 51)


def test_agents_that_all_lie_equally_far_apart_tell_nothing() -> None:
    d = np.ones((2, 8, 8)) - np.eye(8)
    found = relabel(d, 4, np.random.default_rng(0))
    assert found.p.tolist() == [1.0, 1.0]
    assert found.p_adjusted.tolist() == [1.0, 1.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0), st.integers(2, 4), st.integers(2, 4))
def test_units_do_not_matter_and_correction_only_raises(
    seed: int, scale: float, first: int, second: int
) -> None:
    d = distances(seed, first, second, (0.5, 0.0))
    found = relabel(d, first, np.random.default_rng(0))
    scaled = relabel(d * np.array([scale, 1.0])[:, None, None], first, np.random.default_rng(0))
    assert scaled.p_adjusted == pytest.approx(found.p_adjusted, abs=1e-12)
    assert (found.p_adjusted >= found.p - 1e-12).all()
    assert (found.p_adjusted >= found.floor - 1e-12).all()


def test_exchangeable_rewards_are_rarely_told_apart_at_any_level() -> None:
    """Three levels, attainable size 12/252 of five seeds each; three standard errors above."""
    runs, rejected = 400, 0
    rng = np.random.default_rng(5)
    for _ in range(runs):
        own = rng.standard_t(3, size=(10, 3))
        at = [own, own + 0.3 * rng.normal(size=own.shape), rng.normal(size=(10, 2))]
        d = np.array([np.linalg.norm(x[:, None] - x[None], axis=2) for x in at])
        rejected += bool((relabel(d, 5, rng).p_adjusted < 0.05).any())
    size = 12 / 252
    assert 0 < rejected / runs <= size + 3 * math.sqrt(size * (1 - size) / runs)


@pytest.mark.parametrize(("first", "agents"), [(0, 4), (4, 4), (1, 2)])
def test_too_few_seeds_are_an_error(first: int, agents: int) -> None:
    with pytest.raises(EvidenceError, match="Rewards cannot be told from training seeds"):
        relabel(np.zeros((1, agents, agents)), first, np.random.default_rng(0))


def test_each_seed_left_out_in_turn() -> None:
    d = distances(7, 3, 2, (1.0,))[0]
    between, within = without_seeds(d, 3)
    for seed in range(5):
        rest = [i for i in range(5) if i != seed]
        pairs = list(itertools.combinations(rest, 2))
        apart = [d[i, j] for i, j in pairs if (i < 3) != (j < 3)]
        alike = [d[i, j] for i, j in pairs if (i < 3) == (j < 3)]
        assert between[seed] == pytest.approx(np.mean(apart), abs=1e-12)
        assert within[seed] == pytest.approx(np.mean(alike), abs=1e-12)
