"""Figures of weight updates: planted tables in, the same numbers in the charts and the words."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import vl_convert

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_weights import update_map, update_spectra
from moralscope.reports.figure_weights_compared import update_directions, update_overlaps
from moralscope.reports.figures import make_figures
from moralscope.reports.figures_weights import WEIGHTS
from moralscope.reports.look import styled
from moralscope.reports.run import Run, run_of

COLOURS = {"base": "#6b7280", "game-0": "#d55e00", "game-1": "#d55e00", "kind": "#0072b2"}
AGENTS = ("game-0", "game-1", "kind")
SIZES = {"game-0": 1.0, "game-1": 3.0, "kind": 0.5}
MODULES = ("self_attn.q_proj", "mlp.down_proj")
DRAWS = 39


def tables(*, reach: float | None = 0.1) -> dict[str, pl.DataFrame]:
    """Two seeds of one reward and an agent of another, on a model of three layers."""
    agents: list[dict[str, object]] = [{"agent": "base", "base": "tiny", "kind": "base"}]
    agents += [
        {"agent": name, "base": "tiny", "kind": "adapter", "reward": name[:4], "opponent": "random",
         "training_seed": seed}
        for name, seed in zip(AGENTS, (0, 1, 0), strict=True)
    ]  # fmt: skip
    places = [(layer, module) for layer in range(3) for module in MODULES]
    norms = [
        {"agent": agent, "layer": layer, "module": module, "norm": SIZES[agent] * (layer + 1),
         "base_norm": 10.0, "relative_norm": SIZES[agent] * (layer + 1) / 10.0,
         "spectral_norm": 1.0, "effective_rank": 2.0, "stable_rank": 2.0, "rank": 2,
         "n_parameters": 9}
        for agent in AGENTS for layer, module in places
    ]  # fmt: skip
    norms.append(
        {"agent": "kind", "layer": None, "module": "embed", "norm": 1.0, "base_norm": 10.0,
         "relative_norm": 0.1, "rank": None, "n_parameters": 9}
    )  # fmt: skip
    spectra = [
        {"agent": agent, "layer": layer, "module": module, "index": index, "singular_value": 1.0,
         "share": share}
        for agent in AGENTS for layer, module in places
        for index, share in enumerate((0.4, 0.3, 0.3) if agent == "kind" else (0.8, 0.2), start=1)
    ]  # fmt: skip
    pairs = [("game-0", "game-1", 0.5), ("game-0", "kind", 0.2), ("game-1", "kind", 0.2)]
    overlap = [
        {"agent_a": a, "agent_b": b, "layer": layer, "module": module, "side": side, "k": k,
         "overlap": value + 0.1 * layer, "expected": 0.1, "null_low": 0.05, "null_high": 0.25}
        for a, b, value in pairs for layer, module in places
        for side in ("outputs", "inputs") for k in (1, 4)
    ]  # fmt: skip
    distances = [
        {"agent_a": a, "agent_b": b, "layer": layer, "module": module, "inner": 0.0, "norm_a": 1.0,
         "norm_b": 1.0, "cosine": 0.0, "distance": 1.0, "reach": reach}
        for a, b, _ in pairs for layer, module in places
    ]  # fmt: skip
    comparisons = [
        {"comparison": "asked", "kind": "named", "agent_a": "game-0", "agent_b": "kind"},
        {"comparison": "asked", "kind": "named", "agent_a": "game-1", "agent_b": "kind"},
        {"comparison": "seeds", "kind": "replicate", "agent_a": "game-0", "agent_b": "game-1"},
    ]  # fmt: skip
    directions = [
        {"agent": agent, "axis": "1/2", "layer": layer, "module": module, "side": side,
         "norm": float(layer + 1), "share": 0.9 if agent == "kind" and layer == 2 else 0.0,
         "expected": 0.01, "ratio": 1.0, "null_high": 0.1, "control": 0.1, "control_high": 0.2}
        for agent in AGENTS for layer, module in places for side in ("writes", "reads")
        if (side == "writes") == (module == MODULES[1])
    ]  # fmt: skip
    controls = [
        {"agent": agent, "axis": "1/2", "side": side, "draw": draw, "share": draw / 100}
        for agent in AGENTS for side in ("writes", "reads") for draw in range(DRAWS)
    ]  # fmt: skip
    rows = {
        "agents": [{**row, "dtype": "float32"} for row in agents],
        "comparisons": [{**row, "tested": True} for row in comparisons],
        "update_norms": norms,
        "update_spectra": spectra,
        "update_overlap": overlap,
        "update_distances": distances,
        "update_directions": directions,
        "update_controls": controls,
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
    assert made.topic == "weights"
    return made


def charted(figure: Figure) -> list[dict[str, object]]:
    """All rows of the chart's data."""
    datasets = styled(figure.chart)["datasets"]
    assert isinstance(datasets, dict)
    return [row for rows in datasets.values() for row in rows]


