"""At which level do agents differ? All on one scale, from another seed to fine-tuning itself.

The common scale is that of the table ``cascade``: 0 is the distance of two seeds of one reward, 1
that of the base from the agents. A level that was not measured, or has no such scale, keeps its row
and says so.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, FAINT
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

NAME = "cascade"
TITLE = "Where agents differ, from another seed to fine-tuning itself"

LEVELS = (
    "behaviour",
    "attribution",
    "patching",
    "attention",
    "wiring",
    "weights",
    "representations",
)
"""From the outside in."""

MOST = len(AGENT_COLOURS)
"""Comparisons drawn; more would repeat colours."""

_FURTHEST = 3.0
"""Where the axis ends at the latest, so that one far dot does not hide the rest."""

_ALIKE = "indistinguishable from another seed"
_SCALE = "0: two seeds of one reward.  1: the base and its fine-tunes"


def has_cascade(run: Run) -> bool:
    """Whether anything was compared."""
    return "cascade" in run.tables


def cascade(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Relative distances with their intervals, a row per level and a colour per comparison."""
    del colours  # comparisons are drawn, not agents
    if reason := run.lacks("cascade"):
        return Absent(NAME, TITLE, reason)
    table = first_measures(run.tables["cascade"])
    compared = comparisons_of(table, rewards_of(run))
    if compared.is_empty():
        return Absent(NAME, TITLE, "No two agents or rewards were compared by name.")
    names = compared.get_column("who").unique(maintain_order=True).to_list()
    drawn = compared.filter(pl.col("who").is_in(names[:MOST]))
    more = f" {len(names) - MOST} more comparisons are in the table." if len(names) > MOST else ""
    return Figure(
        name=NAME,
        title=TITLE,
        shows=f"{_told(drawn, names[:MOST])} Dots: distances on the common scale, filled where "
        "they exceed those of seeds, hollow where that is not shown or not identified; lines: 95% "
        "intervals over training seeds (of two rewards) or scenarios (of two agents). Grey band: "
        f"from the nearest to the furthest pair of seeds of one reward.{more}",
        does_not_show="In what agents differ, or that one level causes another. The scale of each "
        "level is its own: equal places mean equal shares of what fine-tuning does there. Weights "
        "are no sample, so two agents have no interval there.",
        chart=_chart(table, drawn, names[:MOST]),
        tables=("cascade",),
    )


