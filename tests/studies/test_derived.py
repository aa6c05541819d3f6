"""Agents that follow from others: states of a training on its way, and trainings of parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from moralscope.core.errors import ConfigError
from moralscope.evidence.pairs import Pair
from moralscope.studies import Study, make_plan, read_study, run_study
from moralscope.studies.study import compared, label_of, study_yaml, training_config

StudyOf = Callable[..., Study]

SEEDS = {"base": {}, "game": {"reward": "game", "seeds": 2}}
MECHANISMS = {
    "scenarios": 4,
    "methods": ["attribution", "attribution_change", "patching", "interactions"],
    "pairs": [["game-0", "base"]],
}


def test_an_entry_with_seeds_is_an_agent_for_each(study_of: StudyOf, tmp_path: Path) -> None:
    study = study_of(agents={"base": {}, "game": {"reward": "game", "seeds": [3, 5]}})
    assert list(study.agents) == ["base", "game-3", "game-5"]
    assert [e.seed for e in study.agents.values()] == [None, 3, 5]
    file = tmp_path / "again.yaml"
    file.write_text(study_yaml(study))
    assert read_study(file) == study  # what a run saves means the same


@pytest.mark.parametrize("seeds", [0, True, [1, 1], [-1], "5", []])
def test_seeds_that_are_none_are_refused(study_of: StudyOf, seeds: object) -> None:
    with pytest.raises(ValidationError, match="The seeds of agent 'game' cannot be used"):
        study_of(agents={"base": {}, "game": {"reward": "game", "seeds": seeds}})


def test_seed_and_seeds_together_are_refused(study_of: StudyOf) -> None:
    with pytest.raises(ValidationError, match="has both seed and seeds"):
        study_of(agents={"base": {}, "game": {"reward": "game", "seeds": 2, "seed": 1}})


def test_two_agents_of_one_name_are_refused(study_of: StudyOf) -> None:
    entry = {"reward": "game", "seeds": 2}
    with pytest.raises(ValidationError, match="Two agents of the study have one name"):
        study_of(agents={"base": {}, "game": entry, "game-1": {"reward": "game"}})


def test_comparisons_are_spelt_out_over_seeds(study_of: StudyOf) -> None:
    agents = {
        "base": {},
        "game": {"reward": "game", "seeds": 2},
        "kind": {"reward": "utilitarian", "seeds": 2},
    }
    study = study_of(agents=agents, comparisons={"rewards": ["game", "kind"]})
    assert set(compared(study)) == {
        Pair("rewards", "named", "game-0", "kind-0", True),
        Pair("rewards", "named", "game-1", "kind-1", True),
        Pair("rewards", "named", "game-0", "kind-1", False),
        Pair("rewards", "named", "game-1", "kind-0", False),
        Pair("seeds", "replicate", "game-0", "game-1", True),
        Pair("seeds", "replicate", "kind-0", "kind-1", True),
        *(Pair("base", "base", "base", n) for n in ("game-0", "game-1", "kind-0", "kind-1")),
    }


@pytest.mark.parametrize(
    ("comparisons", "message"),
    [
        ({"x": ["game", "nobody"]}, "names an agent that the study does not have"),
        ({"x": ["game-0", "game"]}, "compares an agent with itself"),
        ({"seeds": ["base", "game"]}, "A comparison cannot have this name"),
        ({"x": ["game", "rule"]}, "names a scripted policy"),
    ],
)
def test_comparisons_of_nothing_are_refused(
    study_of: StudyOf, comparisons: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        study_of(agents={**SEEDS, "rule": {"policy": "grim"}}, comparisons=comparisons)


def test_states_of_a_training_are_agents(study_of: StudyOf, tmp_path: Path) -> None:
    study = study_of(
        agents={"base": {}, "game": {"reward": "game"}},
        course={"of": ["game"], "steps": [1, 2]},
        mechanisms={"scenarios": 4, "methods": ["attribution"]},
    )
    assert list(study.agents) == ["base", "game", "game-step1", "game-step2"]
    assert label_of(study, "game-step1") == "game until step 1"
    assert training_config(study, "game-step1") is None
    run_study(study, tmp_path / "run")
    decisions = pl.read_parquet(tmp_path / "run/tables/decisions.parquet")
    odds = {n: decisions.filter(agent=n).sort("prompt")["log_odds"] for n in study.agents}
    assert odds["game-step2"].equals(odds["game"])  # two steps are all of this training
    assert (odds["game-step1"] - odds["base"]).abs().max() > 1e-6
    assert not odds["game-step1"].equals(odds["game"])
    read = pl.read_parquet(tmp_path / "run/tables/attribution.parquet")
    assert set(read["agent"]) == set(study.agents)


def test_parts_are_chosen_trained_and_compared(study_of: StudyOf, tmp_path: Path) -> None:
    by = ["patching", "attribution", "pathways", "random", "early", "late"]
    study = study_of(
        agents=SEEDS,
        mechanisms=MECHANISMS,
        targeted={"of": "game", "by": by, "budgets": [1, 2]},
    )
    run_study(study, tmp_path / "run")
    tables = {p.stem: pl.read_parquet(p) for p in (tmp_path / "run/tables").iterdir()}
    targets, kept = tables["targets"], tables["targeting"]
    assert targets.height == 2 * len(by) * (1 + 2)
    effects = tables["patching"].filter(pl.col("site") != "all")
    means = effects.group_by("site").agg(pl.col("effect").mean())
    summed: dict[str, float] = {}
    for site, mean in means.iter_rows():
        name = site if site.endswith("mlp") else f"{site.split('.')[0]}.attn"
        summed[name] = summed.get(name, 0.0) + mean
    best = max(summed, key=lambda name: abs(summed[name]))
    assert set(targets.filter(strategy="patching", rank=0)["site"]) == {best}
    followed = tables["pathways"].filter(agent_a="base", agent_b="game-0")
    ends: dict[str, float] = {}
    for row in followed.iter_rows(named=True):
        effect = max(abs(row["effect_a_to_b"] or 0.0), abs(row["effect_b_to_a"] or 0.0))
        for end in (row["sender"], row["receiver"]):
            ends[end] = max(ends.get(end, 0.0), effect)
    first = set(targets.filter(strategy="pathways", rank=0)["site"])
    assert len(first) == 1
    assert ends[first.pop()] == max(ends.values())
    whole = kept.filter(strategy="all")
    assert whole["behaviour_kept"].to_list() == pytest.approx([1.0, 1.0])
    assert whole["chosen_here"].to_list() == [True, False]
    assert kept.height == 2 * (1 + 2 * len(by))
    parts = kept.filter(pl.col("strategy") != "all")
    assert (parts["share"] < 1).all()
    assert parts["behaviour_kept"].is_not_null().all()
    # The share by least squares through the origin, from the decisions alone.
    clusters = tables["prompts"].filter(family="clusters").select("prompt")
    odds = tables["decisions"].join(clusters, on="prompt").sort("prompt")
    of = {n: odds.filter(agent=n)["log_odds"].to_numpy() for n in study.agents}
    for row in kept.iter_rows(named=True):
        moved, whole_way = (of[row[key]] - of["base"] for key in ("agent", "of"))
        slope = np.linalg.lstsq(whole_way[:, None], moved, rcond=None)[0][0]
        assert row["behaviour_kept"] == pytest.approx(slope, abs=1e-9)
    # What was trained is what was chosen: adapters stand beside those layers alone.
    for row in parts.iter_rows(named=True):
        sites = targets.filter(of=row["of"], strategy=row["strategy"], budget=row["budget"])[
            "site"
        ].to_list()
        keys = load_file(tmp_path / "run/agents" / row["agent"] / "adapter_model.safetensors")
        found = {(key.split(".layers.")[1].split(".")[0], ".mlp." in key) for key in keys}
        assert found == {(site[1 : site.index(".")], site.endswith("mlp")) for site in sites}
    # As many of each kind at random as by the analysis: as many parameters.
    sizes = {s: kept.filter(strategy=s, budget=2)["parameters"].to_list() for s in by}
    assert sizes["random"] == sizes["patching"]


def test_a_choice_needs_its_analysis(study_of: StudyOf) -> None:
    study = study_of(
        agents=SEEDS, mechanisms={"scenarios": 4, "methods": ["patching"]}, targeted={"of": "game"}
    )
    with pytest.raises(ConfigError, match="the study does not make the analysis"):
        make_plan(study)


def test_a_choice_by_attribution_needs_it_split(study_of: StudyOf) -> None:
    study = study_of(
        agents=SEEDS,
        mechanisms={"scenarios": 4, "methods": ["attribution"]},
        targeted={"of": "game", "by": ["attribution"]},
    )
    with pytest.raises(ConfigError, match="targeted.by without explain-game-0"):
        make_plan(study)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"course": {"of": ["nobody"], "steps": [1]}}, "course.of names an agent that is not"),
        ({"course": {"of": ["game"], "steps": [1, 1]}}, "course.steps names a number twice"),
        ({"targeted": {"of": "base"}}, "targeted.of names an agent that is not trained"),
        ({"targeted": {"of": "game", "budgets": [2, 2]}}, "targeted.budgets names a number"),
    ],
)
def test_what_follows_from_nothing_is_refused(
    study_of: StudyOf, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        study_of(agents=SEEDS, **changes)
