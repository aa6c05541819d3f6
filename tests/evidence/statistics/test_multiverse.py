"""The multiverse check against every pattern of signs, with scipy's t for each specification."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.multiverse import multiverse


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute_force(y: np.ndarray, alpha: float) -> tuple[int, int, float]:
    """Agreement, direction and p; each specification's own p is a rank among all patterns.

    Strength is recomputed from t: t / sqrt(n - 1 + t^2) is the mean over the root mean square.
    """
    patterns = [np.array(s)[:, None] for s in itertools.product((1, -1), repeat=len(y))]
    t = np.array([stats.ttest_1samp(s * y, 0.0).statistic for s in patterns])
    agree, sign = [], []
    for row in t:
        own_p = [np.mean(np.abs(t[:, m]) >= abs(row[m]) * (1 - 1e-9)) for m in range(y.shape[1])]
        up = sum(p < alpha and value > 0 for p, value in zip(own_p, row, strict=True))
        down = sum(p < alpha and value < 0 for p, value in zip(own_p, row, strict=True))
        agree.append(max(up, down))
        sign.append(int(np.sign(up - down)))
    strength = np.abs(np.mean(t / np.sqrt(len(y) - 1 + t**2), axis=1))
    as_much = [
        (a, s) >= (agree[0], strength[0] * (1 - 1e-9)) for a, s in zip(agree, strength, strict=True)
    ]
    return agree[0], sign[0], float(np.mean(as_much)) if agree[0] else 1.0


@pytest.mark.parametrize(
    ("units", "specifications", "shift"), [(6, 3, 0.9), (7, 4, -0.8), (7, 2, 0.0), (8, 3, 0.6)]
)
def test_it_equals_brute_force(units: int, specifications: int, shift: float) -> None:
    y = shift + rng(units).normal(size=(units, 1)) + 0.7 * rng(1).normal(
        size=(units, specifications))  # fmt: skip
    agree, direction, p = brute_force(y, 0.1)
    found = multiverse(y, rng(), alpha=0.1)
    assert (found.agree, found.direction, found.specifications) == (
        agree,
        direction,
        specifications,
    )
    assert found.p == pytest.approx(p, abs=1e-12)
    assert found.floor == 2 / 2**units


def test_opposite_effects_do_not_add_up() -> None:
    y = np.abs(rng(2).normal(1.0, 0.1, (8, 6)))
    found = multiverse(y * [1, 1, 1, 1, -1, -1], rng())
    assert (found.agree, found.direction) == (4, 1)
    assert multiverse(y * [1, -1, 1, -1, 1, -1], rng()).direction == 0


def test_five_units_cannot_reject_and_say_so() -> None:
    found = multiverse(np.full((5, 3), 2.0) + rng().normal(size=(5, 3)) / 10, rng())
    assert (found.agree, found.p, found.floor) == (0, 1.0, 0.0625)


@given(st.integers(0, 100), st.integers(2, 9), st.integers(1, 4))
def test_p_is_above_its_floor_and_clones_change_nothing(seed: int, units: int, copies: int) -> None:
    y = rng(seed).normal(0.5, 1.0, (units, 2))
    once, again = multiverse(y, rng()), multiverse(np.tile(y, copies), rng())
    assert once.floor - 1e-12 <= once.p <= 1.0
    assert again.agree == copies * once.agree
    assert again.p == once.p


def test_family_wise_level_of_many_specifications() -> None:
    """Twenty specifications of the same noise: at most 5% of studies have a small p."""
    draw, runs, wrong = rng(6), 400, 0
    for _ in range(runs):
        y = draw.normal(size=(9, 1)) + 0.5 * draw.normal(size=(9, 20))
        wrong += multiverse(y, draw).p <= 0.05
    assert 0.02 <= wrong / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_sampled_patterns() -> None:
    y = rng(7).normal(0.8, 1.0, (30, 4))
    found = multiverse(y, rng(), draws=499)
    assert (found.agree, found.p, found.floor) == (4, 1 / 500, 1 / 500)


def test_undefined_values_are_refused() -> None:
    with pytest.raises(TableError, match="specifications cannot be tested"):
        multiverse(np.array([[1.0, np.nan]]), rng())
