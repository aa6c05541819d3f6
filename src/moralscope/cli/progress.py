"""How far along is it, drawn: one line per running task, with the time that is left.

On a terminal the running tasks are redrawn in place and finished ones stay above as plain lines.
Elsewhere (a log file, a pipe) every task gives a line when it starts, at most one in
``PLAIN_INTERVAL`` seconds, and one when it ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from moralscope.cli.words import duration, printable, time_left
from moralscope.core.progress import Progress, ProgressEvent

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines of one task."""

Clock = Callable[[], float]


@dataclass(slots=True)
class _Running:
    """A task under way: when it started and was last said, and the work done by then."""

    started: float
    said: float
    first: int


_WHOLE = 10_000


def _work(event: ProgressEvent) -> tuple[int, int]:
    """Work done and in all: units, or parts of the whole where units differ in size."""
    if event.share is None:
        return event.done, event.total
    return round(event.share * _WHOLE), _WHOLE


class _TimeLeft(ProgressColumn):
    """The time left at the pace so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        first, (done, total) = task.fields["first"], task.fields["work"]
        done, total = int(done) - int(first), int(total) - int(first)
        left = time_left(done, total, task.elapsed or 0.0)
        return Text("" if left is None else f"{duration(left)} left", style="cyan")


@contextlib.contextmanager
def drawn(console: Console, clock: Clock = time.monotonic) -> Generator[Progress]:
    """A progress callback that draws on a console while the block runs.

    Args:
        console: where to draw; a terminal gets live bars, anything else plain lines.
        clock: seconds from any origin.

    Yields:
        The callback to hand to long functions.
    """
    if not console.is_terminal:
        yield _plain(console, clock)
        return
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _TimeLeft(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        transient=True,
        get_time=clock,
    )
    with bars:
        yield _live(bars, clock)


def _live(bars: Bars, clock: Clock) -> Progress:
    shown: dict[str, tuple[TaskID, float]] = {}

    def draw(event: ProgressEvent) -> None:
        name, note = printable(event.task), printable(event.note)
        if event.task not in shown and event.done >= event.total:
            _say(bars.console, _finished(event, None))
            return
        if event.task not in shown:
            bar = bars.add_task(
                name, total=event.total, note=note, first=_work(event)[0], work=_work(event)
            )
            shown[event.task] = (bar, clock())
        bar, started = shown[event.task]
        bars.update(bar, completed=event.done, total=event.total, note=note, work=_work(event))
        if event.done >= event.total:
            bars.remove_task(bar)
            del shown[event.task]
            _say(bars.console, _finished(event, clock() - started))

    return draw


def _plain(console: Console, clock: Clock) -> Progress:
    running: dict[str, _Running] = {}

    def draw(event: ProgressEvent) -> None:
        now = clock()
        known = running.get(event.task)
        if event.done >= event.total:
            running.pop(event.task, None)
            _say(console, _finished(event, now - known.started if known else None))
        elif known is None:
            running[event.task] = _Running(now, now, _work(event)[0])
            _say(console, _under_way(event, None))
        elif now - known.said >= PLAIN_INTERVAL:
            known.said = now
            done, total = (amount - known.first for amount in _work(event))
            _say(console, _under_way(event, time_left(done, total, now - known.started)))

    return draw


def _under_way(event: ProgressEvent, left: float | None) -> str:
    parts = [f"{event.task}: {event.done} of {event.total}"]
    if left is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join([*parts, *([event.note] if event.note else [])])


def _finished(event: ProgressEvent, seconds: float | None) -> str:
    """The last line of a task; one that was finished when it was first heard of took no time."""
    took = "" if seconds is None else f" in {duration(seconds)}"
    note = f", {event.note}" if event.note else ""
    return f"{event.task}: done{took}{note}"


def _say(console: Console, line: str) -> None:
    console.print(Text(printable(line)), soft_wrap=True)
