"""How does an explanation look? The report's own figures, drawn from tables in memory.

Where there is no agent beside the base, there is no change of attribution to draw; then the base's
own contributions are.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.export import Picture, render
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_lens import lens_trajectories
from moralscope.reports.figure_sites import attribution_heatmap, patching_heatmap, saturation
from moralscope.reports.look import agent_colours, signed_colour, styled
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run, run_of

_DRAWN = ("head", "mlp")
_LAYERED = ("attn", "resid_pre", "resid_mid", "resid_post")


def figures(tables: Mapping[str, pl.DataFrame]) -> tuple[Figure, ...]:
    """The figures that these tables allow."""
    run = run_of(tables)
    names = [agent.name for agent in run.agents]
    bases = frozenset(agent.name for agent in run.agents if agent.kind == "base")
    colours = agent_colours(names, bases, dict.fromkeys(names))
    found: list[Figure] = []
    for make in (lens_trajectories, attribution_heatmap, patching_heatmap):
        made = make(run, colours)
        if make is attribution_heatmap and isinstance(made, Absent):
            made = contributions(run)
        if isinstance(made, Figure):
            found.append(made)
    depths = by_depth(run)
    return (*found, depths) if depths else tuple(found)


def draw(tables: Mapping[str, pl.DataFrame]) -> dict[str, alt.TopLevelMixin]:
    """Charts by name, each with the style of the report."""
    return {figure.name: alt.Chart.from_dict(styled(figure.chart)) for figure in figures(tables)}


def pictures(tables: Mapping[str, pl.DataFrame]) -> tuple[tuple[Figure, Picture], ...]:
    """Figures with their renderings."""
    return tuple((figure, render(figure)) for figure in figures(tables))


def contributions(run: Run) -> Figure | None:
    """What each head and MLP of the base adds to the logit difference, mean over prompts."""
    table = run.tables.get("attribution")
    if table is None:
        return None
    means = (
        table.filter((pl.col("token") == -1) & (pl.col("part") == "whole"))
        .group_by("site", "layer", "kind", "head", maintain_order=True)
        .agg(value=pl.col("contribution").mean())
    )
    cells = means.filter(pl.col("kind").is_in(_DRAWN)).with_columns(
        component=pl.when(pl.col("kind") == "mlp")
        .then(pl.lit("MLP"))
        .otherwise(pl.format("{}", "head"))
    )
    cap = saturation(cells.get_column("value"))
    heads: list[int] = cells.get_column("head").drop_nulls().unique().sort().to_list()
    rows = [*map(str, heads), "MLP"]
    positive, negative = run.option_words
    total = float(means.get_column("value").sum())
    rest = float(means.filter(~pl.col("kind").is_in(_DRAWN)).get_column("value").sum())
    chart = (
        alt.Chart(cells.select("layer", "component", "value"))
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0, ticks=False)),
            y=alt.Y("component:O", title="Head", sort=rows, axis=alt.Axis(ticks=False)),
            color=signed_colour(
                "value", cap, f"Mean contribution (nats); colours saturate at ±{cap:.2g}"
            ),
        )
        .properties(width=alt.Step(14), height=alt.Step(14))
    )
    return Figure(
        name="attribution",
        title="Attribution: what each component adds to the decision",
        shows=f"What each head and MLP adds to the logit difference, mean of "
        f"{table.get_column('prompt').n_unique()} prompts; orange pushes towards {positive}, "
        f"purple towards {negative}. All components together {signed(total)} nats, of which "
        f"{signed(rest)} outside the map (embedding, biases).",
        does_not_show="A contribution says what a component writes towards the answer, not what "
        "it does for others; patching and ablation tell that. Opposite contributions on different "
        "prompts cancel in this mean.",
        chart=chart,
        tables=("attribution",),
    )


def by_depth(run: Run) -> Figure | None:
    """Effects of patching attention layers and the residual stream, by layer."""
    table = run.tables.get("patching")
    if table is None:
        return None
    means = (
        table.filter(pl.col("kind").is_in(_LAYERED))
        .with_columns(pair=pl.format("{} into {}", "source", "target"))
        .group_by("pair", "kind", "layer", maintain_order=True)
        .agg(effect=pl.col("effect").mean())
    )
    if means.is_empty():
        return None
    order = means.get_column("pair").unique(maintain_order=True).to_list()
    lines = (
        alt.Chart(means)
        .mark_line(point=True)
        .encode(
            x=alt.X("layer:Q", title="Layer", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("effect:Q", title="Mean effect on log-odds (nats)"),
            color=alt.Color("kind:N", title="Site", sort=list(_LAYERED)),
        )
        .properties(width=360, height=170)
    )
    facet = alt.Facet("pair:N", sort=order, title=None)
    top = means.sort(pl.col("effect").abs(), descending=True).row(0, named=True)
    return Figure(
        name="patching-depth",
        title="Patching: effects by depth",
        shows=f"Change in the target's log-odds when one attention layer or the residual stream at "
        f"one depth is the source's, mean of {table.get_column('prompt').n_unique()} prompts. "
        f"Largest: {top['pair']}, {top['kind']} of layer {top['layer']} "
        f"({signed(top['effect'])} nats).",
        does_not_show="A stream that carries the whole difference need not be where it is made: "
        "everything before it, at these positions, is swapped with it.",
        chart=panels(lines, facet, columns=min(2, len(order)), spacing=22),
        tables=("patching",),
    )
