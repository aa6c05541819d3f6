"""The driver settles every stage, whoever computes it and whoever dies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import STUDY, fake_plan

from moralscope.core.errors import AgentError, ConfigError, MoralscopeError, OutputError
from moralscope.core.locking import held
from moralscope.core.progress import ProgressEvent, silent
from moralscope.core.stage import StageCache
from moralscope.studies.engines.assignments import Answer, Assignment, Broken, Died, Heard
from moralscope.studies.engines.computing import answer_to
from moralscope.studies.engines.driving import Outcome, drive
from moralscope.studies.engines.here import Here
from moralscope.studies.engines.scheduling import Worker
from moralscope.studies.plan import Plan
from moralscope.studies.workbench import Workbench

BROKEN = AgentError("It broke", seen="3", allowed="4", remedy="try again")


class Threads:
    """Workers that finish in the order in which they began, and die when they are told to."""

    def __init__(self, plan: Plan, cache: StageCache, count: int, deaths: dict[str, int]) -> None:
        self.workers: Sequence[Worker] = tuple(Worker(n) for n in range(1, count + 1))
        self.deaths = deaths
        self.busiest = 0
        self.replaced: list[int] = []
        self._plan, self._cache = plan, cache
        self._given: list[tuple[Worker, Assignment]] = []

    def give(self, worker: Worker, assignment: Assignment) -> None:
        self._given.append((worker, assignment))
        self.busiest = max(self.busiest, len(self._given))

    def hear(self) -> Sequence[Answer]:
        worker, assignment = self._given.pop(0)
        name = assignment.stage
        heard = Heard(worker.number, ProgressEvent(f"step {name}", 1, 2))
        if self.deaths.get(name, 0):
            self.deaths[name] -= 1
            return [heard, Died(worker.number, name, "killed by SIGKILL")]
        bench = Workbench(self._plan.study, self._plan.source)
        answer = answer_to(
            assignment, self._plan, self._cache, bench, worker=worker.number, progress=silent
        )
        return [heard, answer]

    def replace(self, worker: Worker) -> None:
        self.replaced.append(worker.number)


def here(
    tmp_path: Path, log: list[str], broken: dict[str, Exception] | None = None
) -> tuple[Plan, StageCache, Outcome]:
    plan, cache = fake_plan(STUDY, log, broken), StageCache(tmp_path)
    return plan, cache, drive(plan, cache, Here(plan, cache, silent), silent, {})


def outputs(cache: StageCache, outcome: Outcome) -> dict[str, str]:
    return {r.name: (cache.folder_of(r.key) / "read.txt").read_text() for r in outcome.runs}


def test_one_process_computes_in_the_order_of_the_plan_and_only_once(tmp_path: Path) -> None:
    log: list[str] = []
    plan, _, outcome = here(tmp_path, log)
    assert log == list(STUDY)
    assert [run.key for run in outcome.runs] == [task.stage.key for task in plan]
    assert not any(run.cached for run in outcome.runs)
    _, _, again = here(tmp_path, log)
    assert len(log) == len(STUDY)
    assert all(run.cached for run in again.runs)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_several_workers_come_to_the_same(tmp_path: Path, workers: int) -> None:
    _, cache, alone = here(tmp_path / "alone", [])
    log: list[str] = []
    plan = fake_plan(STUDY, log)
    many = StageCache(tmp_path / "many")
    pool = Threads(plan, many, workers, {})
    outcome = drive(plan, many, pool, silent, {})
    assert sorted(log) == sorted(STUDY)
    assert outputs(many, outcome) == outputs(cache, alone)
    assert pool.busiest == min(workers, 5)


def test_a_worker_that_dies_costs_its_own_stage_alone(tmp_path: Path) -> None:
    log: list[str] = []
    plan, cache = fake_plan(STUDY, log), StageCache(tmp_path)
    pool = Threads(plan, cache, 2, {"train-b": 2})
    outcome = drive(plan, cache, pool, silent, {})
    assert outcome.missing == ()
    assert sorted(log) == sorted(STUDY)
    assert len(pool.replaced) == 2


def test_a_stage_over_which_every_worker_dies_is_given_up(tmp_path: Path) -> None:
    plan, cache = fake_plan(STUDY), StageCache(tmp_path)
    pool = Threads(plan, cache, 2, {"patch-base>b": 99})
    outcome = drive(plan, cache, pool, silent, {})
    assert [(m.name, m.skipped) for m in outcome.missing] == [("patch-base>b", None)]
    told = "WorkerDied: 3 workers died over it, the last one: killed by SIGKILL"
    assert outcome.missing[0].why == told
    assert pool.deaths == {"patch-base>b": 96}
    assert len(outcome.runs) == len(STUDY) - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_is_the_same_for_one_process_and_for_several(
    tmp_path: Path, workers: int
) -> None:
    log: list[str] = []
    plan, cache = fake_plan(STUDY, log, {"train-b": BROKEN}), StageCache(tmp_path)
    pool = Threads(plan, cache, workers, {}) if workers else Here(plan, cache, silent)
    outcome = drive(plan, cache, pool, silent, {})
    why = "It broke. Seen: 3. Next: try again"
    assert [(m.name, m.why, m.skipped) for m in outcome.missing] == [
        ("train-b", why, None),
        ("decide-b", why, "train-b"),
        ("patch-base>b", why, "train-b"),
    ]
    read = outputs(cache, outcome)
    assert read["agents"] == "base a: train-a"
    assert read["behaviour"] == "base a: prompts agents decide-base decide-a"
    assert read["evidence"].startswith("base a: prompts agents decide-base decide-a patch-base>a")
    assert "AgentError" in outcome.missing[0].trace


@pytest.mark.parametrize("name", ["prompts", "agents", "decide-base"])
def test_without_what_everything_rests_on_the_error_ends_the_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match="It broke. Seen: 3. Allowed: 4. Next: try again"):
        here(tmp_path, [], {name: BROKEN})
    with pytest.raises(MoralscopeError, match="ZeroDivisionError: nothing .step, line"):
        here(tmp_path, [], {name: ZeroDivisionError("nothing")})


def test_an_agent_that_is_not_what_it_claims_to_be_ends_the_run(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(AgentError, match="It broke"):
        here(tmp_path, log, {"decide-a": BROKEN})
    assert log[-1] == "decide-a"
    _, _, outcome = here(tmp_path, log, {"decide-a": ZeroDivisionError("nothing")})
    assert [m.name for m in outcome.missing] == ["decide-a"]


def test_a_full_disk_ends_the_run_wherever_it_happens(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(MoralscopeError, match="No space left on device"):
        here(tmp_path, log, {"patch-base>a": OSError(28, "No space left on device")})
    assert log[-1] == "patch-base>a"
    full = OutputError("A result cannot be written", seen="x", allowed="y", remedy="z")
    with pytest.raises(OutputError, match="A result cannot be written"):
        here(tmp_path / "two", [], {"patch-base>a": full})


def test_being_asked_to_stop_is_no_failure(tmp_path: Path) -> None:
    log: list[str] = []
    stop: dict[str, BaseException] = {"train-b": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        here(tmp_path, log, stop)  # type: ignore[arg-type]
    assert log[-1] == "train-b"


def test_a_callback_that_raises_ends_the_run_with_its_own_error(tmp_path: Path) -> None:
    plan, cache = fake_plan(STUDY), StageCache(tmp_path)

    def stop(event: ProgressEvent) -> None:
        if event.note == "agents":
            raise LookupError("the callback's own")

    with pytest.raises(LookupError, match="the callback's own"):
        drive(plan, cache, Here(plan, cache, stop), stop, {})


def test_progress_names_stages_workers_and_shares(tmp_path: Path) -> None:
    plan, cache = fake_plan(STUDY), StageCache(tmp_path)
    events: list[ProgressEvent] = []
    shares = dict.fromkeys(STUDY, 1 / len(STUDY))
    drive(plan, cache, Threads(plan, cache, 2, {}), events.append, shares)
    stages = [event for event in events if event.task == "stage"]
    assert stages[-1].done == stages[-1].total == len(STUDY)
    assert stages[-1].share == pytest.approx(1.0)
    assert [event.done for event in stages] == sorted(event.done for event in stages)
    tasks = {event.task for event in events}
    assert {"train-a (worker 2)", "step train-a (worker 2)", "prompts (worker 1)"} <= tasks
    begun = {e.task for e in events if e.done == 0 and e.task != "stage"}
    assert begun == {e.task for e in events if e.done == e.total == 1}


def test_a_worker_with_other_software_refuses_to_compute(tmp_path: Path) -> None:
    log: list[str] = []
    plan, cache = fake_plan(STUDY, log), StageCache(tmp_path)
    bench = Workbench(plan.study, plan.source)
    given = Assignment("prompts", "0" * 64, {})
    answer = answer_to(given, plan, cache, bench, worker=1, progress=silent)
    assert isinstance(answer, Broken)
    assert answer.fatal
    told = "A worker would compute something else than was planned. Seen: stage prompts: "
    assert answer.failure.why.startswith(told)
    assert isinstance(answer.failure.error(), ConfigError)
    assert log == []


def test_a_stage_that_another_process_computes_is_waited_for_and_not_computed(
    tmp_path: Path,
) -> None:
    log: list[str] = []
    plan, cache = fake_plan({"prompts": ()}, log), StageCache(tmp_path)
    stage, events = plan.tasks[0].stage, list[ProgressEvent]()
    waiting = threading.Event()

    def tell(event: ProgressEvent) -> None:
        events.append(event)
        if event.task.startswith("wait for"):
            waiting.set()

    def compute() -> None:
        outcomes.append(drive(plan, cache, Here(plan, cache, tell), tell, {}))

    outcomes: list[Outcome] = []
    other = threading.Thread(target=compute)
    with held(cache.lock(stage)):
        other.start()
        assert waiting.wait(30)
        produced = tmp_path / "made"
        produced.mkdir()
        (produced / "read.txt").write_text("by another")
        cache.commit(stage, produced, {"seconds": 3.0})
    other.join(30)
    assert log == []
    assert [(run.cached, run.seconds) for run in outcomes[0].runs] == [(True, 3.0)]
    waits = [event for event in events if event.task == "wait for prompts"]
    assert [event.done for event in waits] == [0, 1]
    assert waits[0].note.startswith("computed by process ")
