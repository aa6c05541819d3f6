"""Figures of component interactions: planted networks in, the same numbers in the charts."""

from __future__ import annotations

import json

import polars as pl
import pytest
import vl_convert

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_wiring import wiring_changes, wiring_matrices
from moralscope.reports.figure_wiring_pathways import (
    wiring_distances,
    wiring_effects,
    wiring_pathways,
)
from moralscope.reports.figures import make_figures
from moralscope.reports.figures_wiring import WIRING
from moralscope.reports.look import styled
from moralscope.reports.run import Run, run_of

COLOURS = {"base": "#6b7280", "game": "#d55e00", "kind": "#0072b2"}
SITES = ("L0.attn", "L0.mlp", "L1.attn", "L1.mlp")
PAIRS = [(a, b) for i, a in enumerate(SITES) for b in SITES[i + 1 :]]
MEASURES = ("norm_correlation", "projection_correlation")
NAMED = {"comparison": "asked", "kind": "named", "agent_a": "game", "agent_b": "kind"}


def tables(*, survives: bool = True) -> dict[str, pl.DataFrame]:
    """Three agents; between two of them one pathway of the sizes changes, if it survives."""
    interactions = [
        {"agent": agent, "site_a": a, "site_b": b, "measure": measure, "n": 60,
         "value": None if (a, b) == PAIRS[0] else 0.1 * index}
        for agent in COLOURS for measure in MEASURES for index, (a, b) in enumerate(PAIRS)
    ]  # fmt: skip
    changes = [
        {**NAMED, "measure": measure, "site_a": a, "site_b": b, "correlation_a": 0.5,
         "correlation_b": 0.5 - 0.1 * index, "difference": 0.1 * index, "p_adjusted": 0.5,
         "stable": True, "survives": survives and index == 5 and measure == MEASURES[0]}
        for measure in MEASURES for index, (a, b) in enumerate(PAIRS)
    ]  # fmt: skip
    networks = [
        {**pair, "measure": measure, "sites": 4, "pairs": 6, "prompts": 60, "prompts_needed": 178,
         "scenarios": 20, "changed": 1, "distance": distance, "p": p, "p_adjusted": p,
         "reliability": 0.8, "surviving": 1}
        for measure in MEASURES
        for pair, distance, p in (
            (NAMED, 0.3, 0.01),
            ({**NAMED, "comparison": "base", "kind": "base", "agent_a": "base"}, 0.5, 0.2),
        )
    ]  # fmt: skip
    pathways = [
        {k: v for k, v in NAMED.items() if k != "kind"}
        | {"measure": MEASURES[0], "sender": a, "receiver": b, "difference": -0.1 * index,
           "survives": survives and index == 5, "effect_a_to_b": -0.2, "effect_b_to_a": 0.1 * index,
           "chosen_as": "random" if index < 5 else "survivor" if survives else "largest"}
        for index, (a, b) in enumerate(PAIRS)
    ]  # fmt: skip
    rows = {
        "interactions": interactions,
        "interaction_changes": changes,
        "interaction_networks": networks,
        "pathways": pathways,
    }
    return {name: from_rows(name, each) for name, each in rows.items()}


@pytest.fixture(scope="module")
def run() -> Run:
    return run_of(tables())


def drawn(made: Figure | Absent) -> Figure:
    assert isinstance(made, Figure), made
    # What the exporter refuses, no reader would see.
    svg = vl_convert.vegalite_to_svg(json.dumps(styled(made.chart)))
    assert "<svg" in svg
    return made


def charted(figure: Figure) -> list[dict[str, object]]:
    """All rows of the chart's data."""
    spec = styled(figure.chart)
    datasets = spec["datasets"]
    assert isinstance(datasets, dict)
    return [row for rows in datasets.values() for row in rows]


