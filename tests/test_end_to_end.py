"""A small variant of the demo on the real default model: from the command line to the page."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import torch
import yaml

from moralscope.cli.main import main
from moralscope.core.errors import ModelError
from moralscope.core.hashing import sha256_file
from moralscope.core.stage import cache_folder
from moralscope.core.tables import read_table
from moralscope.models.libraries import peft, renamed_properties_tolerated, transformers
from moralscope.models.loading import locate_model

pytestmark = pytest.mark.slow

STUDY: dict[str, object] = {
    "name": "small demo",
    "agents": {"base": {}, "game": {"reward": "game"}},
    "training": {"steps": 2, "labels": "both", "compute_dtype": "bfloat16"},
    "prompts": {
        "games": ["IPD", "ISH"],
        "wordings": ["rounds"],
        "scenarios": False,
        "table_orders": ["original"],
    },
    "mechanisms": {"scenarios": 4},
    "evidence": {"draws": 199},
}


@dataclass(frozen=True)
class Run:
    """A finished run, its study file and the folder of the model."""

    out: Path
    study: Path
    model: Path
    code: int

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run in a stage cache of its own; the converted model is borrowed from the user's."""
    try:
        model = locate_model().folder
    except ModelError as absent:  # neither package nor network: nothing to run on
        pytest.fail(f"the default model is needed: {absent}")
    folder = tmp_path_factory.mktemp("end to end")
    (folder / "cache").mkdir()
    if (cache_folder() / "models").is_dir():
        (folder / "cache" / "models").symlink_to(cache_folder() / "models")
    study = folder / "small.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    # In a process of its own, as from a shell: the peak of its memory is that of the run alone.
    done = subprocess.run(
        [sys.executable, "-m", "moralscope", "run", str(study), "--out", str(folder / "run")],
        env={**os.environ, "MORALSCOPE_CACHE": str(folder / "cache")},
        check=False,
    )
    return Run(folder / "run", study, model, done.returncode)


@pytest.fixture
def own_cache(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(run.out.parent / "cache"))


@pytest.fixture(scope="module")
def reading() -> ModuleType:
    """The reader of pages that the tests of reports use."""
    path = Path(__file__).parent / "reports" / "report_reading.py"
    spec = importlib.util.spec_from_file_location("page_reading", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["page_reading"] = module
    spec.loader.exec_module(module)
    return module


def test_all_that_was_promised_is_there(run: Run) -> None:
    assert run.code == 0
    assert {p.name for p in run.out.iterdir()} >= {
        "agents", "claims.json", "figures", "logs", "manifest.json", "report.html", "report.json",
        "study.yaml", "tables",
    }  # fmt: skip
    assert (run.out / "agents" / "game" / "adapter_model.safetensors").is_file()
    manifest = json.loads((run.out / "manifest.json").read_text())
    for name, said in manifest["tables"].items():
        assert said["rows"] == run.table(name).height  # read_table checks the schema
        assert said["sha256"] == sha256_file(run.out / "tables" / f"{name}.parquet")
    assert manifest["peak_memory_gib"] < 4
    figures = {p.suffix for p in (run.out / "figures").iterdir()}
    assert {".json", ".svg", ".png"} <= figures


def test_the_page_is_whole_and_safe(run: Run, reading: ModuleType) -> None:
    page = reading.read_page(run.out)
    policies = [
        e.attributes["content"]
        for e in page.all("meta")
        if (e.attributes.get("http-equiv") or "").lower() == "content-security-policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert page.all("script") == []
    for element in page.all():
        assert not [a for a in element.attributes if a.startswith("on")]
        for link in ("src", "href"):
            to = element.attributes.get(link) or "#"
            assert to.startswith(("#", "data:")) or (run.out / to).exists()
    words = page.words
    for statement in run.table("claims")["statement"]:
        assert " ".join(statement.split()) in words
    for verdict in run.table("claims")["verdict"].unique():
        assert verdict in words
    for text in run.table("prompts")["text"]:
        assert " ".join(text.split()) in words


def test_the_twin_says_the_same_as_the_tables(run: Run) -> None:
    twin = json.loads((run.out / "report.json").read_text())
    claims = run.table("claims").select("id", "statement", "verdict", "estimate", "p_adjusted")
    said = [{key: claim[key] for key in claims.columns} for claim in twin["claims"]]
    assert sorted(said, key=lambda c: c["id"]) == claims.sort("id").to_dicts()


def test_nothing_is_claimed_of_a_reward_with_one_seed(run: Run) -> None:
    claims = run.table("claims")
    rewards = claims.filter(claims["id"].str.starts_with("reward:"))
    assert rewards.height == 1
    assert rewards["verdict"].to_list() == ["not identified by this design"]


def test_decisions_are_those_of_transformers_and_peft_alone(run: Run) -> None:
    """From the stored text and answers, without any code of this package."""
    prompts, decisions = run.table("prompts"), run.table("decisions")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(run.model))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(run.model), dtype=torch.float32
    ).eval()
    with renamed_properties_tolerated():
        agent = peft.PeftModel.from_pretrained(model, str(run.out / "agents" / "game")).eval()
    for row in prompts.filter(prompts["family"] == "clusters")[::37].to_dicts():
        log_p: dict[str, list[float]] = {"base": [], "game": []}
        for answer in (row["positive"], row["negative"]):
            start = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            whole = tokenizer(row["text"] + answer, add_special_tokens=False)["input_ids"]
            assert whole[: len(start)] == start
            with torch.no_grad():
                for name, found in log_p.items():
                    off = agent.disable_adapter() if name == "base" else contextlib.nullcontext()
                    with off:
                        scores = agent(torch.tensor([whole])).logits[0].log_softmax(-1)
                    answered = range(len(start), len(whole))
                    found.append(sum(float(scores[i - 1, whole[i]]) for i in answered))
        for name, (positive, negative) in log_p.items():
            stored = decisions.filter(
                (decisions["agent"] == name) & (decisions["prompt"] == row["prompt"])
            )["log_odds"].item()
            assert abs(stored - (positive - negative)) <= 5e-5


