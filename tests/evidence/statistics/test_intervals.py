"""Intervals, bounds and power against scipy, statsmodels, enumeration and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from moralscope.core.errors import ConfigError, TableError
from moralscope.evidence.statistics.intervals import (
    bootstrap_t,
    cluster_interval,
    cluster_t,
    share_interval,
    smallest_detectable_effect,
    standard_error,
    welch,
    zero_event_bound,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (5, 0.9), (19, 0.999)])
def test_cluster_t_equals_statsmodels(n: int, level: float) -> None:
    y = rng(n).normal(1.0, 2.0, n)
    oracle = DescrStatsW(y).tconfint_mean(alpha=1 - level)
    assert cluster_t(y, level) == pytest.approx(oracle, rel=1e-10)


@pytest.mark.parametrize(("a", "b"), [(5, 5), (2, 9)])
def test_welch_equals_statsmodels(a: int, b: int) -> None:
    x, y = rng(a).normal(1.0, 2.0, a), rng(b + 30).normal(0.0, 0.5, b)
    oracle = CompareMeans(DescrStatsW(x), DescrStatsW(y)).tconfint_diff(usevar="unequal")
    assert welch(x, y) == pytest.approx(oracle, rel=1e-10)


@pytest.mark.parametrize("y", [[1.0], [2.0, 2.0, 2.0]])
def test_undefined_intervals_are_none(y: list[float]) -> None:
    assert cluster_t(np.array(y)) is None
    assert bootstrap_t(np.array(y), rng()) is None
    assert welch(np.array(y), np.array([3.0])) is None


def test_nan_is_refused() -> None:
    with pytest.raises(TableError, match="cluster means cannot be tested"):
        cluster_t(np.array([1.0, np.nan, 2.0]))


def test_bootstrap_t_equals_enumeration() -> None:
    """All 5^5 resamples, studentised with scipy; the 5 without spread are 0.16%, below 1%."""
    y = np.array([0.3, 1.9, -0.4, 2.2, 0.8])
    samples = np.array(list(itertools.product(y, repeat=5)))
    errors = stats.sem(samples, axis=1)
    t = (samples.mean(axis=1) - y.mean())[errors > 0] / errors[errors > 0]
    high, low = (y.mean() - np.quantile(t, q) * stats.sem(y) for q in (0.025, 0.975))
    found = bootstrap_t(y, rng(1), draws=200_000)
    assert found is not None
    assert found == pytest.approx((low, high), rel=0.05)


def test_bootstrap_t_equals_its_definition() -> None:
    """The same resamples, one by one, studentised with scipy."""
    y, draws = rng(5).exponential(1.0, 24), 300
    t = [
        (y[at].mean() - y.mean()) / stats.sem(y[at])
        for at in rng(6).integers(0, 24, size=(draws, 24))
    ]
    expected = [y.mean() - np.percentile(t, 100 * q) * stats.sem(y) for q in (0.95, 0.05)]
    assert bootstrap_t(y, rng(6), level=0.9, draws=draws) == pytest.approx(expected, abs=1e-10)


def test_bootstrap_abstains_when_resamples_are_undefined() -> None:
    """With three clusters one resample in nine has no spread."""
    assert bootstrap_t(np.array([1.0, 2.0, 4.0]), rng()) is None


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_bootstrap_t_moves_with_the_data(shift: float, scale: float) -> None:
    y = rng(3).exponential(1.0, 24)
    low, high = bootstrap_t(y, rng(4), draws=199) or (0.0, 0.0)
    moved = bootstrap_t(y * scale + shift, rng(4), draws=199)
    assert moved == pytest.approx((low * scale + shift, high * scale + shift), rel=1e-6, abs=1e-6)


def test_twenty_clusters_are_widened_by_the_bootstrap() -> None:
    few, many = rng(1).normal(size=19), rng(1).exponential(size=20)
    assert cluster_interval(few, rng(2)) == cluster_t(few)
    student, resampled = cluster_t(many), bootstrap_t(many, rng(2))
    assert student is not None
    assert resampled is not None
    # A long tail upwards moves the whole bootstrap interval up.
    assert resampled[0] > student[0]
    assert resampled[1] > student[1]
    assert cluster_interval(many, rng(2)) == (student[0], resampled[1])


@pytest.mark.parametrize("law", ["exponential", "student"])
def test_intervals_hold_for_skewed_units_and_for_heavy_tails(law: str) -> None:
    """Where one of the two fails, the other makes up for it."""
    draw, runs, covered = rng(8), 500, np.zeros(3)
    for _ in range(runs):
        y = draw.exponential(size=20) - 1.0 if law == "exponential" else draw.standard_t(2, 20)
        ends = (
            cluster_t(y),
            bootstrap_t(y, draw, draws=499),
            cluster_interval(y, draw, draws=499),
        )
        covered += [low <= 0.0 <= high for low, high in filter(None, ends)]
    student, resampled, together = covered / runs
    assert min(student, resampled) < 0.935
    assert together >= 0.94


def test_coverage_of_both_intervals() -> None:
    """95% intervals cover between 93% and 97% on clustered normal data."""
    runs, draw = 1_500, rng(12)
    for clusters, interval in ((8, cluster_t), (24, lambda y: bootstrap_t(y, draw, draws=499))):
        covered = 0
        for _ in range(runs if clusters == 8 else 700):
            rows = draw.normal(0.0, 1.0, (clusters, 1)) + draw.normal(0.0, 1.0, (clusters, 2))
            low, high = interval(rows.mean(axis=1)) or (1.0, -1.0)
            covered += low <= 0.0 <= high
        share = covered / (runs if clusters == 8 else 700)
        assert 0.93 <= share <= 0.97, (clusters, share)


@pytest.mark.parametrize(
    ("events", "clusters"), [(0, 20), (0, 1), (1, 20), (7, 20), (20, 20), (3, 5)]
)
def test_share_interval_equals_statsmodels(events: int, clusters: int) -> None:
    oracle = proportion_confint(events, clusters, alpha=0.05, method="beta")
    assert share_interval(events, clusters) == pytest.approx(oracle, abs=1e-10)


@pytest.mark.parametrize("clusters", [1, 5, 20])
def test_no_events_have_an_exact_bound_from_above(clusters: int) -> None:
    oracle = stats.binomtest(0, clusters, alternative="less").proportion_ci(0.95).high
    assert zero_event_bound(clusters) == pytest.approx(oracle, abs=1e-10)


@pytest.mark.parametrize("clusters", [5, 10, 20, 40])
def test_share_interval_covers_every_share(clusters: int) -> None:
    """Exact coverage, summed over the binomial distribution, nowhere below 95%."""
    events = np.arange(clusters + 1)
    low, high = np.array([share_interval(int(k), clusters) for k in events]).T
    for share in np.linspace(0.001, 0.999, 400):
        holds = (low <= share) & (share <= high)
        assert stats.binom.pmf(events, clusters, share)[holds].sum() >= 0.95 - 1e-12


def test_impossible_share() -> None:
    with pytest.raises(ConfigError, match="Seen: 4 of 3"):
        share_interval(4, 3)


@pytest.mark.parametrize(("n", "alpha", "power"), [(5, 0.05, 0.8), (10, 0.05, 0.8),
                                                   (20, 0.0125, 0.8), (40, 0.01, 0.9)])  # fmt: skip
def test_detectable_effect_equals_statsmodels(n: int, alpha: float, power: float) -> None:
    y = rng(n).normal(0.0, 3.0, n)
    d = TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided")
    found = smallest_detectable_effect(standard_error(y), n - 1, alpha, power)
    assert found == pytest.approx(float(d) * y.std(ddof=1), rel=1e-4)


def test_detectable_effect_at_the_level_of_three_hundred_sites() -> None:
    """Simulated power, because statsmodels does not converge at levels this small."""
    alpha, n, draw = 0.05 / 300, 20, rng(1)
    effect = smallest_detectable_effect(1.0 / np.sqrt(n), n - 1, alpha)
    assert effect is not None
    rejected = stats.ttest_1samp(draw.normal(effect, 1.0, (n, 40_000)), 0.0).pvalue < alpha
    assert rejected.mean() == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_equals_statsmodels() -> None:
    d = TTestIndPower().solve_power(nobs1=5, alpha=0.05, power=0.8, ratio=1.0)
    found = smallest_detectable_effect(np.sqrt(2 / 5), 8)
    assert found == pytest.approx(float(d), rel=1e-4)


def test_nothing_is_detectable_with_one_unit() -> None:
    assert smallest_detectable_effect(1.0, 0) is None
