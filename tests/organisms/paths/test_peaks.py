"""Peaks of planted series, and change points against every split tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.peaks import Series, change_point, peak_of


def series(values: list[float], every: int = 10) -> Series:
    return Series(3, np.arange(0, every * len(values), every), np.array(values))


def test_a_planted_peak_has_its_place_height_and_width() -> None:
    found = peak_of(series([1.0, 1.0, 1.0, 2.5, 3.0, 2.2, 1.0, 1.9, 1.0]))
    assert (found.step, found.height, found.baseline, found.excess) == (40, 3.0, 1.0, 2.0)
    assert (found.since, found.until, found.interior, found.available) == (30, 50, True, 9)


def test_warm_up_is_left_out() -> None:
    found = peak_of(series([9.0, 1.0, 1.0, 2.0, 1.0]), since=10)
    assert (found.step, found.available) == (30, 4)


def test_missing_values_are_counted_not_filled() -> None:
    found = peak_of(series([1.0, np.nan, 5.0, 1.0, np.nan, 1.0]))
    assert (found.step, found.available, found.excess) == (20, 4, 4.0)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
def test_a_trend_is_no_peak(values: list[float]) -> None:
    assert not peak_of(series(values)).interior


@given(st.floats(1e-6, 1e6))
def test_on_the_log_scale_an_excess_is_a_factor(scale: float) -> None:
    found = peak_of(series([scale, scale, 8.0 * scale, 2.0 * scale, scale]), scale="log")
    assert found.excess == pytest.approx(np.log(8.0), abs=1e-9)
    assert found.height == pytest.approx(8.0 * scale)
    assert found.baseline == pytest.approx(scale)


def test_too_few_values_are_refused() -> None:
    with pytest.raises(EvidenceError, match="seed 3: 2 values from step 30 on"):
        peak_of(series([1.0, 2.0, 3.0, 4.0, 5.0]), since=30)


def test_a_norm_of_zero_has_no_logarithm() -> None:
    with pytest.raises(EvidenceError, match="the smallest 0. Allowed: three values or more above"):
        peak_of(series([1.0, 0.0, 2.0]), scale="log")


def every_split(values: np.ndarray) -> int:
    """The split with the smallest squared distance from two levels, by trying all."""
    costs = [
        ((values[:at] - values[:at].mean()) ** 2).sum()
        + ((values[at:] - values[at:].mean()) ** 2).sum()
        for at in range(1, len(values))
    ]
    return 1 + int(np.argmin(costs))


@given(st.integers(0, 10_000), st.integers(3, 30))
@settings(max_examples=40)
def test_a_change_point_is_the_best_split(seed: int, count: int) -> None:
    values = np.random.default_rng(seed).normal(size=count)
    steps = np.arange(count) * 7
    found, at = change_point(steps, values), every_split(values)
    assert found.step == steps[at]
    assert found.before == pytest.approx(values[:at].mean(), abs=1e-12)
    assert found.after == pytest.approx(values[at:].mean(), abs=1e-12)
    within = ((values[:at] - found.before) ** 2).sum() + ((values[at:] - found.after) ** 2).sum()
    whole = ((values - values.mean()) ** 2).sum()
    assert found.explained == pytest.approx(1.0 - within / whole, abs=1e-10)


def test_a_planted_change_is_exact() -> None:
    found = change_point([0, 5, 10, 15, 20], [0.0, 0.0, 0.4, 0.4, 0.4])
    assert (found.step, found.before, found.after) == (10, 0.0, pytest.approx(0.4))
    assert found.explained == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([1.0, 2.0], "2 values at 2 steps"),
        ([1.0, 1.0, 1.0], "all alike"),
        ([1.0, np.nan, 2.0], "some not finite"),
    ],
)
def test_what_never_changes_has_no_change_point(values: list[float], seen: str) -> None:
    with pytest.raises(EvidenceError, match="A series has no change point") as error:
        change_point(range(len(values)), values)
    assert seen in str(error.value)
