"""GPUs are handed out in turn, only where any GPU will do, and only to stages with a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.stage import Stage
from moralscope.studies import Study
from moralscope.studies.engines.on_ray import ray_workers
from moralscope.studies.engines.placement import (
    gpus_here,
    needs_model,
    placements,
    visible_gpus,
)
from moralscope.studies.plan import make_plan


def test_workers_get_gpus_in_turn() -> None:
    said = [place["CUDA_VISIBLE_DEVICES"] for place in placements("cuda", 5, ("0", "1"))]
    assert said == ["0", "1", "0", "1", "0"]


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_a_device_by_its_number_and_the_processor_are_left_as_they_are(device: str) -> None:
    assert placements(device, 3, ("0", "1")) == ({}, {}, {})
    assert gpus_here(device) == ()


def test_without_a_gpu_nothing_is_said_of_one() -> None:
    assert placements("cuda", 2, ()) == ({}, {})


@pytest.mark.parametrize(
    ("environment", "count", "gpus"),
    [
        ({}, 3, ("0", "1", "2")),
        ({"CUDA_VISIBLE_DEVICES": "2, 5"}, 2, ("2", "5")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,GPU-1"}, 2, ("GPU-8932f937", "GPU-1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,1,-1"}, 2, ("0", "1")),
    ],
)
def test_what_is_visible_may_be_handed_out(
    environment: dict[str, str], count: int, gpus: tuple[str, ...]
) -> None:
    assert visible_gpus(environment, count) == gpus


def test_stages_of_tables_need_no_model(study_of: Callable[..., Study], cache: Path) -> None:
    plan = make_plan(study_of())
    without = {task.stage.name for task in plan if not needs_model(task.stage)}
    assert without == {"comparisons", "behaviour", "evidence"}
    assert not needs_model(Stage("decide-tft", "behaviour", "decide", {"entry": "policy"}, {}))


def numbers(*args: object) -> list[tuple[int, bool]]:
    return [(worker.number, worker.tables_only) for worker in ray_workers(*args)]  # type: ignore[arg-type]


def test_a_cluster_has_a_worker_for_each_gpu_and_one_for_tables() -> None:
    room = {"CPU": 32.0, "GPU": 3.0, "memory": 1e9}
    assert numbers(room, "cuda", 4, 100) == [(1, False), (2, False), (3, False), (4, True)]
    assert numbers(room, "cuda", 4, 2) == [(1, False), (2, False), (3, True)]
    assert numbers({"CPU": 8.0, "GPU": 2.0}, "cuda", 4, 9) == [(1, False), (2, False)]


def test_without_gpus_cores_are_divided() -> None:
    assert numbers({"CPU": 9.0}, "cpu", 4, 100) == [(1, False), (2, False)]
    assert numbers({"CPU": 64.0}, "cpu", 4, 5) == [(n, False) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("room", "device", "told"),
    [
        ({"CPU": 2.0}, "cpu", "no room for a worker. Seen: 2 cores and 0 GPUs. Allowed: 4 cores"),
        ({"CPU": 16.0}, "cuda", "no room for a worker.*4 cores for each worker, and a GPU"),
        ({}, "cpu", "Seen: 0 cores and 0 GPUs.*OMP_NUM_THREADS to fewer"),
    ],
)
def test_a_cluster_without_room_says_so(room: dict[str, float], device: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ray_workers(room, device, 4, 10)