def test_the_map_is_the_mean_over_seeds_and_leaves_other_parameters_to_words(run: Run) -> None:
    figure = drawn(update_map(run, COLOURS))
    cells = {(r["panel"], r["layer"], r["module"]): r["value"] for r in charted(figure)}
    assert len(cells) == 2 * 6
    assert cells["game (2 seeds)", 2, MODULES[0]] == pytest.approx((0.3 + 0.9) / 2)
    assert cells["kind", 0, MODULES[1]] == pytest.approx(0.05)
    assert "game (2 seeds) L2.self_attn.q_proj (0.600)" in figure.shows
    whole = np.sqrt(2 * (1 + 4 + 9) * 0.25 + 1) / np.sqrt(7 * 100)
    assert f"kind {whole:.3f}" in figure.shows
    assert "Not on the map: 1 other kinds of parameters" in figure.shows


def test_spectra_are_cumulative_and_stay_where_directions_end(run: Run) -> None:
    figure = drawn(update_spectra(run, COLOURS))
    curves = {(r["agent"], r["index"]): r["share"] for r in charted(figure)}
    expected = {"game (2 seeds)": (0.8, 1.0, 1.0), "kind": (0.4, 0.7, 1.0)}
    assert curves == {
        (name, i + 1): pytest.approx(v) for name, own in expected.items() for i, v in enumerate(own)
    }
    assert "game (2 seeds) 1 and kind 2" in figure.shows


def test_overlaps_are_means_per_comparison_over_the_random_band(run: Run) -> None:
    figure = drawn(update_overlaps(run, COLOURS))
    rows = charted(figure)
    lines = {
        (r["comparison"], r["panel"], r["layer"]): r["overlap"] for r in rows if r["comparison"]
    }
    assert len(lines) == 2 * 2 * 3
    assert lines["asked", "what updates write", 1] == pytest.approx(0.3)
    assert lines["seeds", "what updates read", 2] == pytest.approx(0.7)
    bands = [r for r in rows if r["low"] is not None]
    assert {(r["low"], r["high"]) for r in bands} == {(0.05, 0.25)}
    assert "between the 4 leading directions" in figure.shows
    assert "asked: 0.300 of outputs (random 0.100) and 0.300 of inputs" in figure.shows
    assert "began from the same random A" not in figure.shows


def test_overlaps_say_which_adapters_began_alike() -> None:
    alike = drawn(update_overlaps(run_of(tables(reach=0.97)), COLOURS))
    assert "3 of 3 pairs of adapters began from the same random A" in alike.shows
    unknown = drawn(update_overlaps(run_of(tables(reach=None)), COLOURS))
    assert "began from" not in unknown.shows


def test_pairs_without_a_comparison_are_named_as_others() -> None:
    found = tables()
    found["comparisons"] = found["comparisons"].filter(pl.col("kind") == "replicate")
    figure = drawn(update_overlaps(run_of(found), COLOURS))
    assert {r["comparison"] for r in charted(figure)} == {"others", "seeds", None}


def test_directions_stand_beside_random_tokens(run: Run) -> None:
    figure = drawn(update_directions(run, COLOURS))
    rows = {(r["agent"], r["side"]): r for r in charted(figure)}
    own = rows["kind", "writes"]
    assert own["share"] == pytest.approx(0.9 * 9 / 14)
    assert own["low"] == pytest.approx(0.01)
    assert own["middle"] == pytest.approx(0.19)
    assert own["high"] == pytest.approx(0.37)
    assert rows["game (2 seeds)", "reads"]["share"] == 0.0
    assert "Beyond the bar on some side: 1 of 2" in figure.shows
    assert "The most: kind, 58% of what it" in figure.shows


def test_updates_of_zero_have_no_direction() -> None:
    found = tables()
    found["update_directions"] = found["update_directions"].with_columns(
        share=pl.lit(None, pl.Float64)
    )
    absent = update_directions(run_of(found), COLOURS)
    assert isinstance(absent, Absent)
    assert absent.reason == "No update has a share along the decision's axis."


def test_each_belongs_to_runs_that_measured_it(run: Run) -> None:
    names = [make(run, COLOURS).name for _, _, make in WEIGHTS]
    assert [figure.name for figure in make_figures(run, COLOURS) if figure.name in names] == names
    bare = run_of({})
    assert not any(asked(bare) for _, asked, _ in WEIGHTS)
    for _, _, make in WEIGHTS:
        absent = make(bare, COLOURS)
        assert isinstance(absent, Absent)
        assert absent.reason.startswith("The table update_")
