"""Cosines and their jackknife, against numpy, scipy and leaving out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cosine

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.likeness import Measure, likeness

UNITS = [f"s{index // 3}" for index in range(30)]


def vectors(seed: int, shared: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=30)
    return common + rng.normal(size=30) + 1.0, common + rng.normal(size=30) + 1.0


def by_hand(x: np.ndarray, y: np.ndarray, measure: Measure) -> float:
    if measure == "pearson":
        return float(stats.pearsonr(x, y).statistic)
    return 1.0 - float(cosine(x, y))


@pytest.mark.parametrize("measure", ["cosine", "pearson"])
def test_the_value_is_that_of_scipy(measure: Measure) -> None:
    x, y = vectors(1)
    found = likeness(x, y, UNITS, measure)
    assert found is not None
    assert found.value == pytest.approx(by_hand(x, y, measure), abs=1e-12)


@pytest.mark.parametrize("measure", ["cosine", "pearson"])
def test_the_interval_leaves_out_one_scenario_at_a_time(measure: Measure) -> None:
    x, y = vectors(2)
    names, units = sorted(set(UNITS)), np.array(UNITS)
    whole = math.atanh(by_hand(x, y, measure))
    pseudo = [
        len(names) * whole
        - (len(names) - 1) * math.atanh(by_hand(x[units != n], y[units != n], measure))
        for n in names
    ]
    low, high = stats.t.interval(0.95, len(names) - 1, loc=np.mean(pseudo), scale=stats.sem(pseudo))
    found = likeness(x, y, UNITS, measure)
    assert found is not None
    assert found.interval == pytest.approx((math.tanh(low), math.tanh(high)), abs=1e-10)


def test_its_interval_covers_the_true_cosine() -> None:
    """Twenty scenarios of two entries: 94% of 400, less three Monte-Carlo standard errors."""
    rng = np.random.default_rng(3)
    units = [f"s{index // 2}" for index in range(40)]
    truth = 1.0 / 2.0
    held = 0
    for _ in range(400):
        shared = np.repeat(rng.normal(size=20), 2) * 0.6 + rng.normal(size=40) * 0.8
        own = [np.repeat(rng.normal(size=20), 2) * 0.6 + rng.normal(size=40) * 0.8 for _ in "ab"]
        found = likeness(shared + own[0], shared + own[1], units)
        assert found is not None
        assert found.interval is not None
        held += found.interval[0] <= truth <= found.interval[1]
    assert held / 400 >= 0.94 - 3 * math.sqrt(0.94 * 0.06 / 400)


def test_equal_vectors_have_no_interval() -> None:
    x, _ = vectors(4)
    found = likeness(x, 2.0 * x, UNITS)
    assert found is not None
    assert found.value == pytest.approx(1.0)
    assert found.interval is None


def test_two_scenarios_give_no_interval() -> None:
    x, y = vectors(5)
    found = likeness(x, y, ["a"] * 15 + ["b"] * 15)
    assert found is not None
    assert found.interval is None


def test_a_vector_without_length_is_like_nothing() -> None:
    x, _ = vectors(6)
    assert likeness(np.zeros(30), x, UNITS) is None
    assert likeness(np.ones(30), x, UNITS, "pearson") is None
    assert likeness(np.ones(30), x, UNITS) is not None


def test_vectors_of_different_length_are_refused() -> None:
    with pytest.raises(EvidenceError, match="30 and 29 entries of 30 places"):
        likeness(np.ones(30), np.ones(29), UNITS)
