"""The interval of a named site agrees with the max-T test that named it."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moralscope.evidence.statistics.resampling import max_t


@given(st.integers(0, 10_000), st.integers(6, 12), st.floats(0.0, 1.5))
def test_interval_leaves_out_zero_exactly_where_the_test_rejects(
    seed: int, units: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(units, 5)) + shift * np.arange(5)
    tested = max_t(values, rng)
    critical = tested.critical_t(0.05)
    rejected = tested.p_adjusted < 0.05
    error = values.std(axis=0, ddof=1) / math.sqrt(units)
    clear_of_zero = np.abs(values.mean(axis=0)) > critical * error
    assert rejected.tolist() == clear_of_zero.tolist()


def test_a_design_that_cannot_reject_has_no_finite_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3)) + 100.0  # 2/2^4 = .125 is the floor
    assert math.isinf(max_t(values, rng).critical_t(0.05))


def test_simultaneous_coverage_under_correlated_columns() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    runs = 300
    for _ in range(runs):
        common = rng.normal(size=(12, 1))
        values = 0.7 * common + rng.normal(size=(12, 20))
        tested = max_t(values, rng, draws=499)
        half = tested.critical_t(0.05) * values.std(axis=0, ddof=1) / math.sqrt(12)
        covered += bool((np.abs(values.mean(axis=0)) <= half).all())
    # Three Monte-Carlo standard errors of 300 runs at 95%.
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)
