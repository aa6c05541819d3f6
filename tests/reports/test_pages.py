"""Are the pages safe, linked and complete, each by itself?"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import polars as pl
import pytest
from report_reading import Element, read_pages, read_report
from synthetic_run import HOSTILE, Size, write_run

from moralscope.core.progress import silent
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.reports import build_report
from moralscope.reports.content import Content, assemble
from moralscope.reports.findings import group_findings, ranked_findings
from moralscope.reports.page import FOLDED_AT_MOST, render_pages
from moralscope.reports.pages import CLAIMS_ON_A_PAGE, pages_of
from moralscope.reports.run import read_run
from moralscope.reports.topics import TOPICS, topic_of_claim, topic_of_figure, topic_of_table

MECHANISMS = (
    "policy", "cooperation", "transfer", "training", "lens", "attribution", "patching",
)  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Content without figures."""
    run = write_run(
        tmp_path_factory.mktemp("bare") / "run",
        Size(cluster_prompts=1, claims=5),
        leave_out=MECHANISMS,
    )
    return dataclasses.replace(assemble(read_run(run), silent), figures=())


def test_every_page_forbids_everything_but_its_style_and_data_pictures(reported: Path) -> None:
    for path, page in read_pages(reported).items():
        policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes
        digest = base64.b64encode(hashlib.sha256(page.one("style").text.encode()).digest())
        assert policy["content"] == (
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest.decode()}'; "
            "base-uri 'none'; form-action 'none'"
        ), path
        for element in page.all():
            assert element.tag not in ("script", "iframe", "object", "embed", "form", "base")
            assert not [name for name in element.attributes if name.startswith("on")]
            source = element.attributes.get("src")
            assert source is None or source.startswith("data:image/")
        raw = (reported / path).read_text(encoding="utf-8")
        assert HOSTILE not in raw


def test_links_of_every_page_lead_to_files_and_anchors(further: Path) -> None:
    pages = read_pages(further)
    anchors = {
        (further / path).resolve(): {e.attributes["id"] for e in page.all() if "id" in e.attributes}
        for path, page in pages.items()
    }
    for path, page in pages.items():
        for link in page.all("a"):
            file, _, anchor = (link.attributes["href"] or "").partition("#")
            target = ((further / path).parent / file).resolve() if file else further / path
            assert target.exists(), (path, link.attributes["href"])
            if anchor:
                assert anchor in anchors[target.resolve()], (path, link.attributes["href"])


def test_headings_are_in_order_and_landmarks_named(further: Path) -> None:
    for path, page in read_pages(further).items():
        levels = [int(e.tag[1]) for e in page.all() if e.tag in ("h1", "h2", "h3", "h4")]
        assert levels[0] == 1, path
        assert levels.count(1) == 1, path
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), (path, levels)
        assert page.one("nav").attributes["aria-label"]
        current = [a for a in page.one("nav").all("a") if "aria-current" in a.attributes]
        assert len(current) == 1, path
        ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
        assert len(ids) == len(set(ids)), path
        for section in page.all("section"):
            assert section.attributes["aria-labelledby"] in ids


def test_every_figure_is_on_exactly_one_page(further: Path) -> None:
    shown = [
        figure.attributes["id"]
        for page in read_pages(further).values()
        for figure in page.all("figure")
    ]
    twin = json.loads((further / "report.json").read_text())
    assert sorted(shown) == sorted(f"figure-{entry['name']}" for entry in twin["figures"])


def claims_of(bare: Content, number: int) -> Content:
    """The content with this many supported claims of several kinds."""
    one = bare.run.tables["claims"].head(1)
    kinds = ("change", "patching", "attention", "unheard_of")
    many = pl.concat(
        one.with_columns(id=pl.lit(f"{kinds[i % 4]}:{i}"), verdict=pl.lit("supported"))
        for i in range(number)
    )
    return dataclasses.replace(bare, groups=group_findings(many))


def test_many_claims_make_further_pages_and_lose_none(bare: Content) -> None:
    number = 2 * CLAIMS_ON_A_PAGE + 7
    content = claims_of(bare, number)
    texts = render_pages(content)
    assert {"report/claims.html", "report/claims-2.html", "report/claims-3.html"} <= {*texts}
    whole = read_report(dict(texts))
    assert len(whole.all("li", class_="finding")) == number
    listed = [a.words for a in whole.one("nav").all("a")]
    assert listed.count("Claims") == 1
    said = whole.one("section", id="said-supported")
    assert len(said.all("li", class_="brief")) == FOLDED_AT_MOST
    assert f"{number - FOLDED_AT_MOST} more on the page of claims" in said.words
    assert len(texts["report.html"]) < 200_000


