"""Pairs that share members: the variance one by one, and what sharing does to the level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.dyads import dyadic_rank_p


def test_the_variance_is_that_of_leaving_members_out() -> None:
    rng = np.random.default_rng(3)
    members = [("a", "b"), ("a", "c"), ("b", "d"), ("e", "f"), ("c", "g"), ("h", "a"), ("i", "j")]
    x, y = rng.normal(size=7), rng.normal(size=7)
    without = []
    for name in "abcdefghij":
        left = [i for i, pair in enumerate(members) if name not in pair]
        without.append(np.arctanh(stats.spearmanr(x[left], y[left]).statistic))
    variance = 0.8 / 2 * np.var(without) * 10
    z = np.arctanh(stats.spearmanr(x, y).statistic)
    expected = 2 * stats.t.sf(abs(z) / math.sqrt(variance), 1)
    assert dyadic_rank_p(x, y, members) == pytest.approx(expected, rel=1e-9)


def test_without_shared_members_it_is_spearmans_test() -> None:
    rng = np.random.default_rng(5)
    n = 400
    x = rng.normal(size=n)
    y = 0.15 * x + rng.normal(size=n)
    found = dyadic_rank_p(x, y, [(f"s{i}", f"r{i}") for i in range(n)])
    assert found == pytest.approx(stats.spearmanr(x, y).pvalue, rel=0.5)


def test_members_in_common_make_the_same_correlation_say_less() -> None:
    rng = np.random.default_rng(2)
    x = np.repeat(rng.normal(size=6), 5) + 0.01 * rng.normal(size=30)
    y = np.repeat(rng.normal(size=6), 5) + x + 0.01 * rng.normal(size=30)
    apart = dyadic_rank_p(x, y, [(f"s{i}", f"r{i}") for i in range(30)])
    shared = dyadic_rank_p(x, y, [(f"s{i // 5}", f"r{i}") for i in range(30)])
    assert apart is not None
    assert shared is not None
    assert shared > 10 * apart


def test_the_level_is_kept_where_members_have_effects_of_their_own() -> None:
    rng = np.random.default_rng(0)
    below, runs = 0, 400
    for _ in range(runs):
        ends = rng.integers(0, 20, size=(30, 2))
        one, other = rng.normal(size=(2, 20))
        x, y = (node[ends].sum(axis=1) + 0.3 * rng.normal(size=30) for node in (one, other))
        p = dyadic_rank_p(x, y, [(f"c{a}", f"c{b}") for a, b in ends.tolist()])
        below += p is not None and p < 0.05
    assert below / runs < 0.075  # a permutation of the pairs rejects in 17%


def test_equal_numbers_have_no_order() -> None:
    members = [(f"s{i}", f"r{i}") for i in range(6)]
    assert dyadic_rank_p(np.ones(6), np.arange(6.0), members) is None


def test_what_hangs_on_one_member_says_nothing() -> None:
    x = np.arange(8.0)
    assert dyadic_rank_p(x, x, [("hub", f"r{i}") for i in range(8)]) == 1.0


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(EvidenceError, match="Ranks of pairs cannot be correlated.*6 pairs or more"):
        dyadic_rank_p(np.arange(5.0), np.arange(5.0), [("a", "b")] * 5)
