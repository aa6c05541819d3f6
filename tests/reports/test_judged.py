"""Hypotheses, controls, the design and coverage on the page, in the twin and in a figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_reading import read_page, read_pages
from synthetic_judged import add_judged, coverage
from synthetic_run import Size, write_run

from moralscope.core.tables import from_rows, write_table
from moralscope.reports import build_report
from moralscope.reports import run as reading
from moralscope.reports.figure_random_directions import mean_effects
from moralscope.reports.run import read_run

SMALL = Size(trained=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = add_judged(write_run(tmp_path_factory.mktemp("judged") / "run", SMALL), SMALL)
    build_report(run)
    return run


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(
        tmp_path_factory.mktemp("audited") / "run", SMALL,
        leave_out=("learned", "prompts", "transfer", "training", "study.yaml", "lens"),
    )  # fmt: skip
    add_judged(run, SMALL)
    write_table("coverage", from_rows("coverage", coverage()), run / "tables")
    (run / "audit.yaml").write_text("alpha: 0.05\n")
    build_report(run)
    return run


def sections(run: Path) -> list[str | None]:
    page = read_page(run)
    return [s.attributes["id"] for s in page.one("main").children if not isinstance(s, str)]


def test_hypotheses_gates_and_controls_share_a_page(study: Path) -> None:
    found = sections(study)
    assert found.index("summary") < found.index("said") < found.index("hypotheses")
    pages = read_pages(study)
    own = [s.attributes["id"] for s in pages["report/evidence.html"].one("main").children
           if not isinstance(s, str)]  # fmt: skip
    assert own == ["hypotheses", "gates", "controls"]
    assert "coverage" not in found


def test_a_registered_hypothesis_comes_first_with_the_verdict_of_its_claim(study: Path) -> None:
    rows = read_page(study).one("section", id="hypotheses").one("tbody").all("tr")
    assert [row.all("th")[0].all("bdi")[0].words for row in rows] == ["first", "second"]
    assert "contradicted" in rows[0].words
    assert "The effect points the other way." in rows[0].words
    link = rows[0].all("a")[0].attributes["href"]
    claim = read_page(study).one("li", id=str(link).removeprefix("#"))
    assert "hypothesis:first" in claim.words
    assert "named before anything was measured" in claim.words
    assert "It was not tested." in rows[1].words
    assert "Published: 12.5" in rows[1].words


def test_controls_are_divided_and_failed_ones_come_first(study: Path) -> None:
    section = read_page(study).one("section", id="controls")
    negative, positive, design = section.all("table")
    assert [row.one("th").words for row in negative.one("tbody").all("tr")] == [
        "shuffled", "numerical",
    ]  # fmt: skip
    assert "not as it must be" in negative.one("tbody").all("tr")[0].words
    assert "not available" in positive.words
    first = design.one("tbody").all("tr")[0].words
    assert "not identified" in first
    assert "7 seeds would identify it." in first


def test_the_twin_says_the_same(study: Path) -> None:
    twin = json.loads((study / "report.json").read_text())
    assert twin["audit"] is False
    assert [h["id"] for h in twin["hypotheses"]] == ["first", "second"]
    assert twin["hypotheses"][0]["outcome"] == "contradicted"
    assert twin["hypotheses"][1]["claim"] is None
    assert {c["control"] for c in twin["controls"]} == {"numerical", "planted", "shuffled"}
    assert [row["identified"] for row in twin["design"]] == [False, True]


def test_patches_are_drawn_beside_random_directions(study: Path) -> None:
    effects = mean_effects(read_run(study))
    real = effects.filter(draw=-1)
    assert real.get_column("value").to_list() == [-0.5, -1.5, -2.5, -3.5]
    assert effects.height == 4 * (3 + 1)
    page = read_page(study).one("figure", id="figure-random_directions").words
    # At the first site one random direction moves by 2 nats, the patch by .5.
    assert "At 3 of 4 sites the patch does more than every random direction." in page


def test_an_audit_puts_gates_first_and_mentions_no_figure_that_it_lacks(audited: Path) -> None:
    found = sections(audited)
    assert found[:4] == ["summary", "gates", "coverage", "hypotheses"]
    assert not {"learned", "prompts"} & set(found)
    page = read_page(audited)
    assert not page.all("div", class_="absent")
    shown = page.one("section", id="gates").all("table")[0].words
    assert "not available" in shown
    assert "Which claims of these tables stand up?" in page.one("h1").words
    before = page.one("header").words.partition("claims, ")[0]
    gates = json.loads((audited / "report.json").read_text())["gates"]
    failed = sum(gate["passed"] is False for gate in gates)
    assert f"{len(gates)} gates came first" in before
    assert f"{failed} failed" in before
    rows = page.one("section", id="coverage").all("tr")
    assert "No fingerprint." in rows[1].words
    assert page.all("a", href="audit.yaml")
    twin = json.loads((audited / "report.json").read_text())
    assert twin["audit"] is True
    assert [row["ran"] for row in twin["coverage"]] == [False, True]
    assert not twin["absent_figures"]


def test_a_table_with_too_many_rows_is_named_and_not_read(
    audited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_ROWS", 30)
    run = read_run(audited)
    assert "patching" in run.unread
    assert "patching" not in run.tables
    assert run.lacks("patching") == "The table patching has too many rows to be drawn."
