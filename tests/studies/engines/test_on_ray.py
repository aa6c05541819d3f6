"""A real Ray cluster on this machine: two workers, one killed while it works, equal tables."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from killing import killed_over

from moralscope.core.errors import ConfigError, DependencyError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.studies import make_plan, run_study
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


@pytest.mark.slow
def test_two_actors_one_of_them_killed_come_to_the_tables_of_one_process(
    finished: Any, cache: Path, tmp_path: Path, cluster: Any
) -> None:
    events: list[ProgressEvent] = []
    stage = next(t.stage for t in make_plan(finished.study) if t.stage.name == "train-game")
    with killed_over(StageCache(cache).lock(stage)) as killed:
        summary = run_study(finished.study, tmp_path / "run", engine="ray", progress=events.append)
    assert len(killed) == 1
    assert killed[0] != os.getpid()
    assert summary.failed == ()
    assert summary.cached == 0
    begun = [e.task.partition(" (")[0] for e in events if e.done == 0 and "(worker" in e.task]
    stages = [run.name for run in summary.runs if run.name != "evidence"]
    assert sorted(begun) == sorted([*stages, "train-game"])  # its own twice, all others once
    assert {e.task[-2] for e in events if "(worker" in e.task} == {"1", "2"}
    finished.same_tables(tmp_path / "run")
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
