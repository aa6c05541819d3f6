"""Which stage is next? The driver: from the plan, the cache and a pool of workers to outputs.

    until everything is settled:
        skip what can no longer be computed; take from the cache what is there
        give ready stages to idle workers; hear how theirs went

A worker that dies costs the stage that it was at: the stage is given out again, up to three times,
and goes on from its last checkpoint if it has any. Claims are made by the driver's own process,
because what is registered is decided before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

from moralscope.core.errors import AgentError
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.core.stage import Stage, StageCache
from moralscope.studies.engines.assignments import (
    Answer,
    Assignment,
    Broken,
    Died,
    Failure,
    Finished,
    Heard,
)
from moralscope.studies.engines.here import Here
from moralscope.studies.engines.pools import Pool
from moralscope.studies.engines.scheduling import (
    ATTEMPTS,
    Board,
    Missing,
    Worker,
    essentials,
    matched,
    outcome,
    remember,
)
from moralscope.studies.plan import Plan, Task
from moralscope.studies.registration import Registry, measuring

_JUDGING = "evidence"


@dataclass(frozen=True)
class StageRun:
    """How one stage went: its cost, and whether it came from the cache.

    Attributes:
        name, package, key: of the stage.
        seconds, peak_memory_gib: what it took when it was computed.
        cached: whether that was before this run, or elsewhere.
    """

    name: str
    package: str
    key: str
    seconds: float
    peak_memory_gib: float
    cached: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    Attributes:
        runs: finished stages, in the plan's order.
        missing: failed and skipped ones, likewise.
    """

    runs: tuple[StageRun, ...]
    missing: tuple[Missing, ...]


