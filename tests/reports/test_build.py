"""Is a report whole, repeatable and honest about what it lacks?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from report_reading import read_page
from synthetic_run import VERDICTS, Size, write_run

from moralscope.core.errors import ConfigError, MoralscopeError, OutputError, TableError
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import ProgressEvent
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.reports import build, build_report
from moralscope.reports.twin import CLAIM_FIELDS

SMALL = Size(cluster_prompts=1, claims=5, steps=1)
DRAWN = ("policy", "cooperation", "transfer", "training", "lens", "attribution", "patching")
NO_MECHANISMS = tuple(name for name in DRAWN if name != "policy")
"""One figure is enough where figures are not the question."""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def twin_of(run: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((run / "report.json").read_text())
    return value


def test_it_returns_the_page_and_leaves_the_rest_beside_it(reported: Path) -> None:
    names = {p.name for p in reported.iterdir()}
    assert {
        "report.html", "report", "report.json", "claims.json", "figures", "exports",
        "report-files.json",
    } <= names  # fmt: skip
    assert not list(reported.rglob(".partial-*"))
    for page in (reported / "report.html", *(reported / "report").iterdir()):
        assert page.stat().st_size < 5e6, page


def test_building_again_changes_no_byte(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    assert build_report(run) == run / "report.html"
    first = contents(run)
    build_report(run)
    assert contents(run) == first


def test_claims_json_holds_the_rows_of_the_table(reported: Path) -> None:
    claims = json.loads((reported / "claims.json").read_text())
    table = read_table("claims", reported / "tables")
    assert claims == table.to_dicts()
    assert tuple(CLAIM_FIELDS) == tuple(table.columns)


def test_the_twin_says_what_the_page_says(reported: Path) -> None:
    page, twin = read_page(reported), twin_of(reported)
    assert twin["headline"] == page.one("p", class_="lead").text
    assert twin["manifest_sha256"] == sha256_file(reported / "manifest.json")
    for key, column in (("can_say", "can-say"), ("cannot_say", "cannot-say")):
        shown = [item.all("a")[0].attributes["href"] for item in page.one(id=column).all("li")]
        assert [page.one("li", id=link[1:]).one("code").text for link in shown] == twin[key]
    claims = twin["claims"]
    findings = page.one("section", id="findings").all("li", class_="finding")
    assert len(claims) == len(findings)
    for claim, element in zip(claims, findings, strict=True):
        assert claim["statement"] == element.all("p")[0].text
    figures = {figure.attributes["id"]: figure for figure in page.all("figure")}
    assert len(twin["figures"]) == len(figures) == 14
    for entry in twin["figures"]:
        element = figures[f"figure-{entry['name']}"]
        assert entry["title"] == element.one("h3").text
        caption = element.one("figcaption").all("p")
        assert caption[0].text == f"Shows. {entry['shows']}"
        assert caption[1].text == f"Does not show. {entry['does_not_show']}"
        links = [a.attributes["href"] for a in element.all("a")]
        assert links == [f"tables/{t}.parquet" for t in entry["tables"]] + entry["files"]
    cards = page.one("section", id="learned").all("article")
    for agent, card in zip(twin["agents"], cards, strict=True):
        assert card.all("bdi")[0].text == agent["name"]
        assert agent["sentence"] in card.text
    pills = [p.words for p in page.one("section", id="gates").all("span", class_="pill")]
    words = {True: "passed", False: "failed", None: "not available"}
    assert [words[gate["passed"]] for gate in twin["gates"]] == pills
    tiles = page.one("section", id="summary").one("ul", class_="tiles").all("span", class_="count")
    counts = [int(tile.words) for tile in tiles]
    assert list(map(twin["verdicts"].get, VERDICTS)) == counts
    assert sum(twin["prompts"].values()) == len(page.all("details", class_="prompt"))


ABSENT_ORDER = (
    "policy", "transfer", "cooperation", "training", "lens", "attribution", "patching",
)  # fmt: skip
READ = ("agents", "prompts", "decisions", "learned", "gates", "claims")


@pytest.mark.parametrize("table", READ)
def test_any_table_may_be_missing_and_is_named(tmp_path: Path, table: str) -> None:
    run = write_run(tmp_path, SMALL, leave_out=(table, *DRAWN))
    build_report(run)
    page, twin = read_page(run), twin_of(run)
    sentence = f"The table {table} is not in this run."
    assert sentence in page.words
    assert twin["missing"] == [sentence]
    assert [a["reason"] for a in twin["absent_figures"]] == [
        f"The table {name} is not in this run." for name in ABSENT_ORDER
    ]
    assert table not in twin["tables"]


def test_a_run_of_one_table_alone_still_makes_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "whole", SMALL)
    claims = read_table("claims", tmp_path / "whole" / "tables")
    write_table("claims", claims, tmp_path / "run" / "tables")
    page = read_page(build_report(tmp_path / "run").parent)
    assert len(page.all("div", class_="absent")) == 7
    assert len(page.all("li", class_="finding")) == 5
    for words in (
        "The file manifest.json is not in this run",
        "The file study.yaml is not in this run",
        "This run holds no gates",
        "The table prompts is not in this run",
    ):
        assert words in page.words


def test_claims_may_come_from_json_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "whole", SMALL, leave_out=DRAWN)
    build_report(tmp_path / "whole")
    text = (tmp_path / "whole" / "claims.json").read_bytes()
    run = tmp_path / "run"
    run.mkdir()
    (run / "claims.json").write_bytes(text)
    page = read_page(build_report(run).parent)
    assert len(page.all("li", class_="finding")) == 5
    assert (run / "claims.json").read_bytes() == text


def test_a_verdict_of_another_vocabulary_is_shown_as_such(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    claims = read_table("claims", run / "tables").with_columns(verdict=pl.lit("plausible"))
    write_table("claims", claims, run / "tables")
    build_report(run)
    assert twin_of(run)["verdicts"]["plausible"] == 5
    assert len(read_page(run).one("section", id="verdict-other").all("li", class_="finding")) == 5


def test_scripted_policies_without_log_odds_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    decisions = read_table("decisions", run / "tables").with_columns(
        log_odds=pl.when(pl.col("agent") == "game").then(None).otherwise("log_odds"),
        fingerprint_log_odds=pl.lit(None, pl.Float64),
    )
    write_table("decisions", decisions, run / "tables")
    build_report(run)
    rows = read_page(run).all("details", class_="prompt")[0].one("tbody").all("tr")
    assert [row.all("td")[-1].words for row in rows][1] == "\N{EN DASH}"


def test_prompts_of_the_users_own_are_not_called_defect(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    prompts = read_table("prompts", run / "tables").with_columns(game=pl.lit("user"))
    write_table("prompts", prompts, run / "tables")
    build_report(run)
    section = read_page(run).one("section", id="prompts")
    assert "P(positive)" in section.words
    assert "P(defect)" not in section.words


def test_a_failure_while_rendering_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    build_report(run)
    before = contents(run)
    claims = read_table("claims", run / "tables").with_columns(statement=pl.lit("changed"))
    write_table("claims", claims, run / "tables")
    changed = contents(run)

    def fail(_: object) -> str:
        raise RuntimeError("rendering failed")

    monkeypatch.setattr(build, "render_pages", fail)
    with pytest.raises(RuntimeError, match="rendering failed"):
        build_report(run)
    assert contents(run) == changed
    assert changed["report.html"] == before["report.html"]


@pytest.mark.parametrize("after", [0, 2, 3, 5])
def test_a_full_disk_leaves_only_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    real, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written.*No space left.*free some space"):
        build_report(run)
    monkeypatch.undo()
    assert not (run / "report.html").exists()
    assert not list(run.rglob(".partial-*"))
    whole = tmp_path.with_name(f"{tmp_path.name}-whole")
    write_run(whole, SMALL, leave_out=NO_MECHANISMS)
    build_report(whole)
    for name, data in contents(run).items():
        assert data == contents(whole)[name], name


def test_leftovers_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    (run / ".partial-figures-x").mkdir()
    (run / ".partial-y").write_text("half")
    build_report(run)
    assert not list(run.glob(".partial-*"))


def test_progress_counts_every_figure_and_ends(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    events: list[ProgressEvent] = []
    build_report(run, events.append)
    assert [event.done for event in events] == list(range(9))
    assert {(event.task, event.total) for event in events} == {("report", 8)}


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a run.*tables/\*\.parquet.*--out named"):
        build_report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"manifest\.json is not JSON.*run the study again"),
        ("[]", r"manifest\.json is not the manifest of a run.*the file: "),
        ('{"seed": "x"}', r"manifest\.json is not the manifest of a run.*seed: "),
        ('{"stages": [{}]}', r"stages\.0\.name: Field required"),
    ],
)
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    (run / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        build_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[1]", ConfigError, r"claims\.json is not a list of claims.*list of objects"),
        ("{}", ConfigError, r"claims\.json is not a list of claims"),
        ("nope", ConfigError, r"claims\.json is not JSON"),
        ('[{"id": "x"}]', TableError, r"lacks the column 'statement'"),
    ],
)
def test_damaged_claims_are_an_error(
    tmp_path: Path, text: str, kind: type[MoralscopeError], words: str
) -> None:
    (tmp_path / "claims.json").write_text(text)
    with pytest.raises(kind, match=words):
        build_report(tmp_path)


def test_agents_are_known_by_name_where_no_table_says(tmp_path: Path) -> None:
    run = write_run(
        tmp_path, SMALL, leave_out=("agents", *(n for n in DRAWN if n != "attribution"))
    )
    build_report(run)
    facts = {a["name"]: a for a in twin_of(run)["agents"]}
    assert list(facts) == ["base", "game", "utilitarian"]
    assert facts["game"]["reference"] == "base"
    assert facts["base"]["kind"] == "base"
    assert "attribution" in [f["name"] for f in twin_of(run)["figures"]]


def test_changes_are_measured_from_the_base_of_the_same_model(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, leave_out=NO_MECHANISMS)
    agents = read_table("agents", run / "tables").to_dicts()
    other = {**agents[0], "agent": "other base", "base": "another"}
    write_table("agents", from_rows("agents", [*agents, other]), run / "tables")
    build_report(run)
    facts = {a["name"]: a["reference"] for a in twin_of(run)["agents"]}
    assert facts == {"base": None, "other base": None, "game": "base", "utilitarian": "base"}


def test_reports_need_no_model_stack() -> None:
    code = (
        "import sys, moralscope.reports; "
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
