"""What can be computed next, by whom, and what can no longer be computed?

A stage is ready when everything that it reads is settled: finished, failed, or skipped because of
a failure. Most stages need all that they read. Those that gather (who is measured, behaviour,
evidence) are made from what is there, as long as they have what everything rests on: the prompts,
the agents, the decisions of the base.

A worker keeps the agents that it has loaded, so a ready stage goes to the worker that knows most
of its agents; training, which wants an untouched base, to the one that knows fewest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from moralscope.core.stage import Stage
from moralscope.studies.choices.agents import AgentEntry
from moralscope.studies.engines.assignments import Assignment, reduced
from moralscope.studies.engines.placement import needs_model
from moralscope.studies.plan import Plan, Task
from moralscope.studies.steps.context import TRAIN
from moralscope.studies.study import base_name

GATHERING = frozenset({"enrol", "behave", "evaluate", "play", "judge"})
"""Kinds of stage that are made from what is there."""

DECIDE = "decide-"
ATTEMPTS = 3
"""How often a stage is given to a worker, if workers die over it."""


@dataclass(frozen=True)
class Missing:
    """A stage whose outputs are not there.

    Attributes:
        name: the stage.
        why: what went wrong, in the stage itself or in the one it needs.
        skipped: the failed stage because of which it was not tried; None if it failed itself.
        trace: where the error was raised.
    """

    name: str
    why: str
    skipped: str | None = None
    trace: str = ""


@dataclass
class Board:
    """How a plan stands.

    Attributes:
        plan: the tasks.
        done: finished stages, to their keys.
        missing: failed and skipped stages.
        running: stages that workers are computing.
        attempts: how often a stage was begun.
    """

    plan: Plan
    done: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, Missing] = field(default_factory=dict[str, Missing])
    running: set[str] = field(default_factory=set[str])
    attempts: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def settled(self) -> int:
        """How many stages are finished, failed or skipped."""
        return len(self.done) + len(self.missing)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.settled == len(self.plan.tasks)

    def skip_hopeless(self) -> tuple[Missing, ...]:
        """Mark stages that can no longer be computed; returns those."""
        found: list[Missing] = []
        for task in self.plan:
            name = task.stage.name
            if name in self.done or name in self.missing or name in self.running:
                continue
            cause = self._cause(task.stage)
            if cause is not None:
                root = cause.skipped or cause.name
                self.missing[name] = Missing(name, cause.why, root)
                found.append(self.missing[name])
        return tuple(found)

    def _cause(self, stage: Stage) -> Missing | None:
        """The missing stage without which this one cannot be computed."""
        absent = [need for need in stage.needs if need in self.missing]
        if stage.task in GATHERING:
            essential = essentials(self.plan)
            absent = [need for need in absent if need in essential]
        return self.missing[absent[0]] if absent else None

    def ready(self) -> Iterator[tuple[Task, Assignment]]:
        """Tasks that can be begun now, in the plan's order, as what is there allows them."""
        for task in self.plan:
            stage = task.stage
            if stage.name in self.done or stage.name in self.missing or stage.name in self.running:
                continue
            if all(need in self.done or need in self.missing for need in stage.needs):
                yield self._assigned(task)

    def _assigned(self, task: Task) -> tuple[Task, Assignment]:
        there = {need: self.done[need] for need in task.stage.needs if need in self.done}
        without = self._without(task.stage)
        stage = reduced(task.stage, there, without)
        return replace(task, stage=stage), Assignment(stage.name, stage.key, there, without)

    def _without(self, stage: Stage) -> tuple[str, ...]:
        """Agents whose training or decisions are missing among what a stage reads."""
        absent = {need for need in stage.needs if need in self.missing}
        agents = self.plan.study.agents.items()
        return tuple(sorted(n for n, e in agents if absent & {_made_by(n, e), f"{DECIDE}{n}"}))

    def fail(self, name: str, why: str, trace: str = "") -> Missing:
        """Mark a stage as failed."""
        self.running.discard(name)
        self.missing[name] = Missing(name, why, trace=trace)
        return self.missing[name]

    def finish(self, assignment: Assignment) -> None:
        """Mark a stage as finished."""
        self.running.discard(assignment.stage)
        self.done[assignment.stage] = assignment.key

    def begin(self, name: str) -> None:
        """Mark a stage as given to a worker."""
        self.running.add(name)
        self.attempts[name] = self.attempts.get(name, 0) + 1

    def lost(self, name: str) -> bool:
        """A worker died over a stage; returns whether it may be tried again."""
        self.running.discard(name)
        return self.attempts.get(name, 0) < ATTEMPTS


def _made_by(name: str, entry: AgentEntry) -> str:
    """The training stage that makes an agent; an earlier state comes of the whole training."""
    derived = entry.derived
    return f"{TRAIN}{name if derived is None or derived.step is None else derived.of}"


def essentials(plan: Plan) -> frozenset[str]:
    """The stages that everything rests on: nothing can be concluded without one of them."""
    return frozenset({"prompts", "agents", f"{DECIDE}{base_name(plan.study)}"})


@dataclass
class Worker:
    """Somebody who computes stages.

    Attributes:
        number: from 1.
        tables_only: whether it has no device for models.
        loaded: agents that it has loaded.
        busy: the stage that it computes now; empty if none.
    """

    number: int
    tables_only: bool = False
    loaded: set[str] = field(default_factory=set[str])
    busy: str = ""


def agents_of(stage: Stage, known: Collection[str]) -> frozenset[str]:
    """The agents that a stage asks, by its name: KIND-AGENT or KIND-SOURCE>TARGET."""
    return frozenset(stage.name.partition("-")[2].split(">")) & frozenset(known)


def affinity(stage: Stage, worker: Worker, known: Collection[str]) -> int:
    """How well a worker is prepared for a stage: agents of it that it has loaded already."""
    if stage.name.startswith(TRAIN):
        return -len(worker.loaded)
    return len(agents_of(stage, known) & worker.loaded)


def matched(
    ready: Iterable[tuple[Task, Assignment]], workers: Iterable[Worker], known: Collection[str]
) -> list[tuple[Worker, Task, Assignment]]:
    """Ready tasks for idle workers: best prepared first, then in the plan's order.

    Args:
        ready: tasks in the plan's order.
        workers: all of them.
        known: names of the study's agents.
    """
    left = list(ready)
    # Of equals max takes the first: tables go to whom they alone can be given.
    idle = sorted((w for w in workers if not w.busy), key=lambda w: not w.tables_only)
    found: list[tuple[Worker, Task, Assignment]] = []
    while left and idle:
        fitting = [
            (worker, task, assignment)
            for task, assignment in left
            for worker in idle
            if not (worker.tables_only and needs_model(task.stage))
        ]
        if not fitting:
            break
        best = max(fitting, key=lambda fit: affinity(fit[1].stage, fit[0], known))
        found.append(best)
        idle.remove(best[0])
        left = [one for one in left if one[1].stage != best[2].stage]
    return found


def remember(worker: Worker, stage: Stage, known: Collection[str]) -> None:
    """Keep in mind which agents a worker has loaded, now that it computes a stage."""
    if not needs_model(stage):
        return
    if stage.name.startswith(TRAIN):
        worker.loaded.clear()  # training starts from an untouched base
    elif stage.task == "enrol":
        worker.loaded.update(known)
    else:
        worker.loaded.update(agents_of(stage, known))


def outcome(plan: Plan, missing: Mapping[str, Missing]) -> tuple[Missing, ...]:
    """What is missing, in the plan's order."""
    return tuple(missing[t.stage.name] for t in plan if t.stage.name in missing)
