"""The exact test of counts equals enumeration of every outcome, and holds its level."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.counts import counts_p, sum_of_binomials

cases = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0.02, 0.98), st.floats(0, 1)), min_size=1, max_size=4
)


def chance(total: int, trials: list[tuple[int, float]]) -> float:
    """Every single answer written out: the probability of a total, by enumeration."""
    single = [p for n, p in trials for _ in range(n)]
    return sum(
        math.prod(p if hit else 1 - p for p, hit in zip(single, hits, strict=True))
        for hits in itertools.product((0, 1), repeat=len(single))
        if sum(hits) == total
    )


def enumerated(positive: list[int], counts: list[int], stated: list[float]) -> float:
    trials = list(zip(counts, stated, strict=True))
    high = [t for t in trials if t[1] >= 0.5]
    low = [t for t in trials if t[1] < 0.5]
    a = sum(k for k, p in zip(positive, stated, strict=True) if p >= 0.5)
    b = sum(k for k, p in zip(positive, stated, strict=True) if p < 0.5)
    f = [chance(x, high) for x in range(sum(n for n, _ in high) + 1)]
    g = [chance(x, low) for x in range(sum(n for n, _ in low) + 1)]
    seen = f[a] * g[b]
    return sum(x * y for x in f for y in g if x * y <= seen * (1 + 1e-7))


@settings(max_examples=25)
@given(cases)
def test_it_equals_enumeration(case: list[tuple[int, float, float]]) -> None:
    counts = [n for n, _, _ in case]
    if sum(counts) > 10:
        counts = [min(n, 2) for n in counts]
    stated = [p for _, p, _ in case]
    positive = [int(share * n) for n, (_, _, share) in zip(counts, case, strict=True)]
    found = counts_p(positive, counts, stated)
    assert found == pytest.approx(enumerated(positive, counts, stated), rel=1e-6, abs=1e-12)


def test_one_prompt_is_the_binomial_test() -> None:
    for k in (0, 3, 14, 20):
        expected = stats.binomtest(k, 20, 0.3).pvalue
        assert counts_p([k], [20], [0.3]) == pytest.approx(expected, rel=1e-9)


def test_the_distribution_sums_to_one_and_has_the_right_mean() -> None:
    found = sum_of_binomials([3, 0, 50], [0.2, 0.9, 0.6])
    assert len(found) == 54
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert found @ np.arange(54) == pytest.approx(0.6 + 30.0)


def test_a_scorer_that_takes_one_option_for_the_other_is_found() -> None:
    stated = [0.9, 0.1] * 5
    swapped = [2, 18] * 5  # of 20 each: the total alone would be as expected
    assert sum(swapped) == sum(20 * p for p in stated)
    assert counts_p(swapped, [20] * 10, stated) < 1e-12
    assert counts_p([18, 2] * 5, [20] * 10, stated) > 0.9


def test_certain_probabilities_allow_nothing_else() -> None:
    assert counts_p([5, 0], [5, 5], [1.0, 0.0]) == 1.0
    assert counts_p([4, 0], [5, 5], [1.0, 0.0]) == 0.0
    assert counts_p([], [], []) == 1.0
    assert counts_p([0, 2], [0, 4], [1.0, 0.5]) == pytest.approx(1.0)


def test_it_holds_its_level_and_large_counts_are_no_trouble() -> None:
    rng = np.random.default_rng(0)
    stated = rng.random(12)
    values = [counts_p(rng.binomial(15, stated).tolist(), [15] * 12, stated.tolist())
              for _ in range(1000)]  # fmt: skip
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(values) <= level) < level + 3 * math.sqrt(level / 1000)
    assert np.mean(np.array(values) <= 0.2) > 0.12  # and is not empty
    large = rng.binomial(400, stated)
    assert counts_p(large.tolist(), [400] * 12, stated.tolist()) > 1e-3
    assert counts_p(np.minimum(large + 60, 400).tolist(), [400] * 12, stated.tolist()) < 1e-9


@pytest.mark.parametrize(
    ("positive", "counts", "stated"),
    [
        ([3], [2], [0.5]),
        ([-1], [2], [0.5]),
        ([1], [2], [1.5]),
        ([1], [2], [math.nan]),
        ([1], [2, 2], [0.5]),
    ],
)
def test_impossible_counts_are_refused(
    positive: list[int], counts: list[int], stated: list[float]
) -> None:
    with pytest.raises(EvidenceError, match="counts and probabilities are impossible"):
        counts_p(positive, counts, stated)