def test_matrices_hold_sizes_above_and_pushes_below_the_diagonal(run: Run) -> None:
    figure = drawn(wiring_matrices(run, COLOURS))
    rows = [row for row in charted(figure) if row["panel"] == "game"]
    assert len(rows) == 2 * 5  # one of six correlations has no value
    values = {(row["y"], row["x"]): row["value"] for row in rows}
    assert values["L1.attn", "L1.mlp"] == values["L1.mlp", "L1.attn"] == pytest.approx(0.5)
    assert "over 60 prompts" in figure.shows
    assert "Blank: 6 correlations without a value" in figure.shows


def test_differences_frame_what_survives_and_nothing_else(run: Run) -> None:
    figure = drawn(wiring_changes(run, COLOURS))
    framed = [row for row in charted(figure) if row["framed"]]
    assert [(row["y"], row["x"]) for row in framed] == [("L1.attn", "L1.mlp")]
    assert "Surviving: game minus kind 1 of 12." in figure.shows
    none = drawn(wiring_changes(run_of(tables(survives=False)), COLOURS))
    assert not [row for row in charted(none) if row["framed"]]
    assert "game minus kind 0 of 12" in none.shows


def test_the_diagram_draws_survivors_and_says_where_there_are_none(run: Run) -> None:
    figure = drawn(wiring_pathways(run, COLOURS))
    arcs = {row["pathway"] for row in charted(figure) if row.get("pathway")}
    assert arcs == {"0: L1.attn to L1.mlp"}
    none = drawn(wiring_pathways(run_of(tables(survives=False)), COLOURS))
    assert not [row for row in charted(none) if row.get("pathway")]
    assert len([row for row in charted(none) if row.get("site")]) == 4
    assert "No pathway survives, so nothing is drawn" in none.shows


def test_effects_stand_against_changes_by_size(run: Run) -> None:
    figure = drawn(wiring_effects(run, COLOURS))
    rows = {str(row["pathway"]): row for row in charted(figure)}
    last = rows["L1.attn to L1.mlp"]
    assert (last["change"], last["effect"]) == (pytest.approx(0.5), pytest.approx(0.35))
    assert last["chosen_as"] == "survivor"
    assert "The rank correlation is tested in the claims." in figure.shows


def test_effects_tell_the_verdict_of_the_claim() -> None:
    row = {
        "id": "pathways:game:kind", "statement": "s", "estimate": 0.4, "low": None, "high": None,
        "unit": "rank correlation", "n_units": 6, "test": "t", "p": 0.2, "p_adjusted": 0.2,
        "p_floor": 0.01, "gates": "none applies", "registered": False,
        "verdict": "not distinguishable from noise", "reason": "r", "replicate": "pathways",
        "query": "SELECT 1",
    }  # fmt: skip
    figure = drawn(wiring_effects(run_of({**tables(), "claims": from_rows("claims", [row])}), {}))
    assert "(sizes) rank correlation +0.40, not distinguishable from noise." in figure.shows


def test_distances_stand_beside_the_positive_control(run: Run) -> None:
    figure = drawn(wiring_distances(run, COLOURS))
    rows = charted(figure)
    assert {(row["what"], row["distance"], row["differs"]) for row in rows} == {
        ("compared agents", 0.3, True),
        ("base and agent (positive control)", 0.5, False),
    }
    assert "60 prompts in 20 scenarios; 178 independent ones" in figure.shows


def test_each_belongs_to_runs_that_measured_it(run: Run) -> None:
    names = [make(run, COLOURS).name for _, _, make in WIRING]
    assert [figure.name for figure in make_figures(run, COLOURS) if figure.name in names] == names
    bare = run_of({})
    assert not any(asked(bare) for _, asked, _ in WIRING)
    assert all(isinstance(make(bare, COLOURS), Absent) for _, _, make in WIRING)


@pytest.mark.parametrize("entry", WIRING, ids=lambda entry: entry[2].__name__)
def test_what_was_measured_and_is_empty_is_absent_with_its_reason(run: Run, entry) -> None:
    _, asked, make = entry
    table = drawn(make(run, COLOURS)).tables[0]
    empty = make(run_of({**run.tables, table: run.tables[table].clear()}), COLOURS)
    assert isinstance(empty, Absent)
    assert empty.reason == f"The table {table} of this run has no rows."
    assert asked(run)
