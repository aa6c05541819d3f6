"""Quantities in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.cli.words import counted, duration, printable, size, time_left

SECONDS = {"s": 1, "min": 60, "h": 3600}
BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (75, "1 min 15 s"),
        (3599.7, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0, 1e6))
def test_a_duration_is_right_to_its_smaller_unit(seconds: float) -> None:
    parts = re.findall(r"([\d.]+) (s|min|h)", duration(seconds))
    said = sum(float(number) * SECONDS[unit] for number, unit in parts)
    tolerance = 0.051 if seconds < 9.95 else 0.51 if seconds < 3599.5 else 30.5
    assert abs(said - seconds) <= tolerance
    assert all(float(number) < 60 for number, unit in parts if unit != "h")


@given(st.integers(0, 2**50))
def test_a_size_is_right_to_a_tenth_of_its_unit(count: int) -> None:
    number, unit = size(count).split()
    assert abs(float(number) * BYTES[unit] - count) <= 0.0501 * BYTES[unit]
    assert float(number) < 1024 or unit in ("B", "TiB")


def test_counts_have_their_plural() -> None:
    assert counted(0, "forward") == "0 forwards"
    assert counted(1, "forward") == "1 forward"
    assert counted(12345, "forward") == "12,345 forwards"


@given(st.integers(1, 1000), st.integers(0, 1000), st.floats(0.01, 1e4))
def test_time_left_is_the_rest_at_the_same_pace(done: int, rest: int, elapsed: float) -> None:
    assert time_left(done, done + rest, elapsed) == pytest.approx(elapsed * rest / done)


def test_time_left_is_unknown_before_the_first_unit() -> None:
    assert time_left(0, 10, 5.0) is None
    assert time_left(-1, 10, 5.0) is None
    assert time_left(3, 10, 0.0) is None


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\rc\nd") == "a�[2Jb��c\nd"
    assert printable("Ünïcode is fine – 動") == "Ünïcode is fine – 動"
