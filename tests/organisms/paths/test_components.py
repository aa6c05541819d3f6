"""Principal components and corners of planted paths, and the random walk beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.components import (
    corner,
    principal_components,
    random_walk_shares,
)
from moralscope.organisms.paths.walk import Path, path_of


def bent(turn: int, length: int, angle: float = 90.0, noise: float = 0.0, seed: int = 0) -> Path:
    """A path in 12 dimensions that goes straight on to ``turn`` and then on at an angle."""
    rng = np.random.default_rng(seed)
    basis = ortho_group.rvs(12, random_state=seed)[:2]
    way = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    moves = np.vstack([np.zeros((1, 2)), np.tile([1.0, 0.0], (turn, 1))])
    moves = np.vstack([moves, np.tile(way, (length - turn, 1))])
    points = moves.cumsum(axis=0) @ basis
    return path_of(range(0, 5 * length + 1, 5), points + noise * rng.normal(size=points.shape))


def test_shares_and_scores_are_those_of_the_covariance() -> None:
    values = np.random.default_rng(2).normal(size=(9, 4))
    found = principal_components(path_of(range(9), values), 3)
    centred = values - values.mean(axis=0)
    sizes, vectors = np.linalg.eigh(centred.T @ centred)
    assert found.shares == pytest.approx(sizes[::-1][:3] / sizes.sum(), abs=1e-10)
    for at in range(3):
        vector = vectors[:, -1 - at]
        sign = np.sign(vector[np.abs(vector).argmax()])
        assert found.directions[at] == pytest.approx(sign * vector, abs=1e-10)
        assert found.scores[:, at] == pytest.approx(centred @ (sign * vector), abs=1e-10)


@pytest.mark.parametrize("steps", [4, 25])
def test_the_shares_of_a_random_walk_are_those_of_its_covariance(steps: int) -> None:
    # Positions are sums of independent moves; centring takes their mean over steps away.
    summing = np.tril(np.ones((steps, steps)))
    centring = np.eye(steps) - 1.0 / steps
    sizes = np.linalg.eigvalsh(centring @ summing @ summing.T @ centring)[::-1]
    expected = sizes[: steps - 1] / sizes.sum()
    assert random_walk_shares(steps, steps - 1) == pytest.approx(expected, abs=1e-10)


def test_a_long_random_walk_has_sixty_one_and_fifteen_percent() -> None:
    assert random_walk_shares(100_000, 2) == pytest.approx([6 / np.pi**2, 1.5 / np.pi**2], rel=1e-4)
    walk = np.random.default_rng(0).normal(size=(120, 4000)).cumsum(axis=0)
    found = principal_components(path_of(range(120), walk))
    assert found.shares == pytest.approx(found.random_walk, abs=0.03)


@given(st.integers(3, 37), st.integers(0, 1000))
@settings(max_examples=30)
def test_a_planted_corner_is_found_within_one_step(turn: int, seed: int) -> None:
    found = corner(bent(turn, 40, noise=0.05, seed=seed))
    assert found is not None
    assert abs(found.step - 5 * turn) <= 5
    assert found.bend > 0.9


@pytest.mark.parametrize(
    ("angle", "cosine"), [(90.0, 0.0), (60.0, -0.5), (120.0, 0.5), (150.0, 0.75**0.5)]
)
def test_a_corner_has_its_angle(angle: float, cosine: float) -> None:
    found = corner(bent(10, 30, angle))
    assert found is not None
    assert found.step == 50
    assert found.cosine == pytest.approx(cosine, abs=1e-8)
    assert found.bend == pytest.approx(1.0, abs=1e-10)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
@settings(max_examples=20)
def test_rotation_scale_and_shift_leave_the_corner(seed: int, scale: float) -> None:
    path = bent(13, 30, noise=0.2, seed=seed)
    turned = scale * path.values @ ortho_group.rvs(12, random_state=seed + 1) + 3.0
    before, after = corner(path), corner(path_of(path.steps, turned))
    assert before is not None
    assert after is not None
    assert before.step == after.step
    assert before.cosine == pytest.approx(after.cosine, abs=1e-6)
    assert before.bend == pytest.approx(after.bend, abs=1e-6)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_time_reversal_turns_the_corner_round(seed: int) -> None:
    path = bent(13, 30, noise=0.2, seed=seed)
    before, after = corner(path), corner(path_of(path.steps, path.values[::-1]))
    assert before is not None
    assert after is not None
    assert after.step == 150 - before.step
    assert after.cosine == pytest.approx(before.cosine, abs=1e-6)


def test_a_straight_path_has_no_corner_whatever_its_speed() -> None:
    speed = np.array([0.0, 1.0, 5.0, 5.5, 9.0, 20.0])
    assert corner(path_of(range(6), speed[:, None] * np.array([[1.0, -2.0, 0.5]]))) is None


def test_weights_that_never_move_are_refused() -> None:
    with pytest.raises(EvidenceError, match="the same weights at all 4 steps"):
        principal_components(path_of(range(4), np.ones((4, 3))))
