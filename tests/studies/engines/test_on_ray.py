"""A real Ray cluster on this machine: two workers, one killed while it works, equal tables."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from moralscope.core.errors import ConfigError, DependencyError
from moralscope.core.progress import ProgressEvent
from moralscope.studies import run_study
from moralscope.studies.engines import on_ray
from moralscope.studies.engines.on_ray import require_ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    """A cluster of this machine with room for two workers of one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ray = require_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()


def test_two_actors_one_of_them_killed_come_to_the_tables_of_one_process(
    finished: Any, cache: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, killed, begun = list[Any](), list[int](), list[str]()
    really = on_ray.OnRay.__init__

    def remembered(self: Any, *args: Any, **named: Any) -> None:
        really(self, *args, **named)
        pools.append(self)

    monkeypatch.setattr(on_ray.OnRay, "__init__", remembered)

    def kill(event: ProgressEvent) -> None:
        if event.done == 0 and event.task != "stage":
            begun.append(event.task)
        # Begun when another has settled: that one's worker gets it next, and then is killed.
        if event.task == "stage" and event.note == "agents" and not killed:
            worker = next(w for w in pools[0].workers if w.busy)
            pid = cluster.get(pools[0]._actors[worker.number].pid.remote())
            killed.append(worker.number)
            begun.append(f"killed over {worker.busy}")
            os.kill(pid, signal.SIGKILL)

    summary = run_study(finished.study, tmp_path / "run", engine="ray", progress=kill)
    assert len(killed) == 1
    assert summary.failed == ()
    assert summary.cached == 0
    over = next(one for one in begun if one.startswith("killed over ")).split()[-1]
    assert sum(task.startswith(f"{over} (") for task in begun) <= 2
    finished.same_tables(tmp_path / "run")
    assert len(pools[0].workers) == 2
    assert cluster.is_initialized()  # a cluster of the user's own is left as it was
    assert not any((cache / "locks").iterdir())


def test_without_ray_the_extra_is_named(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told = r'needs Ray, which is not installed.*Next: pip install "moralscope\[ray\]"'
    with pytest.raises(DependencyError, match=told):
        run_study(finished.study, tmp_path / "run", engine="ray")
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = require_ray()

    def unreachable(**named: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nSee the docs")

    monkeypatch.setattr(ray, "init", unreachable)
    told = r"cannot be reached. Seen: head:6379 .Could not find any running Ray instance.*ray start"
    with pytest.raises(ConfigError, match=told):
        on_ray._connect(ray, "head:6379")


def test_nothing_is_reported_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    assert require_ray() is importlib.import_module("ray")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    require_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"  # what the user says stays
