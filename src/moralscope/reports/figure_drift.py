"""How does the response to the other's last move drift over training?

For each window of steps of sampled play and each training seed, the share of cooperating answers
among the legal ones after the other cooperated, and after it defected:

    P(C | other's last move) = #(C, move) / #(legal, move).

Lines are means over seeds, bands Student's 95% intervals over seeds.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.arrange import panels
from moralscope.reports.chosen import values
from moralscope.reports.dots import PAGE
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.numbers import probability
from moralscope.reports.played import played_rounds, rounds_told, window
from moralscope.reports.run import Run

_AFTER = {"C": "the other cooperated", "D": "the other defected"}
_COLOURS = ("#28641e", "#8e0b52")
_WINDOWS = 12
_DECISIONS = 40
"""Windows of a training, and decisions of each: enough for a share after either move."""


def policy_drift(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(cooperate) after C and after D by training step, a panel per training."""
    name, title = "policy_drift", "Drift of the policy: cooperation after each move of the other"
    if reason := run.lacks("plays"):
        return Absent(name, title, reason)
    rounds = played_rounds(run).filter(pl.col("own") != "illegal")
    if rounds.is_empty():
        return Absent(name, title, "No legal round of the table plays has a last move on record.")
    groups = agent_groups(run, colours, values(rounds, "agent"))
    curves = over_seeds(drift_values(rounds), groups, ["step", "after"], (0.0, 1.0))
    return Figure(
        name=name,
        title=title,
        shows="Share of cooperating answers among the legal ones of sampled training play, after "
        "the other cooperated and after it defected, in windows of steps. Lines apart: the agent "
        "answers the other's move; lines together: it does not. "
        f"{intervals_told(curves)} {_ends(curves, groups)}{rounds_told(run)}",
        does_not_show="What the agent would do in a situation that play no longer reaches: such "
        "windows are missing or rest on few decisions. Exact trainings play no rounds; their "
        "learning curves are above.",
        chart=_chart(curves, groups),
        tables=("plays", "prompts") if "prompts" in run.tables else ("plays",),
    )


def drift_values(rounds: pl.DataFrame) -> pl.DataFrame:
    """Columns agent, step (middle of a window), after (C or D), value, low, high, n, unit."""
    return (
        rounds.with_columns(step=window(_WINDOWS, _DECISIONS), after="opponent_previous")
        .group_by("agent", "step", "after")
        .agg(value=(pl.col("own") == "C").mean())
        .with_columns(
            low=pl.lit(None, pl.Float64),
            high=pl.lit(None, pl.Float64),
            n=pl.lit(1, pl.Int64),
            unit=pl.lit("training seed"),
        )
        .sort("agent", "step", "after")
    )


def _ends(curves: pl.DataFrame, groups: AgentGroups) -> str:
    """What each training comes to, in its last window."""
    told: list[str] = []
    for agent in groups.names:
        own = curves.filter(pl.col("agent") == agent)
        last = own.filter(pl.col("step") == own.get_column("step").max())
        parts = [
            f"{probability(float(row['value']))} after {row['after']}"
            for row in last.sort("after").iter_rows(named=True)
        ]
        told.append(f"{agent}: {', '.join(parts)}")
    return f"In the last window: {'; '.join(told)}."


def _chart(curves: pl.DataFrame, groups: AgentGroups) -> alt.FacetChart:
    columns = min(3, len(groups.names))
    rows = curves.with_columns(pl.col("after").replace(_AFTER))
    scale = alt.Scale(domain=[0, 1])
    base = alt.Chart().encode(
        x=alt.X(
            "step:Q", title="Training step", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=5)
        ),
        color=alt.Color(
            "after:N",
            title="After",
            scale=alt.Scale(domain=list(_AFTER.values()), range=list(_COLOURS)),
        ),
    )
    y = alt.Y("value:Q", title="P(cooperate | legal answer)", scale=scale)
    layers = alt.layer(
        base.transform_filter("datum.low != null")
        .mark_area(opacity=0.18)
        .encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"),
        base.mark_line(point={"size": 18}).encode(
            y=y, strokeDash=alt.StrokeDash("after:N", legend=None)
        ),
        data=rows,
    ).properties(width=int((PAGE - 50) / max(columns, 2)) - 30, height=150)
    facet = alt.Facet("agent:N", sort=groups.names, title=None)
    return panels(layers, facet, columns=columns, spacing=20)
