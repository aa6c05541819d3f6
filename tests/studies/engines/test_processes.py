"""Processes of this machine: equal tables, one of them killed while it works, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from killing import killed_over

from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.studies import make_plan, run_study
from moralscope.studies.engines.assignments import Assignment, Broken, Died, WorkOrder
from moralscope.studies.engines.processes import Processes, processes
from moralscope.studies.plan import threads


def children() -> set[int]:
    """Processes that this one has started and that are alive."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed}


@pytest.mark.slow
def test_two_processes_one_of_them_killed_come_to_the_tables_of_one(
    finished: Any, cache: Path, tmp_path: Path
) -> None:
    before, events = children(), list[ProgressEvent]()
    stage = next(t.stage for t in make_plan(finished.study) if t.stage.name == "train-game")
    with killed_over(StageCache(cache).lock(stage)) as killed:
        summary = run_study(
            finished.study, tmp_path / "run", engine="local:2", progress=events.append
        )
    assert len(killed) == 1
    assert killed[0] not in before | {os.getpid()}
    assert summary.failed == ()
    assert summary.cached == 0
    begun = [e.task.partition(" (")[0] for e in events if e.done == 0 and "(worker" in e.task]
    stages = [run.name for run in summary.runs if run.name != "evidence"]
    computed = sorted(name for name in begun if name in stages)
    assert computed == sorted([*stages, "train-game"])  # its own stage twice, all others once
    finished.same_tables(tmp_path / "run")
    assert children() == before
    assert not any((cache / "locks").iterdir())
    assert not any((cache / "work").iterdir())


def test_where_everything_is_cached_no_process_is_started(
    finished: Any, warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads()))
    again = run_study(finished.study, tmp_path / "again", engine="local:2")
    assert again.cached == again.stages
    finished.same_tables(tmp_path / "again")


@pytest.fixture
def order(cache: Path, tmp_path: Path) -> WorkOrder:
    cache.mkdir(exist_ok=True)
    (cache / "probe").touch()
    return WorkOrder(
        "agents: {base: {}}", str(cache), str(tmp_path), str(cache / "probe"), {"LANG": "C"}
    )


def answer_of(order: WorkOrder, assignment: Assignment) -> Broken:
    with processes(order, [{}]) as pool:
        pool.workers[0].busy = assignment.stage
        pool.give(pool.workers[0], assignment)
        (answer,) = pool.hear()
    assert isinstance(answer, Broken)
    return answer


def test_a_worker_that_does_not_see_the_cache_says_so(order: WorkOrder) -> None:
    blind = WorkOrder(order.study, order.cache, order.folder, order.probe + "-not-there")
    answer = answer_of(blind, Assignment("prompts", "0" * 64, {}))
    assert answer.fatal
    assert "A worker does not see the cache of the run" in answer.failure.why
    assert "shared file system" in answer.failure.why


def test_a_worker_that_ends_says_how(order: WorkOrder) -> None:
    with processes(order, [{}]) as pool:
        pool.workers[0].busy = "train-a"
        os.kill(pid_of(pool), signal.SIGKILL)
        (answer,) = pool.hear()
    assert isinstance(answer, Died)
    assert (answer.worker, answer.stage) == (1, "train-a")
    assert answer.why.startswith("killed by SIGKILL, as the system does when memory runs out")


def pid_of(pool: Processes) -> int:
    return pool._at[1].child.pid


def test_workers_end_with_their_driver(order: WorkOrder) -> None:
    pool = Processes(order, [{}])
    child = pool._at[1].child
    assert child.stdin is not None
    child.stdin.close()  # what a killed driver does to it
    assert child.wait(60) in (-signal.SIGTERM, 0)
    pool.close()