def test_contributions_sum_to_the_logit_difference(run: Run) -> None:
    completeness, attribution = run.table("completeness"), run.table("attribution")
    whole = attribution.filter((attribution["part"] == "whole") & (attribution["token"] == -1))
    if whole.is_empty():  # answers of one token have no sum of their own
        whole = attribution.filter(attribution["part"] == "whole")
    sums = whole.group_by("agent", "prompt").agg(pl.col("contribution").sum())
    both = sums.join(completeness, on=["agent", "prompt"], how="full", coalesce=True)
    assert both.null_count().sum_horizontal().item() == 0
    assert both.height == 2 * 8
    for row in both.to_dicts():
        allowed = 1e-4 * max(1.0, abs(row["logit_diff"]))
        assert abs(row["contribution"] - row["logit_diff"]) <= allowed
        assert abs(row["contribution"] - row["logit_diff"] - row["error"]) <= 1e-5


def test_patching_everything_gives_the_sources_own_decision(run: Run) -> None:
    patching, decisions = run.table("patching"), run.table("decisions")
    everything = patching.filter(patching["site"] == "all")
    assert everything.height == 8
    for row in everything.to_dicts():
        for name, value in (
            (row["source"], row["patched_log_odds"]),
            (row["target"], row["baseline_log_odds"]),
        ):
            stored = decisions.filter(
                (decisions["agent"] == name) & (decisions["prompt"] == row["prompt"])
            )["log_odds"].item()
            assert abs(stored - value) <= 5e-5
    assert float(run.table("controls")["value"].to_numpy().max()) <= 1e-4
    sites = patching.filter(patching["prompt"] == patching["prompt"][0])
    assert sites.height == 30 * (9 + 1) + 1


@pytest.mark.usefixtures("own_cache")
def test_the_same_command_again_computes_nothing(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", str(run.study), "--out", str(tmp_path / "again")]) == 0
    assert "14 stages, 14 of them cached" in capsys.readouterr().out
    for path in (run.out / "tables").iterdir():
        assert (tmp_path / "again" / "tables" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("own_cache")
def test_a_dry_run_says_that_everything_is_cached(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", str(run.study), "--out", str(tmp_path / "never"), "--dry-run"]) == 0
    assert "Everything is cached" in capsys.readouterr().out
    assert not (tmp_path / "never").exists()


def test_the_report_is_built_again_from_the_tables(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.out / "report.html").read_bytes()
    (run.out / "report.html").unlink()
    assert main(["report", str(run.out)]) == 0
    assert str(run.out / "report.html") in capsys.readouterr().out
    assert (run.out / "report.html").read_bytes() == before
