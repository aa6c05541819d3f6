"""Component interactions in a study: what is asked, what is compared, what is patched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy import stats

from moralscope.core.tables import read_table
from moralscope.studies import Study, estimate_study, make_plan, run_study
from moralscope.studies.steps.interactions import interaction_prompts, traced_pairs

StudyOf = Callable[..., Study]
CHOSEN: dict[str, Any] = {
    "methods": ["interactions"],
    "scenarios": 3,
    "interactions": {"pathways": 2, "level": "head"},
}


@pytest.fixture(scope="module")
def study(study_of: StudyOf) -> Study:
    agents = {"base": {}, "game": {"reward": "game"}, "kind": {"reward": "utilitarian"}}
    return study_of(
        agents=agents,
        mechanisms=CHOSEN,
        controls={"kernel": False, "dtype": False},
        prompts={"games": ["IPD"], "wordings": [], "scenarios": False, "table_orders": []},
    )


@pytest.fixture(scope="module")
def run(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("MORALSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    out = tmp_path_factory.mktemp("run") / "run"
    run_study(study, out)
    patch.undo()
    return out


def table(run: Path, name: str) -> pl.DataFrame:
    return read_table(name, run / "tables")


def test_as_many_prompts_as_power_demands_spread_over_scenarios(study_of: StudyOf) -> None:
    """Two games have 64 prompts: a difference of .3 needs 178, one of 1.5 needs 10."""
    few = {**CHOSEN, "interactions": {"difference": 1.5}}
    asked = tuple(interaction_prompts(study_of(mechanisms=few)))
    assert len(asked) == 10
    assert len({prompt.scenario for prompt in asked}) == 8
    assert len(tuple(interaction_prompts(study_of(mechanisms=CHOSEN)))) == 64


def test_numbers_of_every_agent_prompt_and_site(run: Path) -> None:
    norms, pushes = table(run, "norms"), table(run, "projections")
    sites = norms["site"].n_unique()
    assert norms.height == pushes.height == 3 * 32 * sites
    assert norms["norm"].min() > 0.0
    assert set(norms["site"].unique()) >= {"L0.attn", "L0.mlp", "L0.h0"}


def test_correlations_are_those_of_the_numbers(run: Path) -> None:
    found = table(run, "interactions")
    for measure, (name, column) in {
        "norm_correlation": ("norms", "norm"),
        "projection_correlation": ("projections", "projection"),
    }.items():
        wide = table(run, name).filter(agent="game").pivot("site", index="prompt", values=column)
        for a, b in (("L0.mlp", "L1.attn"), ("L0.h1", "L1.h2"), ("L0.h3", "L1.mlp")):
            (row,) = found.filter(agent="game", site_a=a, site_b=b, measure=measure).rows(
                named=True
            )
            expected = stats.pearsonr(wide[a].to_numpy(), wide[b].to_numpy()).statistic
            assert row["value"] == pytest.approx(expected, abs=1e-10)
            assert row["n"] == 32


def test_networks_say_how_many_prompts_were_asked_and_needed(run: Path) -> None:
    networks = table(run, "interaction_networks")
    assert networks.height == 2 * 3  # game with kind, and each with the base
    assert set(networks["prompts"]) == {32}
    assert set(networks["prompts_needed"]) == {178}
    assert set(networks["scenarios"]) == {4}
    assert networks.filter(kind="named")["agent_a"].to_list() == ["game", "game"]


def test_the_claims_say_what_the_tables_say(run: Path) -> None:
    networks, claims = table(run, "interaction_networks"), table(run, "claims")
    for row in networks.iter_rows(named=True):
        suffix = ":projection" * row["measure"].startswith("projection")
        (claim,) = claims.filter(id=f"wiring:{row['agent_a']}:{row['agent_b']}{suffix}").rows(
            named=True
        )
        assert claim["estimate"] == row["changed"]
        assert claim["p"] == row["p"]
        assert claim["p_adjusted"] == row["p_adjusted"]


def test_pathways_stand_beside_their_effects_both_ways(run: Path) -> None:
    pathways, edges = table(run, "pathways"), table(run, "edges")
    prompts = table(run, "prompts")
    # Four sub-layers, six pathways at most; a pair that is correlated above .999 is not tested.
    counts = pathways.group_by("agent_a", "agent_b", "measure").agg(
        drawn=(pl.col("chosen_as") == "random").sum(),
        chosen=(pl.col("chosen_as") != "random").sum(),
    )
    assert counts.height == 3 * 2
    assert counts["drawn"].is_between(1, 2).all()
    assert counts["chosen"].is_between(1, 2).all()
    assert pathways.filter(pl.col("chosen_as") == "survivor")["survives"].all()
    assert edges.select("source", "target").unique().height == 6
    row = pathways.row(0, named=True)
    own = edges.filter(
        source=row["agent_b"], target=row["agent_a"], sender=row["sender"],
        receiver=row["receiver"],
    ).join(prompts, on="prompt")  # fmt: skip
    means = own.group_by("scenario").agg(pl.col("effect").mean())["effect"].to_numpy()
    assert len(means) == 3
    assert row["effect_b_to_a"] == pytest.approx(float(np.mean(means)), abs=1e-12)


def test_a_dry_run_counts_clean_runs_once_and_each_way_of_patching(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "none"))
    forwards = {s.name: s.forwards for s in estimate_study(study, tmp_path).stages}
    both, one, none = (forwards[f"follow-{p}"] for p in ("game>kind", "base>game", "base>kind"))
    assert none % 2 == 0
    assert both - none == 2 * (one - none) > 0
    assert forwards["interact-game"] >= 1
    assert forwards["wiring"] == 0


def test_without_pathways_none_are_patched(study_of: StudyOf) -> None:
    none = {**CHOSEN, "interactions": {"pathways": 0}}
    assert traced_pairs(study_of(mechanisms=none)) == ()
    names = [task.stage.name for task in make_plan(study_of(mechanisms=none))]
    assert "wiring" in names
    assert not [name for name in names if name.startswith("follow")]


def test_settings_out_of_range_are_refused(study_of: StudyOf) -> None:
    with pytest.raises(ValidationError, match="interactions.difference"):
        study_of(mechanisms={**CHOSEN, "interactions": {"difference": 0}})
