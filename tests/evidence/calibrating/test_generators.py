"""Simulated data are what they say: clustered, heavy-tailed, rounded, and of known truth."""

import numpy as np
import pytest
from scipy import stats

from moralscope.evidence.calibrating.cells import CONDITIONS, Cell
from moralscope.evidence.calibrating.generators import (
    to_bfloat16,
    two_agents,
    two_groups,
    unit_means,
    unit_scale,
)
from moralscope.evidence.calibrating.intervals import probabilities
from moralscope.evidence.calibrating.similarity import divergences


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_unit_means_are_symmetric_about_what_was_planted(condition: str) -> None:
    none = unit_means(condition, (4_000, 5, 2), rng())
    assert none.shape == (4_000, 5, 2)
    assert stats.ks_2samp(none[:2_000].ravel(), -none[2_000:].ravel()).pvalue > 1e-3
    moved = unit_means(condition, (4_000, 5, 2), rng(), np.array([0.0, 1.0]))
    scale = unit_scale(condition, 5)
    assert stats.trim_mean(moved[..., 0].ravel(), 0.2) == pytest.approx(0.0, abs=0.05 * scale)
    assert stats.trim_mean(moved[..., 1].ravel(), 0.2) == pytest.approx(scale, abs=0.05 * scale)


@pytest.mark.parametrize("condition", ["independent", "clustered", "rounded"])
def test_the_scale_of_an_effect_is_the_spread_between_units(condition: str) -> None:
    y = unit_means(condition, (20_000, 10, 1), rng(1))
    spread = float(np.sqrt(y.var(axis=0).mean()))
    # Rounding adds a twelfth of a squared step for each of the two values.
    steps = 2 * (1 / 16) ** 2 / 12 if condition == "rounded" else 0.0
    expected = np.sqrt(unit_scale(condition, 10) ** 2 + steps)
    assert spread == pytest.approx(expected, rel=0.02)


def test_heavy_tails_are_those_of_students_t() -> None:
    """P(|T| > x) of 2 degrees is nearly 1/x^2, also of a sum whose weights have norm 1."""
    y = unit_means("heavy_tailed", (50_000, 1, 1), rng(2)).ravel()
    assert 2.0 * stats.t.sf(20.0, 2) == pytest.approx(1.0 / 20.0**2, rel=0.01)
    assert float((np.abs(y) > 20.0).mean()) == pytest.approx(1.0 / 20.0**2, rel=0.3)


def test_columns_share_a_factor_except_where_they_are_independent() -> None:
    for condition, low, high in (
        ("independent", -0.05, 0.05),
        ("clustered", 0.2, 0.6),
        ("rounded", 0.3, 0.6),
    ):
        y = unit_means(condition, (4_000, 1, 2), rng(3))[:, 0]
        assert low < np.corrcoef(y.T)[0, 1] < high, condition


def test_rounded_values_tie() -> None:
    y = unit_means("rounded", (500, 10, 1), rng(4))
    assert len(np.unique(y)) < 25
    assert np.allclose(y * 16.0, np.round(y * 16.0))


@pytest.mark.parametrize("value", [1.0, 1.00390625, 1.01171875, -3.14159, 1e-20, 12345.678])
def test_bfloat16_keeps_eight_bits_halves_to_even(value: float) -> None:
    mantissa, exponent = np.frexp(np.float64(np.float32(value)))
    expected = np.ldexp(np.rint(mantissa * 256.0) / 256.0, exponent)
    assert to_bfloat16(np.array([value]))[0] == expected


@pytest.mark.parametrize("condition", CONDITIONS)
def test_two_groups_are_exchangeable_without_an_effect(condition: str) -> None:
    first, second = two_groups(condition, (3_000, 4, 2), rng(5))
    assert first.shape == second.shape == (3_000, 4, 2)
    assert stats.ks_2samp(first[:, 0, 0], second[:, 0, 0]).pvalue > 1e-3


def test_groups_differ_by_the_effect_and_by_their_spread() -> None:
    first, second = two_groups("independent", (5_000, 4, 1), rng(6), 1.0, 3.0)
    assert first.mean() - second.mean() == pytest.approx(3.0, abs=0.1)
    assert first.std() / second.std() == pytest.approx(3.0, rel=0.03)
    first, second = two_groups("clustered", (5_000, 4, 1), rng(7), 1.0)
    assert first.mean() - second.mean() == pytest.approx(1.0, abs=0.05)


def test_seeds_share_what_their_prompts_do() -> None:
    """Groups answer the same prompts, so their means move together; their difference does not."""
    first, second = two_groups("clustered", (4_000, 2, 1), rng(8))
    together = np.corrcoef(first.mean(axis=1).ravel(), second.mean(axis=1).ravel())[0, 1]
    assert together > 0.2
    assert (first - second).std() == pytest.approx(np.sqrt(2.0), rel=0.05)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_two_agents_are_wired_alike_until_one_is_changed(condition: str) -> None:
    first, second, clusters = two_agents(condition, 2_000, 4, rng(9))
    assert first.shape == second.shape == (4_000, 4)
    assert len(clusters) == 4_000
    assert len(set(clusters)) == 2_000
    a, b = (np.corrcoef(each.T)[0, 1] for each in (first, second))
    assert a == pytest.approx(b, abs=0.15)
    assert a > 0.1
    changed, _, _ = two_agents(condition, 2_000, 4, rng(9), changed=3.0)
    assert np.corrcoef(changed.T)[0, 1] > a + 0.2
    assert np.corrcoef(changed.T)[2, 3] == pytest.approx(a, abs=0.15)


def test_rows_of_clusters_are_no_units() -> None:
    """Taking the two prompts of a cluster for independent rejects far too often."""
    false = 0
    for seed in range(300):
        first, _, _ = two_agents("clustered", 10, 1, rng(seed))
        false += bool(stats.ttest_1samp(first[:, 0], 0.0).pvalue < 0.05)
    assert false / 300 > 0.09


@pytest.mark.parametrize("condition", ["independent", "clustered", "rounded"])
def test_means_of_probabilities_and_divergences_are_known(condition: str) -> None:
    cell = Cell("bounded", condition, 10, 20_000, 3)
    p, truth = probabilities(cell, 20_000, "here", terms=2)
    assert p.mean(axis=(0, 1)) == pytest.approx(truth, rel=0.01)
    assert p.min() >= 0.0
    assert p.max() <= 1.0
    js = divergences(cell, "there", 20_000, 0.05)
    assert js.mean() == pytest.approx(0.05, rel=0.02)
