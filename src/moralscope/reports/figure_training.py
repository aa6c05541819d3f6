"""Did training do what it was asked to? Reward, cooperation and legal answers, step by step."""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import beside
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import agent_colour
from moralscope.reports.run import Run

_PANELS = (
    ("reward_mean", "Expected reward (points)", None),
    ("cooperation", "P(cooperate | legal answer)", [0.0, 1.0]),
    ("legal_mass", "Legal mass (probability)", [0.0, 1.0]),
)


def training_curves(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Reward, cooperation and legal mass by step, one line per agent and training seed."""
    name, title = "training_curves", "Training: reward, cooperation and legal answers"
    if reason := run.lacks("training"):
        return Absent(name, title, reason)
    table = run.tables["training"].sort("agent", "training_seed", "step")
    agents = [a for a in colours if a in set(table.get_column("agent").to_list())]
    charts = [_panel(table, column, label, domain) for column, label, domain in _PANELS]
    colour = agent_colour(colours, agents)
    last = table.group_by("agent", "training_seed").agg(pl.col("step").max())
    steps = sorted(set(last.get_column("step").to_list()))
    span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    return Figure(
        name=name,
        title=title,
        shows=f"What each agent was trained on, over {span} optimiser steps: the expected reward "
        "it was trained to raise, how often it cooperates when it answers legally, and how much "
        f"probability it puts on legal answers at all ({listing(agents)}).",
        does_not_show="Rewards of differently rewarded agents are on scales of their own and "
        "cannot be compared with each other; nothing here says how an agent behaves on prompts "
        "that it was not trained on.",
        chart=beside([c.encode(color=colour) for c in charts], spacing=34),
        tables=("training",),
    )


def _panel(table: pl.DataFrame, column: str, label: str, domain: list[float] | None) -> alt.Chart:
    data = table.select("agent", "training_seed", "step", column)
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(domain=domain)
    steps = data.get_column("step").unique().sort().to_list()
    single = len(steps) == 1
    axis = alt.Axis(values=steps) if len(steps) < 8 else alt.Axis(tickMinStep=1, tickCount=6)
    chart = alt.Chart(data, width=250, height=190)
    marked = chart.mark_point(filled=True, size=60) if single else chart.mark_line()
    return marked.encode(
        x=alt.X("step:Q", title="Optimiser step", axis=axis),
        y=alt.Y(f"{column}:Q", title=label, scale=scale),
        detail="training_seed:N",
    )
