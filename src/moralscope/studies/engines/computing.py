"""How is one stage computed? Under its lock, into the cache, its cost measured.

    lock -> there after all?  yes: done   no: compute -> commit -> unlock

The lock is the stage's own, so that processes which need the same stage at the same time compute
it once: the others wait and find it finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from moralscope.core.errors import ConfigError, OutputError
from moralscope.core.files import make_folder
from moralscope.core.locking import Holder, held
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.studies.engines.assignments import (
    Answer,
    Assignment,
    Broken,
    Finished,
    failure_of,
    reduced,
)
from moralscope.studies.plan import Plan, Task
from moralscope.studies.resources import disk_is_full, measured
from moralscope.studies.steps.context import Context
from moralscope.studies.workbench import Workbench


class CallbackError(BaseException):
    """What a progress callback raised: it ends the run, and says nothing about the stage.

    Args:
        error: the callback's own.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def guarded(progress: Progress) -> Progress:
    """The callback, its errors told apart from those of the stage that calls it."""

    def tell(event: ProgressEvent) -> None:
        try:
            progress(event)
        except Exception as error:
            raise CallbackError(error) from error

    return tell


def compute(
    task: Task,
    cache: StageCache,
    bench: Workbench,
    needs: Mapping[str, Path],
    *,
    without: Sequence[str] = (),
    progress: Progress,
) -> bool:
    """Compute a stage into the cache.

    Args:
        task: what is computed.
        cache: where it goes.
        bench: models and prompts in memory.
        needs: output folders of the stages it reads.
        without: agents that are left out.
        progress: told of steps within the stage, and of waiting for another process.

    Returns:
        Whether it was computed here; another process may have been faster.

    Raises:
        OutputError: the cache cannot be written.
        Exception: whatever the stage's function raises.
    """
    stage = task.stage
    name = f"wait for {stage.name}"
    waited: list[Holder] = []

    def waiting(holder: Holder) -> None:
        waited.append(holder)
        progress(ProgressEvent(name, 0, 1, f"computed by {holder}"))

    with held(cache.lock(stage), waiting):
        if waited:
            progress(ProgressEvent(name, 1, 1))
        if cache.record(stage) is not None:
            return False
        work = cache.work_folder(stage)
        produced = work / "produced"
        shutil.rmtree(produced, ignore_errors=True)
        make_folder(produced)
        with measured() as cost, bench.lacking(without):
            task.step(Context(produced, work, needs, bench, progress))
        facts = {"seconds": cost.seconds, "peak_memory_gib": cost.peak_memory_gib}
        cache.commit(stage, produced, facts)
        shutil.rmtree(work, ignore_errors=True)
    return True


def answer_to(
    assignment: Assignment,
    plan: Plan,
    cache: StageCache,
    bench: Workbench,
    *,
    worker: int,
    progress: Progress,
) -> Answer:
    """Compute what is assigned, and say how it went.

    Everything that a stage can raise becomes a value, except being asked to stop. What would make
    all other stages fail too, a full disk above all, is marked as fatal.
    """
    name = assignment.stage
    try:
        task = next(t for t in plan if t.stage.name == name)
        stage = reduced(task.stage, assignment.needs, assignment.without)
        task = replace(task, stage=stage)
        _refuse_another_plan(task, assignment)
        needs = {need: cache.folder_of(assignment.needs[need]) for need in stage.needs}
        without = assignment.without
        done = compute(task, cache, bench, needs, without=without, progress=progress)
    except Exception as error:  # noqa: BLE001 - others go on; it is told with its text
        fatal = isinstance(error, OutputError | AnotherPlanError) or disk_is_full(error)
        return Broken(worker, name, failure_of(error), fatal=fatal)
    return Finished(worker, name, done)


class AnotherPlanError(ConfigError):
    """A worker would compute something else than the driver has planned."""


def _refuse_another_plan(task: Task, assignment: Assignment) -> None:
    if task.stage.key != assignment.key:
        raise AnotherPlanError(
            "A worker would compute something else than was planned",
            seen=f"stage {assignment.stage}: {task.stage.key[:16]} there, {assignment.key[:16]} "
            "here",
            allowed="the same moralscope, libraries, model files and kind of machine everywhere",
            remedy="install the same versions on every machine, from the same constraints",
        )
