"""Composite similarity against the products written out, and what it cannot see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.together import (
    DEMEANINGS,
    Demeaning,
    composite_similarity,
    similarity_to_last,
)


def record(seed: int = 0, steps: int = 6, adapters: int = 4, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, adapters, width)).cumsum(axis=0)


def written_out(m: np.ndarray, n: np.ndarray) -> float:
    product = np.zeros((m.shape[1], n.shape[1]))
    for one, other in zip(m, n, strict=True):
        product += np.outer(one, other)
    return float(np.linalg.norm(product) / (np.linalg.norm(m) * np.linalg.norm(n)))


def without_mean(values: np.ndarray, demeaning: str) -> np.ndarray:
    found = values.copy()
    for step in range(values.shape[0]):
        for adapter in range(values.shape[1]):
            if demeaning == "per_step":
                found[step, adapter] -= values[step].mean(axis=0)
            elif demeaning == "per_adapter":
                found[step, adapter] -= values[:, adapter].mean(axis=0)
    return found


@pytest.mark.parametrize("demeaning", DEMEANINGS)
def test_it_is_the_product_written_out(demeaning: Demeaning) -> None:
    found = similarity_to_last(record(), demeaning)
    plain = without_mean(record(), demeaning)
    expected = [written_out(each, plain[-1]) for each in plain]
    assert found.composite == pytest.approx(expected, abs=1e-10)
    assert found.ceiling == pytest.approx(written_out(plain[-1], plain[-1]), abs=1e-10)
    flat = plain.reshape(len(plain), -1)
    lengths = np.linalg.norm(flat, axis=1)
    assert found.cosine == pytest.approx(flat @ flat[-1] / lengths / lengths[-1], abs=1e-10)


def test_the_two_ways_of_taking_the_mean_differ() -> None:
    first, second = (similarity_to_last(record(), d).composite for d in ("per_step", "per_adapter"))
    assert np.abs(first - second).max() > 0.1


def test_equal_stacks_reach_the_ceiling_not_one() -> None:
    # Orthogonal vectors of one length: 1 / sqrt(n). All along one line: 1.
    assert composite_similarity(np.eye(4), np.eye(4)) == pytest.approx(0.5, abs=1e-12)
    line = np.outer([1.0, -2.0, 3.0], [0.6, 0.8])
    assert composite_similarity(line, line) == pytest.approx(1.0, abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_a_rotation_of_all_adapters_together_is_not_seen(seed: int) -> None:
    values = record(seed)
    turned = values.copy()
    turned[2] = values[2] @ ortho_group.rvs(7, random_state=seed)
    before, after = similarity_to_last(values, "none"), similarity_to_last(turned, "none")
    assert after.composite == pytest.approx(before.composite, abs=1e-10)
    assert abs(after.cosine[2] - before.cosine[2]) > 1e-3


@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.sampled_from(DEMEANINGS))
@settings(max_examples=15)
def test_scale_and_a_rotation_of_the_whole_record_change_nothing(
    seed: int, scale: float, demeaning: Demeaning
) -> None:
    values = record(seed)
    turned = scale * values @ ortho_group.rvs(7, random_state=seed)
    before, after = (similarity_to_last(each, demeaning) for each in (values, turned))
    for name in ("composite", "normalised", "cosine"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-9)
    assert ((before.normalised >= -1e-12) & (before.normalised <= 1.0 + 1e-12)).all()
    assert before.normalised[-1] == pytest.approx(1.0, abs=1e-12)


def test_adapters_that_are_still_zero_have_no_similarity() -> None:
    values = record()
    values[0] = 0.0
    found = similarity_to_last(values, "none")
    assert np.isnan([found.composite[0], found.normalised[0], found.cosine[0]]).all()
    assert np.isfinite(found.composite[1:]).all()


def test_one_adapter_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"values of shape \(6, 1, 7\)"):
        similarity_to_last(record(adapters=1), "none")


def test_values_that_are_not_finite_are_refused() -> None:
    values = record()
    values[1, 0, 0] = np.inf
    with pytest.raises(EvidenceError, match="some not finite"):
        similarity_to_last(values, "none")


def test_equal_adapters_leave_nothing_without_their_mean() -> None:
    with pytest.raises(EvidenceError, match=r"zero after taking the mean away \(per_step\)"):
        similarity_to_last(np.repeat(record(adapters=1), 3, axis=1), "per_step")
