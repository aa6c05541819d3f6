"""Do updates share directions, and do they lie along the decision? Both beside random ones.

Overlaps by depth: what two agents' updates of one linear layer write (outputs) and read (inputs)
alike, mean over the linear layers of a decoder layer and over the pairs of one comparison, over the
band in which random directions lie. Directions: the share of the whole update along the
axis of the two answers, beside that along axes of random pairs of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from moralscope.evidence.pairs import BASE, SEEDS, compared
from moralscope.reports.agent_groups import agent_groups
from moralscope.reports.arrange import in_row, panels
from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

SIDES = {"outputs": "what updates write", "inputs": "what updates read"}
"""Sides of an overlap, in words."""

AXES = {"writes": "written by attention and MLP", "reads": "read by queries, keys, values, MLP"}
"""Sides of a direction, in words."""

_AT_MOST = 6
"""Comparisons that are drawn beside the seeds."""

_OTHER = "others"

_HALF_REACH = 0.5


def has_overlaps(run: Run) -> bool:
    """Whether updates of agents were compared."""
    return "update_overlap" in run.tables


def has_directions(run: Run) -> bool:
    """Whether updates were held against the decision's axis."""
    return "update_directions" in run.tables


def update_overlaps(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Overlap of leading subspaces by depth, a line per comparison over the random band."""
    del colours  # lines are comparisons, not agents
    name, title = "weights_overlaps", "Weight updates: directions that agents share"
    if reason := run.lacks("update_overlap"):
        return Absent(name, title, reason)
    table = run.tables["update_overlap"]
    k = int(str(table.get_column("k").max()))
    curves = overlap_curves(run, k)
    names = values(curves, "comparison")
    shown = [n for n in names if n != SEEDS][:_AT_MOST] + [n for n in names if n == SEEDS]
    curves = curves.filter(pl.col("comparison").is_in(shown))
    told = [_means(curves, comparison) for comparison in shown]
    left = len(names) - len(shown)
    reach = _reach(run)
    return Figure(
        name=name,
        title=title,
        shows=f"Mean squared cosine of the angles between the {k} leading directions of two "
        "agents' updates, by decoder layer, over the band that holds 95% of random directions of a "
        f"single linear layer, in the spaces that its updates can reach. {'; '.join(told)}.{reach}"
        f"{f' Left out: {left} comparisons, which are in the table.' * (left > 0)}",
        does_not_show="Directions are shared by any two trainings on the same prompts. That two "
        "rewards share fewer than two seeds of one reward do is what a claim about rewards needs.",
        chart=_overlap_chart(curves, shown),
        tables=("update_overlap", "update_distances"),
        topic="weights",
    )


def overlap_curves(run: Run, k: int) -> pl.DataFrame:
    """Means per comparison, side and decoder layer: overlap, expected, low, high.

    A pair of agents in no comparison of the run counts as one of its own kind, ``others``.
    """
    table = run.tables["update_overlap"].filter(pl.col("k") == k)
    of_pair = {
        frozenset(pair.agents): pair.comparison
        for pair in compared(run.tables)
        if pair.comparison != BASE
    }
    pairs = table.select("agent_a", "agent_b").unique(maintain_order=True)
    named = [of_pair.get(frozenset(pair), _OTHER) for pair in pairs.iter_rows()]
    return (
        table.join(
            pairs.with_columns(comparison=pl.Series(named, dtype=pl.String)),
            on=["agent_a", "agent_b"],
            maintain_order="left",
        )
        .group_by("comparison", "side", "layer", maintain_order=True)
        .agg(
            pl.col("overlap").mean(),
            pl.col("expected").mean(),
            low=pl.col("null_low").mean(),
            high=pl.col("null_high").mean(),
        )
        .sort("side", "layer", maintain_order=True)
    )


def _overlap_chart(curves: pl.DataFrame, shown: Sequence[str]) -> alt.FacetChart:
    palette = [
        BASE_COLOUR if name == SEEDS else AGENT_COLOURS[index % len(AGENT_COLOURS)]
        for index, name in enumerate(shown)
    ]
    frame = curves.with_columns(panel=pl.col("side").replace_strict(SIDES))
    band = (
        frame.group_by("panel", "layer", maintain_order=True)
        .agg(pl.col("low").min(), pl.col("high").max())
        .with_columns(comparison=pl.lit(None, pl.String), overlap=pl.lit(None, pl.Float64))
    )
    rows = pl.concat(
        [band, frame.select(*band.columns).with_columns(low=None, high=None)],
        how="vertical_relaxed",
    )
    base = alt.Chart().encode(x=alt.X("layer:Q", title="Layer", axis=alt.Axis(tickMinStep=1)))
    layers = alt.layer(
        base.transform_filter("datum.low != null")
        .mark_area(color=BASE_COLOUR, opacity=0.22)
        .encode(y=alt.Y("low:Q", title="Overlap"), y2="high:Q"),
        base.transform_filter("datum.comparison != null")
        .mark_line(point=True)
        .encode(
            y=alt.Y("overlap:Q", title="Overlap"),
            color=alt.Color(
                "comparison:N",
                title="Comparison",
                scale=alt.Scale(domain=list(shown), range=palette),
            ),
            strokeDash=alt.StrokeDash(
                "comparison:N",
                title="Comparison",
                scale=alt.Scale(
                    domain=list(shown), range=[[5, 3] if n == SEEDS else [1, 0] for n in shown]
                ),
            ),
        ),
        data=rows,
    ).properties(width=340, height=200)
    column = alt.Column("panel:N", sort=list(SIDES.values()), title=None)
    return in_row(layers, column, spacing=24)


def _means(curves: pl.DataFrame, comparison: str) -> str:
    own = curves.filter(pl.col("comparison") == comparison).group_by("side").agg(
        pl.col("overlap", "expected").mean()
    )  # fmt: skip
    found = {row["side"]: row for row in own.iter_rows(named=True)}
    told = [
        f"{plain(found[side]['overlap'])} of {side} (random {plain(found[side]['expected'])})"
        for side in SIDES
        if side in found
    ]
    return f"{comparison}: {' and '.join(told)}"


def _reach(run: Run) -> str:
    """How many pairs of adapters began from the same A, in words."""
    if run.lacks("update_distances") is not None:
        return ""
    means = (
        run.tables["update_distances"]
        .group_by("agent_a", "agent_b")
        .agg(pl.col("reach").mean())
        .drop_nulls()
    )
    alike = means.filter(pl.col("reach") >= _HALF_REACH).height
    if not alike:
        return ""
    return (
        f" {alike} of {means.height} pairs of adapters began from the same random A and can read "
        "the same inputs whatever they learned; the band takes that into account."
    )


# Along the decision


def update_directions(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Share of each agent's update along the axis of the answers, beside random tokens."""
    name, title = "weights_directions", "Weight updates: what lies along the decision"
    if reason := run.lacks("update_directions", "update_controls"):
        return Absent(name, title, reason)
    rows = direction_rows(run, colours)
    if rows.is_empty():
        return Absent(name, title, "No update has a share along the decision's axis.")
    axes = values(rows, "axis")
    beyond = rows.filter(pl.col("share") > pl.col("high")).get_column("agent").n_unique()
    total = rows.get_column("agent").n_unique()
    return Figure(
        name=name,
        title=title,
        shows="Share of the squared norm of an agent's update that lies along the axis of the "
        f"answers {listing(axes)} (dot), over the middle 95% of the same along axes of random "
        f"pairs of tokens (bar). Beyond the bar on some side: {beyond} of {total}. "
        f"{_strongest(rows)}",
        does_not_show="The axis is that of the two labels, whichever move each stands for: an "
        "update along it changes which label is said. And an update can move the decision without "
        "lying along it, by changing what later layers read.",
        chart=_direction_chart(rows),
        tables=("update_directions", "update_controls"),
        topic="weights",
    )


def direction_rows(run: Run, colours: dict[str, str]) -> pl.DataFrame:
    """Per drawn agent, axis and side: share, and low, middle and high of random tokens.

    The share is that of the whole update; of agents that differ in their seed the mean.
    """
    key = ["agent", "axis", "side"]
    squares = pl.col("norm") ** 2
    own = (
        run.tables["update_directions"]
        .drop_nulls("share")
        .group_by(key, maintain_order=True)
        .agg(share=(squares * pl.col("share")).sum() / squares.sum())
    )
    controls = run.tables["update_controls"].drop_nulls("share")
    share = pl.col("share")
    bars = controls.group_by(key).agg(
        low=share.quantile(0.025, "nearest"),
        middle=share.median(),
        high=share.quantile(0.975, "nearest"),
    )
    joined = own.join(bars, on=key, maintain_order="left")
    groups = agent_groups(run, colours, values(joined, "agent"))
    return (
        joined.with_columns(agent=pl.col("agent").replace_strict(groups.name_of))
        .group_by(key, maintain_order=True)
        .agg(pl.col("share", "low", "middle", "high").mean())
    )


def _direction_chart(rows: pl.DataFrame) -> alt.FacetChart:
    several = rows.get_column("axis").n_unique() > 1
    panel = pl.col("side").replace_strict(AXES)
    frame = rows.with_columns(panel=pl.format("{}, {}", panel, "axis") if several else panel)
    order = values(frame, "agent")
    x = alt.Axis(format=".2~%", tickCount=5)
    base = alt.Chart().encode(y=alt.Y("agent:N", sort=order, title=None))
    layers = alt.layer(
        base.mark_bar(color=BASE_COLOUR, opacity=0.3, height=9).encode(
            x=alt.X("low:Q", title="Share of the squared norm", axis=x), x2="high:Q"
        ),
        base.mark_tick(color=BASE_COLOUR, thickness=2).encode(x="middle:Q"),
        base.mark_point(filled=True, size=60, opacity=1, color=AGENT_COLOURS[1]).encode(
            x="share:Q"
        ),
        data=frame,
    ).properties(width=330, height=alt.Step(20))
    facet = alt.Facet("panel:N", sort=values(frame, "panel"), title=None)
    return panels(layers, facet, columns=2, spacing=22)


def _strongest(rows: pl.DataFrame) -> str:
    ratio = rows.with_columns(ratio=pl.col("share") / pl.col("middle")).filter(
        pl.col("middle") > 0.0
    )
    if ratio.is_empty():
        return ""
    top = ratio.sort("ratio", descending=True).row(0, named=True)
    return (
        f"The most: {top['agent']}, {100 * top['share']:.2g}% of what it {top['side']}, "
        f"{plain(top['ratio'])} times the median of random tokens."
    )
