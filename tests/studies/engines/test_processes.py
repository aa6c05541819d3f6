"""Processes of this machine: equal tables, one of them killed while it works, none left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.studies import Study, run_study
from moralscope.studies.engines.assignments import Assignment, Broken, Died, WorkOrder
from moralscope.studies.engines.processes import Processes, processes


def children() -> set[int]:
    """Processes that this one has started and that are alive."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed}


def test_two_processes_one_of_them_killed_come_to_the_tables_of_one(
    finished: Any, cache: Path, tmp_path: Path
) -> None:
    before, killed, events = children(), list[int](), list[str]()

    def kill(event: ProgressEvent) -> None:
        events.append(event.task)
        if event.task.startswith("decide game") and not killed:
            number = event.task.rpartition("worker ")[2].rstrip(")")
            workers = {p for p in children() - before if f"working\0{number}\0" in command(p)}
            killed.extend(workers)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)

    summary = run_study(finished.study, tmp_path / "run", engine="local:2", progress=kill)
    assert len(killed) == 1
    assert summary.failed == ()
    assert summary.cached == 0
    assert events.count("decide-game (worker 1)") + events.count("decide-game (worker 2)") == 4
    finished.same_tables(tmp_path / "run")
    assert children() == before
    assert not any((cache / "locks").iterdir())
    assert not any((cache / "work").iterdir())
    again = run_study(finished.study, tmp_path / "again", engine="local:2")
    assert again.cached == again.stages
    assert children() == before


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


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


def test_a_worker_with_other_software_says_so(
    order: WorkOrder, study_of: Callable[..., Study]
) -> None:
    from moralscope.studies.study import study_yaml  # noqa: PLC0415

    other = WorkOrder(study_yaml(study_of()), order.cache, order.folder, order.probe)
    answer = answer_of(other, Assignment("prompts", "0" * 64, {}))
    assert answer.fatal
    told = "A worker would compute something else than was planned. Seen: stage prompts: "
    assert answer.failure.why.startswith(told)
    assert isinstance(answer.failure.error(), ConfigError)
    assert not any((StageCache(Path(order.cache)).root / "stages").glob("*"))


def test_a_worker_that_ends_says_how(order: WorkOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/dev/null")
    broken = WorkOrder("\0", "", "", "")
    with processes(broken, [{}]) as pool:
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
    time.sleep(0.1)
    pool.close()
