"""How deep does training act, in models of different size? Shares of effects by relative depth."""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import beside
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

NAME, TITLE = "depths", "Where training acts, by relative depth"

MOST = len(AGENT_COLOURS)
"""Models drawn; more would repeat colours."""


def has_depths(run: Run) -> bool:
    """Whether the run is a series of models."""
    return "depths" in run.tables


def depth_profiles(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """A line per model, a panel per level."""
    del colours  # models have colours, not agents
    if reason := run.lacks("depths"):
        return Absent(NAME, TITLE, reason)
    table = run.tables["depths"]
    every = table.get_column("member").unique(maintain_order=True).to_list()
    members = every[:MOST]
    means = _densities(table.filter(pl.col("member").is_in(members)))
    levels = means.get_column("level").unique(maintain_order=True).to_list()
    more = f" Of {len(every)} models the first {MOST} are drawn." if len(every) > MOST else ""
    return Figure(
        name=NAME,
        title=TITLE,
        shows="How the summed absolute effects of a scenario are spread over a model's depth: 0 is "
        "the embedding, 1 the last layer; mean over scenarios and agents. Effects that are spread "
        f"evenly are a line at 1. {_told(means, levels, members)}{more}",
        does_not_show="Whether two models differ: the claims compare their centres scenario by "
        "scenario. Nor how depth changes with size: these are single models.",
        chart=beside([_panel(means, level, members) for level in levels], spacing=26),
        tables=("depths", "members") if "members" in run.tables else ("depths",),
    )


def _densities(table: pl.DataFrame) -> pl.DataFrame:
    """Mean share per layer, and the same per unit of relative depth.

    A model with more layers has less in each; per unit of depth they can be laid on each other.
    """
    keys = ["member", "level", "layer", "relative_depth"]
    layers = table.group_by("member").agg(pl.col("layer").n_unique().alias("layers"))
    return (
        table.group_by(keys, maintain_order=True)
        .agg(pl.col("share").mean())
        .join(layers, on="member", maintain_order="left")
        .with_columns(density=pl.col("share") * pl.col("layers"))
        .sort("level", "member", "layer", maintain_order=True)
    )


def _told(means: pl.DataFrame, levels: list[str], members: list[str]) -> str:
    """The centre of each model's effects, level by level."""
    centre = (pl.col("share") * pl.col("relative_depth")).sum() / pl.col("share").sum()
    found = means.group_by("level", "member").agg(centre.alias("centre"))
    at = {(level, member): value for level, member, value in found.iter_rows()}
    told = [
        f"{level}: " + listing([f"{m} {plain(at[level, m])}" for m in members if (level, m) in at])
        for level in levels
    ]
    return f"Centres of the effects. {'; '.join(told)}."


def _panel(means: pl.DataFrame, level: str, members: list[str]) -> alt.LayerChart | alt.FacetChart:
    x = alt.X(
        "relative_depth:Q",
        title="Relative depth",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5),
    )

    def y(field: str) -> alt.Y:
        top = means.get_column("density").max()
        scale = alt.Scale(domain=[0.0, max(1.0, float(str(top)))])
        return alt.Y(f"{field}:Q", title="Share of effects per unit of depth", scale=scale)

    scale = alt.Scale(domain=members, range=list(AGENT_COLOURS[: len(members)]))
    own = means.filter(pl.col("level") == level).select("member", "relative_depth", "density")
    even = alt.Chart(pl.DataFrame({"even": [1.0]}))
    return alt.layer(
        even.mark_rule(strokeDash=[4, 3], color=BASE_COLOUR).encode(y=y("even")),
        alt.Chart(own)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(
            x=x, y=y("density"), color=alt.Color("member:N", title="Model", scale=scale, sort=None)
        ),
    ).properties(width=330, height=220, title=level)
