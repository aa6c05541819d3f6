"""How are stages computed by several processes of this machine?

Every worker is an interpreter of its own, started once for a run, which keeps its models between
stages. Whatever it prints goes into a file of its own, whose last line is told if it dies.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from moralscope.studies.engines.assignments import Answer, Assignment, Died, WorkOrder
from moralscope.studies.engines.scheduling import Worker
from moralscope.studies.engines.wire import answer_in, line_of

_GRACE = 20.0
"""Seconds that a worker has to save the training that it is at, once it is told to end."""


@dataclass(frozen=True)
class _Process:
    child: subprocess.Popen[str]
    printed: IO[str]


class Processes:
    """The pool of some processes of this machine.

    Args:
        order: of the run.
        places: what the environment of each worker says beside the order's: its GPU.
    """

    def __init__(self, order: WorkOrder, places: Sequence[Mapping[str, str]]) -> None:
        self.workers: Sequence[Worker] = tuple(Worker(n) for n in range(1, len(places) + 1))
        self._order, self._places = order, places
        self._heard: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._at: dict[int, _Process] = {}
        for worker in self.workers:
            self.replace(worker)

    def replace(self, worker: Worker) -> None:
        """Start a worker, again if it was there before."""
        environment = {**os.environ, **self._order.environment, **self._places[worker.number - 1]}
        printed = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        child = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "moralscope.studies.engines.working", str(worker.number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the driver
        )
        process = _Process(child, printed)
        before = self._at.get(worker.number)
        if before is not None:
            _close(before)
        self._at[worker.number] = process
        self._say(worker, line_of(self._order))
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()

    def give(self, worker: Worker, assignment: Assignment) -> None:
        """Let an idle worker compute a stage."""
        self._say(worker, line_of(assignment))

    def _say(self, worker: Worker, line: str) -> None:
        stream = self._at[worker.number].child.stdin
        with contextlib.suppress(BrokenPipeError):  # it has died: its listener says so
            if stream is not None:
                stream.write(line)
                stream.flush()

    def _listen(self, worker: Worker, process: _Process) -> None:
        for line in process.child.stdout or ():
            self._heard.put(answer_in(line))
        process.child.wait()
        self._heard.put(Died(worker.number, worker.busy, _last_words(process)))

    def hear(self) -> Sequence[Answer]:
        """Wait until there is something to hear of a worker."""
        while True:
            answer = self._heard.get()
            if not isinstance(answer, Died):
                return [answer]
            worker = self.workers[answer.worker - 1]
            if worker.busy:
                return [Died(worker.number, worker.busy, answer.why)]
            self.replace(worker)  # it died while it had nothing to do

    def close(self) -> None:
        """End all workers; training is saved first."""
        for process in self._at.values():
            process.child.terminate()
        for process in self._at.values():
            try:
                process.child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.child.kill()
                process.child.wait()
            _close(process)


def _close(process: _Process) -> None:
    for stream in (process.child.stdin, process.child.stdout, process.printed):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _last_words(process: _Process) -> str:
    code = process.child.returncode
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if code == -signal.SIGKILL:
        how += ", as the system does when memory runs out"
    with contextlib.suppress(ValueError, OSError):
        process.printed.seek(0)
        said = [line.strip() for line in process.printed if line.strip()]
        return f"{how}: {said[-1]}" if said else how
    return how


@contextlib.contextmanager
def processes(order: WorkOrder, places: Sequence[Mapping[str, str]]) -> Generator[Processes]:
    """Some processes of this machine, for the length of the block.

    Args:
        order: of the run.
        places: what the environment of each worker says beside the order's.
    """
    pool = Processes(order, places)
    try:
        yield pool
    finally:
        pool.close()
