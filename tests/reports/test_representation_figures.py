"""Figures of representations: known tables in, the same numbers in the charts and the words."""

from __future__ import annotations

import json
from collections.abc import Callable

import polars as pl
import pytest
import vl_convert

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_directions import (
    direction_effects,
    separation_rows,
    separations,
    strongest,
)
from moralscope.reports.figure_representations import (
    representation_similarity,
    similarity_curves,
)
from moralscope.reports.figure_subspaces import subspace_rows, subspaces
from moralscope.reports.figures import make_figures
from moralscope.reports.figures_representations import REPRESENTATIONS
from moralscope.reports.look import styled
from moralscope.reports.run import Run, run_of

COLOURS = {"base": "#6b7280", "game-0": "#d55e00", "game-1": "#d55e00", "kind": "#0072b2"}
AGENTS = ("game-0", "game-1", "kind")

Row = dict[str, object]
Draw = Callable[[Run, dict[str, str]], Figure | Absent]


def _similarity() -> list[Row]:
    pairs = {("base", "game-0"): 0.5, ("base", "kind"): 0.4, ("game-0", "game-1"): 0.1,
             ("game-0", "kind"): 0.3, ("game-1", "kind"): 0.35}  # fmt: skip
    rows: list[Row] = []
    for (a, b), apart in pairs.items():
        for layer in (-1, 0, 1, 2):
            at: Row = {"agent_a": a, "agent_b": b, "layer": layer, "n": 20}
            moved = apart * (layer + 1)
            rows.append({**at, "measure": "distance", "value": moved, "low": 0.9 * moved,
                         "high": 1.1 * moved})  # fmt: skip
            cosine = None if a == "base" or layer < 0 else 1.0 - apart
            rows.append({**at, "measure": "change_cosine", "value": cosine})
            rows.append({**at, "measure": "raw_cosine", "value": 0.9991})
    return rows


def _separations() -> list[Row]:
    asked = [("labels", "base", 0.9, 0.7), ("labels", "kind", 0.8, 0.7),
             ("agents", "game-0|kind", 1.0, None),
             ("agents", "game-0|game-1", 0.95, None)]  # fmt: skip
    return [
        {"what": what, "subject": who, "layer": layer, "method": method, "accuracy": accuracy,
         "auc": accuracy, "chance": 0.5, "chance_low": 0.3, "chance_high": 0.7,
         "null_p": 0.01 if accuracy > 0.85 else 0.2, "n_null": 99, "permuted": "prompts",
         "random_model": random, "direction": 1.0, "n": 20, "n_prompts": 40}
        for what, who, accuracy, random in asked
        for layer in (0, 2)
        for method in ("mean_difference", "logistic")
    ]  # fmt: skip


def _subspaces() -> list[Row]:
    shares = {"none": 0.9, "arbitrary": -0.2, "random": 0.01}
    return [
        {"what": what, "source": source, "agent": "game-0", "layer": layer, "dimension": k,
         "split": split, "control": control, "full_effect": 0.5, "n": 10,
         "interchange_effect": share - 0.1 * layer if split == "test" else 1.0,
         "low": share - 9.0, "high": share + 0.1}
        for what, source in (("agents", "kind"), ("opponent_previous", "game-0"))
        for layer in (1, 2)
        for k in (1, 4)
        for split in ("train", "test")
        for control, share in shares.items()
    ]  # fmt: skip


def _effects() -> list[Row]:
    return [
        {"what": what, "subject": "kind", "agent": "kind", "layer": layer, "draw": draw,
         "norm": 1.0, "effect": size * (layer + 1) if draw < 0 else 0.3 * (draw - 0.5),
         "low": -1.0, "high": 1.0, "n": 10}
        for what, size in (("labels", 1.0), ("own_previous", -0.01))
        for layer in (0, 1)
        for draw in (-1, 0, 1)
    ]  # fmt: skip


