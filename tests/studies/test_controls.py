"""Controls of a study: the base once more, and vectors in the place of patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.core.progress import silent
from moralscope.core.tables import read_table
from moralscope.models.loading import load_model, locate_model
from moralscope.models.scoring import score
from moralscope.studies import Study, read_study
from moralscope.studies.catalogue import mechanism_prompts
from moralscope.studies.choices.controls import ControlChoice, spread
from moralscope.studies.steps import controls as control_steps
from moralscope.studies.steps.context import Context
from moralscope.studies.steps.controls import controlled_members, replica_prompts, replicate
from moralscope.studies.workbench import Workbench

StudyOf = Callable[..., Study]


def replicas(study: Study, folder: Path) -> tuple[pl.DataFrame, Workbench]:
    """The stage by itself."""
    folder.mkdir()
    bench = Workbench(study, locate_model(study.model))
    replicate(Context(folder, folder / "work", {}, bench, silent))
    return read_table("replicas", folder), bench


def narrow_log_odds(study: Study) -> np.ndarray:
    """Log-odds of a float32 base whose stored weights were rounded to bfloat16."""
    loaded = load_model(locate_model(study.model))
    stored = {name: value.bfloat16() for name, value in loaded.model.state_dict().items()}
    loaded.model.load_state_dict(stored)
    encoded = Workbench(study, locate_model(study.model)).encoded(replica_prompts(study))
    return score(loaded.model, encoded, max_nodes=study.max_nodes).log_odds


def test_the_base_is_measured_under_another_kernel_and_in_another_dtype(finished: Any) -> None:
    table = read_table("replicas", finished.out / "tables")
    prompts = replica_prompts(finished.study)
    assert len(prompts) == 64  # eight scenarios of two games
    assert set(table.group_by("agent", "change", "setting").len().rows()) == {
        ("base", "kernel", "eager", 64),
        ("base", "dtype", "bfloat16", 64),
    }
    decided = read_table("decisions", finished.out / "tables").filter(agent="base")
    joined = table.join(decided.select("prompt", decided="log_odds"), on="prompt")
    assert joined.height == 128
    assert (joined["reference_log_odds"] - joined["decided"]).abs().max() < 5e-5
    kernel, dtype = (
        table.filter(change=change).select(gap=pl.col("log_odds") - pl.col("reference_log_odds"))
        for change in ("kernel", "dtype")
    )
    assert 0.0 < kernel["gap"].abs().max() < 5e-5
    assert dtype["gap"].abs().max() > 1e-3
    found = table.filter(change="dtype")["log_odds"].to_numpy()
    assert np.abs(found - narrow_log_odds(finished.study)).max() < 1e-6


def test_replicas_take_every_scenario_in_both_label_assignments(finished: Any) -> None:
    prompts = replica_prompts(finished.study)
    assert len({prompt.scenario for prompt in prompts}) == 8
    assert len({prompt.labels for prompt in prompts}) == 2
    assert len({prompt.template for prompt in prompts}) == 2


def test_the_stage_leaves_no_model_behind(study_of: StudyOf, tmp_path: Path) -> None:
    table, bench = replicas(study_of(controls={"dtype": False}), tmp_path / "kernel")
    assert table["change"].unique().to_list() == ["kernel"]
    # The next stage loads the base anew: this one may have been rounded.
    assert bench._base is None
    table, bench = replicas(study_of(controls={"kernel": False}), tmp_path / "dtype")
    assert table["change"].unique().to_list() == ["dtype"]
    assert bench._base is None
    first = next(load_model(bench.source).model.parameters())
    assert (next(bench.base().model.parameters()) == first).all()


def test_a_model_that_was_rounded_is_forgotten_even_if_scoring_fails(
    study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    study = study_of()
    bench = Workbench(study, locate_model(study.model))
    monkeypatch.setattr(control_steps, "score", fail)
    with pytest.raises(KeyboardInterrupt):
        replicate(Context(tmp_path, tmp_path, {}, bench, silent))
    assert bench._base is None


def test_a_narrow_base_is_compared_with_the_wide_one(study_of: StudyOf, tmp_path: Path) -> None:
    study = study_of(dtype="bfloat16", controls={"kernel": False})
    table, bench = replicas(study, tmp_path / "out")
    assert table.select("change", "setting").unique().rows() == [("dtype", "float32")]
    wide = load_model(bench.source)
    encoded = bench.encoded(replica_prompts(study))
    expected = score(wide.model, encoded, max_nodes=study.max_nodes).log_odds
    assert table["log_odds"].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert (table["log_odds"] - table["reference_log_odds"]).abs().max() > 1e-3


def test_patched_pairs_are_controlled_and_judged(finished: Any) -> None:
    table = read_table("control_patches", finished.out / "tables")
    members = controlled_members(finished.study)
    asked = [p.name for p in mechanism_prompts(finished.study)]
    assert set(table["prompt"]) == {asked[member] for member in members}
    assert table.select("source", "target").unique().rows() == [("base", "game")]
    random = table.filter(control="random_direction")
    assert random.height == len(members) * 10 * 2  # sites of two layers, draws
    patching = read_table("patching", finished.out / "tables")
    joined = random.join(patching.select("prompt", "site", patched="effect"), on=["prompt", "site"])
    assert joined.height == random.height
    assert (joined["source_effect"] == joined["patched"]).all()
    judged = {
        (row["control"], row["subject"]): row
        for row in read_table("control_results", finished.out / "tables").iter_rows(named=True)
    }
    assert judged["planted_write", "base>game"]["passed"] is True
    assert judged["planted_write", "base>game"]["measured"] == pytest.approx(1.0, abs=1e-3)
    assert judged["numerical", "kernel base"]["passed"] is True
    assert judged["numerical", "dtype base"]["n"] == 64
    assert {subject for control, subject in judged if control == "shuffled"} == {
        "changes from base", "patching base>game",
    }  # fmt: skip
    gates = read_table("gates", finished.out / "tables").filter(gate="control")
    assert gates.height == len(judged)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=80).map(lambda xs: [f"s{x}" for x in xs]),
    st.integers(1, 40),
)
def test_prompts_are_spread_over_as_many_scenarios_as_can_be(
    scenarios: Sequence[str], most: int
) -> None:
    chosen = spread(scenarios, most)
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(range(len(scenarios)))
    assert 1 <= len(chosen) <= most
    counts = [sum(scenarios[i] == s for i in chosen) for s in dict.fromkeys(scenarios)]
    assert sum(count > 0 for count in counts) == min(len(counts), most)
    each = max(1, most // min(len(counts), most))
    sizes = [scenarios.count(s) for s in dict.fromkeys(scenarios)]
    if len(counts) <= most:
        assert counts == [min(each, size) for size in sizes]


def test_controls_are_read_from_the_study_file_and_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    head = "agents: {base: {}}\n"
    file.write_text(head)
    assert read_study(file).controls == ControlChoice()
    assert (ControlChoice().of_base, ControlChoice().of_patches) == (True, True)
    file.write_text(head + "controls: {kernel: false, dtype: false, random_directions: 0}\n")
    read = read_study(file).controls
    assert (read.of_base, read.of_patches, read.planted) == (False, True, True)
    file.write_text(head + "controls: {kernels: false}\n")
    with pytest.raises(ConfigError, match="kernels.*'kernel'"):
        read_study(file)
    file.write_text(head + "controls: {random_directions: -1}\n")
    with pytest.raises(ConfigError, match="random_directions"):
        read_study(file)
