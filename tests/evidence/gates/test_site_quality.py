"""Clones, dead columns and rounding in result vectors."""

import numpy as np
import polars as pl
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from moralscope.evidence.gates.site_quality import (
    distinct_columns,
    mantissa_bits,
    resolution,
    stored_bits,
    ulp,
)


def test_clones_and_dead_columns_are_told_apart() -> None:
    a, b, zero = np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.zeros(2)
    found = distinct_columns(np.column_stack([a, zero, b, a, zero, a]))
    assert found.distinct == (0, 2)
    assert found.clones == ((0, 3, 5),)
    assert found.dead == (1, 4)


def test_negative_zero_equals_zero() -> None:
    found = distinct_columns(np.array([[0.0, -0.0], [1.0, 1.0]]))
    assert found.clones == ((0, 1),)


def test_the_smallest_difference_makes_columns_of_two_prompts_distinct() -> None:
    x = np.array([1.0, 2.0])
    found = distinct_columns(np.column_stack([x, np.nextafter(x, 3.0)]))
    assert found.clones == ()


@pytest.mark.parametrize("jitter", [1e-15, 1e-12, 3e-6])
def test_columns_that_differ_in_their_last_digits_are_clones(jitter: float) -> None:
    """Whatever the order of a sum does to them; but for a tenth of a thousandth they are not."""
    rng = np.random.default_rng(3)
    others = rng.normal(size=(12, 40))
    copies = others[:, [7]] * (1.0 + jitter * rng.uniform(-1.0, 1.0, (12, 3)))
    near = others[:, [9]] * (1.0 + 1e-4 * rng.uniform(-1.0, 1.0, (12, 1)))
    found = distinct_columns(np.hstack([others, copies, near]))
    assert found.clones == ((7, 40, 41, 42),)
    assert found.distinct == tuple(i for i in range(44) if i not in (40, 41, 42))


def test_small_columns_are_compared_by_their_own_size() -> None:
    rng = np.random.default_rng(4)
    tiny = 1e-9 * rng.normal(size=(12, 5))
    assert distinct_columns(np.hstack([rng.normal(size=(12, 5)), tiny])).clones == ()


@pytest.mark.parametrize(("bits", "dtype"), [(23, np.float32), (52, np.float64), (10, np.float16)])
@given(st.floats(0.01, 1000.0))
def test_ulp_equals_numpy_spacing(bits: int, dtype: type, x: float) -> None:
    stored = dtype(x)
    assert ulp(np.array([float(stored)]), bits)[0] == float(np.spacing(stored))


def test_stored_bits_see_through_the_claimed_format() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert stored_bits(synthetic.round_to_bfloat16(pl.Series("x", x)).to_numpy(), 23) == 7
    assert stored_bits(x.astype(np.float16).astype(np.float64), 23) == 10
    assert stored_bits(x.astype(np.float32).astype(np.float64), 23) == 23
    assert stored_bits(x.astype(np.float32).astype(np.float64), 52) == 23
    assert stored_bits(x, 52) == 52
    assert stored_bits(x.astype(np.float16).astype(np.float64), 7) == 7
    assert stored_bits(np.zeros(4), 23) == 23


def test_two_values_one_ulp_apart_are_not_resolved() -> None:
    step = 2.0**-7
    x = np.array([1.0] * 9 + [1.0 + step])[:, None]
    found = resolution(x, x, 7)
    assert found.resolved == (False,)
    assert found.values.tolist() == [2.0]
    assert found.steps[0] == pytest.approx(np.std(x[:, 0], ddof=1) / step)


def test_resolution_needs_both_spread_and_values() -> None:
    many = np.linspace(1.0, 1.9, 10)
    three = np.array([1.0, 1.4, 1.9, 1.0, 1.4, 1.9])
    assert resolution(many[:, None], many[:, None], 23).resolved == (True,)
    assert resolution(three[:, None], three[:, None], 23).resolved == (False,)
    tiny = 1.0 + np.arange(10) * 2.0**-23
    assert resolution(tiny[:, None], tiny[:, None], 23).resolved == (False,)


@pytest.mark.parametrize(
    ("name", "bits"), [("torch.bfloat16", 7), ("fp16", 10), ("float32", 23), ("int4", None)]
)
def test_mantissa_bits(name: str, bits: int | None) -> None:
    assert mantissa_bits(name) == bits


@pytest.mark.parametrize(("step", "decimals"), [(0.01, 2), (2.0**-8, 4)])
def test_numbers_printed_with_few_decimals_are_rounding(step: float, decimals: int) -> None:
    """Decimals show no mantissa, whether they were rounded to them or to 16 bits before."""
    drawn = np.random.default_rng(5).normal(0.0, 1.5, 40)
    x = np.round(step * np.round(0.4 / step + drawn), decimals)[:, None]
    found = resolution(x, x, 52)
    assert found.values[0] >= 4
    assert found.printed[0] == pytest.approx(step, rel=0.05)
    assert found.resolved == (False,)
    fine = np.round(0.4 + drawn, decimals)[:, None]
    assert resolution(fine, fine, 52).resolved == (True,)


@given(st.integers(0, 10_000), st.integers(10, 30))
def test_measured_numbers_and_their_copies_are_no_lattice(seed: int, count: int) -> None:
    x = np.repeat(np.random.default_rng(seed).normal(size=count), 2)[:, None]
    assert resolution(x, x, 52).resolved == (True,)


def test_zeros_and_even_steps_without_a_tie_are_no_rounding() -> None:
    x = np.array([0.0] * 10 + [0.5, 0.7, 0.9, 1.1])[:, None]
    assert resolution(x, x, 52).printed[0] == 0.0