def test_claims_stand_on_the_page_of_their_analysis(bare: Content) -> None:
    pages = {page.slug: page for page in pages_of(claims_of(bare, 8))}
    for slug, kind in (
        ("behaviour", "change"), ("patching", "patching"), ("attention", "attention"),
        ("further", "unheard_of"),
    ):  # fmt: skip
        assert [f.kind for f in pages[slug].findings] == [kind, kind]


def test_the_most_important_claims_come_first(bare: Content) -> None:
    one = bare.run.tables["claims"].head(1).with_columns(verdict=pl.lit("supported"))
    order = ("change:a", "change:b", "patching:a", "rewards:a", "question:RQ1")
    claims = pl.concat(
        one.with_columns(id=pl.lit(name), registered=pl.lit(name == "change:b")) for name in order
    )
    ranked = [finding.id for finding in ranked_findings(group_findings(claims))]
    assert ranked == ["change:b", "question:RQ1", "rewards:a", "patching:a", "change:a"]


def test_what_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path, Size(cluster_prompts=1, claims=2), leave_out=MECHANISMS)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["failed"] = [
        {"name": "patch-a>b", "why": f"the disk was full {HOSTILE}", "skipped": False},
        {"name": "circuits-a>b", "why": "needs patch-a>b", "skipped": True},
    ]
    (run / "manifest.json").write_text(json.dumps(manifest))
    build_report(run)
    missing = read_pages(run)["report.html"].one("section", id="missing")
    assert "2 stages did not finish" in missing.words
    first, second = missing.all("ul")[0].all("li")
    assert f"the disk was full {' '.join(HOSTILE.split())}" in first.words
    assert "not tried" in second.words
    assert "not tried" not in first.words
    twin = json.loads((run / "report.json").read_text())
    assert [stage["name"] for stage in twin["failed"]] == ["patch-a>b", "circuits-a>b"]
    limits = (run / "report" / "limitations.md").read_text()
    assert "2 stages did not finish (patch-a>b and circuits-a>b)" in limits


QUESTIONS = [
    {
        "question": "RQ1", "text": "Are selfish components suppressed?", "answer": "No.",
        "verdict": "supported", "confidence": "moderate", "evidence": "claim.0 not.there",
        "missing": "",
    },
    {
        "question": "RQ2", "text": "Two circuits?", "answer": f"Unknown {HOSTILE}",
        "verdict": "not identified by this design", "confidence": "none", "evidence": "",
        "missing": "Five seeds of each reward.",
    },
]  # fmt: skip


def test_research_questions_are_answered_first_with_their_evidence(tmp_path: Path) -> None:
    run = write_run(tmp_path, Size(cluster_prompts=1, claims=2), leave_out=MECHANISMS)
    name = read_table("claims", run / "tables").get_column("id").to_list()[0]
    rows = [{**row, "evidence": row["evidence"].replace("claim.0", name)} for row in QUESTIONS]
    write_table("questions", from_rows("questions", rows), run / "tables")
    build_report(run)
    page = read_pages(run)["report.html"]
    order = [e.attributes["id"] for e in page.one("main").children if isinstance(e, Element)]
    assert order[:3] == ["summary", "questions", "said"]
    first, second = page.one("section", id="questions").all("article")
    assert first.one("h3").words == "Are selfish components suppressed?"
    assert first.all("a")[0].words == name
    assert "not.there (not in this run)" in first.words
    assert "supported" in first.one("span", class_="badge").words
    assert " ".join(HOSTILE.split()) in second.words
    assert "Missing. Five seeds of each reward." in second.words
    twin = json.loads((run / "report.json").read_text())
    assert [asked["answer"] for asked in twin["questions"]] == [row["answer"] for row in rows]


def test_every_table_has_its_columns_on_the_page_of_data(reported: Path) -> None:
    page = read_pages(reported)["report/data.html"]
    for path in (reported / "tables").glob("*.parquet"):
        entry = page.one("details", id=f"table-{path.stem}")
        columns = [row.one("th").words for row in entry.one("tbody").all("tr")]
        assert columns == pl.read_parquet_schema(path).names()


def test_figures_are_placed_by_word_name_and_table() -> None:
    assert topic_of_figure("anything", ("patching",), "weights") == "weights"
    assert topic_of_figure("cascade", ()) == "synthesis"
    assert topic_of_figure("wiring_map", ()) == "wiring"
    assert topic_of_figure("strange", ("regret",)) == "behaviour"
    assert topic_of_figure("strange", ()) == "further"
    assert topic_of_table("edges") == "wiring"  # no page on circuits where none were sought
    assert topic_of_figure("strange", ("agents",)) == "further"
    slugs = {topic.slug for topic in TOPICS}
    assert {topic for name in SCHEMAS if (topic := topic_of_table(name))} <= slugs
    assert topic_of_claim("replicates:attribution", "replicates") == "attribution"
    assert topic_of_claim("replicates:behaviour", "replicates") == "behaviour"
    assert topic_of_claim("strange:x", "strange") == "further"
