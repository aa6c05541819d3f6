"""How is a study run? Stage by stage, from the cache where it can, into a run directory.

    plan -> register hypotheses -> have every stage computed (engines) -> run folder (assembling)

A run that is killed at any moment goes on from the last finished stage when the same command is
given again; training goes on from its last checkpoint. A stage that fails costs what needs it: all
else is computed, the run folder says what is missing and why, and the same command tries again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from moralscope.core.errors import MoralscopeError
from moralscope.core.files import require_writable
from moralscope.core.progress import Progress, silent
from moralscope.core.stage import StageCache, cache_folder
from moralscope.studies.assembling import Result, assemble
from moralscope.studies.engines.assignments import WorkOrder
from moralscope.studies.engines.driving import Outcome, StageRun, drive, folders_of
from moralscope.studies.engines.here import Here
from moralscope.studies.engines.kinds import THREADS, Engine, engine_of, threads_set
from moralscope.studies.engines.on_ray import on_ray, require_ray
from moralscope.studies.engines.placement import gpus_here, placements
from moralscope.studies.engines.pools import Pool
from moralscope.studies.engines.processes import processes
from moralscope.studies.engines.scheduling import Missing
from moralscope.studies.estimating.estimate import bytes_left, work_shares
from moralscope.studies.occupying import occupied, taken_over
from moralscope.studies.plan import Plan, make_plan, threads
from moralscope.studies.registration import register
from moralscope.studies.resources import disk_is_full, full_disk, measured
from moralscope.studies.steps.context import gather
from moralscope.studies.study import Study, study_yaml


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        out: the run directory.
        stages: number of stages.
        cached: how many were not computed because the cache had them.
        seconds: wall time of this run.
        runs: each stage that is finished.
        failed: each that is not, with the reason.
        notices: what there is to say about the run that the folder held before.
    """

    out: Path
    stages: int
    cached: int
    seconds: float
    runs: tuple[StageRun, ...] = field(default=())
    failed: tuple[Missing, ...] = field(default=())
    notices: tuple[str, ...] = field(default=())


def run_study(
    study: Study,
    out: Path,
    *,
    engine: str = "local",
    wait: bool = True,
    progress: Progress = silent,
) -> RunSummary:
    """Run a study into a run directory.

    Args:
        study: what to run.
        out: the run directory; created, or brought up to date.
        engine: where stages are computed, see ``engines.kinds``; ``local`` is this process.
        wait: wait for another run that is at work in the same directory.
        progress: told of stages (task ``stage``) and of steps within them.

    Raises:
        ConfigError: the engine is unknown or cannot be reached.
        DependencyError: the engine needs a package that is not installed.
        OutputError: ``out`` or the cache cannot be written, or ``out`` holds something else.
        MoralscopeError: what was asked cannot be, or a stage failed that everything rests on;
            finished stages are kept.
    """
    require_engine(engine)
    with occupied(out, wait=wait, progress=progress):
        return run_occupied(study, out, engine=engine, progress=progress)


def require_engine(words: str) -> Engine:
    """The engine that is meant, and that can be used here.

    Raises:
        ConfigError: there is no such engine.
        DependencyError: it needs a package that is not installed.
    """
    chosen = engine_of(words)
    if chosen.kind == "ray":
        require_ray()
    return chosen


def run_occupied(
    study: Study, out: Path, *, engine: str = "local", progress: Progress = silent
) -> RunSummary:
    """``run_study`` for a caller that keeps others out of the directory itself (``occupying``)."""
    chosen = require_engine(engine)
    notices = taken_over(out, study)
    cache = StageCache(require_writable(cache_folder()))
    cache.clear_leftovers()
    with threads_set(chosen):
        with measured() as cost:
            plan = make_plan(study, out, elsewhere=chosen.elsewhere)
            with _disk_watched(plan, cache, out):
                register(study, [task.stage for task in plan], cache, out)
                outcome = _computed(plan, cache, chosen, progress)
                folders = folders_of(outcome, cache)
                tables = gather(folders.values())
        with _disk_watched(plan, cache, out):
            result = Result(
                plan, outcome.runs, outcome.missing, folders, tables, engine, cost.seconds
            )
            assemble(result, out)
    cached = sum(run.cached for run in outcome.runs)
    stages = len(plan.tasks)
    return RunSummary(out, stages, cached, cost.seconds, outcome.runs, outcome.missing, notices)


@contextlib.contextmanager
def _disk_watched(plan: Plan, cache: StageCache, out: Path) -> Generator[None]:
    """Say how much is free and how much is needed when the disk is full."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        try:
            wanted = bytes_left(plan, cache)
        except (OSError, MoralscopeError):
            wanted = None
        raise full_disk(error, cache.root if cache.root.is_dir() else out, wanted) from error


def _computed(plan: Plan, cache: StageCache, engine: Engine, progress: Progress) -> Outcome:
    shares = work_shares(plan, cache)
    if all(cache.record(task.stage) is not None for task in plan):
        return drive(plan, cache, Here(plan, cache, progress), progress, shares)
    with _pool(plan, cache, engine, progress) as pool:
        return drive(plan, cache, pool, progress, shares)


@contextlib.contextmanager
def _pool(plan: Plan, cache: StageCache, engine: Engine, progress: Progress) -> Generator[Pool]:
    """The workers that an engine has."""
    if not engine.parallel:
        yield Here(plan, cache, progress)
        return
    device = plan.study.device
    order = WorkOrder(
        study=study_yaml(plan.study),
        cache=str(cache.root.resolve()),
        folder=str(Path.cwd()),
        probe=str(_probe(cache).resolve()),
        environment={THREADS: str(threads()), "MORALSCOPE_CACHE": str(cache.root.resolve())},
    )
    if engine.kind == "processes":
        places = placements(device, engine.workers, gpus_here(device))
        with processes(order, places) as pool:
            yield pool
        return
    most = max(2, len(plan.tasks) // 2)
    with on_ray(
        order, address=engine.address, device=device, threads=threads(), most=most
    ) as actors:
        yield actors


def _probe(cache: StageCache) -> Path:
    """A file in the cache by which workers know that it is the same one."""
    path = cache.root / "probe"
    path.touch()
    return path
