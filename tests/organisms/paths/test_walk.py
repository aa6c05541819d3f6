"""Sizes of weights along a path, against numpy and products multiplied out."""

from __future__ import annotations

import numpy as np
import pytest

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.walk import norms, path_of, update_norms


def test_norms_are_those_of_the_flattened_weights() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 4))
    found = norms(path_of(range(0, 25, 5), values))
    assert found == pytest.approx([np.linalg.norm(each) for each in values], abs=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_update_norms_are_those_of_the_product(rank: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4, rank, 6)), rng.normal(size=(4, 5, rank))
    products = [np.linalg.norm(-2.5 * up @ down) for down, up in zip(a, b, strict=True)]
    assert update_norms(a, b, -2.5) == pytest.approx(products, abs=1e-12)


def test_a_rank_one_update_is_as_long_as_its_factors_together() -> None:
    a, b = np.full((3, 1, 4), 0.5), np.arange(3.0)[:, None, None] * np.ones((3, 4, 1))
    assert update_norms(a, b, 64.0) == pytest.approx([0.0, 128.0, 256.0], abs=1e-10)


@pytest.mark.parametrize(
    ("steps", "shape", "seen"),
    [
        ([0, 1], (2, 3), "Seen: 2 steps, values of shape (2, 3)"),
        ([0, 1, 2], (2, 3), "Seen: 3 steps, values of shape (2, 3)"),
        ([0, 2, 1], (3, 3), "steps that do not ascend"),
    ],
)
def test_what_is_no_path_is_refused(steps: list[int], shape: tuple[int, ...], seen: str) -> None:
    with pytest.raises(EvidenceError, match="A record of weights is not a path") as error:
        path_of(steps, np.zeros(shape))
    assert seen in str(error.value)


def test_weights_that_diverged_are_refused_with_their_step() -> None:
    values = np.zeros((4, 2))
    values[2:] = np.nan
    with pytest.raises(EvidenceError, match="2 of 4 steps, first at step 20"):
        path_of([0, 10, 20, 30], values)


def test_factors_of_two_adapters_are_refused() -> None:
    with pytest.raises(EvidenceError, match=r"A \(3, 1, 4\), B \(3, 4, 2\)"):
        update_norms(np.zeros((3, 1, 4)), np.zeros((3, 4, 2)))
