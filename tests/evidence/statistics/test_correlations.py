"""Correlations against scipy, statsmodels and the delta method; bad input is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.correlations import (
    correlation_matrix,
    degenerate,
    dependent_correlations,
    fisher_interval,
    independent_correlations,
    pearson,
    prompts_to_tell_apart,
)


def draw(seed: int, *size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


@pytest.mark.parametrize("n", [3, 8, 200])
def test_pearson_equals_scipy(n: int) -> None:
    x, y = draw(n, 2, n)
    y = y + 0.5 * x + 1e3
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-10)


def test_the_matrix_equals_numpy() -> None:
    y = draw(1, 30, 7) @ draw(2, 7, 7) - 50.0
    assert correlation_matrix(y) == pytest.approx(np.corrcoef(y, rowvar=False), abs=1e-10)


def test_a_constant_column_is_undefined_and_not_zero() -> None:
    y = draw(3, 9, 4)
    y[:, 2] = 0.1
    found = correlation_matrix(y)
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(np.delete(np.delete(found, 2, 0), 2, 1)).all()
    assert pearson(y[:, 0], y[:, 2]) is None
    # The mean of 0.1s is not 0.1, so the centred column is rounding error, not zero.
    assert pearson(y[:, 0], 0.1 + (y[:, 2] - y[:, 2].mean())) is None


def test_two_rows_have_no_correlation() -> None:
    assert pearson(np.array([1.0, 2.0]), np.array([3.0, 5.0])) is None
    assert np.isnan(correlation_matrix(draw(1, 2, 3))).all()


@given(st.integers(0, 200), st.floats(-3, 3), st.floats(0.01, 50))
def test_correlation_ignores_level_and_scale(seed: int, shift: float, scale: float) -> None:
    x, y = draw(seed, 2, 11)
    r = pearson(x, y)
    assert r is not None
    assert pearson(y, scale * x + shift) == pytest.approx(r, abs=1e-9)
    assert pearson(-x, y) == pytest.approx(-r, abs=1e-9)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 2.0, 1.0, 2.0, 2.0], True),
        ([1.0, 2.0, 3.0, 3.0, 1.0], True),
        ([1.0, 2.0, 3.0, 4.0, 1.0], False),
        ([1e9, 1e9 + 1e-7, 1e9 + 2e-7, 1e9 + 3e-7, 1e9], True),
    ],
)
def test_degenerate_columns(column: list[float], expected: bool) -> None:
    assert degenerate(np.array(column)) is expected


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_fisher_interval_equals_scipy(level: float) -> None:
    x, y = draw(4, 2, 25)
    y += x
    oracle = stats.pearsonr(x, y).confidence_interval(level)
    r = pearson(x, y)
    assert r is not None
    assert fisher_interval(r, 25, level) == pytest.approx((oracle.low, oracle.high), abs=1e-10)


def test_fisher_interval_is_undefined_at_one_and_with_three_prompts() -> None:
    assert fisher_interval(1.0, 30) is None
    assert fisher_interval(-0.9995, 30) is None
    assert fisher_interval(math.nan, 30) is None
    assert fisher_interval(0.5, 3) is None


def test_independent_z_is_the_difference_of_two_independent_normals() -> None:
    found = independent_correlations(0.7, 23, 0.2, 43)
    spread = math.hypot(1 / math.sqrt(20), 1 / math.sqrt(40))
    expected = 0.5 * (math.log(1.7 / 0.3) - math.log(1.2 / 0.8)) / spread
    assert found.z == pytest.approx(expected, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(expected)), abs=1e-12)
    assert independent_correlations(0.2, 43, 0.7, 23).z == pytest.approx(-found.z)


def by_delta_method(a1: np.ndarray, a2: np.ndarray, b1: np.ndarray, b2: np.ndarray) -> float:
    """Z from the covariance of normal sample covariances and the gradient of a correlation.

    cov(s_ij, s_kl) = (s_ik s_jl + s_il s_jk)/n; a correlation of unit-variance columns has
    gradient 1 on its covariance and -r/2 on both variances. Under the null both correlations
    are their mean.
    """
    r = np.corrcoef([a1, a2, b1, b2])
    z = np.arctanh([r[0, 1], r[2, 3]])
    mean = (r[0, 1] + r[2, 3]) / 2
    r[0, 1] = r[1, 0] = r[2, 3] = r[3, 2] = mean
    fourth = np.einsum("ik,jl->ijkl", r, r) + np.einsum("il,jk->ijkl", r, r)
    gradients = np.zeros((2, 4, 4))
    for at, (i, j) in enumerate(((0, 1), (2, 3))):
        gradients[at, i, j] = 1.0
        gradients[at, i, i] = gradients[at, j, j] = -mean / 2
    covariance = np.einsum("aij,ijkl,bkl->ab", gradients, fourth, gradients)
    covariance /= (1 - mean**2) ** 2 * (len(a1) - 3)
    contrast = np.array([1.0, -1.0])
    return float(contrast @ z / math.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize("seed", range(6))
def test_dependent_z_equals_the_delta_method(seed: int) -> None:
    y = draw(seed, 40, 4) @ draw(seed + 50, 4, 4)
    found = dependent_correlations(*y.T)
    expected = by_delta_method(*y.T)
    assert found.z == pytest.approx(expected, abs=1e-10)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(expected)), abs=1e-10)


def test_dependent_z_holds_its_level_where_the_independent_one_is_timid() -> None:
    """Two agents that share nearly everything: pairing is what makes a difference visible."""
    rng, runs = np.random.default_rng(8), 800
    paired = apart = 0
    for _ in range(runs):
        shared = rng.normal(size=(2, 60))
        shared[1] += shared[0]
        a, b = shared + 0.4 * rng.normal(size=(2, 2, 60))
        paired += dependent_correlations(a[0], a[1], b[0], b[1]).p <= 0.05
        r, s = np.corrcoef(a)[0, 1], np.corrcoef(b)[0, 1]
        apart += independent_correlations(r, 60, s, 60).p <= 0.05
    assert 0.03 <= paired / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert apart / runs < 0.01


def test_the_same_columns_twice_do_not_differ() -> None:
    x, y = draw(5, 2, 20)
    found = dependent_correlations(x, y, x, y)
    assert (found.z, found.p) == (0.0, 1.0)


@pytest.mark.parametrize(("r1", "r2", "power"), [(0.5, 0.3, 0.8), (0.9, 0.1, 0.9), (0.1, 0.2, 0.8)])
def test_prompts_to_tell_apart_has_the_power_of_statsmodels(
    r1: float, r2: float, power: float
) -> None:
    n, effect = prompts_to_tell_apart(r1, r2, power=power), math.atanh(r1) - math.atanh(r2)
    reached = [
        NormalIndPower(ddof=3).power(effect, nobs1=size, alpha=0.05, ratio=1.0)
        for size in (n - 1, n)
    ]
    assert reached[0] < power <= reached[1]


def test_two_valued_columns_never_give_an_infinite_z() -> None:
    two = np.tile([0.0, 1.0], 10)
    x, y = draw(6, 2, 20)
    with pytest.raises(EvidenceError, match="degenerate column.*2 distinct values in column 1"):
        dependent_correlations(two, two, x, y)
    with pytest.raises(EvidenceError, match="close to 1 cannot be tested"):
        dependent_correlations(x, 2 * x + 1, x, y)
    for pair in ((1.0, 0.5), (0.5, -1.0), (0.9995, 0.1), (math.nan, 0.1)):
        with pytest.raises(EvidenceError, match="close to 1 cannot be tested"):
            independent_correlations(pair[0], 20, pair[1], 20)
        with pytest.raises(EvidenceError, match="close to 1 cannot be tested"):
            prompts_to_tell_apart(*pair)


def test_other_bad_input_is_refused() -> None:
    x, y = draw(7, 2, 20)
    with pytest.raises(EvidenceError, match="20 and 19 rows"):
        pearson(x, y[:19])
    with pytest.raises(EvidenceError, match="so few prompts"):
        independent_correlations(0.5, 3, 0.2, 20)
    with pytest.raises(EvidenceError, match="so few prompts"):
        dependent_correlations(x[:3], y[:3], x[:3], y[:3])
    with pytest.raises(EvidenceError, match="equal correlations"):
        prompts_to_tell_apart(0.4, 0.4)
    with pytest.raises(TableError, match="1 of 20 values are NaN"):
        pearson(x, np.where(np.arange(20) == 3, np.nan, y))
