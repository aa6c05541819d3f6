"""What does each agent prefer in each scenario? A map of final log-odds, agents down.

The value is the mean over the prompts of a scenario of log P(positive) - log P(negative), so both
label assignments, both orders and every wording are in it: a preference for a label cancels.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_sites import saturation
from moralscope.reports.look import INK, signed_colour
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

MOST = 40
"""Scenarios that a map has columns for."""


def final_preferences(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean log-odds of each agent on the prompts of each scenario that was looked into."""
    name, title = "final_preferences", "Final preferences: each agent in each scenario"
    if reason := run.lacks("decisions", "prompts", "lens"):
        return Absent(name, title, reason, "lens")
    cells = preferences(run)
    agents = [a for a in colours if a in set(cells.get_column("agent").to_list())]
    scenarios = cells.get_column("scenario").unique(maintain_order=True).to_list()
    positive, negative = run.option_words
    prefer = cells.filter(pl.col("value") > 0).height
    means = cells.group_by("agent", maintain_order=True).agg(pl.col("value").mean())
    told = ", ".join(f"{agent} {signed(value)}" for agent, value in means.iter_rows())
    left = len(scenarios) - MOST
    return Figure(
        name=name,
        title=title,
        shows=f"Mean log-odds over the prompts of a scenario, all label assignments, orders and "
        f"wordings together; orange prefers {positive}, purple {negative}. In {prefer} of "
        f"{cells.height} cells the mean is towards {positive}. Mean over scenarios: {told} nats."
        + (f" The first {MOST} of {len(scenarios)} scenarios are drawn." if left > 0 else ""),
        does_not_show="A mean near zero may hide wordings that disagree; the figures of "
        "robustness tell. Whether two agents differ is a matter of the claims.",
        chart=_chart(cells.filter(pl.col("scenario").is_in(scenarios[:MOST])), agents),
        tables=("decisions", "prompts", "lens"),
        topic="lens",
    )


def preferences(run: Run) -> pl.DataFrame:
    """Mean log-odds per agent and scenario, over the prompts that the lens read.

    Columns: agent, scenario, value (nats). Scripted policies have no log-odds and are left out.
    """
    looked_at = run.tables["lens"].select("prompt").unique()
    return (
        run.tables["decisions"]
        .join(looked_at, on="prompt", how="semi")
        .drop_nulls("log_odds")
        .group_by("agent", "scenario", maintain_order=True)
        .agg(value=pl.col("log_odds").mean())
        .sort("scenario", maintain_order=True)
    )


def _chart(cells: pl.DataFrame, agents: list[str]) -> alt.TopLevelMixin:
    scenarios = cells.get_column("scenario").unique(maintain_order=True).to_list()
    cap = saturation(cells.get_column("value"))
    step = max(15.0, min(42.0, 620 / len(scenarios)))
    base = alt.Chart(cells).encode(
        x=alt.X(
            "scenario:N", sort=scenarios, title="Scenario",
            axis=alt.Axis(labelAngle=-60, ticks=False),
        ),
        y=alt.Y("agent:N", sort=agents, title=None, axis=alt.Axis(ticks=False)),
    )  # fmt: skip
    legend = f"Mean log-odds (nats); colours saturate at \u00b1{cap:.2g}"
    map_ = base.mark_rect().encode(color=signed_colour("value", cap, legend))
    layers: list[alt.Chart] = [map_]
    if step >= 24:
        dark = alt.condition(f"abs(datum.value) > {0.7 * cap}", alt.value("white"), alt.value(INK))
        text = alt.Text("value:Q", format="+.1f")
        layers.append(base.mark_text(fontSize=9).encode(text=text, color=dark))
    map_and_numbers = alt.layer(*layers)
    return map_and_numbers.properties(width=alt.Step(step), height=alt.Step(20))
