"""Representations in a study: its stages, its tables, its claims, and what they would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from moralscope.core.stage import StageCache
from moralscope.core.tables import read_table
from moralscope.evidence.explaining import explain_claim
from moralscope.studies import Estimate, Study, estimate_study, make_plan, run_study
from moralscope.studies.steps.representations import (
    probed_layers,
    searched_layers,
    searched_pairs,
)

StudyOf = Callable[..., Study]

AGENTS: dict[str, Any] = {
    "base": {},
    "game": {"reward": "game", "seeds": [0, 1]},
    "kind": {"reward": "utilitarian", "seeds": [0]},
}
FEW: dict[str, Any] = {"games": ["IPD", "ISH"], "wordings": [], "scenarios": False,
                       "table_orders": []}  # fmt: skip
SMALL: dict[str, Any] = {"depths": 2, "searched": 1, "dimensions": [1], "steps": 3,
                         "random_directions": 2}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A finished run, its cache, and what was expected of it."""

    study: Study
    out: Path
    cache: Path
    estimate: Estimate

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, study_of: StudyOf) -> Done:
    study = study_of(
        agents=AGENTS,
        comparisons={"rewards": ["game", "kind"]},
        mechanisms={"methods": ["representations"], "scenarios": 8, "representations": SMALL},
        controls={"kernel": False, "dtype": False},
        prompts=FEW,
    )
    folder = tmp_path_factory.mktemp("representations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        estimate = estimate_study(study, folder / "none")
        run_study(study, folder / "run")
    return Done(study, folder / "run", folder / "cache", estimate)


def test_stages_are_those_of_agents_a_random_model_and_judged_pairs(
    done: Done, study_of: StudyOf
) -> None:
    names = [task.stage.name for task in make_plan(done.study)]
    own = [n for n in names if n.startswith(("represent", "align"))]
    assert own == [
        "represent-base", "represent-game-0", "represent-game-1", "represent-kind-0",
        "represent:random", "representations", "align-kind-0>game-0",
    ]  # fmt: skip
    assert [pair.agents for pair in searched_pairs(done.study)] == [("game-0", "kind-0")]
    without = study_of(mechanisms={"methods": ["lens"]})
    assert not [t for t in make_plan(without) if t.stage.name.startswith("represent")]


def test_streams_of_all_pairs_are_compared_on_the_mechanism_prompts(done: Done) -> None:
    pairs = done.table("representation_pairs")
    found = set(pairs.select("agent_a", "agent_b").unique().rows())
    assert found == {
        ("game-0", "kind-0"), ("game-1", "kind-0"), ("game-0", "game-1"),
        ("base", "game-0"), ("base", "game-1"), ("base", "kind-0"),
    }  # fmt: skip
    assert pairs.get_column("prompt").n_unique() == 16
    assert pairs.filter(pl.col("layer") == -1).get_column("distance").max() == 0.0
    assert pairs.filter(pl.col("layer") == 1).get_column("distance").min() > 0.0
    similar = done.table("representation_similarity")
    assert set(similar.get_column("n")) == {8}
    assert similar.get_column("measure").n_unique() == 5


def test_probes_have_their_controls(done: Done) -> None:
    table = done.table("separations")
    agents = table.filter(what="agents")
    assert set(agents.get_column("subject")) == {
        "game-0|kind-0", "base|game-0", "base|kind-0", "game-0|game-1",
    }  # fmt: skip
    assert agents.get_column("random_model").null_count() == agents.height
    framing = table.filter(what="framing")
    assert framing.get_column("subject").n_unique() == 4
    # The two frames are other texts, so that even a model that has learned nothing tells them.
    assert framing.get_column("random_model").min() > 0.9
    rest = table.filter(~pl.col("what").is_in(["agents", "framing"]))
    assert {"labels", "opponent_previous"} <= set(rest.get_column("what"))
    changed = rest.filter(what="opponent_previous")
    assert set(changed.get_column("subject")) == {"base", "game-0", "kind-0"}
    assert set(changed.get_column("n_prompts")) == {32}
    assert rest.get_column("random_model").null_count() == 0
    assert table.get_column("null_p").min() >= 0.01
    assert {len(own) for _, own in table.group_by("what", "subject")} == {4}


def test_directions_are_exported_with_the_length_that_the_table_says(done: Done) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(done.cache))
        stage = next(t.stage for t in make_plan(done.study) if t.stage.name == "representations")
    stored = load_file(StageCache(done.cache).folder(stage) / "directions.safetensors")
    table = done.table("separations").filter(method="mean_difference")
    assert len(stored) == table.height
    for row in table.iter_rows(named=True):
        vector = stored[f"{row['what']} {row['subject']} L{row['layer']}"].double().numpy()
        assert np.linalg.norm(vector) == pytest.approx(row["direction"], rel=1e-5)


def test_directions_are_added_beside_random_ones_of_their_length(done: Done) -> None:
    table = done.table("direction_effects")
    assert set(table.get_column("draw")) == {-1, 0, 1}
    for _, own in table.group_by("what", "subject", "layer"):
        assert own.get_column("norm").n_unique() == 1
    between = table.filter(what="agents")
    assert set(between.select("subject", "agent").rows()) == {("game-0|kind-0", "game-0")}
    assert set(between.get_column("n")) == {4}


def test_subspaces_are_searched_in_agents_and_between_them_and_claimed(done: Done) -> None:
    table = done.table("subspaces")
    searches = set(table.select("what", "source", "agent").rows())
    assert searches == {
        ("opponent_previous", "base", "base"), ("opponent_previous", "game-0", "game-0"),
        ("opponent_previous", "kind-0", "kind-0"), ("agents", "kind-0", "game-0"),
    }  # fmt: skip
    effects = done.table("subspace_effects")
    assert effects.filter(what="agents").get_column("prompt").n_unique() == 16
    claims = done.table("claims")
    wanted = {
        "representation:game-0:kind-0", "representations:game:utilitarian",
        "subspace:agents:kind-0:game-0", "subspace:opponent_previous:base",
    }  # fmt: skip
    assert wanted <= set(claims.get_column("id"))
    tables = {p.stem: pl.read_parquet(p) for p in (done.out / "tables").iterdir()}
    for claim in wanted:
        assert explain_claim(tables, claims, tables["gates"], claim).agrees


def test_a_dry_run_expects_the_rows_and_passes_of_every_stage(done: Done) -> None:
    stages = {stage.name: stage for stage in done.estimate.stages}
    for name in ("represent-base", "represent:random", "align-kind-0>game-0"):
        assert stages[name].forwards > 0
    assert stages["representations"].forwards == 0
    assert stages["representations"].disk_bytes > 0


def test_layers_are_spread_and_the_last_is_probed_but_not_searched() -> None:
    assert probed_layers(30, 8) == [3, 7, 10, 14, 18, 21, 25, 29]
    assert probed_layers(2, 8) == [0, 1]
    assert searched_layers(30, 4) == [12, 17, 22, 28]
    assert searched_layers(2, 4) == [0, 1]


def test_too_few_scenarios_search_nothing_and_settings_out_of_range_are_refused(
    study_of: StudyOf,
) -> None:
    few = study_of(agents=AGENTS, mechanisms={"methods": ["representations"], "scenarios": 3})
    assert searched_pairs(few) == ()
    assert not [t for t in make_plan(few) if t.stage.name.startswith("align")]
    with pytest.raises(ValidationError, match=r"representations.dimensions"):
        study_of(mechanisms={"representations": {"dimensions": []}})
