"""A study with every method and setting: what its tables say, against other tables of the run.

Stages are computed apart from each other, so one table is an independent check of another: a full
swap is what the source itself decided, a last layer's path to the decision is its whole patch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from moralscope.core.errors import ConfigError, PromptError, ResourceError
from moralscope.core.progress import ProgressEvent
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import read_table
from moralscope.studies import (
    Estimate,
    RunSummary,
    Study,
    estimate_study,
    make_plan,
    run_study,
    workbench,
)

StudyOf = Callable[..., Study]

EVERYTHING: dict[str, Any] = {
    "scenarios": 2,
    "methods": [
        "lens", "attribution", "attribution_change", "patching", "approximations", "paths",
        "circuits",
    ],
    "pairs": [["base", "game"], ["game", "base"]],
    "positions": ["answer_span", "all"],
    "changes": ["opponent_previous"],
    "sites": ["head", "mlp", "attn"],
}  # fmt: skip
FEW: dict[str, Any] = {"games": ["IPD"], "wordings": [], "scenarios": False,
                       "table_orders": ["original"]}  # fmt: skip
HEADS = {f"L{layer}.h{head}" for layer in (0, 1) for head in range(4)}
MLPS = {"L0.mlp", "L1.mlp"}
SITES = HEADS | MLPS | {"L0.attn", "L1.attn"}
PAIRS = {("base", "game"), ("game", "base")}
SAME = pl.col("prompt") == pl.col("source_prompt")
TOLERANCE = 5e-5
"""Nats; what sums of float32 numbers in other orders may differ by."""


@dataclass(frozen=True)
class Whole:
    """A finished run of everything, what was expected of it and what it really ran."""

    study: Study
    out: Path
    cache: Path
    estimate: Estimate
    ran: Counter[str]
    summary: RunSummary

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")


def largest(values: pl.Series) -> float:
    """The largest size among some numbers; none may be missing."""
    return max(abs(float(value)) for value in values.to_list())


def count_forwards(study: Study, out: Path, patch: pytest.MonkeyPatch) -> Whole:
    """Run a study, counting each stage's passes through the last layer."""
    estimate = estimate_study(study, out)
    ran: Counter[str] = Counter()
    running = [""]
    forward = LlamaDecoderLayer.forward

    def counting(self: Any, *args: Any, **named: Any) -> Any:
        ran[running[0]] += self.self_attn.layer_idx == 1
        return forward(self, *args, **named)

    def watch(event: ProgressEvent) -> None:
        if event.task == "stage":
            running[0] = event.note

    patch.setattr(LlamaDecoderLayer, "forward", counting)
    summary = run_study(study, out, progress=watch)
    return Whole(study, out, out.parent / "cache", estimate, ran, summary)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, study_of: StudyOf) -> Whole:
    """One run of everything, not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        return count_forwards(study_of(mechanisms=EVERYTHING, prompts=FEW), folder / "run", patch)


def test_every_table_is_there_and_follows_its_schema(whole: Whole) -> None:
    found = {path.stem for path in (whole.out / "tables").iterdir()}
    assert found == {
        "agents", "comparisons", "prompts", "training", "diagnostics", "decisions", "policy",
        "cooperation", "transfer", "transfer_states", "trained_on", "learned", "lens",
        "lens_controls", "stabilisation", "stabilisation_summary",
        "attribution", "completeness", "patching", "directions", "approximations", "agreement",
        "edges", "circuits", "circuit_curves", "circuit_stability", "localisation", "controls",
        "replicas", "control_patches", "control_results", "gates", "design", "claims", "cascade",
        "questions",
    } <= set(SCHEMAS)  # fmt: skip
    # Reading checks the schema; nothing went wrong in this training.
    assert all(whole.table(name).height > 0 for name in found - {"diagnostics"})
    assert largest(whole.table("controls")["value"]) < TOLERANCE


def test_patches_are_of_every_pair_site_place_and_prompt(whole: Whole) -> None:
    patching = whole.table("patching")
    assert set(patching["site"]) == SITES | {"all"}
    own, crossed = patching.filter(SAME), patching.filter(~SAME)
    key = ["source", "target", "positions"]
    assert set(own.select(key).unique().rows()) == {
        (*pair, where) for pair in PAIRS for where in ("answer_span", "all")
    }
    assert set(own.group_by(key).len()["len"]) == {4 * (len(SITES) + 1)}
    # From changed prompts an agent is patched into itself as well: there it has an effect.
    assert set(crossed.select(key).unique().rows()) == {
        (*pair, where)
        for pair in (*PAIRS, ("base", "base"), ("game", "game"))
        for where in ("answer_span", "all")
    }
    assert set(crossed.group_by(key).len()["len"]) == {4 * (len(SITES) + 1)}
    assert min(patching.group_by("site").agg(pl.col("effect").abs().max())["effect"]) > 1e-4


def test_counterparts_differ_in_what_was_asked_for_and_are_listed(whole: Whole) -> None:
    listed = {row["prompt"]: row for row in whole.table("prompts").to_dicts()}
    crossed = whole.table("patching").filter(~SAME)
    pairs = set(crossed.select("prompt", "source_prompt").unique().rows())
    assert len(pairs) == 4
    for prompt, source in pairs:
        mine, theirs = listed[prompt], listed[source]
        assert mine["opponent_previous"] != theirs["opponent_previous"]
        for same in ("game", "template", "own_previous", "family"):
            assert mine[same] == theirs[same]


def test_the_full_swap_is_what_the_source_itself_decided(whole: Whole) -> None:
    decided = {
        (row["agent"], row["prompt"]): row["log_odds"]
        for row in whole.table("decisions").to_dicts()
    }
    swaps = whole.table("patching").filter(pl.col("site") == "all").to_dicts()
    assert len(swaps) == 2 * 4 * 2 + 4 * 4 * 2
    for row in swaps:
        source = decided[(row["source"], row["source_prompt"])]
        target = decided[(row["target"], row["prompt"])]
        assert row["baseline_log_odds"] == pytest.approx(target, abs=TOLERANCE)
        assert row["patched_log_odds"] == pytest.approx(source, abs=TOLERANCE)


def test_both_directions_are_compared_row_by_row(whole: Whole) -> None:
    effects = {
        (r["source"], r["prompt"], r["site"], r["positions"]): r["effect"]
        for r in whole.table("patching").filter(SAME).to_dicts()
    }
    directions = whole.table("directions").to_dicts()
    assert len(directions) == 4 * 2 * len(SITES)
    for row in directions:
        assert (row["agent_a"], row["agent_b"]) == ("base", "game")
        place = (row["prompt_a"], row["site"], row["positions"])
        there, back = effects[("base", *place)], effects[("game", *place)]
        assert (row["effect_a_to_b"], row["effect_b_to_a"]) == (there, back)
        assert row["symmetric"] + row["asymmetry"] == pytest.approx(there)


def test_the_change_of_attribution_is_split_without_remainder(whole: Whole) -> None:
    attribution = whole.table("attribution")
    key = ["prompt", "token", "site"]
    parts = {
        (agent, part): rows.select(*key, "contribution").sort(key)
        for (agent, part), rows in attribution.group_by("agent", "part")
    }
    assert set(parts) == {("base", "whole"), *(("game", p) for p in ("whole", "weights", "input"))}
    change = parts["game", "whole"]["contribution"] - parts["base", "whole"]["contribution"]
    weights, rest = (parts["game", part] for part in ("weights", "input"))
    assert weights.select(key).equals(parts["base", "whole"].select(key))
    assert weights.select(key).equals(rest.select(key))
    found = weights["contribution"] + rest["contribution"]
    assert largest(found - change) < 1e-6
    for part in (weights, rest):
        assert largest(part["contribution"]) > 1e-3
    # An adapter leaves the embedding as it is.
    embedded = weights.filter(pl.col("site") == "embed")
    assert largest(embedded["contribution"]) == pytest.approx(0.0, abs=1e-6)


def test_contributions_and_the_lens_end_at_the_decision(whole: Whole) -> None:
    decided = whole.table("decisions").select("agent", "prompt", "log_odds")
    attribution = whole.table("attribution").filter(pl.col("part") == "whole")
    summed = attribution.group_by("agent", "prompt").agg(pl.col("contribution").sum())
    lens = whole.table("lens").filter((pl.col("layer") == 1) & (pl.col("sublayer") == "mlp"))
    for table, column in ((summed, "contribution"), (lens, "logit_diff")):
        both = table.join(decided, on=["agent", "prompt"])
        assert both.height == 2 * 4
        assert largest(both[column] - both["log_odds"]) < TOLERANCE


def test_a_last_layers_path_is_its_patch_and_an_earlier_ones_is_not(whole: Whole) -> None:
    key = ["source", "target", "prompt", "site"]
    edges = whole.table("edges").rename({"sender": "site"})
    assert set(edges["site"]) == HEADS | MLPS
    assert set(edges.select("source", "target").rows()) == PAIRS
    exact = whole.table("patching").filter(SAME & (pl.col("positions") == "answer_span"))
    both = edges.join(exact, on=key, suffix="_patched")
    assert both.height == edges.height == 2 * 4 * len(HEADS | MLPS)
    gaps = both.select("site", gap=pl.col("effect") - pl.col("effect_patched"))
    last = pl.col("site") == "L1.mlp"
    assert largest(gaps.filter(last)["gap"]) < TOLERANCE
    assert largest(gaps.filter(~last)["gap"]) > 1e-3


def test_estimates_are_compared_with_the_exact_patches(whole: Whole) -> None:
    estimates = whole.table("approximations")
    assert set(estimates["site"]) == SITES
    exact = whole.table("patching").filter(SAME & (pl.col("positions") == "answer_span"))
    key = ["source", "target", "prompt", "site"]
    both = estimates.join(exact.select(*key, "effect"), on=key)
    agreement = whole.table("agreement").filter(pl.col("kind") == "all")
    assert agreement.height == 2 * 3
    for row in agreement.to_dicts():
        mine = both.filter(
            (pl.col("source") == row["source"]) & (pl.col("method") == row["method"])
        )
        assert row["n"] == mine.height == 4 * len(SITES)
        pearson = mine.select(pl.corr("estimate", "effect")).item()
        assert row["pearson"] == pytest.approx(pearson)
        assert row["pearson"] > 0.9


def test_circuits_agree_with_their_curves(whole: Whole) -> None:
    circuits = whole.table("circuits")
    assert set(circuits.select("source", "target").rows()) == PAIRS
    curves = whole.table("circuit_curves").filter(
        (pl.col("curve") == "faithfulness") & (pl.col("sets") == "circuit")
    )
    for row in circuits.filter(pl.col("circuit") == "first").to_dicts():
        sites = row["sites"].split("+")
        assert row["n_sites"] == len(sites) == len(set(sites))
        assert set(sites) <= HEADS | MLPS
        assert row["reached"] == (row["share"] >= 0.8)
        end = curves.filter(
            (pl.col("source") == row["source"]) & (pl.col("size") == row["n_sites"])
        )
        assert end["share"].to_list() == [pytest.approx(row["share"], abs=1e-4)]
    local = whole.table("localisation")
    assert set(local.select("unit", "n_units", "n_prompts").rows()) == {("scenario", 2, 4)}
    stable = whole.table("circuit_stability")
    assert set(stable.select("wording_a", "wording_b").rows()) == {
        ("table", "prose"), ("prose", "table"),
    }  # fmt: skip


def test_forwards_are_those_that_run_and_circuits_are_expected_to_take_some(whole: Whole) -> None:
    expected = {stage.name: stage.forwards for stage in whole.estimate.stages}
    searched = {name for name in expected if name.startswith("circuits-")}
    assert searched == {"circuits-base>game", "circuits-game>base"}
    for name in searched:
        assert expected[name] > 0
        assert whole.ran[name] > 0
    others = {name: count for name, count in expected.items() if name not in searched}
    assert {name: whole.ran[name] for name in others} == others
    assert sum(count for name, count in others.items() if name.startswith("cross-")) > 0


@pytest.mark.parametrize(
    "chosen",
    [
        {"methods": ["attribution", "attribution_change"]},
        {"methods": ["approximations", "paths"], "positions": ["answer_span"]},
        {"methods": ["patching"], "positions": ["all"], "sites": ["q", "k", "v", "resid_mid"]},
        {"methods": ["patching"], "write": "z", "changes": ["labels", "payoffs"]},
    ],
)
def test_forwards_are_those_that_run_whatever_is_chosen(
    whole: Whole, study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
) -> None:  # fmt: skip
    monkeypatch.setenv("MORALSCOPE_CACHE", str(whole.cache))  # training is there already
    study = study_of(mechanisms={"scenarios": 2, **chosen}, prompts=FEW)
    done = count_forwards(study, tmp_path / "run", monkeypatch)
    expected = {stage.name: stage.forwards for stage in done.estimate.stages}
    assert {name: done.ran[name] for name in expected} == expected
    assert done.estimate.forwards > 0
    if "write" in chosen:
        patching = done.table("patching")
        assert set(patching["write"]) == {"z"}
        assert patching.filter(~SAME)["prompt"].n_unique() == 4


def test_the_change_alone_brings_the_attribution_that_it_is_of(
    whole: Whole, study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(whole.cache))
    methods = {"scenarios": 2, "methods": ["attribution_change"]}
    run_study(study_of(mechanisms=methods, prompts=FEW), tmp_path / "run")
    alone = read_table("attribution", tmp_path / "run" / "tables")
    beside = whole.table("attribution")
    assert alone.select(pl.exclude("contribution")).equals(
        beside.select(pl.exclude("contribution"))
    )
    assert largest(alone["contribution"] - beside["contribution"]) < TOLERANCE


def test_a_second_run_computes_nothing(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(*args: object, **named: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setenv("MORALSCOPE_CACHE", str(whole.cache))
    monkeypatch.setattr(workbench, "load_model", no_weights)
    assert not any(run.cached for run in whole.summary.runs)
    # The memory that patches may use changes how they are computed and not what they say.
    less = whole.study.model_copy(
        update={"mechanisms": whole.study.mechanisms.model_copy(update={"memory_mib": 4096})}
    )
    for study in (whole.study, less):
        again = run_study(study, tmp_path / "again")
        assert again.stages == again.cached == len(make_plan(whole.study).tasks)
    tables = sorted(path.name for path in (whole.out / "tables").iterdir())
    assert tables == sorted(path.name for path in (tmp_path / "again" / "tables").iterdir())
    assert estimate_study(whole.study, tmp_path).forwards == 0


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"positions": ["all"], "memory_mib": 1},
         "Not even one row .* fits the memory budget. Seen: 1 MiB.*raise the budget"),
        ({"positions": ["deadline"]}, "deadline"),
        ({"changes": ["lables"]}, "lables.*'labels'"),
    ],
)  # fmt: skip
def test_what_cannot_be_patched_is_refused_before_anything_is_computed(
    study_of: StudyOf, cache: Path, tmp_path: Path,
    chosen: dict[str, Any], said: str,
) -> None:  # fmt: skip
    study = study_of(mechanisms={"scenarios": 2, "methods": ["patching"], **chosen}, prompts=FEW)
    kind = ResourceError if "memory_mib" in chosen else (ConfigError, PromptError)
    with pytest.raises(kind, match=said):
        estimate_study(study, tmp_path / "run")
    with pytest.raises(kind, match=said):
        run_study(study, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    assert not [path for path in cache.rglob("*") if path.is_file()]
