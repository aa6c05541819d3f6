"""Which parts must be trained? Parameters against behaviour kept, as a curve for every choice."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.run import Run

NAME, TITLE = "targeting", "Behaviour kept by training parts alone"

LABELS = {
    "all": "everything",
    "patching": "chosen by patching",
    "attribution": "chosen by attribution",
    "pathways": "chosen by pathways",
    "random": "drawn at random",
    "early": "early layers",
    "middle": "middle layers",
    "late": "late layers",
}
"""Ways of choosing, in the order of the legend."""

_COLOURS = (
    "#222222", "#0072b2", "#56b4e9", "#009e73", "#999999", "#e69f00", "#d55e00", "#cc79a7",
)  # fmt: skip


def has_targeting(run: Run) -> bool:
    """Whether parts were trained."""
    return "targeting" in run.tables


def targeting_curve(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean over training seeds with every training as a dot."""
    del colours  # every agent is a training of parts; ways of choosing have colours
    if reason := run.lacks("targeting"):
        return Absent(NAME, TITLE, reason)
    table = run.tables["targeting"].filter(pl.col("behaviour_kept").is_not_null())
    if table.is_empty():
        return Absent(NAME, TITLE, "The whole training changed nothing that could be kept.")
    rows = table.select(
        "agent",
        pl.col("strategy").replace(LABELS).alias("way"),
        pl.col("budget").cast(pl.String).alias("sub-layers"),
        pl.col("share").alias("parameters"),
        pl.col("behaviour_kept").alias("kept"),
        "chosen_here",
    )
    means = rows.group_by("way", "sub-layers", maintain_order=True).agg(
        pl.col("parameters").mean(), pl.col("kept").mean(), pl.len().alias("seeds")
    )
    ways = [label for label in LABELS.values() if label in set(rows["way"])]
    seeds = table.get_column("training_seed").n_unique()
    return Figure(
        name=NAME,
        title=TITLE,
        shows="Share of the whole training's change in log-odds that trainings of parts keep "
        f"(slope over prompts), against their share of its parameters. Small dots: each of {seeds} "
        "training seeds, hollow where parts were chosen on that very seed; lines: means.",
        does_not_show="Whether a way of choosing beats chance: the claims say that. A share of 1 "
        "says that decisions move as much, not that they are made in the same way.",
        chart=_chart(rows, means, ways),
        tables=("targeting",),
    )


def _chart(rows: pl.DataFrame, means: pl.DataFrame, ways: list[str]) -> Any:
    order = list(LABELS.values())
    colour = alt.Color(
        "way:N",
        title="Parts",
        scale=alt.Scale(domain=ways, range=[_COLOURS[order.index(way)] for way in ways]),
        sort=ways,
    )
    x = alt.X(
        "parameters:Q",
        title="Share of the parameters trained",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~%"),
    )
    y = alt.Y("kept:Q", title="Share of the change kept", axis=alt.Axis(format="~%"))
    base = alt.Chart(alt.Data(values=means.to_dicts()))
    lines = base.mark_line(point=alt.OverlayMarkDef(size=60)).encode(x=x, y=y, color=colour)
    dots = (
        alt.Chart(alt.Data(values=rows.to_dicts()))
        .mark_point(size=22, opacity=0.7)
        .encode(
            x=x,
            y=y,
            color=colour,
            fillOpacity=alt.condition("datum.chosen_here", alt.value(0), alt.value(0.7)),
            tooltip=["agent:N", "sub-layers:N", alt.Tooltip("kept:Q", format=".2f")],
        )
    )
    whole = (
        alt.Chart(alt.Data(values=[{"kept": 1.0}, {"kept": 0.0}]))
        .mark_rule(strokeDash=[3, 3], color="#888888")
        .encode(y="kept:Q")
    )
    return (whole + dots + lines).properties(width=520, height=300)
