"""The cascade drawn: its dots are the table's, its gaps are named, its words are true."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_cascade import LEVELS, MOST, cascade, has_cascade
from moralscope.reports.figures import make_figures
from moralscope.reports.look import agent_colours, styled
from moralscope.reports.run import Run, run_of

Row = dict[str, object]

ALIKE, BETWEEN = "indistinguishable from another seed", "between"


def row(
    level: str, kind: str, pair: tuple[str, str], relative: float | None, **more: object
) -> Row:
    return {
        "level": level, "measure": "first", "comparison": "morals", "kind": kind,
        "agent_a": pair[0], "agent_b": pair[1], "distance": 1.0, "unit": "nats", "floor": 0.5,
        "floor_kind": "seeds", "floor_high": 0.6, "control": 2.0, "relative": relative,
        "low": None if relative is None else relative - 0.1,
        "high": None if relative is None else relative + 0.1, "n_units": 10,
        "replicate": "training seeds", "p_adjusted": 0.01, "answer": None, "reason": "A reason.",
        **more,
    }  # fmt: skip


REWARDS = ("deontological", "utilitarian")
ROWS = [
    row("behaviour", "rewards", REWARDS, 0.05, answer=ALIKE),
    row("behaviour", "named", ("de-0", "ut-0"), 0.07),
    row("behaviour", "named", ("de-0", "own"), 4.5, answer=BETWEEN),
    row("behaviour", "replicate", ("de-0", "de-1"), -0.2, comparison="seeds"),
    row("behaviour", "replicate", ("ut-0", "ut-1"), 0.3, comparison="seeds"),
    row("behaviour", "base", ("base", "de-0"), 1.0, comparison="base"),
    row("wiring", "rewards", REWARDS, 0.8, answer=BETWEEN),
    row("wiring", "rewards", REWARDS, 9.9, measure="second"),
    row("weights", "rewards", REWARDS, None, floor=None, floor_kind=None, floor_high=None),
    row("attention", "rewards", REWARDS, None),
]


def run_with(rows: list[Row]) -> Run:
    agents = [
        {"agent": name, "base": "tiny", "kind": kind, "reward": reward, "training_seed": 0,
         "dtype": "float32"}
        for name, kind, reward in (
            ("base", "base", None), ("de-0", "adapter", "deontological"),
            ("de-1", "adapter", "deontological"), ("ut-0", "adapter", "utilitarian"),
            ("ut-1", "adapter", "utilitarian"), ("own", "adapter", "game"),
        )
    ]  # fmt: skip
    tables = {"agents": from_rows("agents", agents), "cascade": from_rows("cascade", rows)}
    return run_of(tables)


def drawn(figure: Figure | Absent) -> tuple[list[Row], dict[str, list[Row]]]:
    """The layers of the chart, and the rows behind each kind of mark."""
    assert isinstance(figure, Figure)
    spec: Any = styled(figure.chart)
    marks: dict[str, list[Row]] = {}
    for layer in spec["layer"]:
        marks.setdefault(layer["mark"]["type"], []).extend(spec["datasets"][layer["data"]["name"]])
    return spec["layer"], marks


@pytest.fixture(scope="module")
def figure() -> Figure:
    found = cascade(run_with(ROWS), {})
    assert isinstance(found, Figure)
    return found


def test_dots_are_the_comparisons_of_the_first_measures(figure: Figure) -> None:
    layers, marks = drawn(figure)
    dots = {(d["level"], d["who"]): d for d in marks["point"]}
    assert set(dots) == {
        ("behaviour", "deontological and utilitarian"),
        ("behaviour", "de-0 and own"),
        ("wiring", "deontological and utilitarian"),
    }
    assert {at: d["told"] for at, d in dots.items()}["wiring", "deontological and utilitarian"]
    assert not dots["behaviour", "deontological and utilitarian"]["told"]
    far = dots["behaviour", "de-0 and own"]
    assert (far["relative"], far["place"], far["beyond"]) == (4.5, 3.0, True)
    hollow = [layer for layer in layers if layer["mark"].get("fill") == "white"]
    assert len(hollow) == 1


def test_the_band_spans_the_pairs_of_seeds(figure: Figure) -> None:
    _, marks = drawn(figure)
    assert marks["bar"] == [{"level": "behaviour", "low": -0.2, "high": 0.3}]


def test_every_level_has_its_row_and_gaps_say_why(figure: Figure) -> None:
    layers, marks = drawn(figure)
    said = {str(gap["level"]): gap["said"] for gap in marks["text"]}
    assert said == {
        "attribution": "not measured", "patching": "not measured",
        "representations": "not measured", "weights": "not identified: no two seeds measured",
        "attention": "no scale: seeds lie as far apart as fine-tuning moves",
    }  # fmt: skip
    assert layers[0]["encoding"]["y"]["scale"]["domain"] == list(LEVELS)


def test_words_count_what_is_drawn(figure: Figure) -> None:
    assert figure.shows.startswith(
        "Further apart than seeds in 2 of 3 places of comparisons and levels; furthest de-0 and "
        "own in behaviour (4.50)."
    )
    alike = cascade(run_with(ROWS[:1]), {})
    assert isinstance(alike, Figure)
    assert "at no level further apart than two seeds of one reward (1 places" in alike.shows
    nothing = cascade(run_with(ROWS[8:9]), {})
    assert isinstance(nothing, Figure)
    assert "no place is identified" in nothing.shows


def test_more_comparisons_than_colours_are_counted() -> None:
    rows = [row("behaviour", "named", (f"a{i}", f"b{i}"), 0.1 * i) for i in range(MOST + 3)]
    figure = cascade(run_with(rows), {})
    _, marks = drawn(figure)
    assert len({dot["who"] for dot in marks["point"]}) == MOST
    assert isinstance(figure, Figure)
    assert "3 more comparisons are in the table." in figure.shows


def test_without_a_table_or_a_comparison_it_is_absent() -> None:
    assert not has_cascade(run_of({}))
    absent = cascade(run_of({}), {})
    assert isinstance(absent, Absent)
    assert absent.reason == "The table cascade is not in this run."
    alone = cascade(run_with(ROWS[3:6]), {})
    assert isinstance(alone, Absent)
    assert alone.reason == "No two agents or rewards were compared by name."


def test_it_is_among_the_figures_of_a_run() -> None:
    run = run_with(ROWS)
    colours = agent_colours([a.name for a in run.agents], frozenset({"base"}), {})
    found = {figure.name: figure for figure in make_figures(run, colours)}
    assert isinstance(found["cascade"], Figure)
    assert found["cascade"].tables == ("cascade",)
    assert pl.DataFrame(ROWS, infer_schema_length=None).height == len(ROWS)
