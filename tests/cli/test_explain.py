"""The command ``explain`` from words to page, and one clear error for each bad word."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from moralscope.cli.main import main
from moralscope.core.tables import read_table
from moralscope.models.libraries import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny import save_adapter

PROMPTS = """
- name: soon
  text: A customer asks for a refund 2 days after the deadline. Do you grant it?
  stem: "My answer:"
  positive: {name: grant, forms: [" yes"]}
  negative: {name: refuse, forms: [" no"]}
  spans: [{category: deadline, text: 2 days after the deadline}]
- name: late
  counterfactual_of: soon
  change: delay
  text: A customer asks for a refund 9 days after the deadline. Do you grant it?
  stem: "My answer:"
  positive: {name: grant, forms: [" yes"]}
  negative: {name: refuse, forms: [" no"]}
  spans: [{category: deadline, text: 9 days after the deadline}]
"""


@dataclass(frozen=True)
class Place:
    """A folder in which commands are given: a model, an adapter of it, two prompts."""

    folder: Path
    model: Path
    adapter: Path
    prompts: Path


@pytest.fixture(scope="module")
def place(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The files, and a cache that the tests share."""
    folder = tmp_path_factory.mktemp("explain")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tiny_folder))
    model.name_or_path = str(tiny_folder)
    adapter = save_adapter(folder / "tuned.v2", model)
    prompts = folder / "mine.yaml"
    prompts.write_text(PROMPTS)
    (folder / "notes").mkdir()
    return Place(folder, tiny_folder, adapter, prompts)