class _Drive:
    """A run under way: the plan, where it goes, who computes it, and how it stands."""

    def __init__(
        self,
        plan: Plan,
        cache: StageCache,
        pool: Pool,
        progress: Progress,
        shares: Mapping[str, float],
    ) -> None:
        self.plan, self.cache, self.pool = plan, cache, pool
        self.progress, self.shares = progress, shares
        self.board = Board(plan)
        self.runs: dict[str, StageRun] = {}
        self.given: dict[str, tuple[Task, Assignment]] = {}
        self.share = 0.0
        self.registry = Registry(cache.root)
        self.data = measuring(task.stage for task in plan)
        self.own = Here(plan, cache, progress)
        self.alone = isinstance(pool, Here)

    def run(self) -> Outcome:
        while not self.board.over:
            for skipped in self.board.skip_hopeless():
                self._tell_settled(skipped.name)
            self._begin()
            while self.board.running and not self._hear():
                pass
        ordered = [task.stage.name for task in self.plan]
        runs = tuple(self.runs[name] for name in ordered if name in self.runs)
        return Outcome(runs, outcome(self.plan, self.board.missing))

    def _hear(self) -> bool:
        """Take what workers say; returns whether the board has changed."""
        answers = self.pool.hear()
        for answer in answers:
            self._take(answer)
        return any(not isinstance(answer, Heard) for answer in answers)

    def _begin(self) -> None:
        """Take from the cache what is there, give workers what is not."""
        left: list[tuple[Task, Assignment]] = []
        for task, assignment in islice(self.board.ready(), 1 if self.alone else None):
            self.given[assignment.stage] = task, assignment
            if self.alone:
                self._tell_stage(assignment.stage)
            record = self.cache.record(task.stage)
            if record is not None:
                self._finish(assignment.stage, record, cached=True)
            elif task.stage.package == _JUDGING and not self.alone:
                self._judge(task, assignment)
            else:
                left.append((task, assignment))
        known = self.plan.study.agents
        chosen = (
            [(self.pool.workers[0], *one) for one in left]
            if self.alone
            else matched(left, self.pool.workers, known)
        )
        for worker, task, assignment in chosen:
            self._mark(worker, task.stage)
            self.pool.give(worker, assignment)

    def _mark(self, worker: Worker, stage: Stage) -> None:
        self.board.begin(stage.name)
        worker.busy = stage.name
        remember(worker, stage, self.plan.study.agents)
        if not self.alone:
            self.progress(ProgressEvent(_by(stage.name, worker), 0, 1))

    def _judge(self, task: Task, assignment: Assignment) -> None:
        """Claims are made here, whoever computed what they are made of."""
        worker = self.own.workers[0]
        self._tell_stage(task.stage.name)
        self.board.begin(task.stage.name)
        worker.busy = task.stage.name
        self.own.give(worker, assignment)
        for answer in self.own.hear():
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Heard):
            event = answer.event
            self.progress(replace(event, task=f"{event.task} (worker {answer.worker})"))
            return
        worker = self._worker(answer)
        worker.busy = ""
        if not self.alone and worker in self.pool.workers:
            told = "" if isinstance(answer, Finished) else "failed"
            self.progress(ProgressEvent(_by(answer.stage, worker), 1, 1, told))
        if isinstance(answer, Finished):
            record = self.cache.record(self.given[answer.stage][0].stage) or {}
            self._finish(answer.stage, record, cached=not answer.computed)
        elif isinstance(answer, Died):
            self._bury(answer, worker)
        else:
            self._fail(answer)

    def _worker(self, answer: Finished | Broken | Died) -> Worker:
        everyone = [*self.pool.workers, *self.own.workers]
        return next(w for w in everyone if w.number == answer.worker and w.busy == answer.stage)

    def _bury(self, death: Died, worker: Worker) -> None:
        worker.loaded.clear()
        self.pool.replace(worker)
        if not self.board.lost(death.stage):
            why = f"{ATTEMPTS} workers died over it, the last one: {death.why}"
            self._fail(Broken(death.worker, death.stage, Failure("WorkerDied", why)))

    def _fail(self, broken: Broken) -> None:
        essential = broken.stage in essentials(self.plan)
        if broken.fatal or essential or self._is_impostor(broken):
            raise broken.failure.error()
        self.board.fail(broken.stage, broken.failure.why, broken.failure.trace)
        self._tell_settled(broken.stage)

    def _is_impostor(self, broken: Broken) -> bool:
        """Whether an agent is not what it claims to be: nothing about it may be concluded."""
        task, _ = self.given[broken.stage]
        return task.stage.task == "decide" and broken.failure.kind == AgentError.__name__

    def _finish(self, name: str, record: Mapping[str, object], *, cached: bool) -> None:
        task, assignment = self.given[name]
        stage = task.stage
        facts: object = record.get("facts")
        cost = cast("dict[str, float]", facts) if isinstance(facts, dict) else {}
        if name in self.data:
            self.registry.mark_measured(self.data[name], name)
        seconds, peak = float(cost.get("seconds", 0.0)), float(cost.get("peak_memory_gib", 0.0))
        self.runs[name] = StageRun(name, stage.package, stage.key, seconds, peak, cached)
        self.board.finish(assignment)
        self._tell_settled(name)

    def _tell_settled(self, name: str) -> None:
        self.share += self.shares.get(name, 0.0)
        self._tell_stage(name)

    def _tell_stage(self, name: str) -> None:
        total = len(self.plan.tasks)
        self.progress(ProgressEvent("stage", self.board.settled, total, name, self.share))


def _by(stage: str, worker: Worker) -> str:
    return f"{stage} (worker {worker.number})"


def drive(
    plan: Plan, cache: StageCache, pool: Pool, progress: Progress, shares: Mapping[str, float]
) -> Outcome:
    """Compute a plan.

    Args:
        plan: what is computed.
        cache: where it goes.
        pool: who computes it.
        progress: told of stages (task ``stage``), and of workers.
        shares: each stage's share of the work, for the time left.

    Raises:
        MoralscopeError: something failed that everything else rests on, or would fail as well.
    """
    return _Drive(plan, cache, pool, progress, shares).run()


def folders_of(outcome: Outcome, cache: StageCache) -> dict[str, Path]:
    """Output folders of the finished stages, by name."""
    return {run.name: cache.folder_of(run.key) for run in outcome.runs}
