"""How deep does training act, in models of different size? Shares of effects by relative depth."""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.run import Run

NAME, TITLE = "depths", "Where training acts, by relative depth"

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222", "#999999")


def has_depths(run: Run) -> bool:
    """Whether the run is a series of models."""
    return "depths" in run.tables


def depth_profiles(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """A line per model, a panel per level."""
    del colours  # models have colours, not agents
    if reason := run.lacks("depths"):
        return Absent(NAME, TITLE, reason)
    table = run.tables["depths"]
    layers = table.group_by("member").agg(pl.col("layer").n_unique().alias("layers"))
    means = (
        table.group_by("member", "level", "layer", "relative_depth", maintain_order=True)
        .agg(pl.col("share").mean())
        .join(layers, on="member")
        # Shares of models with more layers are smaller; per unit of depth they are alike.
        .with_columns(density=pl.col("share") * pl.col("layers"))
        .sort("member", "level", "layer")
    )
    members = table.get_column("member").unique(maintain_order=True).to_list()
    scale = alt.Scale(domain=members, range=[_COLOURS[i % 8] for i in range(len(members))])
    panels = [
        alt.Chart(alt.Data(values=means.filter(pl.col("level") == level).to_dicts()))
        .mark_line(point=alt.OverlayMarkDef(size=18), interpolate="monotone")
        .encode(
            x=alt.X("relative_depth:Q", title="Relative depth", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("density:Q", title="Share of effects per unit of depth"),
            color=alt.Color("member:N", title="Model", scale=scale, sort=members),
        )
        .properties(width=330, height=220, title=level)
        for level in table.get_column("level").unique(maintain_order=True)
    ]
    return Figure(
        name=NAME,
        title=TITLE,
        shows="How the summed absolute effects of a scenario are spread over a model's depth: 0 is "
        "the embedding, 1 the last layer; mean over agents and scenarios. Even spread is a line at "
        f"1. Models: {', '.join(members)}.",
        does_not_show="Whether two models differ: the claims compare their centres scenario by "
        "scenario. Nor how depth changes with size: these are single models.",
        chart=alt.hconcat(*panels),
        tables=("depths", "members"),
    )
