"""What a person sees while it runs, on a terminal and in a log."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from moralscope.cli.progress import PLAIN_INTERVAL, drawn
from moralscope.core.progress import ProgressEvent

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def event(done: int, total: int = 20, task: str = "train game", note: str = "") -> ProgressEvent:
    return ProgressEvent(task, done, total, note)


def plain_lines(steps: Iterator[tuple[float, ProgressEvent]]) -> list[str]:
    out, clock = io.StringIO(), HandClock()
    with drawn(Console(file=out, width=40), clock) as progress:
        for at, happened in steps:
            clock.now = 1000.0 + at
            progress(happened)
    return out.getvalue().splitlines()


def test_a_log_gets_a_line_at_the_start_every_interval_and_at_the_end() -> None:
    steps = ((4.0 * done, event(done, note=f"loss {done}")) for done in range(21))
    lines = plain_lines(steps)
    assert lines[0] == "train game: 0 of 20, loss 0"
    assert lines[1] == "train game: 3 of 20, 1 min 8 s left, loss 3"
    assert lines[-1] == "train game: done in 1 min 20 s, loss 20"
    assert len(lines) == 2 + 20 * 4 // 12
    assert PLAIN_INTERVAL == 10


def test_the_time_left_counts_from_where_a_resumed_task_began() -> None:
    lines = plain_lines(iter([(0.0, event(10)), (20.0, event(15))]))
    assert lines == ["train game: 10 of 20", "train game: 15 of 20, 20 s left"]


def test_a_cached_task_is_one_line() -> None:
    assert plain_lines(iter([(0.0, event(1, 1, "score base", "cached"))])) == [
        "score base: done, cached"
    ]


def test_tasks_may_overlap_and_a_name_may_come_again() -> None:
    lines = plain_lines(
        iter(
            [
                (0.0, event(0, 2, "a")),
                (1.0, event(0, 2, "b")),
                (2.0, event(2, 2, "a")),
                (5.0, event(2, 2, "b")),
                (6.0, event(0, 2, "a")),
                (7.5, event(2, 2, "a")),
            ]
        )
    )
    assert lines == [
        "a: 0 of 2",
        "b: 0 of 2",
        "a: done in 2.0 s",
        "b: done in 4.0 s",
        "a: 0 of 2",
        "a: done in 1.5 s",
    ]


def test_long_and_hostile_notes_stay_one_plain_line() -> None:
    (line,) = plain_lines(iter([(0.0, event(1, 1, "x" * 60, "[red]\x1b[2J" + "y" * 60))]))
    assert line == "x" * 60 + ": done, [red]�[2J" + "y" * 60


def terminal_text(steps: Iterator[tuple[float, ProgressEvent]]) -> str:
    out, clock = io.StringIO(), HandClock()
    console = Console(file=out, width=100, force_terminal=True, legacy_windows=False)
    with drawn(console, clock) as progress:
        for at, happened in steps:
            clock.now = 1000.0 + at
            progress(happened)
    return ESCAPES.sub("", out.getvalue())


@pytest.mark.parametrize("note", ["loss 0.12", "[bold]loss[/bold]"])
def test_a_terminal_shows_bar_count_time_left_and_note(note: str) -> None:
    steps = iter([(0.0, event(0)), (10.0, event(5, note=note))])
    text = terminal_text(steps)
    last = text.rstrip().splitlines()[-1]
    assert re.search(r"train game .*5/20 30 s left +" + re.escape(note), last)


def test_finished_tasks_stay_above_the_running_ones() -> None:
    steps = iter(
        [
            (0.0, event(0)),
            (90.0, event(20, note="loss 0.01")),
            (90.0, event(1, 1, "score base", "cached")),
            (91.0, event(0, 2, "patch base>game")),
        ]
    )
    lines = [line.strip() for line in re.split(r"[\r\n]+", terminal_text(steps))]
    assert "train game: done in 1 min 30 s, loss 0.01" in lines
    assert "score base: done, cached" in lines
    assert lines[-1].startswith("patch base>game") or lines[-2].startswith("patch base>game")
