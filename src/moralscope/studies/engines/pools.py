"""Who computes? The workers of a run, as the driver sees them: give a stage, hear how it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moralscope.studies.engines.assignments import Answer, Assignment
from moralscope.studies.engines.scheduling import Worker


class Pool(Protocol):
    """The workers of one run.

    Attributes:
        workers: all of them, in the order of their numbers.
    """

    workers: Sequence[Worker]

    def give(self, worker: Worker, assignment: Assignment) -> None:
        """Let an idle worker compute a stage."""
        ...

    def hear(self) -> Sequence[Answer]:
        """Wait until there is something to hear of a worker."""
        ...

    def replace(self, worker: Worker) -> None:
        """Start a worker anew that has died."""
        ...
