"""Limits, attainable sizes and rates of one cell."""

import numpy as np
import pytest
from scipy import stats

from moralscope.evidence.calibrating.cells import (
    ALPHA,
    COVERED,
    FAMILY_WISE,
    POWER,
    Cell,
    Rate,
    attainable_size,
    coverage_rate,
    error_rate,
    fewer,
    power_rate,
    rejected,
)


@pytest.mark.parametrize("patterns", [8, 16, 20, 21, 126, 500, 512])
def test_attainable_size_is_the_largest_p_below_the_level(patterns: int) -> None:
    reachable = [k / patterns for k in range(patterns + 1)]
    assert attainable_size(1 / patterns) == pytest.approx(max(p for p in reachable if p < ALPHA))


def test_five_clusters_cannot_reject_at_all() -> None:
    assert attainable_size(2 / 2**5) == 0.0


def test_rejection_asks_for_a_p_below_the_level() -> None:
    assert rejected(np.array([0.0499, 0.05, 0.9])).tolist() == [1.0, 0.0, 0.0]
    assert float(rejected(0.01)) == 1.0


def test_an_error_rate_may_exceed_its_level_by_three_monte_carlo_errors() -> None:
    """At 400 studies the limit is 33 rejections; the binomial says how rare more are."""
    kept = error_rate(np.repeat([1.0, 0.0], [33, 367]), attainable=0.04, quantity=FAMILY_WISE)
    beyond = error_rate(np.repeat([1.0, 0.0], [34, 366]), attainable=0.04)
    assert (kept.value, kept.runs, kept.attainable) == (33 / 400, 400, 0.04)
    assert kept.passed is True
    assert beyond.passed is False
    assert stats.binom.sf(33, 400, 0.05) < 0.005


def test_coverage_counts_defined_intervals_and_says_how_many_are_not() -> None:
    rate = coverage_rate([True] * 92 + [False] * 8 + [None] * 3, "of a mean")
    assert rate.value == pytest.approx(0.92)
    assert rate.runs == 100
    assert rate.limit == pytest.approx(0.95 - 3 * np.sqrt(0.95 * 0.05 / 100))
    assert rate.passed is True
    assert rate.note == "of a mean; 3 of 103 undefined"
    assert coverage_rate([True] * 88 + [False] * 12).passed is False
    assert coverage_rate([None]).passed is None
    assert coverage_rate([None]).note == "1 of 1 undefined"


def test_power_is_judged_by_nothing() -> None:
    rate = power_rate(np.array([1.0, 0.0]), "an effect")
    assert (rate.quantity, rate.value, rate.passed, rate.limit) == (POWER, 0.5, None, None)


def test_a_rate_without_studies_is_not_judged() -> None:
    assert Rate(COVERED, None, 0, 0.95).passed is None


def test_streams_of_cells_differ_and_come_again() -> None:
    cell = Cell("a", "independent", 5, 10, 1)
    first = cell.rng("null").normal(size=4)
    assert (cell.rng("null").normal(size=4) == first).all()
    for other in (
        cell.rng("planted"),
        Cell("b", "independent", 5, 10, 1).rng("null"),
        Cell("a", "independent", 5, 10, 1, round=1).rng("null"),
    ):
        assert (other.normal(size=4) != first).all()


def test_power_takes_a_part_of_the_studies() -> None:
    assert [fewer(n) for n in (2_000, 60, 10)] == [500, 20, 10]
