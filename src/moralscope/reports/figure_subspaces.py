"""Through how few directions does a difference pass? Shares reached on unseen scenarios.

A panel per search: the share of what exchanging the whole stream does that a subspace reaches, by
depth and dimension, beside the same search for arbitrary sides and random subspaces.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.run import Run

_WORDS = {
    "none": "the subspace",
    "arbitrary": "searched for arbitrary sides",
    "random": "random subspaces",
}
_COLOURS = {"none": AGENT_COLOURS[1], "arbitrary": AGENT_COLOURS[0], "random": "#9aa5b1"}


def has_subspaces(run: Run) -> bool:
    """Whether subspaces were searched."""
    return "subspaces" in run.tables


def subspaces(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Held-out share by relative depth, dimension and control, a panel per search."""
    name, title = "subspaces", "Subspaces: through how few directions a difference passes"
    del colours  # a colour is a control here
    if reason := run.lacks("subspaces"):
        return Absent(name, title, reason)
    rows = subspace_rows(run.tables["subspaces"])
    if rows.is_empty():
        return Absent(name, title, "Exchanging the whole stream changed no decision in this run.")
    return Figure(
        name=name,
        title=title,
        shows="Share of what exchanging the whole stream does to the decision that exchanging a "
        "subspace does, on scenarios that the search had not seen, mean and 95% interval over "
        f"them. Most at one layer: {listing(_best(rows))}.",
        does_not_show="A subspace that reaches the effect need not be the one that the model uses: "
        "a search can also find directions that are dormant in ordinary prompts. Shares of an "
        "exchange that does little are wide; the table says how much it does.",
        chart=_chart(rows),
        tables=("subspaces",),
        topic="representations",
    )


def subspace_rows(table: pl.DataFrame) -> pl.DataFrame:
    """Columns panel, layer, series, dimension, control, share, low, high of the held-out half."""
    between = pl.col("source") != pl.col("agent")
    return (
        table.filter(split="test")
        .drop_nulls("interchange_effect")
        .select(
            panel=pl.when(between)
            .then(pl.format("{} into {}", "source", "agent"))
            .otherwise(pl.format("{} in {}", "what", "agent")),
            layer="layer",
            dimension=pl.format("{} dim.", "dimension"),
            control=pl.col("control").replace_strict(_WORDS, return_dtype=pl.String),
            share="interchange_effect",
            low=pl.col("low").clip(-1.5, 2.5),
            high=pl.col("high").clip(-1.5, 2.5),
        )
    )


def _best(rows: pl.DataFrame) -> list[str]:
    own = rows.filter(control=_WORDS["none"]).sort("share", descending=True)
    return [
        f"{row['panel']} {row['share']:.0%} (layer {row['layer']}, {row['dimension']})"
        for row in own.unique("panel", keep="first", maintain_order=True).iter_rows(named=True)
    ]


def _chart(rows: pl.DataFrame) -> alt.FacetChart:
    order = rows.get_column("panel").unique(maintain_order=True).to_list()
    layers = rows.get_column("layer").unique().sort().to_list()
    colour = alt.Color(
        "control:N",
        title=None,
        scale=alt.Scale(domain=list(_WORDS.values()), range=list(_COLOURS.values())),
    )
    sizes = rows.get_column("dimension").unique(maintain_order=True).to_list()
    shape = alt.Shape("dimension:N", title=None, sort=sizes)
    base = alt.Chart().encode(
        x=alt.X("layer:O", sort=layers, title="After layer", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("dimension:N", sort=sizes),
        color=colour,
    )
    share = alt.Y("share:Q", title="Share of the whole exchange", axis=alt.Axis(format=".0%"))
    rule = pl.DataFrame({"at": [0.0, 1.0]})
    chart = alt.layer(
        alt.Chart(rule).mark_rule(color=BASE_COLOUR, strokeDash=[4, 3]).encode(y="at:Q"),
        base.mark_rule(strokeWidth=2, opacity=0.5).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=46, opacity=0.95).encode(y=share, shape=shape),
        data=rows,
    ).properties(width=260, height=170)
    return panels(chart, alt.Facet("panel:N", sort=order, title=None), columns=2, spacing=18)
