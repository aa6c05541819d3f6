"""Where did fine-tuning change the weights, and in how many directions? Norms and spectra.

Norms are relative to those of the base's own weights, ``|dW| / |W|``, as a map of layers by linear
layer; agents that differ in their seed only are one map, the mean over them. A spectrum is the
share of an update's squared norm in its first n directions, the mean over linear layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups
from moralscope.reports.arrange import panels
from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.matrix import SEQUENTIAL
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

_HALF = 0.5
"""Share of the squared norm for which directions are counted in words."""


def has_updates(run: Run) -> bool:
    """Whether weight updates were measured."""
    return "update_norms" in run.tables


def update_map(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Relative norm of the update of every linear layer, a panel per training."""
    name, title = "weights", "Weight updates: which layers and modules training moved"
    if reason := run.lacks("update_norms"):
        return Absent(name, title, reason)
    table = run.tables["update_norms"]
    groups = agent_groups(run, colours, values(table, "agent"))
    cells = relative_norms(table, groups)
    if cells.is_empty():
        return Absent(name, title, "The table update_norms holds no linear layer.")
    others = table.filter(pl.col("rank").is_null())
    beyond = others.get_column("module").n_unique()
    return Figure(
        name=name,
        title=title,
        shows="Frobenius norm of the update of each linear layer over that of the base's own "
        f"weight, from the effective weights. Largest: {_largest(cells, groups.names)}. Together: "
        f"{_totals(table, groups)}."
        f"{f' Not on the map: {beyond} other kinds of parameters that moved.' * (beyond > 0)}",
        does_not_show="A large update need not matter: it may turn inputs that never occur, or "
        "write where nothing reads. Whether layers that moved are those where patches find "
        "effects is a claim of its own.",
        chart=_map(cells, groups.names),
        tables=("update_norms",),
        topic="weights",
    )


def relative_norms(table: pl.DataFrame, groups: AgentGroups) -> pl.DataFrame:
    """Mean over seeds per linear layer: columns panel, layer, module, value (ratio)."""
    return (
        table.filter(pl.col("rank").is_not_null())
        .with_columns(panel=pl.col("agent").replace_strict(groups.name_of))
        .group_by("panel", "layer", "module", maintain_order=True)
        .agg(value=pl.col("relative_norm").mean())
        .drop_nulls("value")
    )


def _map(cells: pl.DataFrame, order: Sequence[str]) -> alt.FacetChart:
    layers = cells.get_column("layer").unique().sort().to_list()
    modules = values(cells, "module")
    every = max(1, -(-len(layers) // 10))
    width = max(6.0, min(22.0, 330 / len(layers)))
    top = float(cells.get_column("value").to_numpy().max(initial=0.0)) or 1.0
    steps = [top * i / (len(SEQUENTIAL) - 1) for i in range(len(SEQUENTIAL))]
    legend = alt.Legend(
        title="Norm of the update over that of the weight",
        orient="top",
        direction="horizontal",
        gradientLength=260,
        gradientThickness=10,
        titleLimit=600,
        values=[0.0, top / 2, top],
        format=".2~g",
    )
    chart = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X(
                "layer:O",
                title="Layer",
                sort=layers,
                axis=alt.Axis(values=layers[::every], labelAngle=0, ticks=False),
            ),
            y=alt.Y("module:N", title=None, sort=modules, axis=alt.Axis(ticks=False)),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(domain=steps, range=list(SEQUENTIAL), clamp=True),
                legend=legend,
            ),
        )
        .properties(width=alt.Step(width), height=alt.Step(15))
    )
    facet = alt.Facet("panel:N", sort=list(order), title=None)
    return panels(chart, facet, columns=1 if len(layers) * width > 250 else 2, spacing=16)


def _largest(cells: pl.DataFrame, order: Sequence[str]) -> str:
    found: list[str] = []
    for name in order:
        own = cells.filter(pl.col("panel") == name).sort("value", descending=True)
        if own.height and own["value"][0] > 0.0:
            found.append(f"{name} L{own['layer'][0]}.{own['module'][0]} ({plain(own['value'][0])})")
    return listing(found) or "none, as nothing moved"


def _totals(table: pl.DataFrame, groups: AgentGroups) -> str:
    """Norm of the whole update over that of all weights, mean over seeds."""
    sums = (
        table.with_columns(panel=pl.col("agent").replace_strict(groups.name_of))
        .group_by("panel", "agent")
        .agg(total=((pl.col("norm") ** 2).sum() / (pl.col("base_norm") ** 2).sum()).sqrt())
        .group_by("panel")
        .agg(pl.col("total").mean())
    )
    found = dict(sums.iter_rows())
    return listing([f"{name} {plain(found[name])}" for name in groups.names if name in found])


# Spectra


def update_spectra(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Share of the update's squared norm in its leading directions, a line per training."""
    name, title = "weights_spectra", "Weight updates: in how many directions training moved them"
    if reason := run.lacks("update_spectra"):
        return Absent(name, title, reason)
    table = run.tables["update_spectra"]
    groups = agent_groups(run, colours, values(table, "agent"))
    curves = cumulative_shares(table, groups)
    ranks: list[str] = []
    for group in groups.names:
        half = curves.filter((pl.col("agent") == group) & (pl.col("share") >= _HALF))
        ranks.append(f"{group} {half['index'][0]}" if half.height else f"{group} more than kept")
    chart = (
        alt.Chart(curves)
        .mark_line()
        .encode(
            x=alt.X("index:Q", title="Leading directions", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y(
                "share:Q",
                title="Share of the squared norm",
                scale=alt.Scale(domain=[0, 1], nice=False),
            ),
            color=groups.colour,
        )
        .properties(width=560, height=220)
    )
    return Figure(
        name=name,
        title=title,
        shows="Share of the squared norm of an update in its leading singular directions, mean "
        f"over linear layers. Half of it lies in so many: {listing(ranks)}.",
        does_not_show="An adapter cannot move a layer in more directions than its rank, so a "
        "curve that ends there says what was allowed as much as what was learned.",
        chart=chart,
        tables=("update_spectra",),
        topic="weights",
    )


def cumulative_shares(table: pl.DataFrame, groups: AgentGroups) -> pl.DataFrame:
    """Mean over linear layers and seeds: columns agent (as drawn), index, share in [0, 1].

    A layer whose directions have ended keeps the share that it had reached.
    """
    last = int(str(table.get_column("index").max() or 0))
    key = ["agent", "layer", "module"]
    places = table.select(key).unique(maintain_order=True)
    whole = places.join(pl.DataFrame({"index": range(1, last + 1)}), how="cross")
    filled = whole.join(table.select(*key, "index", "share"), on=[*key, "index"], how="left")
    running = filled.sort(*key, "index").with_columns(
        share=pl.col("share").fill_null(0.0).cum_sum().over(key).clip(0.0, 1.0),
        agent=pl.col("agent").replace_strict(groups.name_of),
    )
    return running.group_by("agent", "index").agg(pl.col("share").mean()).sort("agent", "index")
