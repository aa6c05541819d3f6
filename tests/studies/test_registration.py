"""Registration: before, after, edited, removed, resumed; never by a look at the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import StageCache
from moralscope.core.tables import read_table
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.studies import Study, estimate_study, make_plan, run_study
from moralscope.studies.registration import (
    AFTER,
    BEFORE,
    ELSEWHERE,
    REMOVED,
    data_of,
    measuring,
    named_hypotheses,
)

StudyOf = Callable[..., Study]
Said = dict[str, object]

GROWS: Said = {"id": "grows", "quantity": "change", "agents": ["game"], "direction": "above"}
SHRINKS: Said = {"id": "shrinks", "quantity": "change", "agents": ["game"], "direction": "below"}
SAME: Said = {"id": "same", "quantity": "difference", "agents": ["game", "base"], "margin": 0.5}
PATCHED: Said = {
    "id": "place",
    "quantity": "patch_effect",
    "agents": ["base", "game"],
    "sites": ["L1.mlp"],
    "direction": "differs",
}


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def small(study_of: StudyOf) -> StudyOf:
    """The tiny study, decisions alone."""
    few = {"games": ["IPD"], "wordings": [], "scenarios": False, "table_orders": ["original"]}
    return lambda **changes: study_of(
        **({"prompts": few, "mechanisms": {"methods": []}, "controls": OFF} | changes)
    )


OFF = {"kernel": False, "dtype": False, "random_directions": 0, "planted": False}


def listed(out: Path) -> dict[str, tuple[bool, str]]:
    """Each hypothesis of a run: whether it is registered, and on what basis."""
    table = read_table("hypotheses", out / "tables")
    return {row["id"]: (row["registered"], row["basis"]) for row in table.iter_rows(named=True)}


def claims(out: Path) -> dict[str, dict[str, object]]:
    table = read_table("claims", out / "tables")
    named = table.filter(pl.col("id").str.starts_with("hypothesis:"))
    return {str(row["id"]).partition(":")[2]: row for row in named.iter_rows(named=True)}


def stop_at(stage: str) -> Callable[[ProgressEvent], None]:
    """A run that ends when a stage begins."""

    def stop(event: ProgressEvent) -> None:
        if event.task == "stage" and event.note == stage:
            raise StopHereError

    return stop


@dataclass(frozen=True)
class Ran:
    """A finished run with one registered hypothesis, not to be changed."""

    study: Study
    out: Path
    cache: Path


@pytest.fixture(scope="module")
def ran(small: StudyOf, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("registered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        run_study(small(hypotheses=[GROWS]), folder / "run")
    return Ran(small(hypotheses=[GROWS]), folder / "run", folder / "cache")


def now(study: Study, cache: Path, out: Path | None = None) -> dict[str, tuple[bool, str]]:
    """How the hypotheses of a study stand, without running it."""
    stages = [task.stage for task in make_plan(study)][:-1]
    named = named_hypotheses(study, stages, StageCache(cache), out)
    return {one.hypothesis.id: (one.registered, one.basis) for one in named}


def test_the_life_of_a_hypothesis(small: StudyOf, cache: Path, tmp_path: Path) -> None:
    """Named before, run, run again, joined by a late one, edited, removed."""
    out = tmp_path / "run"
    run_study(small(hypotheses=[GROWS, SAME]), out)
    assert listed(out) == {"grows": (True, BEFORE), "same": (True, BEFORE)}
    made = claims(out)
    assert {name: row["registered"] for name, row in made.items()} == {"grows": True, "same": True}
    assert {row["n_tests"] for row in made.values()} == {2}
    assert all(row["q"] is None for row in made.values())
    first = read_table("claims", out / "tables")

    again = run_study(small(hypotheses=[GROWS, SAME]), out)
    assert again.cached == again.stages
    assert read_table("claims", out / "tables").equals(first)

    run_study(small(hypotheses=[GROWS, SAME, SHRINKS]), out)
    assert listed(out)["shrinks"] == (False, AFTER)
    late = claims(out)["shrinks"]
    assert not late["registered"]
    assert AFTER in str(late["statement"])
    assert claims(out)["grows"]["n_tests"] == 2  # a late one does not join their correction

    run_study(small(hypotheses=[SAME | {"margin": 5.0}]), out)
    assert listed(out) == {
        "same": (False, AFTER),
        "grows": (True, REMOVED),
        "same.before-1": (True, REMOVED),
    }
    assert set(claims(out)) == {"same", "grows", "same.before-1"}
    assert claims(out)["grows"]["registered"]
    assert REMOVED in str(claims(out)["grows"]["statement"])
    assert claims(out)["grows"]["n_tests"] == 2  # dropping one does not ease the correction

    run_study(small(), out)
    assert {basis for _, basis in listed(out).values()} == {REMOVED}
    run_study(small(name="another"), tmp_path / "another")
    assert listed(tmp_path / "another")["grows"] == (True, ELSEWHERE)


def test_what_is_named_after_a_run_comes_too_late(small: StudyOf, ran: Ran) -> None:
    assert now(small(hypotheses=[GROWS, SHRINKS]), ran.cache) == {
        "grows": (True, BEFORE),
        "shrinks": (False, AFTER),
    }
    # Other training is other data, of which nothing was seen.
    assert now(small(hypotheses=[SHRINKS], seed=1), ran.cache) == {"shrinks": (True, BEFORE)}


def test_training_shows_nothing_and_an_interruption_neither(
    small: StudyOf, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StopHereError):
        run_study(small(hypotheses=[GROWS]), out, progress=stop_at("decide-game"))
    # Trained, and the base measured: of the agent itself nothing was seen.
    assert now(small(hypotheses=[GROWS]), cache) == {"grows": (True, BEFORE)}
    assert now(small(hypotheses=[SHRINKS]), cache) == {"shrinks": (True, BEFORE)}
    with pytest.raises(StopHereError):
        run_study(small(hypotheses=[SHRINKS]), out, progress=stop_at("behaviour"))
    # Taken back before anything was seen: nothing was dropped.
    assert now(small(hypotheses=[SHRINKS]), cache) == {"shrinks": (True, BEFORE)}
    assert now(small(hypotheses=[GROWS]), cache) == {
        "grows": (False, AFTER),
        "shrinks": (True, REMOVED),
    }


def test_looking_ahead_registers_nothing(small: StudyOf, cache: Path, tmp_path: Path) -> None:
    estimate_study(small(hypotheses=[GROWS]), tmp_path / "run")
    assert not (cache / "registrations").exists()


def test_a_run_folder_counts_as_measured_where_its_cache_is_gone(
    small: StudyOf, ran: Ran, cache: Path
) -> None:
    assert now(small(hypotheses=[SHRINKS]), cache, ran.out) == {"shrinks": (False, AFTER)}
    assert now(small(hypotheses=[SHRINKS], seed=1), cache, ran.out)["shrinks"] == (True, BEFORE)
    manifest = json.loads((ran.out / "manifest.json").read_text())
    assert set(manifest["measured"]) == {"decide-base", "decide-game"}


def test_a_damaged_record_registers_nothing(ran: Ran, tmp_path: Path) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(ran.cache, copied)
    (record,) = (copied / "registrations" / "named").iterdir()
    for damaged in ("{}", "[", json.dumps({"hypothesis": {"id": "x"}})):
        record.write_text(damaged)
        assert now(ran.study, copied) == {"grows": (False, AFTER)}


def test_neither_software_nor_machine_nor_names_make_new_data(study_of: StudyOf) -> None:
    agents = {"base": {}, "game": {"reward": "game"}}
    renamed = {"base": {}, "other": {"reward": "game"}}
    one = measuring(task.stage for task in make_plan(study_of(agents=agents)))
    two = measuring(task.stage for task in make_plan(study_of(agents=renamed, max_nodes=512)))
    assert one["decide-game"] == two["decide-other"]
    assert one["patch-base>game"] == two["patch-base>other"]
    assert one["decide-game"] != one["decide-base"]
    other = measuring(task.stage for task in make_plan(study_of(agents=agents, seed=1)))
    assert other["decide-game"] != one["decide-game"]
    assert not {"prompts", "train-game", "agents", "behaviour", "evidence"} & set(one)


def test_a_hypothesis_is_about_its_own_data(study_of: StudyOf) -> None:
    three = {"base": {}, "game": {"reward": "game"}, "virtue": {"reward": "deontological"}}
    study = study_of(agents=three, mechanisms={"scenarios": 2, "pairs": [["base", "game"]]})
    data = measuring(task.stage for task in make_plan(study))

    def of(**said: object) -> set[str]:
        return set(data_of(study, Hypothesis.model_validate({"id": "h", **said}), data))

    assert of(quantity="change", agents=["game"], direction="above") == {"decide-game"}
    assert of(quantity="difference", agents=["game", "base"], margin=1) == {"decide-game"}
    assert of(quantity="reward_change", rewards=["deontological"], direction="above") == {
        "decide-virtue"
    }
    level = {"contrast": "cooperation", "direction": "above"}
    assert of(quantity="contrast", agents=["base"], **level) == {
        "decide-base",
        "replicate-base",
    }
    shown = {name for name in data if name.endswith("-base>game")}
    assert of(**{k: v for k, v in PATCHED.items() if k != "id"}) == shown
    assert "patch-base>game" in shown


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (GROWS | {"agents": ["gmae"]}, "names the unknown agent 'gmae'.*did you mean 'game'"),
        (GROWS | {"agents": ["base"]}, "asks how the base changed"),
        (
            {"id": "r", "quantity": "reward_change", "rewards": ["gme"], "direction": "above"},
            "unknown reward 'gme'.*did you mean 'game'",
        ),
        (PATCHED | {"agents": ["game", "base"]}, "a pair that the study does not patch"),
        (PATCHED | {"sites": ["L1.attn"]}, "kind of site that the study does not patch"),
        (PATCHED | {"positions": "all"}, "patches that the study does not make.*answer_span"),
        (GROWS | {"quantity": "chnage"}, "quantity that does not exist.*did you mean 'change'"),
    ],
)
def test_what_a_study_cannot_answer_is_refused_when_it_is_read(
    settings: Said, said: Said, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(Study, settings | {"hypotheses": [said]}, "study.yaml")


def test_two_of_one_name_and_a_method_left_out_are_refused(settings: Said) -> None:
    def refused(words: str, **changes: object) -> None:
        with pytest.raises(ConfigError, match=words):
            validate(Study, settings | changes, "study.yaml")

    twice = [GROWS, GROWS | {"direction": "below"}]
    refused("Two hypotheses have the same name", hypotheses=twice)
    inside = {"id": "a", "quantity": "attribution_change", "agents": ["game"], "sites": ["L0.h1"]}
    refused(
        "add attribution under mechanisms.methods",
        hypotheses=[inside | {"margin": 1}],
        mechanisms={"methods": ["patching"]},
    )
    refused("a kind of site that has no contribution", hypotheses=[inside | {"margin": 1, "sites":
        ["L1.attn"]}])  # fmt: skip
    scripted = {"base": {}, "game": {"reward": "game"}, "copy": {"policy": "tit-for-tat"}}
    refused(
        "a scripted policy, which has no log-odds",
        agents=scripted,
        hypotheses=[GROWS | {"agents": ["copy"]}],
    )


APART: Said = {
    "id": "apart",
    "quantity": "levels_apart",
    "level": "weights",
    "rewards": ["game", "utilitarian"],
    "direction": "above",
}
TRAINED: dict[str, Said] = {
    "base": {},
    "own": {"reward": "game"},
    "sum": {"reward": "utilitarian", "seeds": 2},
}
TWO: Said = {
    "agents": TRAINED,
    "comparisons": {"morals": ["own", "sum"]},
    "mechanisms": {"methods": ["weights"]},
}


def test_a_level_needs_its_method_and_a_comparison_of_the_rewards(settings: Said) -> None:
    def refused(words: str, **changes: object) -> None:
        with pytest.raises(ConfigError, match=words):
            validate(Study, settings | TWO | {"hypotheses": [APART]} | changes, "study.yaml")

    refused(
        "a level that the study does not measure. Seen: wiring. Allowed: behaviour, weights. "
        "Next: add interactions under mechanisms.methods",
        hypotheses=[APART | {"level": "wiring"}],
    )
    refused(
        "unknown level 'weight'.*did you mean 'weights'", hypotheses=[APART | {"level": "weight"}]
    )
    refused("unknown reward 'duty'", hypotheses=[APART | {"rewards": ["game", "duty"]}])
    refused(
        "two rewards that the study does not compare. Seen: game and deontological. Allowed: game "
        "and utilitarian",
        agents=TRAINED | {"duty": {"reward": "deontological"}},
        hypotheses=[APART | {"rewards": ["game", "deontological"]}],
    )


def test_the_data_of_a_level_are_those_of_its_stages(study_of: StudyOf) -> None:
    """Decisions that are there already make no hypothesis about weights a late one."""
    found: dict[str, set[str]] = {}
    for level in ("weights", "behaviour"):
        study = study_of(**TWO, controls=OFF, hypotheses=[APART | {"level": level}])
        stages = [task.stage for task in make_plan(study)]
        found[level] = set(data_of(study, study.hypotheses[0], measuring(stages)))
    assert found == {
        "weights": {"weigh-own", "weigh-sum-0", "weigh-sum-1"},
        "behaviour": {"decide-own", "decide-sum-0", "decide-sum-1"},
    }


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PATCHED | {"sites": ["L7.mlp"]}, "unknown site 'L7.mlp'.*L0.mlp to L1.mlp: 2 layers"),
        (PATCHED | {"sites": ["L1.h9"]}, "unknown site 'L1.h9'"),
        (GROWS | {"labels": "action1/action3"}, "unknown label assignment.*action1/action2"),
        (
            {"id": "c", "quantity": "contrast", "contrast": "forgivness", "agents": ["game"],
             "direction": "above"},
            "unknown contrast 'forgivness'.*did you mean 'forgiveness'",
        ),
    ],
)  # fmt: skip
def test_what_neither_model_nor_prompts_have_is_refused_before_anything_is_computed(
    study_of: StudyOf, said: Said, words: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        run_study(study_of(hypotheses=[said]), tmp_path / "run")
    assert not (cache / "stages").exists()
