"""The map of patches averages over one way of patching, and says which."""

from __future__ import annotations

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_sites import patching_heatmap
from moralscope.reports.run import run_of


def patch(effect: float, **place: str) -> dict[str, object]:
    usual = {"source": "base", "target": "game", "prompt": "p", "source_prompt": "p"}
    way = {"positions": "answer_span", "write": "write"}
    site = {"site": "L0.mlp", "layer": 0, "kind": "mlp", "head": None}
    found = {"baseline_log_odds": 0.0, "patched_log_odds": effect, "effect": effect}
    return {**usual, **way, **site, **found, "margin": -effect, "flipped": False, **place}


def drawn(*rows: dict[str, object]) -> Figure | Absent:
    return patching_heatmap(run_of({"patching": from_rows("patching", rows)}), {})


def test_other_ways_of_patching_are_not_averaged_in():
    ways = ({"positions": "all"}, {"write": "z"}, {"source_prompt": "q"})
    figure = drawn(patch(1.0), *(patch(9.0, **way) for way in ways))
    assert isinstance(figure, Figure)
    assert "Largest: base into game L0.mlp (+1.00)" in figure.shows
    assert figure.does_not_show.endswith("A pair is patched at the answer only.")


def test_a_map_says_where_and_from_where():
    told = {
        "at every token.": {"positions": "all"},
        "at the span move.": {"positions": "move"},
        "at the answer only, across prompts.": {"source_prompt": "q"},
    }
    for ending, way in told.items():
        figure = drawn(patch(1.0, **way))
        assert isinstance(figure, Figure)
        assert figure.does_not_show.endswith(f"A pair is patched {ending}")


def test_without_a_head_or_mlp_there_is_no_map():
    stream = patch(1.0) | {"site": "L0.resid_pre", "kind": "resid_pre"}
    figure = patching_heatmap(
        run_of({"patching": pl.DataFrame([stream], schema_overrides={"head": pl.Int64})}), {}
    )
    assert isinstance(figure, Absent)
    assert figure.reason == "No single head or MLP was patched in this run."
