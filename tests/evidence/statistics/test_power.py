"""Power against statsmodels and simulation, and numbers of units against the attainable p."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from moralscope.core.errors import ConfigError
from moralscope.evidence.statistics.intervals import smallest_detectable_effect
from moralscope.evidence.statistics.power import power, seeds_for_power, units_for_power
from moralscope.evidence.statistics.resampling import (
    permutation_floor,
    sign_flip,
    sign_flip_floor,
)


@pytest.mark.parametrize("d", [0.2, 1.0, -1.5])
@pytest.mark.parametrize(("n", "alpha"), [(5, 0.05), (10, 0.05), (40, 0.01)])
def test_paired_power_equals_statsmodels(d: float, n: int, alpha: float) -> None:
    oracle = TTestPower().power(effect_size=d, nobs=n, alpha=alpha, alternative="two-sided")
    assert power(2 * d, 2 / math.sqrt(n), n - 1, alpha) == pytest.approx(oracle, abs=1e-10)


@pytest.mark.parametrize(("d", "n"), [(1.0, 4), (2.0, 7), (0.5, 30)])
def test_two_sample_power_equals_statsmodels(d: float, n: int) -> None:
    oracle = TTestIndPower().power(effect_size=d, nobs1=n, alpha=0.05, ratio=1.0)
    assert power(d, math.sqrt(2 / n), 2 * n - 2) == pytest.approx(oracle, abs=1e-10)


def by_quadrature(noncentrality: float, degrees: int, critical: float, sides: int = 2) -> float:
    """P(|Z + noncentrality| > critical s) over s^2 = chi-squared/degrees; or of the near side."""

    def rejected(w: float) -> float:
        limit = critical * math.sqrt(w / degrees)
        near, far = stats.norm.sf(limit - noncentrality), stats.norm.cdf(-limit - noncentrality)
        return stats.chi2.pdf(w, degrees) * (near + (far if sides == 2 else 0.0))

    return integrate.quad(rejected, 0.0, math.inf, epsabs=1e-13, epsrel=1e-13, limit=200)[0]


@pytest.mark.parametrize(("effect", "degrees", "alpha"), [(2.0, 4, 0.05), (3.5, 19, 0.05 / 300)])
def test_power_equals_its_integral(effect: float, degrees: int, alpha: float) -> None:
    critical = float(stats.t.ppf(1 - alpha / 2, degrees))
    expected = by_quadrature(effect, degrees, critical)
    assert power(effect, 1.0, degrees, alpha) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("degrees", "alpha"), [(4, 0.05), (19, 0.05 / 300), (60, 0.01)])
def test_the_detectable_effect_has_the_power_asked_for(degrees: int, alpha: float) -> None:
    effect = smallest_detectable_effect(0.7, degrees, alpha)
    assert effect is not None
    critical = float(stats.t.ppf(1 - alpha / 2, degrees))
    one_sided = by_quadrature(effect / 0.7, degrees, critical, sides=1)
    assert one_sided == pytest.approx(0.8, abs=1e-7)  # as near as its root is found
    assert power(effect, 0.7, degrees, alpha) == pytest.approx(0.8, abs=1e-6)


def test_an_effect_of_one_standard_deviation() -> None:
    """The reference figures: .40 with 5 clusters, .80 with 10; by t."""
    assert power(1.0, 1 / math.sqrt(5), 4) == pytest.approx(0.40, abs=0.005)
    assert power(1.0, 1 / math.sqrt(10), 9) == pytest.approx(0.80, abs=0.005)


def test_sign_flips_have_nearly_the_power_of_t_where_their_floor_allows() -> None:
    rng, runs = np.random.default_rng(1), 800
    found = {
        n: np.mean([sign_flip(rng.normal(1.0, 1.0, n), rng)[0] < 0.05 for _ in range(runs)])
        for n in (5, 10)
    }
    assert found[5] == 0.0, "no p of five clusters is below .0625"
    assert found[10] == pytest.approx(0.79, abs=0.05)


def test_extremes() -> None:
    assert power(0.0, 1.0, 9, 0.01) == pytest.approx(0.01)
    assert power(1.0, 0.0, 9) == 1.0
    assert power(0.0, 0.0, 9) == 0.05
    assert power(5.0, 1.0, 0) == 0.0
    assert power(1e3, 1.0, 9) == 1.0


@pytest.mark.parametrize(("d", "alpha", "wanted"), [(1.0, 0.05, 0.8), (0.5, 0.05, 0.9),
                                                   (0.3, 0.05 / 52, 0.8)])  # fmt: skip
def test_units_equal_statsmodels_where_t_decides(d: float, alpha: float, wanted: float) -> None:
    oracle = TTestPower().solve_power(effect_size=d, alpha=alpha, power=wanted)
    assert units_for_power(d, alpha, wanted) == math.ceil(float(oracle) - 1e-9)
    assert units_for_power(-d, alpha, wanted) == units_for_power(d, alpha, wanted)


def test_seeds_equal_statsmodels_where_t_decides() -> None:
    oracle = TTestIndPower().solve_power(effect_size=1.2, alpha=0.05, power=0.8, ratio=1.0)
    assert seeds_for_power(1.2) == math.ceil(float(oracle))


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.05 / 52])
def test_the_attainable_p_decides_for_large_effects(alpha: float) -> None:
    units, seeds = units_for_power(50.0, alpha), seeds_for_power(50.0, alpha)
    assert sign_flip_floor(units) < alpha <= sign_flip_floor(units - 1)
    assert permutation_floor(seeds, seeds) < alpha <= permutation_floor(seeds - 1, seeds - 1)
    if alpha == 0.05:
        assert (units, seeds) == (6, 4)


def test_tiny_effects_need_many_units_and_no_overflow() -> None:
    assert units_for_power(0.002) == pytest.approx(7.849 / 0.002**2, rel=1e-3)
    assert sign_flip_floor(5_000) == 0.0


@pytest.mark.parametrize(
    ("effect", "alpha", "wanted"),
    [(0.0, 0.05, 0.8), (math.nan, 0.05, 0.8), (math.inf, 0.05, 0.8), (1.0, 0.0, 0.8),
     (1.0, 0.05, 1.0), (1.0, 0.8, 0.5)],
)  # fmt: skip
def test_impossible_wishes_are_refused(effect: float, alpha: float, wanted: float) -> None:
    for needed in (units_for_power, seeds_for_power):
        with pytest.raises(ConfigError, match="No number of units follows"):
            needed(effect, alpha, wanted)


def test_infeasible_wishes_are_refused() -> None:
    with pytest.raises(ConfigError, match="No feasible number of units"):
        units_for_power(1e-5)
