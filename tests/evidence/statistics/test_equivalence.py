"""TOST against statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from moralscope.core.errors import ConfigError, TableError
from moralscope.evidence.statistics.equivalence import corrected_tost, default_margin, tost


@given(st.integers(0, 500), st.integers(2, 25), st.floats(0.05, 3.0))
def test_tost_equals_statsmodels(seed: int, n: int, margin: float) -> None:
    y = np.random.default_rng(seed).normal(0.1, 0.5, n)
    assert tost(y, margin) == pytest.approx(
        DescrStatsW(y).ttost_mean(-margin, margin)[0], abs=1e-12
    )


@given(st.integers(0, 100), st.floats(0.1, 1.0))
def test_a_wider_margin_is_easier_and_direction_does_not_matter(seed: int, margin: float) -> None:
    y = np.random.default_rng(seed).normal(0.1, 0.5, 12)
    near, far = tost(y, margin), tost(y, 2 * margin)
    assert near is not None
    assert far is not None
    assert far <= near
    assert tost(-y, margin) == pytest.approx(near)


def test_no_spread_is_decided_by_the_mean() -> None:
    assert tost(np.zeros(5), 0.1) == 0.0
    assert tost(np.ones(5), 0.1) == 1.0
    assert tost(np.zeros(1), 0.1) is None


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_margin_must_be_positive(margin: float) -> None:
    with pytest.raises(ConfigError, match="equivalence margin must be positive"):
        tost(np.zeros(5), margin)


def test_default_margin_is_a_tenth_of_the_base() -> None:
    assert default_margin(np.array([2.0, -4.0])) == pytest.approx(0.3)
    with pytest.raises(TableError, match="base log-odds"):
        default_margin(np.array([1.0, np.nan]))


def test_correction_for_several_comparisons() -> None:
    y = np.random.default_rng(1).normal(0.0, 0.2, 10)
    single = tost(y, 0.2)
    assert single is not None
    assert corrected_tost(y, 0.2, 4) == pytest.approx(min(1.0, 4 * single))
    assert corrected_tost(y, 0.01, 50) == 1.0
    assert corrected_tost(y, 0.0, 4) is None
    assert corrected_tost(np.zeros(1), 0.2, 4) is None


def test_claims_of_equivalence_need_units_that_show_how_they_vary() -> None:
    """Two units close to zero give p below .05 by the normal law alone."""
    two = np.array([0.001, -0.001])
    assert (tost(two, 0.5) or 1.0) < 0.05
    assert corrected_tost(two, 0.5, 1) is None
    five = np.array([0.001, -0.001, 0.002, 0.0, 0.001])
    assert corrected_tost(five, 0.5, 3) == pytest.approx(3 * (tost(five, 0.5) or 1.0))
