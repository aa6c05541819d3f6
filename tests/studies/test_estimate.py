"""Estimates: forwards as they really happen, sizes of the right order, nothing for the cached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from moralscope.core.errors import ModelError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.studies import Study, estimate_study, make_plan, run_study

StudyOf = Callable[..., Study]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_nodes": 600},
        {"mechanisms": {"scenarios": 3, "methods": ["patching"]}},
        {"mechanisms": {"scenarios": 3, "methods": ["lens"]}},
    ],
)
def test_forwards_are_those_that_run(
    study_of: StudyOf, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:  # fmt: skip
    study = study_of(**changes)
    expected = {s.name: s.forwards for s in estimate_study(study, tmp_path / "run").stages}
    counted: Counter[str] = Counter()
    running = [""]
    forward = LlamaDecoderLayer.forward

    def counting(self: Any, *args: Any, **named: Any) -> Any:
        # Rows of patches enter at the layer of their site; every pass leaves by the last layer.
        counted[running[0]] += self.self_attn.layer_idx == 1
        return forward(self, *args, **named)

    def watch(event: ProgressEvent) -> None:
        if event.task == "stage":
            running[0] = event.note

    monkeypatch.setattr(LlamaDecoderLayer, "forward", counting)
    run_study(study, tmp_path / "run", progress=watch)
    assert {name: counted[name] for name in expected} == expected


def test_what_is_cached_costs_nothing(
    study_of: StudyOf, finished: Any, warm_cache: Path, tmp_path: Path
) -> None:
    whole = estimate_study(finished.study, tmp_path)
    assert all(s.cached for s in whole.stages)
    assert (whole.forwards, whole.seconds, whole.disk_bytes) == (0, 0.0, 0)
    more = study_of(evidence={"draws": 299})
    part = {s.name: s for s in estimate_study(more, tmp_path).stages}
    assert [name for name, s in part.items() if not s.cached] == ["evidence"]


def test_sums_are_those_of_the_stages_and_nothing_is_written(
    finished: Any, cache: Path, tmp_path: Path
) -> None:
    estimate = estimate_study(finished.study, tmp_path / "run")
    assert [s.name for s in estimate.stages] == [t.stage.name for t in make_plan(finished.study)]
    assert estimate.forwards == sum(s.forwards for s in estimate.stages) > 0
    assert estimate.seconds == sum(s.seconds for s in estimate.stages) > 0
    assert estimate.disk_bytes == sum(s.disk_bytes for s in estimate.stages) > 0
    assert not (tmp_path / "run").exists()
    assert not cache.exists()


def test_sizes_are_of_the_right_order(study_of: StudyOf, cache: Path, tmp_path: Path) -> None:
    """With adapters as large as the tables beside them; every stage within a small factor."""
    study = study_of(training={"steps": 1, "lora": {"rank": 64}})
    expected = {s.name: s.disk_bytes for s in estimate_study(study, tmp_path / "run").stages}
    run_study(study, tmp_path / "run")
    adapter = (tmp_path / "run/agents/game/adapter_model.safetensors").stat().st_size
    assert expected["train-game"] == pytest.approx(2 * adapter, rel=0.1)
    held = StageCache(cache)
    real = {
        task.stage.name: sum(
            p.stat().st_size for p in held.folder(task.stage).iterdir() if p.suffix == ".parquet"
        )
        for task in make_plan(study)
    }
    tables = [name for name in expected if name != "train-game"]
    total = sum(real[name] for name in tables)
    assert total / 3 < sum(expected[name] for name in tables) < 3 * total


def test_more_work_is_estimated_as_more(study_of: StudyOf, cache: Path, tmp_path: Path) -> None:
    def work(**changes: object) -> tuple[int, int]:
        stages = estimate_study(study_of(**changes), tmp_path).stages
        return sum(s.forwards for s in stages), sum(s.disk_bytes for s in stages)

    usual = work()
    assert work(training={"steps": 20})[0] > usual[0] + 10
    assert work(training={"lora": {"rank": 64}})[1] > usual[1]
    assert work(mechanisms={"scenarios": 8})[0] > usual[0]


def test_a_study_for_a_device_of_another_machine_is_costed_all_the_same(
    study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))
    here = estimate_study(study_of(), tmp_path / "run")
    there = estimate_study(study_of(device="cuda:7"), tmp_path / "run")
    assert here.assumed is None
    assert there.assumed == ("cuda:7", 2e13)
    assert there.forwards == here.forwards
    assert there.seconds > 0.0


def test_a_device_that_no_machine_has_is_refused(study_of: StudyOf, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Nothing can be computed on the device 'cdua'"):
        estimate_study(study_of(device="cdua"), tmp_path / "run")
