"""What does a worker do? It makes the plan itself, keeps models warm, and computes on demand.

As a program (``python -m moralscope.studies.engines.working NUMBER``) it reads a work order and
assignments from standard input and answers on standard output (``wire``). When the driver is gone,
however it went, its input ends and the worker ends too: training at its next safe point, all else
at once.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from moralscope.core.errors import OutputError
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.studies.engines.assignments import (
    Answer,
    Assignment,
    Broken,
    Heard,
    WorkOrder,
    failure_of,
)
from moralscope.studies.engines.wire import assignment_in, line_of, order_in

if TYPE_CHECKING:
    from moralscope.core.stage import StageCache
    from moralscope.studies.plan import Plan
    from moralscope.studies.workbench import Workbench

_PAUSE = 0.5
"""Seconds between two reports of one task."""

# Torch and its libraries read the environment when they are imported, so nothing here imports them
# before a work order has set it.


class Computer:
    """One worker: its plan, and its models once they are loaded.

    Args:
        order: of the run.
        number: of the worker.
    """

    def __init__(self, order: WorkOrder, number: int) -> None:
        os.environ.update(order.environment)
        folder = Path(order.folder)
        if folder.is_dir():
            os.chdir(folder)
        self._order, self._number = order, number
        self._ready: tuple[Plan, StageCache, Workbench] | None = None

    def answer(self, assignment: Assignment, progress: Progress) -> Answer:
        """Compute what is assigned, and say how it went."""
        try:
            plan, cache, bench = self._prepared()
        except Exception as error:  # noqa: BLE001 - the driver raises it
            return Broken(self._number, assignment.stage, failure_of(error), fatal=True)
        from moralscope.studies.engines.computing import answer_to  # noqa: PLC0415

        return answer_to(assignment, plan, cache, bench, worker=self._number, progress=progress)

    def _prepared(self) -> tuple[Plan, StageCache, Workbench]:
        if self._ready is None:
            self._ready = self._prepare()
        return self._ready

    def _prepare(self) -> tuple[Plan, StageCache, Workbench]:
        if not Path(self._order.probe).is_file():
            raise OutputError(
                "A worker does not see the cache of the run",
                seen=f"{self._order.cache} on {os.uname().nodename}",
                allowed="one cache folder that every machine of the cluster sees at this place",
                remedy="set MORALSCOPE_CACHE to a folder on a shared file system",
            )
        from moralscope.core.documents import parse_yaml, validate  # noqa: PLC0415
        from moralscope.core.stage import StageCache  # noqa: PLC0415
        from moralscope.studies.plan import make_plan  # noqa: PLC0415
        from moralscope.studies.study import Study  # noqa: PLC0415
        from moralscope.studies.workbench import Workbench  # noqa: PLC0415

        study = validate(Study, parse_yaml(self._order.study, "the study"), "the study")
        plan = make_plan(study)
        return plan, StageCache(Path(self._order.cache)), Workbench(plan.study, plan.source)


def throttled(tell: Progress, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A callback that is told of the first and last step of a task, and now and then between."""
    told: dict[str, float] = {}

    def sometimes(event: ProgressEvent) -> None:
        now = clock()
        if event.done >= event.total:
            told.pop(event.task, None)
        elif now - told.get(event.task, -_PAUSE) < _PAUSE:
            return
        else:
            told[event.task] = now
        tell(event)

    return sometimes


def _read(source: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in source:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)  # the driver is gone


def _serve(number: int, channel: TextIO) -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, lines), daemon=True).start()
    computer = Computer(order_in(lines.get()), number)

    def send(answer: Answer) -> None:
        channel.write(line_of(answer))
        channel.flush()

    progress = throttled(lambda event: send(Heard(number, event)))
    while True:
        send(computer.answer(assignment_in(lines.get()), progress))


def main(words: list[str]) -> None:
    """Work until the driver is gone.

    Args:
        words: the number of the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between the lines
    _serve(int(words[0]), channel)


if __name__ == "__main__":
    main(sys.argv[1:])
