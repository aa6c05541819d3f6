"""Other libraries: asked right, read right, scaled right, and null with a reason where absent."""

from __future__ import annotations

import re
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from benchmarks.adapters import SOURCE, TARGET, agents
from benchmarks.libraries import compare
from benchmarks.peer_jobs import FullModels, full_models
from benchmarks.peer_process import NNSIGHT, TRANSFORMERLENS, Peer, PeerError, driver_command
from benchmarks.run import other_libraries
from benchmarks.sampling import spread, spread_cells, spread_sites
from benchmarks.settings import QUICK, Settings

from moralscope.core.site import every_site
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster
from moralscope.models.scoring import score

ROOT = Path(__file__).parents[2]
STAND_IN = (sys.executable, str(Path(__file__).with_name("plain_driver.py")))
ABSENT = "needs nnsight in an environment of its own"
SETTINGS = replace(
    QUICK, repeats=2, long_repeats=2, sampled_heads=3, sampled_mlps=2, sampled_layers=2
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[FullModels, Roster]:
    folder = tmp_path_factory.mktemp("pair")
    place = str(tiny.save_base(folder / "model"))
    base, again = (load_model(locate_model(place)) for _ in range(2))
    roster = agents(base, 4, folder)
    return full_models(again.model, folder / SOURCE, again.source.folder), roster


@pytest.fixture(scope="module")
def entries(
    pair: tuple[FullModels, Roster], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    commands = {TRANSFORMERLENS: STAND_IN, NNSIGHT: ABSENT}
    prompts = tiny.token_prompts(4)
    folder = tmp_path_factory.mktemp("job")
    return compare(*pair, prompts, SETTINGS, commands=commands, folder=folder)


KEYS = ("answer_span_vs_transformerlens", "all_position_vs_transformerlens")


@pytest.mark.parametrize("key", KEYS)
def test_the_sampled_patches_are_the_same_numbers(entries: dict[str, Any], key: str):
    found = entries[key]["deviation"]
    assert found["largest_effect_in_sample"] > 1e-2  # else agreement would mean nothing
    for name in found.keys() - {"largest_effect_in_sample", "allowed"}:
        assert found[name] < found["allowed"] == 1e-4


@pytest.mark.parametrize("key", KEYS)
def test_the_median_forward_is_scaled_to_the_whole_sweep(entries: dict[str, Any], key: str):
    entry = entries[key]
    forwards = entry["turns"]["peer, each forward"]
    sites = 3 * 5 if key.startswith("answer_span") else 3 * 2
    assert entry["measured_forwards"] == len(forwards) == len(entry["sample"]) * SETTINGS.repeats
    assert entry["scaled_to"] == sites * 4
    assert entry["peer_seconds"] == pytest.approx(statistics.median(forwards) * sites * 4)
    assert entry["ratio"] == pytest.approx(entry["peer_seconds"] / entry["ours_seconds"])
    ours, theirs = entry["clean_run_seconds"].values()
    whole = (entry["peer_seconds"] + theirs * 8) / (entry["ours_seconds"] + ours)
    assert entry["ratio_with_clean_runs"] == pytest.approx(whole)
    for other in ("logits_of_the_last_token_alone", "adapters_on"):
        assert 0 < entry[other]["ratio"] != entry["ratio"]
    assert entry["threads"] == torch.get_num_threads()
    assert entry["versions"]["torch"] == torch.__version__


def test_a_library_that_is_absent_is_null_with_the_reason(entries: dict[str, Any]):
    assert entries["answer_span_vs_nnsight"] == {"ratio": None, "reason": ABSENT}


def test_options_of_several_tokens_are_not_compared(
    pair: tuple[FullModels, Roster], tmp_path: Path
):
    commands = dict.fromkeys((TRANSFORMERLENS, NNSIGHT), STAND_IN)
    prompts = tiny.token_prompts(2, forms="multi")
    found = compare(*pair, prompts, QUICK, commands=commands, folder=tmp_path)
    assert {str(entry["reason"]) for entry in found.values()} == {
        "needs options of one token each, which drivers read"
    }


def test_the_source_is_a_copy_with_the_adapter_merged(pair: tuple[FullModels, Roster]):
    models, roster = pair
    prompts = tiny.token_prompts(3)
    names = {name for name, _ in models.target.named_modules()}
    assert not [name for name in names if "lora" in name]
    assert [name for name, _ in roster.base.model.named_modules() if "lora" in name]
    with roster.speaking(SOURCE) as model:
        expected = score(model, prompts).log_odds
    merged, plain = (score(m, prompts).log_odds for m in (models.source, models.target))
    assert merged == pytest.approx(expected, abs=1e-5)
    assert abs(merged - plain).min() > 1e-3
    with roster.speaking(TARGET) as model:
        assert abs(score(model, prompts).log_odds - expected).min() > 1e-3


@pytest.mark.parametrize(
    ("program", "limit", "reason"),
    [
        ("raise SystemExit('no such library')", 60, "it ended with: no such library"),
        ("import time; time.sleep(60)", 0.5, "needs an answer within 0.5 s"),
        ("print('{}', flush=True); raise SystemExit('lost')", 60, "it ended with: lost"),
    ],
)
def test_a_driver_that_fails_says_why(program: str, limit: float, reason: str, tmp_path: Path):
    command = (sys.executable, "-c", program)
    peer = Peer(command, tmp_path / "job.json", log=tmp_path / "log", limit=limit)
    try:
        assert peer.ask(do="clean") is None
        assert reason in str(peer.problem)
        assert peer.ask(do="clean") is None
    finally:
        peer.close()


def test_a_failing_driver_makes_its_keys_null(pair: tuple[FullModels, Roster], tmp_path: Path):
    failing = (sys.executable, "-c", "raise SystemExit('no such library')")
    commands = dict.fromkeys((TRANSFORMERLENS, NNSIGHT), failing)
    found = compare(*pair, tiny.token_prompts(2), QUICK, commands=commands, folder=tmp_path)
    assert len(found) == 3
    for entry in found.values():
        assert entry["ratio"] is None
        assert "no such library" in str(entry["reason"])


def test_a_partial_environment_is_not_taken_for_a_whole_one(tmp_path: Path):
    python = tmp_path / "bin" / "python"
    for step in ("nothing", "python", "stamp"):
        if step == "python":
            python.parent.mkdir()
            python.touch()
        if step == "stamp":
            (tmp_path / ".ready").touch()
            expected = (str(python), "-m", "benchmarks.peers.by_nnsight")
            assert driver_command(NNSIGHT, tmp_path) == expected
        else:
            with pytest.raises(PeerError, match="needs nnsight in an environment of its own"):
                driver_command(NNSIGHT, tmp_path)


def test_a_quick_run_leaves_other_libraries_out():
    assert Settings().peers
    told = other_libraries(QUICK)
    assert {library.name: "quick" in str(told[library]) for library in told} == {
        "TransformerLens": True,
        "nnsight": True,
    }


def test_samples_are_spread_over_depth_and_prompts():
    sites = every_site("head", "mlp", n_layers=30, n_heads=9, n_kv_heads=3)
    chosen = [sites[i] for i in spread_sites(sites, {"head": 6, "mlp": 3})]
    assert [s.layer // 5 for s in chosen if s.kind == "head" and s.layer is not None] == [*range(6)]
    assert [s.layer // 10 for s in chosen if s.kind == "mlp" and s.layer is not None] == [0, 1, 2]
    assert [c.prompt for c in spread_cells(sites, {"head": 5}, (0, 8))] == [0, 8, 0, 8, 0]
    assert spread(16, 4) == (0, 4, 8, 12)
    assert spread(3, 4) == (0, 1, 2)


def test_drivers_import_nothing_of_this_package():
    drivers = sorted((ROOT / "benchmarks/peers").glob("*.py"))
    assert len(drivers) == 4
    for driver in drivers:
        assert not re.findall(r"^ *(?:from|import) moralscope", driver.read_text(), re.MULTILINE)


def test_libraries_are_pinned_beside_the_project_and_never_against_it():
    def pins(file: str) -> dict[str, str]:
        lines = (ROOT / file).read_text().splitlines()
        split = (line.split("==") for line in lines if not line.startswith("#"))
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in split}

    ours, theirs = pins("constraints.txt"), pins("constraints-peers.txt")
    assert not ours.keys() & theirs.keys()
    assert theirs["transformer-lens"].startswith("4.3.")
    assert theirs["nnsight"].startswith("0.8.")
    named = re.findall(r"\(call PEER_PIN,([\w-]+)\)", (ROOT / "Makefile").read_text())
    assert named == ["torch", "transformer-lens", "nnsight"]  # torch first and alone
