"""How are stages computed without other processes? In this one, when their answer is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.progress import Progress
from moralscope.core.stage import StageCache
from moralscope.studies.engines.assignments import Answer, Assignment
from moralscope.studies.engines.computing import CallbackError, answer_to, guarded
from moralscope.studies.engines.scheduling import Worker
from moralscope.studies.plan import Plan
from moralscope.studies.workbench import Workbench


class Here:
    """The pool of one worker that is this process.

    Args:
        plan: what is computed.
        cache: where it goes.
        progress: told of steps within stages. What it raises ends the run.
    """

    def __init__(self, plan: Plan, cache: StageCache, progress: Progress) -> None:
        self.workers: Sequence[Worker] = (Worker(1),)
        self._plan, self._cache = plan, cache
        self._progress = guarded(progress)
        self._bench = Workbench(plan.study, plan.source)
        self._given: list[Assignment] = []

    def give(self, worker: Worker, assignment: Assignment) -> None:
        """Take a stage on; it is computed by ``hear``."""
        del worker
        self._given.append(assignment)

    def hear(self) -> Sequence[Answer]:
        """Compute what was given, one after the other."""
        given, self._given = self._given, []
        try:
            return [self._answer(assignment) for assignment in given]
        except CallbackError as stop:
            raise stop.error from None

    def _answer(self, assignment: Assignment) -> Answer:
        return answer_to(
            assignment, self._plan, self._cache, self._bench, worker=1, progress=self._progress
        )

    def replace(self, worker: Worker) -> None:
        """Never asked for: this process cannot outlive itself."""
        del worker
