"""Which components vary together, and is that different in another agent? Matrices over sub-layers.

Sub-layers stand by depth along both sides. A matrix has two triangles: above the diagonal the sizes
of what components write (``norm_correlation``), below it their pushes along the decision
(``projection_correlation``).
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from moralscope.core.site import parse_site
from moralscope.reports.arrange import panels
from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import INK, signed_colour
from moralscope.reports.run import Run

MEASURES = {
    "norm_correlation": "sizes of writes",
    "projection_correlation": "pushes along the decision",
}
"""What is correlated, in words."""

_AT_MOST = 4
"""Matrices that fit a page and that a browser draws at once."""

_SIDES = "above the diagonal: sizes; below: pushes"

_LABELS = 10
"""Names of sites along a side."""

_WHOLE = r"\.(attn|mlp)$"


def has_interactions(run: Run) -> bool:
    """Whether component interactions were measured."""
    return "interactions" in run.tables


def has_changes(run: Run) -> bool:
    """Whether networks were compared between agents."""
    return "interaction_changes" in run.tables


def wiring_matrices(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Correlations of all sub-layers: the base, and one agent of each reward."""
    name, title = "wiring_matrices", "Component interactions: which sub-layers vary together"
    if reason := run.lacks("interactions"):
        return Absent(name, title, reason)
    table = run.tables["interactions"].filter(
        pl.col("measure").is_in(list(MEASURES))
        & pl.col("site_a").str.contains(_WHOLE)
        & pl.col("site_b").str.contains(_WHOLE)
    )
    if table.is_empty():
        return Absent(name, title, "The table interactions has no correlations of sub-layers.")
    every = values(table, "agent")
    shown = _shown(run, [agent for agent in colours if agent in every] or every)
    order = in_depth(table)
    cells = two_triangles(
        table.filter(pl.col("agent").is_in(shown)).rename({"agent": "panel"}), "value"
    )
    undefined = int(table.get_column("value").null_count())
    left_out = len(every) - len(shown)
    return Figure(
        name=name,
        title=title,
        shows=f"Correlation of every two of {len(order)} sub-layers over "
        f"{table.get_column('n').max()} prompts, above the diagonal of the sizes of what they "
        "write to the residual stream, below it of their pushes along the decision. "
        f"{_mean_sizes(table, shown)}"
        f"{f' Left out: {left_out} agents, which are in the table.' * (left_out > 0)}"
        f"{f' Blank: {undefined} correlations without a value.' * (undefined > 0)}",
        does_not_show="Components that vary together need not act on each other: most of what is "
        "shared comes from the prompts, and is shared by every agent, the base included. Whether "
        "agents differ is tested pair by pair, and whether a pathway carries anything by patching.",
        chart=matrix_panels(cells, shown, order, "Correlation"),
        tables=("interactions",),
    )


