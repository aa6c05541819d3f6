"""Two profiles over sites, against scipy's permutation test and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.associations import associate


def both(rng: np.random.Generator, units: int, sites: int, shared: float) -> tuple:
    profile = rng.normal(size=sites)
    first = shared * profile + rng.normal(size=(units, sites))
    second = shared * profile + rng.normal(size=(units, sites))
    return first, second


def test_r_and_its_interval_are_those_of_scipy() -> None:
    first, second = both(np.random.default_rng(1), 8, 12, 1.0)
    found = associate(first, second, np.random.default_rng(0), 99)
    expected = stats.pearsonr(first.mean(axis=0), second.mean(axis=0))
    assert found is not None
    assert found.r == pytest.approx(expected.statistic, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_the_p_over_sites_is_that_of_every_permutation() -> None:
    first, second = both(np.random.default_rng(2), 6, 6, 0.5)
    found = associate(first, second, np.random.default_rng(0))
    a, b = first.mean(axis=0), second.mean(axis=0)
    exact = stats.permutation_test(
        (b,),
        lambda x: abs(stats.pearsonr(a, x).statistic),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found is not None
    assert found.p_sites == pytest.approx(exact.pvalue, abs=1e-12)


def test_the_p_over_scenarios_is_that_of_every_pattern_of_signs() -> None:
    first, second = both(np.random.default_rng(3), 6, 5, 0.5)
    found = associate(first, second, np.random.default_rng(0))
    a = first.mean(axis=0)
    drawn = [
        abs(np.cov(a, np.mean(np.array(signs)[:, None] * second, axis=0))[0, 1])
        for signs in itertools.product((1.0, -1.0), repeat=6)
    ]
    observed = abs(np.cov(a, second.mean(axis=0))[0, 1])
    assert found is not None
    assert found.p_units == pytest.approx(np.mean(np.array(drawn) >= observed - 1e-12), abs=1e-12)
    assert found.p == max(found.p_sites, found.p_units)


def test_one_scenario_that_carries_everything_is_no_relation_over_scenarios() -> None:
    rng = np.random.default_rng(4)
    first, second = both(rng, 8, 20, 0.0)
    spike = rng.normal(size=20)
    first, second = first * 0.01 + spike, second * 0.01
    second[0] += 50.0 * spike
    found = associate(first, second, rng)
    assert found is not None
    assert found.p_sites < 0.001
    # Its sign alone decides, so half of all patterns are at least as extreme.
    assert found.p_units > 0.2


def test_the_floor_is_that_of_the_fewer_units() -> None:
    first, second = both(np.random.default_rng(5), 5, 20, 1.0)
    found = associate(first, second, np.random.default_rng(0), 999)
    assert found is not None
    assert found.floor == 2.0 / 2.0**5


def test_a_relation_without_noise_reaches_the_floor() -> None:
    profile = np.arange(8.0)
    found = associate(
        np.tile(profile, (6, 1)), np.tile(-2.0 * profile, (6, 1)), np.random.default_rng(0)
    )
    assert found is not None
    assert found.r == pytest.approx(-1.0)
    assert found.p_units == found.floor == 2.0 / 2.0**6


def test_a_profile_without_spread_has_no_correlation() -> None:
    assert associate(np.ones((4, 6)), np.eye(6)[:4], np.random.default_rng(0)) is None


@given(st.integers(0, 2**32), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
@settings(max_examples=20, deadline=None)
def test_scale_and_shift_of_an_analysis_change_nothing(
    seed: int, scale: float, shift: float
) -> None:
    first, second = both(np.random.default_rng(seed), 5, 6, 0.7)
    one = associate(first, second, np.random.default_rng(0))
    other = associate(scale * first + shift, scale * second, np.random.default_rng(0))
    assert one is not None
    assert other is not None
    assert other.r == pytest.approx(one.r, abs=1e-9)
    assert other.p == pytest.approx(one.p, abs=1e-9)


def test_type_one_error_with_real_effects_that_have_nothing_in_common() -> None:
    """Both analyses have effects, unrelated to each other: 300 studies at .05."""
    rng = np.random.default_rng(6)
    rejected = 0
    for _ in range(300):
        first = rng.normal(size=20) + 0.5 * rng.normal(size=(8, 20))
        second = rng.normal(size=20) + 0.5 * rng.normal(size=(8, 20))
        found = associate(first, second, rng, 199)
        rejected += found is not None and found.p <= 0.05
    assert rejected <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(("a", "b"), [((4, 3), (4, 3)), ((4, 6), (4, 5))])
def test_too_few_or_different_sites_are_refused(a: tuple[int, int], b: tuple[int, int]) -> None:
    with pytest.raises(EvidenceError, match="cannot be correlated over these sites"):
        associate(np.ones(a), np.ones(b), np.random.default_rng(0))


def test_of_the_same_scenarios_each_is_held_against_the_others() -> None:
    """Against loops over every pattern of signs."""
    first, second = both(np.random.default_rng(7), 6, 5, 0.6)
    found = associate(first, second, np.random.default_rng(0), same_units=True)
    pairs = [(h, g) for h in range(6) for g in range(6) if h != g]
    product = {(h, g): 5.0 * np.cov(first[h], second[g], bias=True)[0, 1] for h, g in pairs}

    def p(weight) -> float:
        drawn = [
            abs(sum(weight(signs, h, g) * product[h, g] for h, g in pairs))
            for signs in itertools.product((1.0, -1.0), repeat=6)
        ]
        return float(np.mean(np.array(drawn) >= drawn[0] - 1e-12))

    expected = [p(lambda s, _, g: s[g]), p(lambda s, h, _: s[h]), p(lambda s, h, g: s[h] * s[g])]
    assert found is not None
    assert len(set(expected)) > 1
    assert found.p_units == pytest.approx(max(expected), abs=1e-12)
    assert found.floor == 2.0 / 2.0**6


@pytest.mark.parametrize("steady", [0.0, 2.0])
def test_noise_that_two_analyses_share_is_no_agreement(steady: float) -> None:
    """No site has an effect, or one analysis has effects of its own: 200 studies at .05."""
    rng = np.random.default_rng(9)
    rejected, naive = 0, 0
    for _ in range(200):
        noise, own = rng.normal(size=(2, 8, 30))
        first = noise + steady * rng.normal(size=30)
        second = 0.8 * noise + 0.6 * own
        found = associate(first, second, rng, 199, same_units=True)
        apart = associate(first, second, rng, 199)
        rejected += found is not None and found.p < 0.05
        naive += apart is not None and apart.p < 0.05
    assert rejected <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert steady > 0.0 or naive > 150


def test_a_relation_over_shared_scenarios_is_found() -> None:
    rng = np.random.default_rng(10)
    found = associate(*both(rng, 8, 30, 0.7), rng, 999, same_units=True)
    assert found is not None
    assert found.p == found.floor == pytest.approx(2.0 / 2.0**8)


def test_the_same_scenarios_must_be_as_many() -> None:
    with pytest.raises(EvidenceError, match="must have all of them"):
        associate(np.eye(6)[:4], np.eye(6)[:5], np.random.default_rng(0), same_units=True)
