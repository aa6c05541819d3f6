"""The comparisons themselves: every key measured, peers right, the floor counted right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from benchmarks.adapters import SOURCE, TARGET, agents
from benchmarks.arithmetic import SpanSize, linear_operations, sweep_operations
from benchmarks.plain import log_odds, option_by_option, pad, padded_log_p, patch_by_hook, plain_run
from benchmarks.run import KEYS, main, other_libraries, run_benchmarks
from benchmarks.settings import QUICK
from benchmarks.timing import take_turns
from torch.utils.flop_counter import FlopCounterMode

from moralscope.core.site import parse_site
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.tables import sweep_prompt
from moralscope.models.anatomy import dissect

MEASURED = tuple(k for k in KEYS if "transformerlens" not in k and "nnsight" not in k)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32))
    folder = tmp_path_factory.mktemp("agents")
    return run_benchmarks(base, QUICK, folder, others=other_libraries(QUICK))


def test_every_key_has_a_finite_ratio_or_a_reason(results: dict[str, Any]):
    for key in KEYS:
        entry = results["details"][key]
        assert results[key] == entry["ratio"]
        if key in MEASURED:
            assert math.isfinite(entry["ratio"])
            assert entry["ratio"] > 0
            assert entry["ours_seconds"] > 0
            assert entry["peer_seconds"] > 0
            assert entry["adapters"].startswith("on, un-merged")
        else:
            assert entry["ratio"] is None
            assert "needs" in entry["reason"]
    assert json.loads(json.dumps(results)) is not None


def test_ratios_are_those_of_the_stated_times(results: dict[str, Any]):
    for key in MEASURED:
        entry = results["details"][key]
        ours, peer = entry["ours_seconds"], entry["peer_seconds"]
        lower = key == "attribution_cost_in_tree_forwards"
        assert entry["ratio"] == pytest.approx(ours / peer if lower else peer / ours)


def test_attribution_is_that_of_every_agent(results: dict[str, Any]):
    entry = results["details"]["attribution_cost_in_tree_forwards"]
    each = entry["each_agent"]
    assert list(each) == [SOURCE, TARGET]
    assert min(each.values()) <= entry["ratio"] <= max(each.values())
    assert 0 < entry["deviation"]["max_abs_completeness_error"] < 1e-5


def test_clean_runs_are_counted_on_both_sides(results: dict[str, Any]):
    entry = results["details"]["answer_span_vs_hooks"]
    clean = entry["clean_run_seconds"]
    whole = {
        way: entry[side] + sum(seconds for name, seconds in clean.items() if name.startswith(way))
        for way, side in (("rows", "ours_seconds"), ("hooks", "peer_seconds"))
    }
    assert len(clean) == 4
    assert entry["ratio_with_clean_runs"] == pytest.approx(whole["hooks"] / whole["rows"])


def test_fast_and_plain_agree(results: dict[str, Any]):
    details = results["details"]
    span = details["answer_span_vs_hooks"]["deviation"]
    assert span["max_abs_log_odds_over_sample"] < span["allowed"]
    assert span["abs_log_odds_of_clean_target"] < 1e-4
    assert span["largest_effect_in_sample"] > 1e-2  # else agreement would mean nothing
    training = details["training_step_vs_padded"]
    assert 0 < training["deviation"]["gradient_relative"] < 1e-3
    assert training["bfloat16"]["gradient_relative_to_float32"] > 1e-4  # it was in bfloat16
    for key in ("scoring_vs_padded", "scoring_vs_option_by_option"):
        for entry in (details[key], *details[key]["others"].values()):
            assert entry["deviation"]["max_abs_log_odds"] < 1e-4
            tokens = entry["tokens"]
            assert tokens["tree"] < tokens["batch"] <= tokens["batch_with_padding"]
    attribution = details["attribution_cost_in_tree_forwards"]["deviation"]
    assert attribution["max_abs_completeness_error"] < 1e-4


def test_heads_and_mlps_are_sampled(results: dict[str, Any]):
    told = results["details"]["answer_span_vs_hooks"]["sample"]
    sites = [parse_site(name.partition(" of prompt ")[0]) for name in told]
    assert sorted(site.kind for site in sites) == ["head", "head", "mlp"]
    assert len(set(sites)) == 3


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tiny.save_base(tmp_path / "model")
    out = tmp_path / "results.json"
    assert main(["--quick", "--model", str(folder), "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert set(KEYS) < set(written)
    assert written["environment"]["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    assert json.loads(printed[: printed.rindex("\n}") + 2]) == written
    assert "answer_span_vs_nnsight               not measured" in printed


def test_a_model_that_is_not_there_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "results.json"
    assert main(["--quick", "--model", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "This is not a model folder" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("forms", ["single", "multi", "several"])
def test_peers_score_as_a_plain_call_does(forms: str):
    model = tiny.tiny_model("llama", dtype=torch.float32)
    prompts = tiny.token_prompts(4, forms=forms)
    expected = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
    batch = pad(prompts)
    with torch.no_grad():
        assert log_odds(padded_log_p(model, batch)).tolist() == pytest.approx(expected, abs=1e-4)
    assert log_odds(option_by_option(model, prompts)).tolist() == pytest.approx(expected, abs=1e-4)
    if forms == "single":
        assert len(batch.tokens) == len(prompts)  # options share their prompt's row


@pytest.mark.parametrize("forms", ["single", "several"])
def test_hooks_patch_every_site_as_rows_do(forms: str, tmp_path: Path):
    roster = agents(tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32)), 4, tmp_path)
    (prompt,) = tiny.token_prompts(1, forms=forms)
    anatomy = roster.anatomy(TARGET)
    plain, clean = {}, {}
    for name in (SOURCE, TARGET):
        with roster.speaking(name) as model:
            plain[name] = plain_run(model, anatomy, prompt)
            clean[name] = run_clean(name, model, anatomy, [prompt])
    assert abs(plain[SOURCE].log_odds - plain[TARGET].log_odds) > 1e-2
    sites = anatomy.component_sites
    with roster.speaking(TARGET) as model:
        hooked = [
            patch_by_hook(model, anatomy, prompt, s, source=plain[SOURCE], target=plain[TARGET])
            for s in sites
        ]
        itself = patch_by_hook(
            model, anatomy, prompt, sites[0], source=plain[TARGET], target=plain[TARGET]
        )
        _, rows = sweep_prompt(
            model, anatomy, clean[SOURCE], clean[TARGET], member=0,
            interventions=[Intervention((site,)) for site in sites],
        )  # fmt: skip
    assert itself == pytest.approx(plain[TARGET].log_odds, abs=5e-5)
    assert hooked == pytest.approx(rows.tolist(), abs=1e-4)
    assert len({round(value, 6) for value in hooked}) == len(sites)


def test_operations_are_those_that_torch_counts(tmp_path: Path):
    roster = agents(tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32)), 4, tmp_path)
    with roster.speaking(TARGET) as model:
        anatomy = dissect(model)
        block = anatomy.blocks[1]
        with FlopCounterMode(display=False) as counter:
            block.mlp(torch.randn(1, 7, anatomy.width))
        assert 7 * linear_operations(block.mlp) == counter.get_total_flops()
        with_adapters = linear_operations(block.layer)
    assert with_adapters > linear_operations(tiny.tiny_model("llama").model.layers[1])


def test_the_floor_counts_only_what_a_row_needs():
    anatomy = dissect(tiny.tiny_model("llama", dtype=torch.float32))
    size = SpanSize(span=1, prefix=9, option_tokens=2)
    mlp = 2 * 3 * 32 * 48
    layer = mlp + 2 * 32 * (32 + 16 + 16 + 32) + 4 * 10 * 32
    read = 2 * 2 * 32

    def floor(*sites: str) -> int:
        return sweep_operations(anatomy, [parse_site(s) for s in sites], size)

    assert floor("L2.mlp") == read
    assert floor("L2.h1") == mlp + read
    assert floor("L0.h1") == mlp + 2 * layer + read
    assert floor("L0.mlp", "L1.h0") == 3 * layer + mlp + 2 * read


def test_jobs_take_turns_and_the_first_turn_does_not_count():
    calls: list[str] = []

    def job(name: str) -> int:
        calls.append(name)
        return len(calls)

    timed = take_turns({"a": lambda: job("a"), "b": lambda: job("b")}, 3)
    assert "".join(calls) == "abababab"
    assert timed["b"].result == 2
    assert [len(t.seconds) for t in timed.values()] == [3, 3]
    assert timed["a"].median == sorted(timed["a"].seconds)[1]