def wiring_changes(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Differences of correlation between compared agents, pathways that survive marked."""
    del colours  # signs have colours; panels are named by their pair
    name, title = "wiring_changes", "Component interactions: what differs between agents"
    if reason := run.lacks("interaction_changes"):
        return Absent(name, title, reason)
    pair = pl.format("{} minus {}", "agent_a", "agent_b")
    table = run.tables["interaction_changes"].with_columns(panel=pair)
    named = table.filter(pl.col("kind") == "named")
    every = values(named if named.height else table, "panel")
    shown = every[:_AT_MOST]
    kept = table.filter(pl.col("panel").is_in(shown)).unique(
        ["panel", "measure", "site_a", "site_b"], keep="first", maintain_order=True
    )
    order = in_depth(table)
    cells = two_triangles(kept, "difference")
    surviving = two_triangles(kept.filter("survives"), "difference")
    more = f" Of {len(every)} comparisons the first {len(shown)} are drawn."
    return Figure(
        name=name,
        title=title,
        shows="Difference of the two agents' correlations over the same prompts, above the "
        "diagonal of sizes, below it of pushes along the decision; a black frame marks pathways "
        "that survive: significant among all pairs of sub-layers and of agents, the same sign "
        "whichever scenario is left out, in a network whose differences return from one half of "
        f"the scenarios to the other. {_survivors(kept, shown)}"
        f"{more * (len(every) > len(shown))}",
        does_not_show="Colour without a frame is what chance gives as well: with hundreds of "
        "pairs and few scenarios, large differences are bound to occur.",
        chart=matrix_panels(
            cells, shown, order, "Difference", surviving, reach=max(_LEAST, _largest(cells))
        ),
        tables=("interaction_changes", "interaction_networks"),
    )


_LEAST = 0.05
"""Differences of correlation that are coloured in full at least: smaller ones look like none."""


def _largest(cells: pl.DataFrame) -> float:
    """The largest difference, without the one cell in a hundred that is larger still."""
    return float(str(cells.get_column("value").abs().quantile(0.99) or 0.0))


def in_depth(table: pl.DataFrame) -> list[str]:
    """All sites of a table of pairs, by depth."""
    return sorted({*values(table, "site_a"), *values(table, "site_b")}, key=parse_site)


def two_triangles(table: pl.DataFrame, value: str) -> pl.DataFrame:
    """One cell per pair and measure: panel, x, y, value; sizes above the diagonal, pushes below."""
    above = pl.col("measure") == "norm_correlation"
    return table.select(
        "panel",
        pl.when(above).then("site_b").otherwise("site_a").alias("x"),
        pl.when(above).then("site_a").otherwise("site_b").alias("y"),
        pl.col(value).alias("value"),
    ).drop_nulls("value")


def matrix_panels(
    cells: pl.DataFrame,
    order_of_panels: Sequence[str],
    order: Sequence[str],
    title: str,
    framed: pl.DataFrame | None = None,
    *,
    reach: float = 1.0,
) -> alt.FacetChart:
    """A square per panel, every cell coloured from -reach to reach, some of them framed."""
    side = max(250, min(330, 14 * len(order)))  # the axis title fits under one panel
    step = max(1, -(-len(order) // _LABELS))
    axis = alt.Axis(values=list(order[::step]), ticks=False, domain=False, labelFontSize=9)
    scale = alt.Scale(domain=list(order))
    frame = cells.with_columns(framed=pl.lit(value=False))
    if framed is not None and framed.height:
        marked = framed.select("panel", "x", "y").with_columns(framed=pl.lit(value=True))
        frame = cells.join(marked, on=["panel", "x", "y"], how="left", maintain_order="left")
        frame = frame.with_columns(pl.col("framed").fill_null(value=False))
    base = alt.Chart().encode(
        x=alt.X("x:N", scale=scale, sort=list(order), title=_SIDES, axis=axis),
        y=alt.Y("y:N", scale=scale, sort=list(order), title=None, axis=axis),
    )
    layers = alt.layer(
        base.mark_rect().encode(color=signed_colour("value", reach, title)),
        base.transform_filter(alt.datum.framed).mark_rect(
            filled=False, stroke=INK, strokeWidth=1.6
        ),
        data=frame,
    ).properties(width=side, height=side)
    facet = alt.Facet("panel:N", sort=list(order_of_panels), title=None)
    return panels(layers, facet, columns=min(2, len(order_of_panels)), spacing=20)


def _shown(run: Run, agents: Sequence[str]) -> list[str]:
    """The base, then the first agent of each reward."""
    facts = {fact.name: fact for fact in run.agents}
    found: list[str] = []
    seen: set[str] = set()
    for agent in agents:
        fact = facts.get(agent)
        key = agent if fact is None or fact.reward is None else fact.reward
        if key not in seen:
            seen.add(key)
            found.append(agent)
    return found[:_AT_MOST]


def _mean_sizes(table: pl.DataFrame, shown: Sequence[str]) -> str:
    means = (
        table.filter(pl.col("agent").is_in(list(shown)))
        .group_by("agent", "measure")
        .agg(pl.col("value").abs().mean())
    )
    parts: list[str] = []
    for agent in shown:
        own = {row["measure"]: row["value"] for row in means.filter(agent=agent).to_dicts()}
        told = [
            f"{own[measure]:.2f} ({words})"
            for measure, words in MEASURES.items()
            if own.get(measure) is not None
        ]
        parts.append(f"{agent} {' and '.join(told)}")
    return f"Mean size of a correlation: {listing(parts)}."


def _survivors(kept: pl.DataFrame, shown: Sequence[str]) -> str:
    parts: list[str] = []
    for panel in shown:
        own = kept.filter(panel=panel)
        tested = own.get_column("difference").drop_nulls().len()
        parts.append(f"{panel} {int(own.get_column('survives').sum())} of {tested}")
    return f"Surviving: {listing(parts)}."
