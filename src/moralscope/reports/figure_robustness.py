"""Does an agent's conduct depend on how it is asked? Levels of every factor, and their variance.

The grid gives P(cooperate | legal answer) for each level of a factor, mean over everything else.
The split is the analysis of variance of the log-odds over a fully crossed set of prompts: shares
of wording, order, label and state, each by itself, and of all their interactions together.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.arrange import below, beside
from moralscope.reports.chosen import defined, values
from moralscope.reports.dots import PROBABILITY, Measure, interval_grid, label_room
from moralscope.reports.figure import Absent, Figure, Rows, listing
from moralscope.reports.look import BASE_COLOUR
from moralscope.reports.run import Run

_ROW = 46
"""Height of an agent's row in the split, in pixels."""

PARTS = {
    "wording": "#0072b2",
    "order": "#56b4e9",
    "label": "#d55e00",
    "state": "#009e73",
    "interactions": BASE_COLOUR,
}
"""Parts of the split and their colours; label is what a moral agent should not follow."""


def robustness_grid(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(cooperate) by factor and level, a column per agent."""
    name, title = "robustness", "Prompt robustness: cooperation under every way of asking"
    if reason := run.lacks("robustness"):
        return Absent(name, title, reason)
    table = run.tables["robustness"]
    legal, undefined = defined(table, "p_cooperate")
    if legal.is_empty():
        return Absent(name, title, "No row of the table robustness has a legal answer.")
    groups = agent_groups(run, colours, values(legal, "agent"))
    rows = legal.select(
        "agent",
        "factor",
        pl.col("level").replace({"": "none"}).alias("row"),
        pl.col("p_cooperate").alias("value"),
        "low",
        "high",
        pl.col("n_units").alias("n"),
        "unit",
    )
    dots = over_seeds(rows, groups, ["factor", "row"], (0.0, 1.0))
    factors = values(dots, "factor")
    return Figure(
        name=name,
        title=title,
        shows="P(cooperate | legal answer) for each level of each factor, mean over everything "
        f"else that was asked. {intervals_told(dots)} Widest range over the levels of a factor: "
        f"{_ranges(dots)}. {_illegal(table)}{undefined}",
        does_not_show="Which differences are more than chance: changes from each factor's "
        "reference level, paired over units, are in the table. Factors were varied one at a time.",
        chart=interval_grid(
            [
                Rows(factor.replace("_", " "), dots.filter(pl.col("factor") == factor))
                for factor in factors
            ],
            groups,
            Measure("P(cooperate | legal)", (-0.04, 1.04), 0.5, PROBABILITY),
        ),
        tables=("robustness",),
    )


def _ranges(dots: pl.DataFrame) -> str:
    """For each agent the factor whose levels differ most."""
    spans = (
        dots.group_by("agent", "factor", maintain_order=True)
        .agg(span=pl.col("value").max() - pl.col("value").min())
        .sort("span", descending=True, maintain_order=True)
        .group_by("agent", maintain_order=True)
        .first()
    )
    order = values(dots, "agent")
    told = {
        str(row["agent"]): f"{row['agent']} {row['span']:.2f} ({row['factor']})".replace("_", " ")
        for row in spans.iter_rows(named=True)
    }
    return "; ".join(told[agent] for agent in order)


def _illegal(table: pl.DataFrame) -> str:
    row = table.sort("legal_mass").row(0, named=True)
    level = f"{row['agent']}, {row['factor']} {row['level']}".replace("_", " ")
    return f"Least legal mass: {row['legal_mass']:.2f} ({level})."


# Variance


def variance_split(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Stacked shares per agent beside the same shares with intervals."""
    name, title = "variance", "What decisions depend on: wording, order, label or state"
    if reason := run.lacks("variance"):
        return Absent(name, title, reason)
    table = run.tables["variance"]
    parts = table.filter(pl.col("factor") != "total").drop_nulls("share")
    if parts.is_empty():
        return Absent(
            name, title, "No agent's decisions vary over the prompts of a crossed design."
        )
    groups = agent_groups(run, colours, values(parts, "agent"))
    shares = over_seeds(_shares(parts), groups, ["design", "part"], (0.0, 1.0))
    design = table.get_column("n_prompts")
    prompts = f"{design.min()}" if design.min() == design.max() else f"{design.min()} or more"
    split = table.drop_nulls("variance")
    fixed = [a for a in values(split, "agent") if a not in values(parts, "agent")]
    unvaried = f" No variance at all: {listing(fixed)}." if fixed else ""
    return Figure(
        name=name,
        title=title,
        shows="Share of the variance of the log-odds of defecting (scripted policies: of the "
        f"probability) over {prompts} fully crossed prompts that each factor has by itself, and "
        "that all interactions have together. State: what both did last time; label: which word "
        f"names which move. {_told(shares)}{unvaried} {_spread(shares)}",
        does_not_show="How large the variance is: an agent that hardly varies has shares too. "
        "Single interactions are in the table, as are shares with every interaction a factor "
        "takes part in.",
        chart=_split_chart(shares, groups),
        tables=("variance",),
    )


def _shares(parts: pl.DataFrame) -> pl.DataFrame:
    """Main factors as they are, with their intervals; everything else added up, without."""
    main = list(PARTS)[:-1]
    named = parts.with_columns(
        part=pl.when(pl.col("factor").is_in(main)).then("factor").otherwise(pl.lit("interactions"))
    )
    one = pl.col("part") != "interactions"
    return (
        named.group_by("agent", "design", "part", maintain_order=True)
        .agg(
            value=pl.col("share").sum(),
            low=pl.when(one.first()).then(pl.col("low").first()),
            high=pl.when(one.first()).then(pl.col("high").first()),
        )
        .with_columns(n=pl.lit(_wordings(parts), pl.Int64), unit=pl.lit("wordings"))
    )


def _wordings(parts: pl.DataFrame) -> int:
    levels = parts.filter(pl.col("factor") == "wording").get_column("levels").to_list()
    return max(levels, default=1)


def _spread(shares: pl.DataFrame) -> str:
    return intervals_told(shares.filter(pl.col("part") != "interactions"))


def _told(shares: pl.DataFrame) -> str:
    """The largest part of each agent."""
    first = shares.get_column("design")[0]
    told: list[str] = []
    for agent in values(shares, "agent"):
        own = shares.filter((pl.col("agent") == agent) & (pl.col("design") == first))
        if not own.is_empty():
            row = own.sort("value").row(-1, named=True)
            told.append(f"{agent} {row['part']} ({row['value']:.2f})")
    return f"Largest: {', '.join(told)}."


def _split_chart(shares: pl.DataFrame, groups: AgentGroups) -> alt.VConcatChart:
    designs = values(shares, "design")
    return below(
        [
            beside(
                [
                    _stacks(shares.filter(pl.col("design") == design), groups, design),
                    _dots(shares.filter(pl.col("design") == design), groups),
                ],
                spacing=16,
            )
            for design in designs
        ],
        spacing=20,
    )


def _encodings(groups: AgentGroups, *, labels: bool) -> tuple[alt.Y, alt.Color]:
    room = label_room(groups.names)
    axis = alt.Axis(
        ticks=False, domain=False, labels=labels, minExtent=room if labels else 0, labelLimit=260
    )
    scale = alt.Scale(domain=list(PARTS), range=list(PARTS.values()))
    return (
        alt.Y("agent:N", sort=groups.names, title=None, axis=axis),
        alt.Color("part:N", title="Varies with", scale=scale),
    )


def _stacks(shares: pl.DataFrame, groups: AgentGroups, design: str) -> alt.Chart:
    y, colour = _encodings(groups, labels=True)
    ranks = {part: rank for rank, part in enumerate(PARTS)}
    return (
        alt.Chart(shares.with_columns(rank=pl.col("part").replace_strict(ranks)))
        .mark_bar(height={"band": 0.72})
        .encode(
            y=y,
            x=alt.X("value:Q", stack="zero", title="Share of the variance",
                    scale=alt.Scale(domain=[0, 1.0]), axis=alt.Axis(tickCount=5)),
            color=colour,
            order=alt.Order("rank:Q"),
        )
        .properties(width=330, height=_ROW * len(groups.names), title=design.replace("_", " "))
    )  # fmt: skip


def _dots(shares: pl.DataFrame, groups: AgentGroups) -> alt.LayerChart | alt.FacetChart:
    y, colour = _encodings(groups, labels=False)
    scale = alt.Scale(domain=[0, 1], clamp=True)
    base = alt.Chart(shares).encode(
        y=y, color=colour, yOffset=alt.YOffset("part:N", sort=list(PARTS))
    )
    x = alt.X("value:Q", title="Share, 95% interval", scale=scale, axis=alt.Axis(tickCount=5))
    return alt.layer(
        base.mark_rule(strokeWidth=1.6, opacity=0.75).encode(
            x=alt.X("low:Q", scale=scale, title="Share, 95% interval"), x2="high:Q"
        ),
        base.mark_point(filled=True, size=34, opacity=1).encode(x=x),
    ).properties(width=330, height=_ROW * len(groups.names))
