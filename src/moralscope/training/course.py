"""How does a training get from its first step to its last? The one loop, for every method.

A method hands over how a step is taken, what the whole state is and how it is put back. Here it is
told when: steps are taken in order, each one's rows are logged, the state is checkpointed as often
as it costs little, and the same call goes on from the newest checkpoint. SIGINT and SIGTERM end the
run after the step that is under way, with its state saved.

Draws are functions of seed and step, so nothing depends on where a run was interrupted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moralscope.core.files import make_folder
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.core.stopping import Stopped, stopping
from moralscope.training.checkpoints import CheckpointClock, Checkpoints, Snapshot, TrainingLog
from moralscope.training.distribution import Processes

KEPT_FOLDER = "checkpoints"

Row = dict[str, Any]
Tables = dict[str, list[Row]]
"""Rows so far, by table."""

Watch = Callable[[Sequence[Mapping[str, object]]], None]
"""Told of every step: the rows of its main table so far, those before a resume included."""

Schedule = Literal["constant", "linear"]


@dataclass(frozen=True)
class Course:
    """One call of a training, as the loop sees it.

    Attributes:
        name: the agent's.
        steps: of the whole training.
        checkpoint_every: steps between checkpoints, or ``auto``.
        work: scratch folder that survives an interruption.
        identity: all that the course depends on, see ``Checkpoints``.
        processes: who shares the work; the first of them writes.
        table: the main one, whose rows are logged and get the column ``seconds``.
        take: takes a step, counted from 1; its rows by table, those of the main one at least one.
        keep: keeps what was asked for of a step, in the process that writes.
        snapshot: the whole state after a step.
        resume: puts a state back, and gives the rows so far.
        note: a short figure of a row worth seeing.
    """

    name: str
    steps: int
    checkpoint_every: int | Literal["auto"]
    work: Path
    identity: Mapping[str, object]
    processes: Processes
    table: str
    take: Callable[[int], Tables]
    keep: Callable[[int], None]
    snapshot: Callable[[int, Tables], Snapshot]
    resume: Callable[[Snapshot], Tables]
    note: Callable[[Row], str]


def follow(course: Course, progress: Progress, watch: Watch | None) -> Tables:
    """Take every step that is still to be taken.

    Args:
        course: the training.
        progress: called after each step.
        watch: called after each step with the rows of the main table so far.

    Returns:
        The rows of all steps, those before a resume included, by table.

    Raises:
        ConfigError: a checkpoint of a training with other settings or of another version.
        OutputError: a checkpoint or the log cannot be written; earlier checkpoints are kept.
        Stopped: the run was asked to stop; its state is saved.
    """
    checkpoints = Checkpoints(course.work, course.identity)
    log = TrainingLog(course.work)
    clock = CheckpointClock(course.checkpoint_every)
    found = checkpoints.newest()
    tables: Tables = {course.table: []} if found is None else course.resume(found)
    done = 0 if found is None else found.step
    main = course.processes.is_main
    if main:
        log.cut(done)
    with stopping() as stop:
        for step in range(done + 1, course.steps + 1):
            started = time.perf_counter()
            rows = course.take(step)
            seconds = time.perf_counter() - started
            new = [{**row, "seconds": seconds} for row in rows[course.table]]
            for name, more in {**rows, course.table: new}.items():
                tables.setdefault(name, []).extend(more)
            if main:
                log.append(new)
                course.keep(step)
            asked = _any(course, stop.requested())
            last = step == course.steps
            due = clock.due(step, seconds) and main
            if (asked or _any(course, due)) and not last:
                spent = time.perf_counter()
                if main:
                    checkpoints.save(course.snapshot(step, tables))
                clock.saved(time.perf_counter() - spent)
            task = f"train {course.name}"
            progress(ProgressEvent(task, step, course.steps, course.note(new[0])))
            if watch is not None:
                watch(tables[course.table])
            if asked and not last:
                told = f"Stopped after step {step} of {course.steps}: the state is saved"
                raise Stopped(f"{told}, the same command goes on from there.")
    return tables


def _any(course: Course, said: bool) -> bool:
    """Whether any process says so: all of them must stop, or save, after the same step."""
    return course.processes.sum_floats([float(said)])[0] > 0


def scheduled_rate(rate: float, schedule: Schedule, warmup: int, *, step: int, steps: int) -> float:
    """The learning rate of a step.

    ``rate * min(1, step / (warmup + 1))``, and with linear decay ``* (1 - (step - 1) / steps)``,
    which would reach zero after the last step.

    Args:
        rate: the highest, above 0.
        schedule: ``constant`` or ``linear``.
        warmup: steps over which it rises from zero, at least 0.
        step: counted from 1.
        steps: of the whole training.
    """
    decayed = rate if schedule == "constant" else rate * (1.0 - (step - 1) / steps)
    return decayed * min(1.0, step / (warmup + 1))


def kept_folder(work: Path, step: int) -> Path:
    """Where the weights of a step that was asked for are put while a training runs."""
    return work / KEPT_FOLDER / f"step-{step:08d}"


def move_kept(work: Path, out: Path) -> None:
    """Put the weights of steps that were asked for beside the finished agent."""
    kept = work / KEPT_FOLDER
    # One by one: where an interruption left some here and some there, none is lost.
    for folder in sorted(kept.iterdir()) if kept.is_dir() else ():
        place = make_folder(out / KEPT_FOLDER) / folder.name
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(folder, place)
