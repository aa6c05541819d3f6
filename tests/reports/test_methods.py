"""Does the text of methods and limitations say what this run did, and nothing else?"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import polars as pl
import pytest
from report_reading import read_pages
from synthetic_run import Size, write_run

from moralscope.core.progress import silent
from moralscope.core.tables import read_table
from moralscope.evidence.designing.question import Question
from moralscope.reports.content import Content, assemble
from moralscope.reports.findings import group_findings
from moralscope.reports.judged import Gate
from moralscope.reports.limits import limitations_of
from moralscope.reports.methods_files import methods_files
from moralscope.reports.passages import passages_of, settings_of
from moralscope.reports.references import MARK, REFERENCES, bibliography, cited, pieces
from moralscope.reports.run import FailedStage, Run, read_run


@pytest.fixture(scope="module")
def run(reported: Path) -> Run:
    return read_run(reported)


def told(run: Run) -> dict[str, str]:
    return {passage.heading: passage.text for passage in passages_of(run)}


def without(run: Run, *names: str) -> Run:
    return dataclasses.replace(
        run, tables={name: t for name, t in run.tables.items() if name not in names}
    )


def test_numbers_in_the_text_are_counted_in_the_tables(run: Run) -> None:
    text = told(run)
    prompts = run.tables["prompts"]
    assert (
        f"{prompts.height} prompts in {prompts['scenario'].n_unique()} scenarios"
        in (text["Prompts"])
    )
    assert "game (1 seed) and utilitarian (1 seed)" in text["Agents"]
    assert f"{run.tables['patching'].height:,} patches" in text["Activation patching"]
    assert f"{run.tables['gates'].height} gates" in text["Gates and controls"]
    worst = run.tables["completeness"].get_column("error").abs().max()
    assert f"at most {worst:.1e} nats" in text["Attribution"]
    assert "torch 2.13.0" in text["Software"]


@pytest.mark.parametrize(
    ("table", "heading"),
    [
        ("lens", "Logit lens"),
        ("attribution", "Attribution"),
        ("patching", "Activation patching"),
        ("training", "Training"),
        ("prompts", "Prompts"),
        ("claims", "Statistics"),
        ("gates", "Gates and controls"),
    ],
)
def test_a_method_is_told_only_where_it_was_used(run: Run, table: str, heading: str) -> None:
    assert heading in told(run)
    assert heading not in told(without(run, table))


def test_settings_come_from_the_study_file(run: Run) -> None:
    text = "name: x\ntraining: {steps: 7, labels: both}\nevidence: {alpha: 0.01, draws: 99}\n"
    configured = dataclasses.replace(run, config=text)
    found = told(configured)
    assert "steps 7 and labels both" in found["Training"]
    assert "at the level 0.01" in found["Statistics"]
    assert "(99 draws where not exact)" in found["Statistics"]
    for damaged in ("{", "- a list", None):
        assert settings_of(dataclasses.replace(run, config=damaged)) == {}
        assert passages_of(dataclasses.replace(run, config=damaged))


def test_every_citation_has_an_entry_and_every_entry_is_cited(further: Path) -> None:
    methods = (further / "report" / "methods.md").read_text()
    entries = (further / "report" / "references.bib").read_text()
    keys = {key for mark in MARK.findall(methods) for key in mark.split("; @")}
    assert set(re.findall(r"^@\w+\{(\w+),$", entries, re.MULTILINE)) == keys
    assert {"nostalgebraist2020", "zhang2024", "conmy2023", "westfall1993"} <= keys
    page = read_pages(further)["report/methods.html"]
    assert {a.attributes["href"] for a in page.one("section", id="passages").all("a")} >= {
        f"#ref-{key}" for key in keys
    }
    for key in keys:
        assert page.all("li", id=f"ref-{key}")


def test_references_are_whole() -> None:
    for key, reference in REFERENCES.items():
        assert key == reference.key
        assert str(reference.year) in key
        assert reference.address.startswith("https://")
        entry = bibliography([reference])
        assert entry.count("{") == entry.count("}")
    assert REFERENCES["tennant2025"].short == "Tennant et al., 2025"
    assert REFERENCES["zhang2024"].short == "Zhang and Nanda, 2024"
    assert REFERENCES["holm1979"].short == "Holm, 1979"
    works = pieces("First [@holm1979; @hu2022]. Then.")
    assert [words for words, _ in works] == ["First ", ". Then."]
    assert [reference.key for reference in works[0][1]] == ["holm1979", "hu2022"]
    assert [r.key for r in cited(["[@holm1979]", "[@hu2022] [@holm1979]"])] == [
        "hu2022", "holm1979",
    ]  # fmt: skip


QUESTION = Question(
    question="reward", subject="game", unit="training seed", n=1, floor=1.0, level=0.05, needed=8,
    needed_for_power=15, identified=False, sentence="Claims about the game reward need 8 seeds.",
)  # fmt: skip


def limits(run: Run, **changed: object) -> dict[str, list[str]]:
    given: dict[str, object] = {
        "groups": (), "gates": (), "design": (), "failed": (), **changed,
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    for limitation in limitations_of(run, **given):  # type: ignore[arg-type]
        found.setdefault(limitation.about, []).append(limitation.text)
    return found


def test_limitations_come_from_what_failed_and_from_nothing_else(run: Run) -> None:
    empty = dataclasses.replace(run, tables={}, agents=())
    assert limits(empty) == {}
    gate = Gate("liveness", "game", 0.0, 0.9, passed=False, advice="The adapter does nothing.")
    assert limits(empty, gates=(gate,)) == {
        "gates": ["The gate liveness failed for game. The adapter does nothing."]
    }
    assert limits(empty, gates=(dataclasses.replace(gate, passed=True),)) == {}
    assert limits(empty, design=(QUESTION,)) == {"design": [QUESTION.sentence]}
    assert limits(empty, design=(dataclasses.replace(QUESTION, identified=True),)) == {}
    stage = FailedStage(name="patch", why="full", skipped=False)
    assert "1 stage did not finish (patch)" in limits(empty, failed=(stage,))["stages"][0]


def test_verdicts_limit_what_can_be_said(run: Run) -> None:
    empty = dataclasses.replace(run, tables={}, agents=())
    one = run.tables["claims"].head(1)

    def of(verdict: str, statement: str = "x") -> dict[str, list[str]]:
        claims = one.with_columns(
            verdict=pl.lit(verdict), statement=pl.lit(statement), detectable=pl.lit(0.25)
        )
        return limits(empty, groups=group_findings(claims))

    assert of("supported") == {}
    assert (
        "1 supported claim holds" in of("supported", "So. The wordings disagree: a.")["wording"][0]
    )
    assert "effects below 0.250 to 0.250 nats" in of("not distinguishable from noise")["noise"][0]
    assert "1 claim cannot be settled" in of("not identified by this design")["design"][0]
    assert "1 claim is explained by a failed gate" in of("artefact")["gates"][0]


def test_scope_names_models_scenarios_and_single_seeds(run: Run) -> None:
    scope = limits(run)["scope"]
    scenarios = run.tables["prompts"].get_column("scenario").n_unique()
    assert f"1 base model and for situations like the {scenarios} scenarios" in scope[0]
    assert "The rewards game and utilitarian were trained with one seed" in scope[1]


def test_files_and_page_say_the_same(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, Size(cluster_prompts=1, claims=3),
        leave_out=("policy", "cooperation", "training", "lens", "attribution", "patching"),
    )  # fmt: skip
    content: Content = dataclasses.replace(assemble(read_run(folder), silent), figures=())
    files = methods_files(content)
    assert set(files) == {"methods.md", "limitations.md", "references.bib"}
    for passage in content.passages:
        assert f"## {passage.heading}\n\n{passage.text}\n" in files["methods.md"]
    assert files["limitations.md"].count("\n- ") == len(content.limitations)
    assert read_table("claims", folder / "tables").height == 3