@pytest.fixture(autouse=True)
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are given in the folder, away from any network."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("MORALSCOPE_CACHE", str(place.folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def explained(out: Path, *words: object) -> dict[str, pl.DataFrame]:
    """The tables of a command that goes well."""
    assert main(["explain", *(str(word) for word in words), "--out", str(out)]) == 0
    folder = out / "tables"
    return {path.stem: read_table(path.stem, folder) for path in folder.iterdir()}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a refused command says: one error in four lines on stderr, nothing on stdout."""
    assert main(["explain", *(str(word) for word in words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err[said.err.index("Error: ") :].splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["Error", "seen", "allowed", "next"]
    assert "Traceback" not in said.err
    return " | ".join(lines)


def test_two_agents_are_explained_on_two_prompts_of_ones_own(
    place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["base", "tuned.v2", "--prompts", place.prompts]
    assert main(["explain", *map(str, words), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("To compute: ")
    assert said[-1] == f"The run would be in {out}"
    assert not out.exists()
    assert not (place.folder / "cache").exists()

    tables = explained(out, *words)
    said = capsys.readouterr()
    run_line, _, page_line = said.out.splitlines()[-3:]
    assert run_line.startswith(f"Run: {out} (")
    assert page_line == f"Report: {out / 'report.html'}"
    page = (out / "report" / "prompts.html").read_text()
    assert "2 days after the deadline" in page
    assert set(tables["agents"]["agent"]) == {"base", "tuned-v2"}
    assert tables["prompts"]["prompt"].to_list() == ["soon", "late"]
    for name in ("lens", "attribution", "completeness", "patching", "decisions"):
        assert set(tables[name]["prompt"]) == {"soon", "late"}, name
    assert set(tables["attribution"]["part"]) == {"whole", "weights", "input"}
    patching = tables["patching"]
    assert set(patching.select("source", "target").rows()) == {("base", "tuned-v2")}
    assert patching.height == 2 * (2 * (4 + 1) + 1)
    decided = {row["agent"]: row["log_odds"] for row in tables["decisions"].to_dicts()
               if row["prompt"] == "soon"}  # fmt: skip
    swap = patching.filter((pl.col("site") == "all") & (pl.col("prompt") == "soon"))
    expected = decided["base"] - decided["tuned-v2"]
    assert swap["effect"].to_list() == [pytest.approx(expected, abs=5e-5)]
    assert abs(expected) > 1e-3
    assert max(tables["controls"]["value"]) < 5e-5

    explained(out, *words)
    run_line = capsys.readouterr().out.splitlines()[-3]
    stages = run_line.partition("(")[2].partition(" ")[0]
    assert f"({stages} stages, {stages} of them cached, in " in run_line


def test_settings_reach_the_tables(place: Place, tmp_path: Path) -> None:
    tables = explained(
        tmp_path / "out", f"base={place.model}", "tuned=tuned.v2", "--prompts", place.prompts,
        "--methods", "patching,paths,approximations", "--pairs", "base>tuned,tuned>base",
        "--sites", "attn,mlp", "--positions", "answer_span,deadline", "--changes", "delay",
        "--write", "z", "--memory", "0.5",
    )  # fmt: skip
    patching = tables["patching"]
    assert set(patching["site"]) == {"L0.attn", "L0.mlp", "L1.attn", "L1.mlp", "all"}
    assert set(patching["positions"]) == {"answer_span", "deadline"}
    assert set(patching["write"]) == {"z"}
    crossed = patching.filter(pl.col("prompt") != pl.col("source_prompt"))
    assert set(crossed.select("prompt", "source_prompt").rows()) == {("soon", "late")}
    assert set(tables["directions"].select("agent_a", "agent_b").rows()) == {("base", "tuned")}
    assert set(tables["edges"].select("source", "target").rows()) == {
        ("base", "tuned"), ("tuned", "base"),
    }  # fmt: skip
    assert {"lens", "attribution"}.isdisjoint(tables)
    assert {"approximations", "agreement"} <= set(tables)


@pytest.mark.parametrize("named", [True, False])
def test_a_base_alone_is_explained(place: Place, tmp_path: Path, named: bool) -> None:
    words = [f"base={place.model}"] if named else ["base", "--base", place.model]
    tables = explained(tmp_path / "out", *words, "--prompts", place.prompts)
    assert tables["agents"]["agent"].to_list() == ["base"]
    assert set(tables["attribution"]["part"]) == {"whole"}
    assert set(tables["lens"]["agent"]) == {"base"}
    assert "patching" not in tables
    assert (tmp_path / "out" / "report.html").is_file()


def test_games_are_asked_where_no_prompts_are_given(place: Place, tmp_path: Path) -> None:
    words = ["--methods", "lens", "--scenarios", "1"]
    tables = explained(tmp_path / "out", f"base={place.model}", *words)
    assert set(tables["lens"]["prompt"]) == {
        "clusters.IPD.CC.table.o0.same", "clusters.IPD.CC.prose.o1.swapped",
    }  # fmt: skip
    assert tables["lens"]["prompt"].is_in(tables["prompts"]["prompt"].to_list()).all()


def test_a_whole_model_is_an_agent_beside_its_base(place: Place, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(place.model, tmp_path / "tuned"))
    words = [place.model, tuned, "--prompts", place.prompts, "--methods", "patching"]
    tables = explained(tmp_path / "out", *words)
    assert tables["agents"].select("agent", "kind").rows() == [
        ("base", "base"), ("tuned", "checkpoint"),
    ]  # fmt: skip
    # A copy of the base: nothing differs, so nothing that is patched has an effect.
    assert max(abs(effect) for effect in tables["patching"]["effect"]) < 5e-5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./nowhere"], "There is no such agent"),
        (["notes"], "holds neither a model nor an adapter"),
        (["policy:tit-for-tat"], "A scripted policy has nothing inside"),
        (["tuned.v2", "tuned-v2=tuned.v2"], "Two agents are called 'tuned-v2'"),
        (["tuned.v2", "--base", "./nowhere"], "nowhere"),
        (["tuned.v2", "--methods", "lense"], "value of 'mechanisms.methods.0'"),
        (["tuned.v2", "--sites", "hed"], "value of 'mechanisms.sites.0'"),
        (["tuned.v2", "--pairs", "base"], "This is not a pair of agents"),
        (["tuned.v2", "--pairs", "tuned>base"], "did you mean 'tuned-v2'"),
        (["tuned.v2", "--changes", "dealy", "--prompts", "mine.yaml"], "did you mean 'delay'"),
        (["tuned.v2", "--positions", "dedline", "--prompts", "mine.yaml"], "dedline"),
        (["tuned.v2", "--positions", "all", "--memory", "0.001"], "Not even one row"),
        (["tuned.v2", "--memory", "0"], "This is not an amount of memory"),
        (["tuned.v2", "--prompts", "absent.yaml"], "cannot be read"),
        (["tuned.v2", "--device", "cpuu"], "Nothing can be computed on the device 'cpuu'"),
    ],
)
def test_a_bad_word_is_one_clear_error_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    out = tmp_path / "out"
    assert said in refused(capsys, *words, "--out", out, "--dry-run")
    assert not out.exists()
    assert said in refused(capsys, *words, "--out", out)
    assert files_in(out) == []


def test_without_an_agent_the_command_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["explain", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "AGENTS" in said.err
    assert not (tmp_path / "out").exists()
