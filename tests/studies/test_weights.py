"""Weight updates in a study: which stages there are, what they write, and what it would take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from moralscope.core.tables import read_table
from moralscope.evidence.explaining import explain_claim
from moralscope.studies import Study, estimate_study, make_plan, run_study
from moralscope.studies.steps.weights import overlapped, updated

StudyOf = Callable[..., Study]
CHOSEN: dict[str, Any] = {"methods": ["weights"], "scenarios": 2}
AGENTS: dict[str, Any] = {"base": {}, "game": {"reward": "game"}, "kind": {"reward": "utilitarian"}}


@pytest.fixture(scope="module")
def study(study_of: StudyOf) -> Study:
    return study_of(
        agents=AGENTS,
        mechanisms={**CHOSEN, "weights": {"tops": [1, 2], "spectrum": 3}},
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


def test_every_agent_has_a_stage_and_all_comparisons_one(study: Study, study_of: StudyOf) -> None:
    names = [task.stage.name for task in make_plan(study)]
    assert [n for n in names if n.startswith("weigh") or n == "overlap"] == [
        "weigh-game", "weigh-kind", "overlap",
    ]  # fmt: skip
    alone = study_of(agents={"base": {}, "game": {"reward": "game"}}, mechanisms=CHOSEN)
    assert "overlap" not in [task.stage.name for task in make_plan(alone)]
    without = study_of(mechanisms={"methods": ["lens"]})
    assert not [t for t in make_plan(without) if t.stage.name.startswith(("weigh", "overlap"))]


def test_norms_are_those_of_the_adapters_that_were_trained(run: Path) -> None:
    norms = table(run, "update_norms")
    assert norms.get_column("agent").unique(maintain_order=True).to_list() == ["game", "kind"]
    factors = load_file(run / "agents" / "game" / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    b, a = (factors[key.format(x)].double().numpy() for x in "BA")
    dw = 2.0 * b @ a  # alpha 8 over rank 4
    row = norms.filter(agent="game", layer=1, module="mlp.down_proj").row(0, named=True)
    assert row["norm"] == pytest.approx(np.linalg.norm(dw), rel=1e-9)
    assert row["n_parameters"] == b.size + a.size
    spectrum = table(run, "update_spectra").filter(agent="game", layer=1, module="mlp.down_proj")
    expected = np.linalg.svd(dw, compute_uv=False)[: spectrum.height]
    assert spectrum.get_column("singular_value").to_list() == pytest.approx(expected, rel=1e-6)
    assert table(run, "update_spectra").get_column("index").max() <= 3


def test_comparisons_and_directions_are_there_and_claims_rest_on_them(run: Path) -> None:
    overlap, distances = table(run, "update_overlap"), table(run, "update_distances")
    assert set(overlap.get_column("k")) <= {1, 2}
    assert distances.select("agent_a", "agent_b").unique().rows() == [("game", "kind")]
    directions = table(run, "update_directions")
    assert set(directions.get_column("side")) == {"writes", "reads"}
    assert directions.get_column("axis").n_unique() == 1
    claims = table(run, "claims").get_column("id").to_list()
    for name in ("update:game", "writes:kind", "reads:game", "overlap:game-kind:outputs"):
        assert name in claims
    tables = {path.stem: pl.scan_parquet(path) for path in (run / "tables").glob("*.parquet")}
    for name in claims:
        if name.partition(":")[0] in ("update", "writes", "reads", "overlap", "weights", "moved"):
            assert explain_claim(tables, table(run, "claims"), table(run, "gates"), name).agrees
    gates = table(run, "gates").filter(gate="update")
    assert gates.select("subject", "passed").rows() == [("game", True), ("kind", True)]


def test_agents_of_one_seed_are_seen_to_have_begun_alike(run: Path) -> None:
    """Both were trained from the same seed, so both read what the same random A let them."""
    reach = table(run, "update_distances").get_column("reach")
    assert reach.min() > 0.9


def test_pairs_between_seeds_are_compared_and_the_base_is_not(study_of: StudyOf) -> None:
    seeds = {
        "base": {},
        "game": {"reward": "game", "seeds": [0, 1]},
        "kind": {"reward": "utilitarian", "seeds": [0, 1]},
    }
    both = study_of(agents=seeds, mechanisms=CHOSEN, comparisons={"rewards": ["game", "kind"]})
    assert len(updated(both)) == 4
    pairs = {frozenset(pair) for pair in overlapped(both)}
    assert len(pairs) == 6
    assert not any("base" in pair for pair in pairs)


def test_a_dry_run_needs_no_forward_and_counts_what_is_taken_apart(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "none"))
    stages = {s.name: s for s in estimate_study(study, tmp_path).stages}
    for name in ("weigh-game", "overlap"):
        assert stages[name].forwards == 0
        assert stages[name].seconds > 0.0
        assert stages[name].disk_bytes > 0


def test_settings_out_of_range_are_refused(study_of: StudyOf) -> None:
    with pytest.raises(ValidationError, match=r"weights.tops"):
        study_of(mechanisms={**CHOSEN, "weights": {"tops": [0]}})
