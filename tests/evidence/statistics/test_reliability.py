"""Reliability against statsmodels' analysis of variance and enumeration of all halvings."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.reliability import (
    halves,
    spearman_brown,
    split_half,
    variance_components,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("sites", "prompts"), [(6, 4), (3, 12)])
def test_components_equal_the_mean_squares_of_statsmodels(sites: int, prompts: int) -> None:
    draw = rng(sites)
    y = 3 * draw.normal(size=(sites, 1)) + draw.normal(size=prompts) + draw.normal(
        size=(sites, prompts))  # fmt: skip
    site, prompt = np.indices(y.shape)
    columns = {"s": site.ravel(), "p": prompt.ravel(), "y": y.ravel()}
    table = anova_lm(ols("y ~ C(s) + C(p)", pd.DataFrame(columns)).fit(), typ=2)
    square = table["sum_sq"] / table["df"]
    between = (square["C(s)"] - square["Residual"]) / prompts
    found = variance_components(y)
    assert found.site == pytest.approx(between, abs=1e-10)
    assert found.prompt == pytest.approx(
        max(0.0, (square["C(p)"] - square["Residual"]) / sites), abs=1e-10
    )
    assert found.residual == pytest.approx(square["Residual"], abs=1e-10)
    # Of the site means this is 1 - 1/F, the intraclass correlation of averages.
    assert found.reliability == pytest.approx(1 - 1 / table["F"]["C(s)"], abs=1e-10)


def test_components_recover_what_was_planted() -> None:
    draw = rng(4)
    y = (
        2.0 * draw.normal(size=(400, 1)) + 0.5 * draw.normal(size=300)
        + 3.0 * draw.normal(size=(400, 300))
    )  # fmt: skip
    found = variance_components(y)
    assert found.site == pytest.approx(4.0, rel=0.2)
    assert found.prompt == pytest.approx(0.25, rel=0.3)
    assert found.residual == pytest.approx(9.0, rel=0.02)


def test_components_without_spread() -> None:
    assert variance_components(np.ones((3, 4))).reliability is None
    only_sites = variance_components(np.tile([[1.0], [2.0], [5.0]], 4))
    assert (only_sites.residual, only_sites.reliability) == (0.0, 1.0)
    only_prompts = variance_components(np.tile([[1.0, 2.0, 5.0]], (4, 1)))
    assert (only_prompts.site, only_prompts.reliability) == (0.0, None)


def test_one_site_or_one_prompt_is_refused() -> None:
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(EvidenceError, match="need sites and prompts to compare"):
            variance_components(np.ones(shape))


@given(st.floats(-1, 1), st.floats(0.1, 10))
def test_spearman_brown_goes_back(r: float, factor: float) -> None:
    longer = spearman_brown(r, factor)
    assert -1.0 <= longer <= 1.0
    if longer > -1.0:
        assert spearman_brown(longer, 1 / factor) == pytest.approx(r, abs=1e-6)


def test_spearman_brown_is_the_correlation_of_sums() -> None:
    """Two halves of two parallel parts each: corr(x1 + x2, x3 + x4) for equicorrelated parts."""
    r = 0.4
    parts = np.full((4, 4), r) + (1 - r) * np.eye(4)
    first, second = np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])
    expected = first @ parts @ second / (first @ parts @ first)
    assert spearman_brown(r) == pytest.approx(expected, abs=1e-12)
    assert spearman_brown(-1.0) == -1.0
    for r, factor in ((1.5, 2.0), (np.nan, 2.0), (0.5, 0.0)):
        with pytest.raises(EvidenceError, match="reliability cannot be stepped up"):
            spearman_brown(r, factor)


@pytest.mark.parametrize(("units", "ways"), [(2, 1), (4, 3), (5, 10), (6, 10), (7, 35)])
def test_halvings_are_enumerated_once(units: int, ways: int) -> None:
    found = halves(units, rng())
    assert found.sum(axis=1).tolist() == [units // 2] * ways
    seen = {frozenset([tuple(row), tuple(~row)]) for row in found}
    assert len(seen) == ways


def test_many_halvings_are_drawn() -> None:
    found = halves(20, rng(), splits=50)
    assert found.shape == (50, 20)
    assert (found.sum(axis=1) == 10).all()
    assert len(np.unique(found, axis=0)) > 45


@pytest.mark.parametrize("units", [4, 5, 6])
def test_split_half_equals_enumeration(units: int) -> None:
    y = rng(units).normal(size=(units, 8)) + rng(9).normal(size=8)
    correlations = []
    for order in itertools.permutations(range(units)):
        first, second = order[: units // 2], order[units // 2 :]
        correlations.append(np.corrcoef(y[list(first)].mean(0), y[list(second)].mean(0))[0, 1])
    mean = np.mean(correlations)
    assert split_half(y, rng()) == pytest.approx(2 * mean / (1 + mean), abs=1e-10)


def test_noise_has_no_reliability_and_a_clear_profile_has() -> None:
    noise = rng(3).normal(size=(20, 60))
    found = split_half(noise, rng())
    assert found is not None
    assert abs(found) < 0.35
    clear = split_half(noise + 2 * rng(4).normal(size=60), rng())
    assert clear is not None
    assert clear > 0.95


def test_undefined_split_half_is_none() -> None:
    y = rng(1).normal(size=(8, 5))
    assert split_half(y[:1], rng()) is None
    assert split_half(y[:, :2], rng()) is None
    assert split_half(np.ones((8, 5)), rng()) is None
    one_unit_only = np.zeros((8, 5))
    one_unit_only[0] = y[0]  # one half of every halving is flat
    assert split_half(one_unit_only, rng()) is None
    y[0, 0] = np.nan
    with pytest.raises(TableError, match="profiles cannot be tested"):
        split_half(y, rng())
