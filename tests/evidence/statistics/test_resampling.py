"""Randomisation tests against brute force, scipy and statsmodels."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.resampling import (
    max_t,
    permutation_floor,
    permute_labels,
    sign_flip,
    sign_flip_floor,
    sign_flips,
)

MODERATE = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 3))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute_force_max_t(y: np.ndarray) -> tuple[list[float], list[float]]:
    """Raw and adjusted p from scipy's own t of every one of the 2^G sign patterns."""
    observed = np.abs(stats.ttest_1samp(y, 0.0).statistic)
    patterns = [np.array(s)[:, None] for s in itertools.product((1, -1), repeat=len(y))]
    drawn = np.array([np.abs(stats.ttest_1samp(s * y, 0.0).statistic) for s in patterns])
    tie = observed * (1 - 1e-9)
    raw = (drawn >= tie).mean(axis=0)
    adjusted = (drawn.max(axis=1)[:, None] >= tie).mean(axis=0)
    return raw.tolist(), adjusted.tolist()


@pytest.mark.parametrize(("units", "columns", "seed"), [(3, 2, 1), (6, 4, 2), (8, 3, 3)])
def test_max_t_equals_brute_force(units: int, columns: int, seed: int) -> None:
    y = rng(seed).normal(0.4, 1.0, (units, columns)) @ rng(9).normal(size=(columns, columns))
    result = max_t(y, rng())
    raw, adjusted = brute_force_max_t(y)
    assert result.p.tolist() == pytest.approx(raw, abs=1e-12)
    assert result.p_adjusted.tolist() == pytest.approx(adjusted, abs=1e-12)
    assert result.t.tolist() == pytest.approx(stats.ttest_1samp(y, 0.0).statistic.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_sign_flip_equals_scipy(seed: int) -> None:
    y = rng(seed).normal(0.5, 1.0, 10)
    oracle = stats.permutation_test(
        (y,), lambda x, axis: x.mean(axis=axis), permutation_type="samples",
        n_resamples=2**10, vectorized=True,
    )  # fmt: skip
    p, floor = sign_flip(y, rng())
    assert p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert floor == 2 / 2**10


def test_sampled_sign_flips_approach_the_exact_p() -> None:
    y = rng(5).normal(0.35, 1.0, 16)
    patterns = np.array(list(itertools.product((1.0, -1.0), repeat=16)))
    exact = float((np.abs(patterns @ y) >= abs(y.sum()) * (1 - 1e-9)).mean())
    p, floor = sign_flip(y, rng(1), draws=20_000)
    assert abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000)
    assert floor == 1 / 20_001
    assert p != exact


def test_a_sampled_p_is_never_zero_and_reaches_its_floor() -> None:
    p, floor = sign_flip(np.full(40, 1.0) + rng().normal(0, 0.01, 40), rng(), draws=199)
    assert p == floor == 1 / 200


@given(arrays(np.float64, st.tuples(st.integers(2, 7), st.integers(1, 4)), elements=MODERATE))
def test_max_t_bounds(y: np.ndarray) -> None:
    result = max_t(y, rng())
    assert (result.p >= result.floor - 1e-12).all()
    assert (result.p_adjusted >= result.p - 1e-12).all()
    assert (result.p_adjusted <= 1.0).all()


@given(arrays(np.float64, st.tuples(st.integers(2, 7), st.integers(1, 4)), elements=MODERATE))
def test_max_t_ignores_sign_and_scale_of_columns(y: np.ndarray) -> None:
    scaled = y * np.where(np.arange(y.shape[1]) % 2, -4.0, 0.5)
    assert max_t(scaled, rng()).p_adjusted.tolist() == max_t(y, rng()).p_adjusted.tolist()


def test_equal_clusters_reach_the_floor_and_do_not_pass_below_it() -> None:
    """Constant columns tie in floating point; without the tolerance p would fall below 2/2^G."""
    y = np.full((5, 1), 0.1) * np.array([[1.0, 3.0, 7.0]])
    assert max_t(y, rng()).p.tolist() == [2 / 2**5] * 3


def test_a_column_of_zeros_is_no_finding() -> None:
    y = np.column_stack([np.zeros(8), rng().normal(2.0, 0.1, 8)])
    result = max_t(y, rng())
    assert result.p[0] == result.p_adjusted[0] == 1.0
    assert result.t[0] == 0.0
    assert result.p[1] == 2 / 2**8


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_undefined_values_are_refused(bad: float) -> None:
    y = np.ones((6, 2))
    y[3, 1] = bad
    with pytest.raises(TableError, match="1 of 12 values are NaN or infinite"):
        max_t(y, rng())