def first_measures(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the measure that claims about a level rest on: the first of the table."""
    first = table.group_by("level", maintain_order=True).agg(pl.col("measure").first())
    return table.join(first, on=["level", "measure"], how="semi", maintain_order="left")


def rewards_of(run: Run) -> dict[str, str | None]:
    """The reward of each agent."""
    return {agent.name: agent.reward for agent in run.agents}


def comparisons_of(table: pl.DataFrame, rewards: dict[str, str | None]) -> pl.DataFrame:
    """Two rewards, or two agents that no comparison of rewards speaks of, with ``who`` in words."""
    whole = table.filter(pl.col("kind") == "rewards")
    asked = {frozenset(pair) for pair in whole.select("agent_a", "agent_b").iter_rows()}
    named = table.filter(pl.col("kind") == "named")
    apart = [
        frozenset((rewards.get(a), rewards.get(b))) not in asked
        for a, b in named.select("agent_a", "agent_b").iter_rows()
    ]
    both = pl.concat([whole, named.filter(pl.Series(apart, dtype=pl.Boolean))])
    return both.with_columns(who=pl.format("{} and {}", "agent_a", "agent_b"))


def _told(drawn: pl.DataFrame, names: list[str]) -> str:
    apart = drawn.filter(pl.col("answer").is_not_null() & (pl.col("answer") != _ALIKE))
    asked = drawn.filter(pl.col("answer").is_not_null())
    if asked.is_empty():
        return f"{listing(names)} at every level that was measured; no place is identified."
    if apart.is_empty():
        return (
            f"{listing(names)}: at no level further apart than two seeds of one reward "
            f"({asked.height} places of comparisons and levels)."
        )
    row = apart.sort("relative", descending=True, maintain_order=True).row(0, named=True)
    return (
        f"Further apart than seeds in {apart.height} of {asked.height} places of comparisons and "
        f"levels; furthest {row['who']} in {row['level']} ({plain(row['relative'])})."
    )


def _chart(
    table: pl.DataFrame, drawn: pl.DataFrame, names: list[str]
) -> alt.LayerChart | alt.FacetChart:
    placed = drawn.drop_nulls("relative").with_columns(
        told=(pl.col("answer") != _ALIKE).fill_null(value=False),
        beyond=pl.col("relative") > _FURTHEST,
        low=pl.col("low").clip(-1.0, _FURTHEST),
        high=pl.col("high").clip(-1.0, _FURTHEST),
        place=pl.col("relative").clip(-1.0, _FURTHEST),
    )
    columns = ["level", "who", "relative", "place", "low", "high", "told", "beyond"]
    bands = (
        table.filter(pl.col("kind") == "replicate")
        .drop_nulls("relative")
        .group_by("level", maintain_order=True)
        .agg(pl.col("relative").min().alias("low"), pl.col("relative").max().alias("high"))
        .with_columns(pl.col("low").clip(-1.0, _FURTHEST), pl.col("high").clip(-1.0, _FURTHEST))
    )
    ends = [0.0, 1.0]
    for frame in (placed.select("low", "high", "place"), bands.select("low", "high")):
        for series in frame.iter_columns():
            ends += series.drop_nulls().to_list()
    margin = 0.06 * (max(ends) - min(ends))
    scale = alt.Scale(domain=[min(ends) - margin, max(ends) + margin], nice=False, zero=False)
    axis = alt.Axis(tickCount=7, format="~g")
    y = alt.Y(
        "level:N",
        sort=list(LEVELS),
        title=None,
        scale=alt.Scale(domain=list(LEVELS), paddingInner=0.25, paddingOuter=0.15),
        axis=alt.Axis(ticks=False, domain=False, grid=False, labelLimit=160),
    )
    offset = alt.YOffset("who:N", sort=names, scale=alt.Scale(domain=names, padding=0.4))
    colour = alt.Color(
        "who:N",
        title=None,
        sort=names,
        scale=alt.Scale(domain=names, range=list(AGENT_COLOURS[: len(names)])),
    )

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=_SCALE, scale=scale, axis=axis)

    rows = placed.select(columns)
    dots, hollow, filled = (
        alt.Chart(part).encode(y=y, yOffset=offset, color=colour)
        for part in (rows, rows.filter(~pl.col("told")), rows.filter("told"))
    )
    layers = [
        alt.Chart(bands)
        .mark_bar(color=BASE_COLOUR, opacity=0.22)
        .encode(y=y, x=x("low"), x2="high:Q"),
        alt.Chart(pl.DataFrame({"at": [0.0, 1.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(x=x("at")),
        dots.mark_rule(strokeWidth=2, opacity=0.8).encode(x=x("low"), x2="high:Q"),
        hollow.mark_point(filled=False, size=60, opacity=1, fill="white", strokeWidth=2).encode(
            x=x("place")
        ),
        filled.mark_point(filled=True, size=70, opacity=1).encode(x=x("place")),
        alt.Chart(_gaps(drawn))
        .mark_text(align="left", dx=8, color=FAINT, fontSize=11, fontStyle="italic")
        .encode(y=y, x=x("at"), text="said:N"),
    ]
    # A fixed height: offsets within a band need its size, which steps would not give them.
    height = len(LEVELS) * max(34, 15 * len(names))
    return alt.layer(*layers).properties(width=620, height=height)


def _gaps(drawn: pl.DataFrame) -> pl.DataFrame:
    """Levels without any dot, and why."""
    said: list[dict[str, object]] = []
    for level in LEVELS:
        own = drawn.filter(pl.col("level") == level)
        if own.is_empty():
            said.append({"level": level, "at": 0.0, "said": "not measured"})
        elif own.get_column("relative").drop_nulls().is_empty():
            without = own.get_column("floor").drop_nulls().is_empty()
            why = (
                "not identified: no two seeds measured"
                if without
                else "no scale: seeds lie as far apart as fine-tuning moves"
            )
            said.append({"level": level, "at": 0.0, "said": why})
    schema = {"level": pl.String, "at": pl.Float64, "said": pl.String}
    return pl.DataFrame(said, schema=schema)
