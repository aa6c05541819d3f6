"""How far along is it? Progress as plain events that anyone may draw or ignore.

Long functions take a ``Progress`` callback. The library never prints; the command line draws
the events with the time left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of a long task.

    Attributes:
        task: what is running (``train game``, ``patch base>game``).
        done, total: units finished and units in all (steps, prompts, passes).
        note: a short figure worth seeing (``loss 0.12``), or empty.
        share: share of the whole work that is done, 0 to 1, where units differ in size and it is
            known; the time left is told from it.
    """

    task: str
    done: int
    total: int
    note: str = ""
    share: float | None = None


Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """The progress callback of those who do not want any."""
