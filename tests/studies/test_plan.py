"""Plans: what depends on what, and that keys change exactly when results would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moralscope.core.stage import StageCache
from moralscope.studies import Study, make_plan, run_study

StudyOf = Callable[..., Study]
AGENTS: dict[str, Any] = {
    "base": {},
    "a": {"reward": "game"},
    "b": {"reward": "hybrid"},
}
PAIRS: dict[str, Any] = {"scenarios": 4, "pairs": [["base", "a"], ["a", "b"]]}


def keys(study: Study) -> dict[str, str]:
    return {task.stage.name: task.stage.key for task in make_plan(study)}


def test_every_stage_comes_after_those_it_needs(study_of: StudyOf) -> None:
    plan = make_plan(study_of(agents=AGENTS, mechanisms=PAIRS))
    names = [task.stage.name for task in plan]
    assert names == [
        "prompts", "replicate-base", "train-a", "train-b", "agents", "comparisons",
        "decide-base", "decide-a", "decide-b",
        "explain-base", "explain-a", "explain-b",
        "patch-base>a", "patch-a>b", "patch-a>a", "patch-b>b",
        "control-base>a", "control-a>b", "behaviour", "evidence",
    ]  # fmt: skip
    for at, task in enumerate(plan):
        assert set(task.stage.needs) <= set(names[:at])
        assert [t.stage.name for t in plan.needs(task)] == [
            n for n in names if n in task.stage.needs
        ]
        assert dict(task.stage.needs) == {t.stage.name: t.stage.key for t in plan.needs(task)}
    assert len(set(keys(plan.study).values())) == len(names)


def test_a_stage_needs_only_what_it_reads(study_of: StudyOf) -> None:
    plan = make_plan(study_of(agents=AGENTS, mechanisms=PAIRS))
    needs = {task.stage.name: set(task.stage.needs) for task in plan}
    assert needs["train-a"] == set()
    assert needs["agents"] == {"train-a", "train-b"}
    assert needs["decide-base"] == {"prompts"}
    assert needs["decide-a"] == {"prompts", "train-a"}
    assert needs["explain-b"] == {"train-b"}
    assert needs["patch-base>a"] == {"train-a"}
    assert needs["patch-a>b"] == {"train-a", "train-b"}
    assert needs["control-a>b"] == {"train-a", "train-b", "patch-a>b"}
    assert needs["replicate-base"] == set()
    assert "replicate-base" not in needs["behaviour"]
    everything = set(needs) - {"behaviour", "evidence"}
    assert needs["behaviour"] >= {"prompts", "agents", "decide-base", "decide-a", "decide-b"}
    assert needs["evidence"] == everything | {"behaviour"}


A_AND_ON = {"train-a", "agents", "decide-a", "explain-a", "patch-base>a", "patch-a>b",
            "patch-a>a", "control-base>a", "control-a>b", "behaviour", "evidence"}  # fmt: skip
TRAINED = A_AND_ON | {"train-b", "decide-b", "explain-b", "patch-b>b"}
MEASURED = {"prompts", "decide-base", "decide-a", "decide-b", "behaviour", "evidence"}
CONTROLS = {"control-base>a", "control-a>b"}
PATCHES = {"patch-base>a", "patch-a>b", "patch-a>a", "patch-b>b"} | CONTROLS
MECHANISMS = {"explain-base", "explain-a", "explain-b"} | PATCHES
ALL = TRAINED | MEASURED | MECHANISMS | {"replicate-base"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"name": "another"}, set()),
        ({"agents": AGENTS | {"a": {"reward": "game", "training": {"steps": 3}}}}, A_AND_ON),
        ({"agents": AGENTS | {"a": {"reward": "game", "seed": 4}}}, A_AND_ON),
        ({"training": {"steps": 5}}, TRAINED),
        ({"evidence": {"draws": 299}}, {"evidence"}),
        ({"evidence": {"draws": 199, "alpha": 0.01}}, {"evidence"}),
        ({"mechanisms": PAIRS | {"scenarios": 2}}, MECHANISMS | {"behaviour", "evidence"}),
        ({"mechanisms": PAIRS | {"self_patch_prompts": 1}}, PATCHES | {"behaviour", "evidence"}),
        ({"mechanisms": PAIRS | {"memory_mib": 100}}, set()),
        ({"mechanisms": PAIRS | {"sites": ["attn"]}}, PATCHES | {"behaviour", "evidence"}),
        ({"mechanisms": PAIRS | {"positions": ["all"]}}, PATCHES | {"behaviour", "evidence"}),
        ({"mechanisms": PAIRS | {"write": "z"}}, PATCHES | {"behaviour", "evidence"}),
        ({"controls": {"prompts": 3}}, CONTROLS | {"behaviour", "evidence"}),
        ({"controls": {"random_directions": 1}}, CONTROLS | {"behaviour", "evidence"}),
        ({"controls": {"kernel": False}}, {"replicate-base", "evidence"}),
        ({"max_nodes": 512}, ALL),
        ({"dtype": "bfloat16"}, ALL),
        # Another seed trains anew and draws anew; the base is measured as it was.
        ({"seed": 1}, TRAINED),
    ],
)
def test_keys_change_exactly_where_results_would(
    study_of: StudyOf, change: dict[str, Any], changed: set[str]
) -> None:
    before = keys(study_of(agents=AGENTS, mechanisms=PAIRS))
    after = keys(study_of(**({"agents": AGENTS, "mechanisms": PAIRS} | change)))
    assert {name for name in before if before[name] != after[name]} == changed


def test_more_prompts_change_what_is_measured_and_not_what_is_trained(
    study_of: StudyOf, settings: dict[str, Any]
) -> None:
    prompts = settings["prompts"] | {"wordings": ["rounds", "market"]}
    common = {"agents": AGENTS, "mechanisms": PAIRS}
    before, after = keys(study_of(**common)), keys(study_of(**common, prompts=prompts))
    assert {name for name in before if before[name] != after[name]} == MEASURED


def test_other_model_files_change_every_stage(study_of: StudyOf, other_folder: Path) -> None:
    before, after = keys(study_of()), keys(study_of(model=str(other_folder)))
    unchanged = {name for name in before if before[name] == after[name]}
    assert unchanged == {"comparisons"}  # names of pairs alone


def test_a_frozen_opponent_is_known_by_its_weights(study_of: StudyOf, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    weights = tmp_path / "adapter_model.safetensors"
    agents = {"base": {}, "one": {"reward": "game", "opponent": f"agent({tmp_path})"}}
    weights.write_bytes(b"first")
    before = keys(study_of(agents=agents))
    assert keys(study_of(agents=agents)) == before
    weights.write_bytes(b"second")
    assert keys(study_of(agents=agents))["train-one"] != before["train-one"]


def test_the_number_of_threads_is_part_of_the_key(
    study_of: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = keys(study_of())
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    three = keys(study_of())
    assert one["decide-base"] != three["decide-base"]


def test_methods_choose_the_stages(study_of: StudyOf) -> None:
    lens = {t.stage.name for t in make_plan(study_of(mechanisms={"methods": ["lens"]}))}
    assert {"explain-base", "explain-game"} <= lens
    assert not any(name.startswith("patch-") for name in lens)
    patching = {t.stage.name for t in make_plan(study_of(mechanisms={"methods": ["patching"]}))}
    assert not any(name.startswith("explain-") for name in patching)
    assert {"patch-base>game", "patch-game>game"} <= patching


def test_controls_choose_their_stages(study_of: StudyOf) -> None:
    def chosen(**controls: Any) -> set[str]:
        names = {task.stage.name for task in make_plan(study_of(controls=controls))}
        return {name for name in names if name.startswith(("replicate-", "control-"))}

    assert chosen() == {"replicate-base", "control-base>game"}
    assert chosen(kernel=False) == chosen(dtype=False) == chosen(planted=False) == chosen()
    assert chosen(kernel=False, dtype=False) == {"control-base>game"}
    assert chosen(random_directions=0, planted=False) == {"replicate-base"}
    itself = study_of(mechanisms={"pairs": [["base", "game"], ["game", "game"]]})
    names = {task.stage.name for task in make_plan(itself)}
    assert {"patch-game>game", "control-base>game"} <= names
    assert "control-game>game" not in names


def test_studies_share_what_they_have_in_common(
    study_of: StudyOf, cache: Path, tmp_path: Path
) -> None:
    run_study(study_of(name="one"), tmp_path / "one")
    agents = {"base": {}, "game": {"reward": "game"}, "more": {"reward": "hybrid"}}
    second = run_study(study_of(name="two", agents=agents), tmp_path / "two")
    reused = {r.name for r in second.runs if r.cached}
    assert reused == {
        "prompts", "replicate-base", "train-game", "decide-base", "decide-game", "explain-base",
        "explain-game", "patch-base>game", "patch-game>game", "control-base>game",
    }  # fmt: skip
    held = StageCache(cache)
    assert all(held.record(t.stage) is not None for t in make_plan(study_of(agents=agents)))


def test_studies_of_different_games_share_their_agents(
    study_of: StudyOf, settings: dict[str, Any]
) -> None:
    both, one = (
        keys(study_of(prompts=prompts))
        for prompts in (settings["prompts"], settings["prompts"] | {"games": ["IPD"]})
    )
    assert both["train-game"] == one["train-game"]
    assert both["decide-game"] != one["decide-game"]