def tables() -> dict[str, pl.DataFrame]:
    """Two seeds of one reward, an agent of another, and the base."""
    agents: list[Row] = [{"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"}]
    agents += [
        {"agent": name, "base": "tiny", "kind": "adapter", "reward": name[:4],
         "training_seed": seed, "dtype": "float32"}
        for name, seed in zip(AGENTS, (0, 1, 0), strict=True)
    ]  # fmt: skip
    comparisons: list[Row] = [
        {"comparison": "asked", "kind": "named", "agent_a": "game-0", "agent_b": "kind",
         "tested": True},
        {"comparison": "asked", "kind": "named", "agent_a": "game-1", "agent_b": "kind",
         "tested": False},
        {"comparison": "seeds", "kind": "replicate", "agent_a": "game-0", "agent_b": "game-1",
         "tested": True},
        {"comparison": "base", "kind": "base", "agent_a": "base", "agent_b": "game-0",
         "tested": True},
        {"comparison": "base", "kind": "base", "agent_a": "base", "agent_b": "kind",
         "tested": True},
    ]  # fmt: skip
    found = {
        "agents": agents, "comparisons": comparisons,
        "representation_similarity": _similarity(), "separations": _separations(),
        "subspaces": _subspaces(), "direction_effects": _effects(),
    }  # fmt: skip
    return {name: from_rows(name, rows) for name, rows in found.items()}


def drawn(draw: Draw) -> Figure:
    figure = draw(run_of(tables()), COLOURS)
    assert isinstance(figure, Figure)
    svg = vl_convert.vegalite_to_svg(json.dumps(styled(figure.chart)))
    assert svg.count("<path") > 4
    assert figure.topic == "representations"
    return figure


def test_comparisons_stand_between_seeds_and_the_base() -> None:
    curves = similarity_curves(run_of(tables()))
    at = {
        (row["comparison"], row["measure"], round(row["depth"], 3)): row
        for row in curves.iter_rows(named=True)
    }
    asked = at["asked", "distance", 1.0]
    assert asked["value"] == pytest.approx(3 * 0.325)
    assert (asked["low"], asked["high"]) == pytest.approx((3 * 0.3, 3 * 0.35))
    seeds = at["seeds of one reward", "distance", 1.0]
    assert (seeds["low"], seeds["high"]) == pytest.approx((0.27, 0.33))
    assert at["base and its fine-tunes", "distance", 0.333]["value"] == pytest.approx(0.45)
    assert ("base and its fine-tunes", "change_cosine", 1.0) not in at
    figure = drawn(representation_similarity)
    assert "cosine is 0.999 at least" in figure.shows
    assert "seeds of one reward as a grey band" in figure.shows


def test_probes_stand_beside_chance_and_agents_beside_seeds() -> None:
    rows = separation_rows(run_of(tables()))
    assert set(rows.filter(what="agents").get_column("agent")) == {"kind", "seeds of one reward"}
    figure = drawn(separations)
    assert "labels (2 of 4 readings)" in figure.shows
    assert "two seeds of one reward (grey)" in figure.shows
    alone = tables() | {"comparisons": tables()["comparisons"].filter(kind="named")}
    without = separations(run_of(alone), COLOURS)
    assert isinstance(without, Figure)
    assert "has no control" in without.shows


def test_a_direction_is_drawn_where_it_does_most_beside_random_ones() -> None:
    rows = strongest(tables()["direction_effects"])
    assert set(rows.get_column("row")) == {"labels: kind at L1", "own_previous: kind at L1"}
    figure = drawn(direction_effects)
    assert "1 of 2 directions do more than every random one" in figure.shows


def test_a_subspace_is_judged_by_what_it_reaches_on_unseen_scenarios() -> None:
    rows = subspace_rows(tables()["subspaces"])
    assert set(rows.get_column("panel")) == {"kind into game-0", "opponent_previous in game-0"}
    own = rows.filter(panel="kind into game-0", control="the subspace", layer=1)
    assert own.get_column("share").to_list() == pytest.approx([0.8, 0.8])
    assert own.get_column("low").min() == -1.5
    assert "kind into game-0 80% (layer 1, 1 dim.)" in drawn(subspaces).shows


def test_without_their_tables_they_are_absent_and_unmentioned() -> None:
    empty = run_of({})
    for _, asked, draw in REPRESENTATIONS:
        assert not asked(empty)
        found = draw(empty, {})
        assert isinstance(found, Absent)
        assert "is not in this run" in found.reason
    nothing = tables()["subspaces"].with_columns(interchange_effect=pl.lit(None, pl.Float64))
    none = subspaces(run_of({"subspaces": nothing}), {})
    assert isinstance(none, Absent)
    assert "changed no decision" in none.reason


def test_a_run_that_asked_for_them_mentions_all_four() -> None:
    names = {figure.name for figure in make_figures(run_of(tables()), COLOURS)}
    assert {"representations", "separations", "direction_effects", "subspaces"} <= names
