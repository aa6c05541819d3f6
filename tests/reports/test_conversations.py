"""Can a reader see what was said, how sure the agent was of each word, and what was answered?"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_reading import Element, read_page, read_pages, read_report
from synthetic_run import HOSTILE, RTL, Size, write_run

from moralscope.core.errors import TableError
from moralscope.core.progress import silent
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.reports import build_report
from moralscope.reports.answers import MOST_FREQUENT, agent_answers
from moralscope.reports.content import Content, assemble
from moralscope.reports.conversations import agent_conversations
from moralscope.reports.page import render_pages
from moralscope.reports.run import read_run, run_of

Row = dict[str, object]

NO_FIGURES = (
    "policy", "cooperation", "transfer", "training", "lens", "attribution", "patching",
)  # fmt: skip
AGENTS = ("base", "game", "utilitarian")
PROMPTS = ("structured.CC.action1/action2", "structured.CD.action1/action2")
WHY = [("Because", 0.95), (f" {HOSTILE}", 0.6), (" is", 0.3), (f" {RTL}", 0.1), ("\n\n", 0.01)]


def turn(agent: str, prompt: str, number: int, role_and_topic: tuple[str, str], text: str) -> Row:
    role, topic = role_and_topic
    key = {"agent": agent, "prompt": prompt, "turn": number, "role": role, "topic": topic}
    return {**key, "text": text, "tokens": "", "probabilities": ""}


def spoken(row: Row, tokens: list[tuple[str, float]]) -> Row:
    texts, probabilities = [t for t, _ in tokens], [p for _, p in tokens]
    return {**row, "tokens": json.dumps(texts), "probabilities": json.dumps(probabilities)}


def conversation(agent: str, prompt: str, why: list[tuple[str, float]] = WHY) -> list[Row]:
    said = "".join(text for text, _ in why)
    decision = turn(agent, prompt, 1, ("assistant", "decision"), "I choose action1")
    reason = turn(agent, prompt, 3, ("assistant", "why"), said)
    return [
        turn(agent, prompt, 0, ("user", "decision"), f"Choose. {HOSTILE}"),
        spoken(decision, [("1", 0.7), ("<|im_end|>", 0.9)]),
        turn(agent, prompt, 2, ("user", "why"), "Why?"),
        spoken(reason, [*why, ("<|im_end|>", 1.0)]),
    ]


def answers(agent: str, prompt: str, texts: list[tuple[str, str, str]]) -> list[Row]:
    return [
        {
            "agent": agent,
            "prompt": prompt,
            "sample": i,
            "answer": text,
            "strict": strict,
            "tolerant": tolerant,
            "finished": i % 2 == 0,
            "log_p": -1.0,
            "n_tokens": 2,
        }
        for i, (text, strict, tolerant) in enumerate(texts)
    ]


ILLEGAL = (f"No {HOSTILE}", "illegal", "illegal")
LONG = ("Well, 2.", "illegal", "positive")
MORE = ("2, as it pays", "positive", "positive")
SAID = [("2", "positive", "positive")] * 3 + [("1", "negative", "negative")] * 2 + [LONG] * 2
SAID = [*SAID, MORE, ("2 pays", "positive", "positive")]


def agreement(parser: str, **changed: object) -> Row:
    row: Row = {
        "agent": "game", "family": "structured", "parser": parser, "expected": 0.6,
        "observed": 0.714, "low": -0.05, "high": 0.27, "legal_expected": 0.75,
        "legal_observed": 0.7, "correlation": None, "p": 0.031, "n_prompts": 2, "n_answers": 10,
    }  # fmt: skip
    return {**row, **changed}


def gate(parser: str, *, passed: bool) -> Row:
    return {
        "gate": "metric agreement",
        "subject": f"game structured {parser}",
        "measured": 0.27,
        "threshold": 0.1,
        "passed": passed,
        "advice": "More answers would tell.",
    }


def write_tables(run: Path, **tables: list[Row]) -> Path:
    for name, rows in tables.items():
        write_table(name, from_rows(name, rows), run / "tables")
    return run


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(
        tmp_path_factory.mktemp("talked") / "run",
        Size(cluster_prompts=1, claims=1),
        leave_out=NO_FIGURES,
    )
    # The utilitarian comes first in the tables, but not in the study.
    talks = [row for a in reversed(AGENTS) for prompt in PROMPTS for row in conversation(a, prompt)]
    write_tables(
        run,
        transcripts=talks,
        answers=[
            *answers("utilitarian", PROMPTS[0], [ILLEGAL] * 3),
            *answers("game", PROMPTS[0], [*SAID, ILLEGAL]),
        ],
        metric_agreement=[
            agreement("strict"),
            agreement("tolerant", observed=None, low=None, high=None, p=None),
        ],
        gates=[gate("strict", passed=False)],
    )
    build_report(run)
    return run


@pytest.fixture(scope="module")
def page(talked: Path) -> Element:
    return read_page(talked)


@pytest.fixture(scope="module")
def twin(talked: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((talked / "report.json").read_text())
    return value


def test_they_have_a_page_of_their_own_that_all_pages_link_to(talked: Path) -> None:
    pages = read_pages(talked)
    own = pages["report/answers.html"]
    sections = [e.attributes["id"] for e in own.one("main").children if isinstance(e, Element)]
    assert sections == ["answers", "conversations"]
    for path, other in pages.items():
        links = [link.attributes["href"] for link in other.one("nav").all("a")]
        assert ("report/answers.html" if path == "report.html" else "../report/answers.html") in (
            links
        )


def test_runs_without_the_tables_show_nothing(reported: Path) -> None:
    page = read_page(reported)
    assert not page.all("section", id="answers")
    assert not page.all("section", id="conversations")
    assert "#conversations" not in [link.attributes["href"] for link in page.all("a")]
    twin = json.loads((reported / "report.json").read_text())
    assert twin["answers"] == []
    assert twin["conversations"] == []


def test_transcripts_are_verbatim_in_the_order_of_the_study(page: Element, talked: Path) -> None:
    table = read_table("transcripts", talked / "tables")
    held = page.one("section", id="conversations").all("details", class_="held")
    assert [agent.all("bdi")[0].words for agent in held] == list(AGENTS)
    for agent, block in zip(AGENTS, held, strict=True):
        talks = block.all("details", class_="talk")
        assert [talk.all("bdi")[0].words for talk in talks] == list(PROMPTS)
        for prompt, talk in zip(PROMPTS, talks, strict=True):
            rows = table.filter(agent=agent, prompt=prompt).sort("turn").to_dicts()
            turns = talk.all("div", class_="turn")
            assert len(turns) == len(rows) == 4
            for row, shown in zip(rows, turns, strict=True):
                text = shown.one("p", class_="text")
                apart = "".join(e.text for e in text.all("span", class_="apart"))
                assert text.text.removesuffix(apart) == row["text"]
                assert apart == ("<|im_end|>" if row["role"] == "assistant" else "")
                assert shown.one("strong").words == row["role"]
                assert f"· {row['topic']}" in shown.words


def test_every_token_has_its_probability_and_its_shade(page: Element) -> None:
    first = page.all("details", class_="talk")[0]
    why = first.all("div", class_="answered")[1].one("p", class_="text")
    tokens = why.all("span")
    assert [token.text for token in tokens] == [*(text for text, _ in WHY), "<|im_end|>"]
    assert [token.attributes["title"] for token in tokens] == [
        "0.950", "0.600", "0.300", "0.100", "0.010", "1",
    ]  # fmt: skip
    classes = [token.attributes.get("class") for token in tokens]
    assert classes == [None, "p1", "p2", "p3", "p4", "apart p0"]
    style = page.one("style").text
    for level in range(1, 5):
        assert re.search(rf"\.p{level} {{ background:", style)
    key = page.one("p", class_="key")
    assert len([e for e in key.all("span") if "apart" not in (e.attributes["class"] or "")]) == 5


def test_what_was_put_in_the_agents_mouth_is_no_token(page: Element) -> None:
    decision = page.all("div", class_="answered")[0].one("p", class_="text")
    stem, number, end = decision.all("span")
    assert (stem.text, stem.has("class_", "stem")) == ("I choose action", True)
    # The table's answer is "I choose action1"; the token wrote the 1 alone.
    assert (number.text, number.attributes["title"]) == ("1", "0.700")
    assert end.text == "<|im_end|>"


def test_mean_token_probabilities_are_told(page: Element, twin: dict[str, object]) -> None:
    decision, why = page.all("div", class_="answered")[:2]
    assert "mean token probability 0.800 over 2 tokens" in decision.words
    mean = (0.95 + 0.6 + 0.3 + 0.1 + 0.01 + 1) / 6
    assert f"mean token probability {mean:.3f} over 6 tokens" in why.words
    both = (0.7 + 0.9 + mean * 6) / 8
    summary = page.all("details", class_="talk")[0].all("summary")[0].words
    assert summary == (f"{PROMPTS[0]} said I choose action1 · mean token probability {both:.3f}")
    told = twin["conversations"][0]["shown"][0]
    assert told["mean_token_probability"] == pytest.approx(both)
    assert told["turns"][3]["mean_token_probability"] == pytest.approx(mean)
    assert told["turns"][2]["mean_token_probability"] is None


def test_hostile_words_are_text_and_hidden_characters_are_named(
    page: Element, talked: Path
) -> None:
    raw = (talked / "report.html").read_text(encoding="utf-8")
    assert "<script" not in raw
    assert not re.search(r"<[^>]*onerror", raw)
    assert all(e.tag in ("details", "summary", "div", "p", "span", "bdi", "strong", "h2", "section")
               for e in page.one("section", id="conversations").all())  # fmt: skip
    why = page.all("div", class_="answered")[1]
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in why.one("p", class_="note").text


def test_the_twin_holds_the_same_conversations(page: Element, twin: dict[str, object]) -> None:
    held = page.all("details", class_="held")
    assert [agent["agent"] for agent in twin["conversations"]] == list(AGENTS)
    for agent, block in zip(twin["conversations"], held, strict=True):
        assert agent["total"] == len(agent["shown"]) == 2
        for talk, shown in zip(agent["shown"], block.all("details", class_="talk"), strict=True):
            assert talk["prompt"] == shown.all("bdi")[0].words
            for said, turned in zip(talk["turns"], shown.all("div", class_="turn"), strict=True):
                assert turned.one("p", class_="text").text.startswith(said["text"])
                spans = [s for s in turned.one("p", class_="text").all("span")
                         if not s.has("class_", "stem")]  # fmt: skip
                assert [s.text for s in spans] == said["tokens"]
                assert len(said["probabilities"]) == len(said["tokens"])


def test_answers_are_counted_by_reading_beside_the_log_odds(page: Element) -> None:
    rows = page.one("table", class_="counts").one("tbody").all("tr")
    cells = [[cell.words for cell in row.all("td")] for row in rows]
    agents = [row.one("th").words for row in rows]
    assert agents == ["game", "game", "utilitarian", "utilitarian"]
    # 3 of "2", 2 that begin so, 2 of "1", 2 of "Well, 2." and 1 refusal.
    assert cells[0][:7] == ["structured", "strict", "10", "5", "2", "3", "0.700"]
    assert cells[1][:7] == ["structured", "tolerant", "10", "7", "2", "1", "0.900"]
    assert cells[2][:7] == ["structured", "strict", "3", "0", "0", "3", "0"]
    assert cells[0][7:] == [
        "0.750", "0.714", "0.600", "+0.11 [\u22120.05, +0.27]", "0.031", "failed",
    ]  # fmt: skip
    assert cells[1][7:] == ["0.750", "–", "0.600", "–", "–", "not judged"]
    assert cells[2][-1] == "not compared"
    assert rows[0].one("a", class_="failed").attributes["href"] == "#gates"


def test_the_most_frequent_answers_are_shown(page: Element, twin: dict[str, object]) -> None:
    said = page.all("details", class_="said")
    assert said[0].one("summary").words == (
        "game 10 answers to 1 prompt, 50% of them ended by the agent"
    )
    rows = [[td.words for td in row.all("td")] for row in said[0].one("tbody").all("tr")]
    assert rows == [
        ["2", "3", "defect", "defect"],
        ["1", "2", "cooperate", "cooperate"],
        ["Well, 2.", "2", "illegal", "defect"],
        ["2 and more words", "2", "defect", "defect"],
        [" ".join(f"No {HOSTILE}".split()), "1", "illegal", "illegal"],
    ]
    game = twin["answers"][0]
    assert [entry["count"] for entry in game["said"]] == [3, 2, 2, 2, 1]
    assert [entry["continued"] for entry in game["said"]] == [False, False, False, True, False]
    assert [r["agreement"] is None for a in twin["answers"] for r in a["readings"]] == [
        False, False, True, True,
    ]  # fmt: skip


def test_many_different_answers_are_counted_and_not_listed() -> None:
    texts = [(f"text {i // 2}", "illegal", "illegal") for i in range(2 * MOST_FREQUENT + 10)]
    table = from_rows("answers", answers("base", "p", texts))
    (found,) = agent_answers(run_of({"answers": table}))
    assert len(found.said) == MOST_FREQUENT
    assert (found.other_texts, found.other_answers) == (5, 10)
    assert found.readings[0].family == ""
    assert agent_answers(run_of({"answers": table.clear()})) == ()


def talks_of(rows: list[Row], characters: int = 10**6) -> list[tuple[str, int, int]]:
    found = agent_conversations(run_of({"transcripts": from_rows("transcripts", rows)}), characters)
    return [(agent.agent, agent.total, len(agent.shown)) for agent in found]


def test_many_conversations_are_bounded_fairly_and_counted() -> None:
    rows = [r for a in AGENTS for i in range(9) for r in conversation(a, f"prompt {i}")]
    assert talks_of(rows) == [(agent, 9, 9) for agent in AGENTS]
    assert talks_of(rows, 0) == [(agent, 9, 1) for agent in AGENTS]
    some = talks_of(rows, 25_000)
    assert all(1 < shown < 9 for _, _, shown in some)
    assert talks_of([]) == []


def test_a_long_decision_is_cut_in_the_heading_alone() -> None:
    long = "I will not choose. " * 20
    row = turn("base", "p", 0, ("assistant", "decision"), long)
    (found,) = agent_conversations(run_of({"transcripts": from_rows("transcripts", [row])}))
    assert found.shown[0].turns[0].text == long
    heading = found.shown[0].decision
    assert len(heading) == 80
    assert heading.endswith("…")
    assert long.startswith(heading.removesuffix("…"))


def test_turns_are_put_in_order() -> None:
    rows = [r for prompt in ("b", "a") for r in conversation("base", prompt)][::-1]
    (found,) = agent_conversations(run_of({"transcripts": from_rows("transcripts", rows)}))
    assert [talk.prompt for talk in found.shown] == ["a", "b"]
    for talk in found.shown:
        assert [t.topic for t in talk.turns] == ["decision", "decision", "why", "why"]


def test_tokens_that_are_not_the_text_stand_apart_from_it(tmp_path: Path) -> None:
    run = write_run(tmp_path, Size(cluster_prompts=1, claims=1), leave_out=NO_FIGURES)
    asked = turn("base", PROMPTS[0], 0, ("user", "decision"), "Choose.")
    said = turn("base", PROMPTS[0], 1, ("assistant", "decision"), "I choose action2")
    untold = turn("base", PROMPTS[0], 2, ("assistant", "why"), "No numbers.")
    other = spoken(said, [("Some", 0.5), ("thing", 0.02)])
    write_tables(run, transcripts=[asked, other, untold])
    build_report(run)
    first, second = read_page(run).all("div", class_="answered")
    verbatim, apart = first.all("p", class_="text")
    assert verbatim.text == "I choose action2"
    assert not verbatim.all("span")
    assert [s.text for s in apart.all("span")] == ["Some", "thing"]
    assert "joined they are not quite the text" in first.words
    assert "token probabilities not told" in second.words
    assert second.one("p", class_="text").text == "No numbers."


@pytest.mark.parametrize(
    ("tokens", "probabilities", "seen"),
    [
        ("[", "[]", "Invalid JSON"),
        ('["a"]', "[0.5, 0.5]", "1 tokens, 2 probabilities"),
        ('["a"]', "[1.5]", r"a probability outside \[0, 1\]"),
        ('["a"]', '["x"]', "valid number"),
        ('["a"]', "", "Invalid JSON"),
    ],
)
def test_damaged_tokens_are_an_error(tokens: str, probabilities: str, seen: str) -> None:
    row = turn("base", "p", 1, ("assistant", "why"), "a")
    row |= {"tokens": tokens, "probabilities": probabilities}
    with pytest.raises(
        TableError,
        match=rf"does not hold its tokens.*base on p, turn 1: .*{seen}.*two JSON lists.*again",
    ):
        talks_of([row])


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=20)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Content without figures, for rendering many variations quickly."""
    small = Size(trained=1, cluster_prompts=0, claims=0)
    run = write_run(tmp_path_factory.mktemp("bare") / "run", small, leave_out=NO_FIGURES)
    return dataclasses.replace(assemble(read_run(run), silent), figures=(), prompts=())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(why=st.lists(st.tuples(WORDS, st.floats(0, 1)), min_size=1, max_size=6))
def test_whatever_was_said_comes_through_as_itself(
    bare: Content, why: list[tuple[str, float]]
) -> None:
    rows = conversation("base", "p", why)
    found = agent_conversations(run_of({"transcripts": from_rows("transcripts", rows)}))
    said = found[0].shown[0].turns[3]
    assert said.covered
    assert "".join(token.text for token in said.tokens if token.written) == said.text
    page = read_report(render_pages(dataclasses.replace(bare, conversations=found)))
    text = page.all("div", class_="answered")[1].one("p", class_="text")
    spans = text.all("span")
    assert "".join(e.text for e in spans if not e.has("class_", "apart")) == said.text
    assert len(spans) == len(why) + 1


def test_the_page_of_talks_is_built_the_same_twice(talked: Path) -> None:
    before = (talked / "report.html").read_bytes(), (talked / "report.json").read_bytes()
    build_report(talked)
    assert before == ((talked / "report.html").read_bytes(), (talked / "report.json").read_bytes())
