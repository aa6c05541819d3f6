"""Intervals for bounded quantities: Student's where it applies, and never out of range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.bounded import bounded_interval, bounded_tail, combined_interval

shares = st.lists(st.floats(0, 1), min_size=2, max_size=9)


def by_sampling(y: np.ndarray, draws: int = 40_000) -> tuple[float, float]:
    """The same pivot, drawn at random and integrated by quadrature of another kind."""
    rng = np.random.default_rng(1)
    x = np.log(y / (1 - y))
    sigma = x.std(ddof=1) * np.sqrt((len(x) - 1) / rng.chisquare(len(x) - 1, draws))
    mu = x.mean() + rng.normal(size=draws) * sigma / math.sqrt(len(x))
    z = np.linspace(-8, 8, 81)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    p = 0.5 + 0.5 * np.tanh((mu[:, None] + sigma[:, None] * z) / 2)
    theta = integrate.simpson(density * p, x=z)
    low, high = np.quantile(theta, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("values", [[0.02, 0.1, 0.05, 0.3], [0.4, 0.6, 0.7, 0.3, 0.9, 0.5]])
def test_the_grid_agrees_with_random_draws(values: list[float]) -> None:
    found = bounded_interval(np.array(values))
    assert found is not None
    assert found == pytest.approx(by_sampling(np.array(values)), abs=0.012)


def test_close_together_in_the_middle_it_is_students() -> None:
    y = 0.5 + 0.01 * np.random.default_rng(2).normal(size=8)
    found = bounded_interval(y)
    assert found is not None
    expected = stats.t.interval(0.95, 7, loc=y.mean(), scale=stats.sem(y))
    assert found == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_near_the_end_it_reaches_further_inwards_than_students() -> None:
    y = np.array([0.01, 0.01, 0.02, 0.01, 0.2])
    found = bounded_interval(y)
    assert found is not None
    low, high = stats.t.interval(0.95, 4, loc=y.mean(), scale=stats.sem(y))
    assert low < 0.0 < found[0] < y.mean()
    assert found[1] > high


@settings(max_examples=60, deadline=None)
@given(shares)
def test_it_holds_the_mean_and_stays_in_range(values: list[float]) -> None:
    y = np.array(values)
    found = bounded_interval(y)
    if np.ptp(y) == 0.0:
        assert found is None
    else:
        assert found is not None
        assert 0.0 <= found[0] <= y.mean() <= found[1] <= 1.0
        mirrored = bounded_interval(1.0 - y)
        if mirrored is not None:
            assert mirrored == pytest.approx((1 - found[1], 1 - found[0]), abs=1e-9)


def test_the_range_scales() -> None:
    y = np.array([0.1, 0.4, 0.2, 0.3])
    one, seven = bounded_interval(y), bounded_interval(7 * y, top=7.0)
    assert one is not None
    assert seven == pytest.approx((7 * one[0], 7 * one[1]))
    assert bounded_tail(y, 0.3) == bounded_tail(7 * y, 2.1, top=7.0)


def test_the_tail_crosses_where_the_interval_ends() -> None:
    y = np.array([0.1, 0.4, 0.2, 0.3, 0.15])
    interval = bounded_interval(y)
    assert interval is not None
    assert bounded_tail(y, interval[1]) == pytest.approx(0.025, abs=2e-3)
    assert bounded_tail(y, interval[0]) == pytest.approx(0.975, abs=2e-3)
    assert bounded_tail(np.array([0.5]), 0.3) is None
    assert bounded_tail(np.full(3, 0.2), 0.3) == 0.0
    assert bounded_tail(np.full(3, 0.4), 0.3) == 1.0
    assert bounded_tail(y, 0.999) == pytest.approx(1e-6, abs=1e-4)


def test_a_difference_in_the_middle_is_the_paired_t() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(8, 1))
    y = 0.5 + 0.01 * (shared + 0.3 * rng.normal(size=(8, 2)))
    found = combined_interval([y], [np.array([1.0, -1.0])])
    d = y[:, 0] - y[:, 1]
    low, high = stats.t.interval(0.95, 7, loc=d.mean(), scale=stats.sem(d))
    assert found == pytest.approx((low, high), abs=0.1 * (high - low))
    apart = stats.t.interval(0.95, 14, loc=d.mean(), scale=math.hypot(*stats.sem(y)))
    assert high - low < 0.6 * (apart[1] - apart[0]), "pairing must narrow it"


def test_a_difference_of_separate_units_is_welchs() -> None:
    rng = np.random.default_rng(4)
    a, b = 0.5 + 0.01 * rng.normal(size=(4, 1)), 0.55 + 0.02 * rng.normal(size=(9, 1))
    found = combined_interval([a, b], [np.array([1.0]), np.array([-1.0])])
    welch = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert found[0] <= welch.low + 1e-12
    assert found[1] >= welch.high - 1e-12
    assert found == pytest.approx((welch.low, welch.high), abs=0.2 * (welch.high - welch.low))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_a_difference_holds_its_estimate_and_stays_in_range(pairs: list[tuple[float, ...]]) -> None:
    y = np.array(pairs)
    found = combined_interval([y], [np.array([1.0, -1.0])])
    if found is None:
        assert not np.ptp(y, axis=0).any()
    else:
        low, high = found
        assert -1.0 <= low <= (y[:, 0] - y[:, 1]).mean() + 1e-12
        assert (y[:, 0] - y[:, 1]).mean() - 1e-12 <= high <= 1.0


def test_one_unit_or_no_spread_has_none() -> None:
    assert bounded_interval(np.array([0.3])) is None
    assert bounded_interval(np.full(4, 0.3)) is None
    assert combined_interval([np.full((3, 2), 0.4)], [np.array([1.0, -1.0])]) is None
    assert combined_interval([np.array([[0.1, 0.4]])], [np.array([1.0, -1.0])]) is None


def test_undefined_values_are_refused() -> None:
    with pytest.raises(
        TableError, match="unit means cannot be tested because values are undefined"
    ):
        bounded_interval(np.array([0.1, math.nan]))
