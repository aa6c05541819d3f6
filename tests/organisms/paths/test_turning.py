"""The local cosine: exact on planted paths, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import ortho_group

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.turning import (
    PUBLISHED,
    PUBLISHED_OTHERS,
    RELATIVE,
    StepFilter,
    local_cosine,
)
from moralscope.organisms.paths.walk import Path, path_of

EVERYTHING = StepFilter("relative", 0.0)


def walk(first: list[float], then: list[float], length: int = 6) -> Path:
    """So many equal steps one way and as many another; the turn is at step ``length``."""
    moves = np.array([first] * length + [then] * length)
    return path_of(range(2 * length + 1), np.vstack([np.zeros(len(first)), moves.cumsum(axis=0)]))


def random_path(seed: int, steps: int = 14, width: int = 5) -> Path:
    return path_of(range(steps), np.random.default_rng(seed).normal(size=(steps, width)).cumsum(0))


@pytest.mark.parametrize(
    ("then", "expected"), [([3.0, 7.0], -1.0), ([-7.0, 3.0], 0.0), ([-3.0, -7.0], 1.0)]
)
@pytest.mark.parametrize("lag", [1, 2, 5])
def test_straight_right_angle_and_reversal_are_exact(
    then: list[float], expected: float, lag: int
) -> None:
    found = local_cosine(walk([3.0, 7.0], then), lag, EVERYTHING)
    at = dict(zip(found.steps.tolist(), found.values.tolist(), strict=True))
    assert at[6] == expected
    assert all(value == -1.0 for step, value in at.items() if abs(step - 6) >= lag)


def test_every_value_is_scipys_cosine() -> None:
    path, lag = random_path(3), 3
    found = local_cosine(path, lag, EVERYTHING)
    assert found.steps.tolist() == list(range(3, 11))
    for step, value in zip(found.steps, found.values, strict=True):
        back = path.values[step - lag] - path.values[step]
        forth = path.values[step + lag] - path.values[step]
        assert value == pytest.approx(1.0 - cosine(back, forth), abs=1e-10)


def test_the_lag_is_in_steps_not_in_records() -> None:
    steps = [0, 5, 10, 12, 15, 20]
    path = path_of(steps, np.random.default_rng(0).normal(size=(6, 3)))
    assert local_cosine(path, 5, EVERYTHING).steps.tolist() == [5, 10, 15]
    assert local_cosine(path, 10, EVERYTHING).steps.tolist() == [10]


def test_the_published_filter_asks_the_larger_displacement() -> None:
    # Displacements of 0.003, 0.004 and 0.001: the larger of neighbours is above .0035 twice.
    path = path_of(range(4), np.array([0.0, 0.003, 0.007, 0.008])[:, None] * np.ones((1, 1)))
    assert local_cosine(path, 1, PUBLISHED).kept.tolist() == [True, True]
    slow = path_of(range(4), np.array([0.0, 0.003, 0.006, 0.007])[:, None])
    found = local_cosine(slow, 1, PUBLISHED)
    assert not found.kept.any()
    assert np.isnan(found.values).all()
    assert local_cosine(slow, 1, PUBLISHED_OTHERS).kept.all()


def test_the_relative_filter_asks_the_smaller_displacement() -> None:
    values = np.array([0.0, 1.0, 2.0, 2.05, 3.0, 4.0])[:, None]
    found = local_cosine(path_of(range(6), values), 1, RELATIVE)
    # Both neighbours of the displacement of 0.05 are left out; the median is about 1.
    assert found.kept.tolist() == [True, False, False, True]


def test_a_step_that_does_not_move_has_no_angle() -> None:
    values = np.array([0.0, 1.0, 1.0, 2.0])[:, None]
    found = local_cosine(path_of(range(4), values), 1, StepFilter("published", 0.0))
    assert not found.kept.any()


@given(st.integers(0, 10_000), st.floats(1e-6, 1e6), st.integers(1, 4))
def test_rotation_scale_and_shift_change_nothing(seed: int, scale: float, lag: int) -> None:
    path = random_path(seed)
    turned = scale * path.values @ ortho_group.rvs(5, random_state=seed) + scale * 7.0
    before, after = local_cosine(path, lag), local_cosine(path_of(path.steps, turned), lag)
    assert np.array_equal(before.kept, after.kept)
    assert np.allclose(before.values, after.values, atol=1e-7, equal_nan=True)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_time_reversal_reverses_it(seed: int, lag: int) -> None:
    path = random_path(seed)
    before = local_cosine(path, lag)
    after = local_cosine(path_of(path.steps, path.values[::-1]), lag)
    assert np.array_equal(before.values, after.values[::-1], equal_nan=True)


@pytest.mark.parametrize("lag", [0, -1, 7, 30])
def test_a_lag_without_neighbours_is_refused(lag: int) -> None:
    path = path_of(range(0, 60, 5), np.random.default_rng(0).normal(size=(12, 2)))
    with pytest.raises(EvidenceError, match=f"Seen: lag {lag}; 12 steps from 0 to 55"):
        local_cosine(path, lag)
