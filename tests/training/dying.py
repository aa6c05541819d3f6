"""Train in children of one warm process, and let each die, or be asked to stop, at a chosen point.

Run as a program with a model's folder. Every line on its input is a task in JSON; for each it forks
a child that trains, and answers with the child's exit status (negative: the signal that ended it)
and how often the child came past each point. The warm process itself never computes anything, for
a fork takes locks along but not the threads that hold them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from moralscope.core import files
from moralscope.core.errors import OutputError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stopping import Stopped
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.training import session
from moralscope.training.checkpoints import DamagedCheckpointWarning, TrainingLog
from moralscope.training.config import TrainingConfig
from moralscope.training.loop import train_agent

STOPPED, FULL = 7, 8


@dataclass
class Fate:
    """What happens to a child, where: at which visit of which point.

    Attributes:
        point: name of the point; none with ``""``.
        visit: counted from 1.
        act: ``kill``, the name of a signal to send itself, or ``full``: from then on no file can
            be written.
        visits: so far, of every point.
    """

    point: str
    visit: int
    act: str
    visits: Counter[str] = field(default_factory=Counter[str])

    def meet(self, point: str) -> bool:
        """Come past a point; True if it is the chosen one and something is left to do."""
        self.visits[point] += 1
        return point == self.point and self.visits[point] == self.visit

    def end(self) -> None:
        """What the chosen point brings."""
        if self.act == "full":
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            return
        os.kill(os.getpid(), signal.SIGKILL if self.act == "kill" else signal.Signals[self.act])

    def pass_by(self, point: str) -> None:
        """Come past a point at which nothing is half done."""
        if self.meet(point):
            self.end()


def around(owner: Any, name: str, fate: Fate, point: str) -> None:
    """Points before and after every call of a function."""
    whole = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        fate.pass_by(f"before {point}")
        result = whole(*args, **kwargs)
        fate.pass_by(f"after {point}")
        return result

    setattr(owner, name, call)


def in_backward(fate: Fate) -> None:
    """A point in the middle of every backward pass: half of the gradients are there."""
    whole = session.descend

    def descend(learner: Any, *args: Any, **kwargs: Any) -> Any:
        if fate.meet("in backward"):
            parameters = list(learner.parameters.values())
            parameters[len(parameters) // 2].register_hook(lambda _: fate.end())
        return whole(learner, *args, **kwargs)

    session.descend = descend


def in_optimiser(fate: Fate) -> None:
    """A point in the middle of every optimiser step: half of the parameters have moved."""
    whole = torch.optim.Adam.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if fate.meet("in optimiser"):
            parameters = self.param_groups[0]["params"]
            self.param_groups[0]["params"] = parameters[: len(parameters) // 2]
            whole(self, *args, **kwargs)
            fate.end()
        return whole(self, *args, **kwargs)

    torch.optim.Adam.step = step  # pyright: ignore[reportAttributeAccessIssue]


def in_file(fate: Fate) -> None:
    """A point in the middle of every file that is written whole or not at all."""
    whole = os.fdopen

    def fdopen(*args: Any, **kwargs: Any) -> Any:
        stream = whole(*args, **kwargs)
        write: Callable[[bytes], int] = stream.write

        def half(data: bytes) -> int:
            if fate.meet("in file"):
                write(data[: len(data) // 2])
                stream.flush()
                fate.end()
            return write(data)

        return _Writing(stream, half) if args[1:] == ("wb",) else stream

    files.os.fdopen = fdopen  # pyright: ignore[reportAttributeAccessIssue]


class _Writing:
    """A stream with another ``write``."""

    def __init__(self, stream: Any, write: Callable[[bytes], int]) -> None:
        self._stream = stream
        self.write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def in_log(fate: Fate) -> None:
    """A point in the middle of every line of the log."""
    whole = TrainingLog.append

    def append(self: TrainingLog, rows: Any) -> None:
        before = self.path.stat().st_size if self.path.exists() else 0
        whole(self, rows)
        if fate.meet("in log"):
            os.truncate(self.path, (before + self.path.stat().st_size) // 2)
            fate.end()

    TrainingLog.append = append  # pyright: ignore[reportAttributeAccessIssue]


def install(fate: Fate) -> None:
    """Lay out all points."""
    around(session, "read_answers", fate, "reading")
    in_backward(fate)
    in_optimiser(fate)
    in_file(fate)
    in_log(fate)
    around(Path, "replace", fate, "rename")
    around(os, "fsync", fate, "sync")
    around(os, "unlink", fate, "removal")
    around(shutil, "rmtree", fate, "cleaning")


def train(base: LoadedModel, task: dict[str, Any], fate: Fate) -> int:
    """One child's life; returns its exit status."""
    install(fate)
    warnings.simplefilter("ignore", DamagedCheckpointWarning)
    steps = Path(task["steps"])

    def note(event: ProgressEvent) -> None:
        if event.task.startswith("train "):
            with steps.open("a") as stream:
                stream.write(f"{event.done}\n")

    try:
        config = TrainingConfig.model_validate(task["config"])
        train_agent(
            "a", config, base, out=Path(task["out"]), work=Path(task["work"]), progress=note
        )
    except Stopped:
        return STOPPED
    except OutputError:
        return FULL
    return 0


def fork(base: LoadedModel, task: dict[str, Any]) -> dict[str, Any]:
    """Train in a child and tell how it ended, and its visits if it lived to count them."""
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            fate = Fate(*task["fate"])
            status = train(base, task, fate)
            os.write(writing, json.dumps(fate.visits).encode())
        finally:
            os._exit(status)
    os.close(writing)
    if task["seconds"] is not None:
        time.sleep(task["seconds"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as stream:
        visits = json.loads(stream.read() or b"{}")
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    return {"status": ended, "visits": visits, "seconds": time.monotonic() - started}


def main() -> None:
    """Serve tasks until the input ends."""
    torch.set_num_threads(1)
    base = load_model(locate_model(sys.argv[1]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(fork(base, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
