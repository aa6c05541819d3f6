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


def test_the_smallest_difference_makes_columns_distinct() -> None:
    x = np.array([1.0, 2.0])
    found = distinct_columns(np.column_stack([x, np.nextafter(x, 3.0)]))
    assert found.clones == ()


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