def test_clones_do_not_cost_anything() -> None:
    """Max-T of identical columns equals the test of one: they carry one hypothesis."""
    y = rng(2).normal(0.5, 1.0, (9, 1))
    assert max_t(np.repeat(y, 8, axis=1), rng()).p_adjusted[0] == max_t(y, rng()).p[0]


def test_three_hundred_sites_take_seconds_and_do_not_depend_on_chunks() -> None:
    y = rng(3).normal(0.0, 1.0, (20, 300))
    y[:, 7] += 2.0
    start = time.perf_counter()
    result = max_t(y, rng(4), draws=9_999)
    assert time.perf_counter() - start < 5.0
    assert np.flatnonzero(result.p_adjusted < 0.05).tolist() == [7]
    signs = sign_flips(20, rng(4), 9_999).signs
    t = np.abs(signs @ y) / np.sqrt((y * y).sum(axis=0))
    observed = t[0] * (1 - 1e-9)
    expected = (t.max(axis=1)[:, None] >= observed).mean(axis=0)
    assert result.p_adjusted.tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_equal_generators_give_equal_results() -> None:
    y = rng(3).normal(0.3, 1.0, (25, 5))
    first, second = max_t(y, rng(8), 499), max_t(y, rng(8), 499)
    assert first.p_adjusted.tolist() == second.p_adjusted.tolist()
    assert max_t(y, rng(9), 499).p.tolist() != first.p.tolist()


@pytest.mark.parametrize(
    ("units", "draws", "floor"),
    [(5, 0, 0.0625), (6, 0, 0.03125), (20, 9_999, 1e-4), (15, 99, 0.01)],
)
def test_sign_flip_floor(units: int, draws: int, floor: float) -> None:
    assert sign_flip_floor(units, draws) == pytest.approx(floor)


@pytest.mark.parametrize(("seeds", "floor"), [(3, 0.10), (4, 2 / 70), (5, 2 / 252), (7, 2 / 3432)])
def test_permutation_floor(seeds: int, floor: float) -> None:
    assert permutation_floor(seeds, seeds) == pytest.approx(floor)


@pytest.mark.parametrize(("a", "b"), [(3, 3), (4, 2), (5, 5), (6, 3)])
def test_label_permutation_equals_scipy(a: int, b: int) -> None:
    """By the difference of means, and by Welch's t where one group is larger."""
    x, y = rng(a).normal(0.8, 1.0, a), rng(b + 50).normal(0.0, 1.0, b)

    def statistic(u: np.ndarray, v: np.ndarray) -> float:
        welch = stats.ttest_ind(u, v, equal_var=False).statistic
        return abs(u.mean() - v.mean()) if a == b else abs(float(welch))

    oracle = stats.permutation_test(
        (x, y), statistic, permutation_type="independent",
        alternative="greater", n_resamples=math.comb(a + b, a), vectorized=False,
    )  # fmt: skip
    p, floor = permute_labels(x, y, rng())
    assert p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert floor == permutation_floor(a, b)


@pytest.mark.parametrize(("a", "b"), [(3, 3), (2, 5), (5, 5)])
def test_label_permutation_reaches_its_floor(a: int, b: int) -> None:
    p, floor = permute_labels(np.full(a, 0.3), np.full(b, 0.1), rng())
    assert p == pytest.approx(floor)


@pytest.mark.parametrize(("a", "b"), [(4, 16), (16, 4), (5, 10)])
def test_a_small_group_that_varies_more_is_not_found_for_that(a: int, b: int) -> None:
    """300 studies at .05: 10% at 4 against 16, where the difference of means finds 28%."""
    drawn = rng(a + b)
    spread = (3.0, 1.0) if a < b else (1.0, 3.0)
    found = 0
    for _ in range(300):
        x, y = (s * drawn.normal(size=n) for s, n in zip(spread, (a, b), strict=True))
        found += permute_labels(x, y, drawn, 499)[0] < 0.05
    assert found / 300 < 0.1 + 3 * math.sqrt(0.1 * 0.9 / 300)


def test_one_unit_against_many_is_compared_by_means() -> None:
    p, floor = permute_labels(np.array([9.0]), np.arange(5.0), rng())
    assert p == floor == pytest.approx(1 / 6)


def test_sampled_label_permutation() -> None:
    x, y = rng(1).normal(0.5, 1.0, 12), rng(2).normal(0.0, 1.0, 12)
    p, floor = permute_labels(x, y, rng(3), draws=4_999)
    oracle = stats.ttest_ind(x, y, equal_var=False).pvalue
    assert floor == pytest.approx(1 / 5_000)
    assert abs(p - oracle) < 0.03
