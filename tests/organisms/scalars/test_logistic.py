"""Logistic probes against statsmodels and the conditions that an optimum fulfils."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from moralscope.core.errors import EvidenceError
from moralscope.organisms.scalars.logistic import PUBLISHED, Penalty, fit_logistic


def data(seed: int, n: int = 60, d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d))
    labels = rng.random((n, 3)) < expit(values @ rng.normal(size=(d, 3)))
    labels[0], labels[1] = True, False
    return values, labels, rng.uniform(0.2, 2.0, size=(n, 3))


def slope_of_the_loss(
    values: np.ndarray, labels: np.ndarray, weights: np.ndarray, theta: np.ndarray
) -> np.ndarray:
    """Of the weighted sum of -log p(label), row by row."""
    total = np.zeros(values.shape[1] + 1)
    for x, label, weight in zip(values, labels, weights, strict=True):
        row = np.append(x, 1.0)
        total += weight * (expit(row @ theta) - label) * row
    return total


@pytest.mark.parametrize("c", [0.01, 1.0, 50.0])
def test_the_slope_is_zero_at_the_l2_fit_of_every_labelling(c: float) -> None:
    values, labels, weights = data(0)
    found = fit_logistic(values, labels, Penalty("l2", c), weights)
    for at in range(3):
        slope = c * slope_of_the_loss(values, labels[:, at], weights[:, at], found[:, at])
        assert slope[:-1] + found[:-1, at] == pytest.approx(0.0, abs=1e-8)
        assert slope[-1] == pytest.approx(0.0, abs=1e-8)


def test_without_a_penalty_it_is_the_maximum_likelihood_of_statsmodels() -> None:
    values, labels, weights = data(1, n=120)
    found = fit_logistic(values, labels, Penalty("l2", 1e9), weights)
    for at in range(3):
        model = sm.GLM(
            labels[:, at].astype(float),
            sm.add_constant(values),
            family=sm.families.Binomial(),
            freq_weights=weights[:, at],
        )
        expected = model.fit(tol=1e-12).params
        assert found[:, at] == pytest.approx([*expected[1:], expected[0]], rel=1e-5)


@given(st.integers(0, 500), st.sampled_from([0.02, 0.1, 1.0]))
@settings(max_examples=8)
def test_the_l1_fit_fulfils_its_conditions(seed: int, c: float) -> None:
    values, labels, weights = data(seed)
    found = fit_logistic(values, labels[:, :1], Penalty("l1", c), weights[:, :1])[:, 0]
    slope = c * slope_of_the_loss(values, labels[:, 0], weights[:, 0], found)
    assert slope[-1] == pytest.approx(0.0, abs=1e-5)
    for coefficient, pull in zip(found[:-1], slope[:-1], strict=True):
        if coefficient == 0.0:
            assert abs(pull) <= 1.0 + 1e-5
        else:
            assert pull == pytest.approx(-np.sign(coefficient), abs=1e-5)


def test_the_l1_fit_is_that_of_statsmodels() -> None:
    values, labels, _ = data(3)
    even = np.ones((len(values), 1))
    found = fit_logistic(values, labels[:, :1], Penalty("l1", 0.2), even)[:, 0]
    model = sm.Logit(labels[:, 0].astype(float), sm.add_constant(values))
    fit = model.fit_regularized(alpha=[0.0, 5.0, 5.0, 5.0, 5.0], disp=0, acc=1e-12)
    assert found == pytest.approx([*fit.params[1:], fit.params[0]], abs=1e-4)


def test_a_strict_l1_penalty_leaves_the_intercept_alone() -> None:
    values, labels, weights = data(4)
    found = fit_logistic(values, labels[:, :1], PUBLISHED, weights[:, :1])[:, 0]
    assert not found[:-1].any()
    share = weights[labels[:, 0], 0].sum() / weights[:, 0].sum()
    assert expit(found[-1]) == pytest.approx(share, abs=1e-6)


def test_classes_that_can_be_parted_stay_finite() -> None:
    values = np.array([[-3.0], [-1.0], [1.0], [3.0]])
    labels = values > 0.0
    found = fit_logistic(values, labels, Penalty("l2", 1e6), np.ones((4, 1)))
    assert np.isfinite(found).all()
    assert found[0, 0] > 5.0


@pytest.mark.parametrize(
    ("c", "labels", "seen"),
    [
        (0.0, [True, False], "C = 0, 0 labellings of 1"),
        (1.0, [True, True], "C = 1, 1 labellings of 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(c: float, labels: list[bool], seen: str) -> None:
    with pytest.raises(EvidenceError, match="A logistic probe cannot be fitted") as error:
        fit_logistic(np.ones((2, 1)), np.array(labels)[:, None], Penalty("l2", c), np.ones((2, 1)))
    assert seen in str(error.value)
