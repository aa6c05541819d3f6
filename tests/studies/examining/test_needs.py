"""What a study would need of this machine: files, packages, memory, disk, time, seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from moralscope.core.tables import read_table
from moralscope.evidence.designing.table import design_table
from moralscope.studies import Study
from moralscope.studies.doctor import Finding
from moralscope.studies.estimating import estimate
from moralscope.studies.estimating.estimate import Estimate, StageEstimate
from moralscope.studies.examining import needs, sources
from moralscope.studies.examining.design import design_findings, planned_design, planned_tables
from moralscope.studies.examining.memory import (
    RUNTIME,
    Dimensions,
    memory_needed,
    read_dimensions,
)
from moralscope.studies.examining.needs import examine_study
from moralscope.studies.examining.sources import Files, find_files

StudyOf = Callable[..., Study]


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_tiny_study_can_run_here_and_is_told_what_it_takes(
    study_of: StudyOf, cache: Path, tmp_path: Path
) -> None:
    found = by_name(examine_study(study_of(), tmp_path / "run"))
    assert [name for name, finding in found.items() if finding.ok is False] == []
    assert found["study"].value.startswith("2 agents, 1 trained here; lens, attribution,")
    assert found["base model"].value.endswith("here, 0.0 GiB")
    assert found["device"].value == "cpu"
    assert "a pass of patches 2.0 GiB" in found["memory for it"].value
    assert found["disk for it"].ok
    assert found["time"].value.startswith("about 0 min for ")
    assert found["claims about the reward game"].value == "not identified: 1 training seed"
    assert found["claims about the reward game"].advice.startswith("6 training seeds would do")
    assert not any(cache.rglob("stage.json"))


def test_what_is_cached_takes_moments(study_of: StudyOf, warm_cache: Path, tmp_path: Path) -> None:
    assert warm_cache.is_dir()
    assert by_name(examine_study(study_of(), tmp_path))["time"].value == "moments: all is cached"


def test_the_planned_design_is_that_of_the_run(finished: Any) -> None:
    """The oracle: the design of the finished run, judged from what was measured."""
    planned = planned_design(finished.study)
    real = read_table("design", finished.out / "tables")
    asked = ["checkpoints", "reward", "pair of rewards", "seeds"]
    columns = ["question", "subject", "unit", "n", "floor", "level", "needed", "identified"]

    def part(design: pl.DataFrame) -> list[tuple[object, ...]]:
        return design.filter(pl.col("question").is_in(asked)).select(columns).sort(columns).rows()

    assert part(planned) == part(real) != []


def seeds(study_of: StudyOf, count: int, **more: object) -> Study:
    agents = {
        "base": {},
        "duty": {"reward": "deontological", "seeds": count},
        "welfare": {"reward": "utilitarian", "seeds": count},
        "own": {"reward": "game"},
    }
    return study_of(agents=agents, **more)


def test_seeds_decide_which_rewards_can_be_told_apart(study_of: StudyOf) -> None:
    pair = {"frameworks": ["duty", "welfare"]}
    few = by_name(design_findings(seeds(study_of, 2, comparisons=pair)))
    many = by_name(design_findings(seeds(study_of, 5, comparisons=pair)))
    name = "claims about deontological against utilitarian"
    assert (few[name].ok, many[name].ok) == (None, True)
    assert "training seeds of each reward would do" in few[name].advice
    pairs = [n for n in many if " against " in n]
    assert pairs == [name]  # the only one that the study compares
    every = by_name(design_findings(seeds(study_of, 5)))
    assert len([n for n in every if " against " in n]) == 3


def test_a_hypothesis_that_the_seeds_cannot_answer_is_lacking(study_of: StudyOf) -> None:
    named = [
        {"id": "r", "quantity": "reward_change", "rewards": ["deontological"], "direction": "below"}
    ]
    found = by_name(design_findings(seeds(study_of, 2, hypotheses=named)))
    assert found["claims about the reward deontological"].ok is False
    assert found["claims about the reward utilitarian"].ok is None


def test_a_hypothesis_about_two_rewards_asks_for_their_seeds_alone(study_of: StudyOf) -> None:
    apart = {
        "id": "r", "quantity": "levels_apart", "level": "behaviour",
        "rewards": ["utilitarian", "deontological"], "direction": "above",
    }  # fmt: skip
    pair = {"frameworks": ["duty", "welfare"]}
    name = "claims about deontological against utilitarian"
    for count, ok in ((2, False), (5, True)):
        study = seeds(study_of, count, hypotheses=[apart], comparisons=pair)
        found = by_name(design_findings(study))
        assert found[name].ok is ok
        assert found["claims about the reward deontological"].ok is None


def test_planned_tables_hold_every_agent_on_every_prompt(study_of: StudyOf) -> None:
    tables = planned_tables(study_of())
    n = tables["prompts"].height
    assert tables["decisions"].height == 2 * n
    assert design_table({"agents": tables["agents"]}, alpha=0.05, draws=99).height > 0
    kinds = dict(tables["agents"].select("agent", "kind").iter_rows())
    assert kinds == {"base": "base", "game": "adapter"}


SMALL = Dimensions(
    layers=2, width=4, mlp=6, heads=2, head_dim=3, kv_heads=1, vocabulary=10, tied=True
)


def test_parameters_are_counted_matrix_by_matrix() -> None:
    matrices = [(4, 6), (4, 3), (4, 3), (6, 4), (4, 6), (4, 6), (6, 4)]  # q k v o gate up down
    assert SMALL.parameters == 2 * sum(a * b for a, b in matrices) + 10 * 4
    assert SMALL.linear_sides == 2 * sum(a + b for a, b in matrices)


def test_the_parts_of_the_memory_add_up(study_of: StudyOf) -> None:
    study = study_of(max_nodes=200)
    needed = memory_needed(study, SMALL, nodes=50)
    assert needed.weights == SMALL.parameters * 4
    assert needed.adapters == 1 * SMALL.linear_sides * 4 * 4  # one agent of rank 4
    assert needed.clean_runs == 2 * 50 * 2 * (2 * 1 * 3) * 4
    assert needed.patches == 2048 << 20
    rest = needed.peak - RUNTIME - needed.weights - needed.adapters
    assert rest == max(needed.training, needed.clean_runs + needed.patches)
    half = memory_needed(study_of(max_nodes=100), SMALL, nodes=50)
    assert needed.training == 2 * half.training > 0
    plain = study_of(mechanisms={"methods": []}, agents={"base": {}}, dtype="bfloat16")
    bare = memory_needed(plain, SMALL, nodes=50)
    assert bare.peak == RUNTIME + SMALL.parameters * 2


def test_dimensions_are_those_of_the_model(tiny_folder: Path, tmp_path: Path) -> None:
    sizes = read_dimensions(tiny_folder)
    assert sizes is not None
    told = json.loads((tiny_folder / "config.json").read_text())
    assert (sizes.layers, sizes.width) == (told["num_hidden_layers"], told["hidden_size"])
    (tmp_path / "config.json").write_text(json.dumps({"text_config": told}))
    assert read_dimensions(tmp_path) == sizes
    (tmp_path / "config.json").write_text("{}")
    assert read_dimensions(tmp_path) is None
    assert read_dimensions(tmp_path / "nowhere") is None


def test_too_little_memory_or_disk_is_lacking(
    study_of: StudyOf, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.exists()
    monkeypatch.setattr(needs, "memory_bytes", lambda: 2**30)
    usage = SimpleNamespace(total=10, used=0, free=10)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: usage)
    large = Estimate((StageEstimate("x", False, 1, 600.0, 2**30),))
    monkeypatch.setattr(estimate, "estimate_study", lambda *_: large)
    found = by_name(examine_study(study_of(), tmp_path))
    assert found["time"].value == "about 10 min for 1 stages"
    assert found["memory for it"].ok is False
    assert "lower mechanisms.memory_mib" in found["memory for it"].advice
    assert found["disk for it"].ok is False


def test_missing_files_are_named_with_a_remedy(
    study_of: StudyOf, tmp_path: Path, cache: Path
) -> None:
    assert not cache.exists()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    agents = {
        "base": {}, "gone": {"adapter": str(tmp_path / "gone")},
        "half": {"adapter": str(tmp_path / "half")}, "whole": {"checkpoint": str(tmp_path)},
        "far": {"adapter": "somebody/adapter"},
    }  # fmt: skip
    study = study_of(model=str(tmp_path / "nowhere"), agents=agents)
    found = by_name(examine_study(study, tmp_path))
    lacking = {name for name, finding in found.items() if finding.ok is False}
    assert lacking == {"base model", "adapter of gone", "adapter of half", "checkpoint of whole"}
    assert found["adapter of half"].value.endswith("without adapter_model.safetensors")
    assert found["adapter of far"].ok is None
    assert found["memory for it"].value == found["time"].value == "unknown"


def test_a_plan_that_cannot_be_made_is_lacking(
    study_of: StudyOf, tmp_path: Path, cache: Path
) -> None:
    assert not cache.exists()
    agents = {"base": {}, "mine": {"adapter": str(tmp_path / "mine")}}
    found = by_name(examine_study(study_of(agents=agents), tmp_path))
    assert found["plan"].ok is False
    assert found["plan"].value.startswith("The adapter of agent 'mine' was not found")


def test_a_device_that_is_not_here_is_lacking(study_of: StudyOf) -> None:
    (found,) = needs._device(study_of(device="cuda:99"))
    assert found.ok is False
    assert found.value.startswith("cuda:99: ")


def test_only_the_extras_that_a_study_uses_are_asked_for(
    study_of: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(needs._extras(study_of())) == []
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda _: None)
    (found,) = needs._extras(study_of(dtype="nf4"))
    assert (found.name, found.ok) == ("bitsandbytes", False)
    assert found.advice == 'pip install "moralscope[quantised]"'


def hub(answer: Callable[[], Any], cached: str | None = None) -> Any:
    class HubError(OSError):
        pass

    def model_info(*_: object, **__: object) -> Any:
        return answer()

    return SimpleNamespace(
        errors=SimpleNamespace(HfHubHTTPError=HubError),
        try_to_load_from_cache=lambda *_: cached,
        HfApi=lambda: SimpleNamespace(model_info=model_info),
    )


def test_the_hub_is_asked_for_the_size_of_what_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [
        SimpleNamespace(rfilename="a.safetensors", size=2**30),
        SimpleNamespace(rfilename="b.safetensors", size=2**29),
        SimpleNamespace(rfilename="a.bin", size=2**40),
    ]
    told = SimpleNamespace(siblings=files, gated="manual")
    monkeypatch.setattr(sources, "_hub", lambda: hub(lambda: told))
    found = find_files("somebody/model")
    assert (found.state, found.bytes) == ("to be downloaded", 3 * 2**29)
    assert found.advice == "accept its licence on the hub and log in first"

    def refuses() -> Any:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(sources, "_hub", lambda: hub(refuses))
    found = find_files("somebody/model")
    assert found.state == "missing"
    assert "(no route to host)" in found.advice
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    cached = hub(refuses, str(tmp_path / "config.json"))
    monkeypatch.setattr(sources, "_hub", lambda: cached)
    assert find_files("somebody/model") == Files("somebody/model", "here", tmp_path, 4)
    monkeypatch.setattr(sources, "_hub", lambda: None)
    assert "install the extra" in find_files("somebody/model").advice


def test_the_packaged_model_is_known_before_it_is_converted(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(sources, "_packaged", lambda: True)
    found = find_files("default")
    assert (found.state, found.bytes) == ("in a package", sources.DEFAULT_BYTES)
    folder = cache / "models" / "smollm2-135m-instruct-0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find_files("default").state == "here"
