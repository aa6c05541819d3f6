"""Rank correlations against scipy, and their p against every rearrangement."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.ranks import (
    detectable_rank_correlation,
    rank_correlation,
    rank_floor,
)


def drawn(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, np.round(0.6 * x + rng.normal(size=n), 1)  # with ties


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rho_is_scipys(seed: int) -> None:
    x, y = drawn(seed)
    found = rank_correlation(x, y, [0] * 12, np.random.default_rng(0), 9)
    assert found is not None
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_p_is_the_share_of_rearrangements_within_strata() -> None:
    """Two strata of three and four: 3! 4! = 144 rearrangements, enumerated with scipy."""
    x, y = drawn(3, 7)
    strata = list("aabbabb")
    at = {name: [i for i, s in enumerate(strata) if s == name] for name in "ab"}
    seen = abs(stats.spearmanr(x, y).statistic)
    reached = 0
    for first in itertools.permutations(at["a"]):
        for second in itertools.permutations(at["b"]):
            moved = y.copy()
            moved[at["a"]], moved[at["b"]] = y[list(first)], y[list(second)]
            reached += abs(stats.spearmanr(x, moved).statistic) >= seen - 1e-12
    found = rank_correlation(x, y, strata, np.random.default_rng(1), 19_999)
    assert found is not None
    # Four standard errors of 20,000 draws.
    assert found.p == pytest.approx(reached / 144, abs=4 * 0.5 / np.sqrt(20_000))
    assert found.floor == pytest.approx(1 / 144)


def test_what_lies_between_strata_alone_is_not_found() -> None:
    """Both numbers grow from one stratum to the next, and have nothing to do with each other."""
    rng = np.random.default_rng(4)
    strata = [i // 10 for i in range(30)]
    depth = np.array(strata, dtype=np.float64)
    x, y = 5 * depth + rng.normal(size=30), 5 * depth + rng.normal(size=30)
    apart = rank_correlation(x, y, strata, np.random.default_rng(1), 1_999)
    together = rank_correlation(x, y, [0] * 30, np.random.default_rng(1), 1_999)
    assert apart is not None
    assert together is not None
    assert together.p == 1 / 2_000
    assert apart.p > 0.05


def test_equal_numbers_have_no_order() -> None:
    assert rank_correlation(np.ones(8), np.arange(8.0), [0] * 8, np.random.default_rng(0)) is None


def test_too_few_and_unequal_lengths_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(EvidenceError, match="Ranks cannot be correlated.*5 and 5 numbers"):
        rank_correlation(np.arange(5.0), np.arange(5.0), [0] * 5, rng)
    with pytest.raises(EvidenceError, match="6 and 7 numbers in 6 strata"):
        rank_correlation(np.arange(6.0), np.arange(7.0), [0] * 6, rng)
    with pytest.raises(EvidenceError, match="So few things"):
        detectable_rank_correlation(4)


def test_the_floor_of_few_things_is_that_of_their_rearrangements() -> None:
    assert rank_floor([0] * 6, 9_999) == pytest.approx(2 / 720)
    assert rank_floor([0] * 30, 999) == 1 / 1_000


def test_power_at_the_detectable_correlation_is_what_was_asked_for() -> None:
    """400 studies of 20 normal pairs whose rank correlation is the detectable one."""
    rng = np.random.default_rng(9)
    rho = detectable_rank_correlation(20)
    pearson = 2 * np.sin(np.pi * rho / 6)
    found = 0
    for _ in range(400):
        x = rng.normal(size=20)
        y = pearson * x + np.sqrt(1 - pearson**2) * rng.normal(size=20)
        found += stats.spearmanr(x, y).pvalue < 0.05
    assert 0.72 < found / 400 < 0.88
