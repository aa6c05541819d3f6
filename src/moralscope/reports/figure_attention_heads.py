"""Which heads look elsewhere than the base's? Layers by heads, a map per agent and category.

Cells are the change of the log-odds of a head's attention to a category, agent minus base, mean
over scenarios. Of several seeds of one reward the first is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from moralscope.evidence.findings.attention import Looking
from moralscope.evidence.statistics.resampling import Array
from moralscope.reports.agent_groups import agent_groups
from moralscope.reports.arrange import grid
from moralscope.reports.attention_numbers import looked
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_attention import TOPIC
from moralscope.reports.look import signed_colour
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

_MOST = 5
"""Agents in one figure; the others are named."""

_PAGE = 840
"""Room for the maps of all categories beside each other, in pixels."""


def attention_heads(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Change of every head's attention, a row of maps per agent, a column per category."""
    name, title = "attention_heads", "Attention: which heads look elsewhere than the base's"
    if reason := run.lacks("attention"):
        return Absent(name, title, reason, TOPIC)
    looking = looked(run)
    if looking is None:
        return Absent(name, title, "None of its prompts is in the table prompts.", TOPIC)
    references = {agent.name: agent.reference for agent in run.agents}
    changed = {
        agent: (values - looking.values[base]).mean(axis=0)
        for agent, values in looking.values.items()
        if (base := references.get(agent)) in looking.values and base is not None
    }
    if not changed:
        reason = "The table attention holds no agent together with its base."
        return Absent(name, title, reason, TOPIC)
    groups = agent_groups(run, colours, list(changed))
    firsts = {groups.name_of[agent]: agent for agent in reversed(list(changed))}
    agents = [firsts[drawn] for drawn in groups.names]
    drawn, others = agents[:_MOST], [agent for agent in changed if agent not in agents[:_MOST]]
    cells = pl.concat(_cells(looking, agent, changed[agent]) for agent in drawn)
    cap = float(np.quantile(np.abs(cells.get_column("value").to_numpy()), 0.99)) or 1.0
    left_out = f" Not drawn, but in the table: {listing(others)}." if others else ""
    return Figure(
        name=name,
        title=title,
        shows="Change from base in the log-odds of each head's attention to each category, mean "
        f"over {len(looking.scenarios)} scenarios. Largest: {_largest(looking, changed, drawn)}."
        f"{left_out}",
        does_not_show="Which of these stand beyond noise: the claims say that, corrected for all "
        "heads and categories. A head may look elsewhere only because what it reads has changed "
        "below it.",
        chart=_chart(cells, drawn, looking.categories, cap),
        tables=("attention", "prompts"),
        topic=TOPIC,
    )


def _cells(looking: Looking, agent: str, change: Array) -> pl.DataFrame:
    """Columns agent, category, layer, head, value."""
    places = [head.removeprefix("L").split(".h") for head in looking.heads]
    return pl.concat(
        pl.DataFrame(
            {
                "agent": [agent] * len(places),
                "category": [category] * len(places),
                "layer": [int(layer) for layer, _ in places],
                "head": [int(head) for _, head in places],
                "value": change[:, at],
            }
        )
        for at, category in enumerate(looking.categories)
    )


def _largest(looking: Looking, changed: dict[str, Array], agents: Sequence[str]) -> str:
    told: list[str] = []
    for agent in agents:
        change = changed[agent]
        head, category = np.unravel_index(int(np.argmax(np.abs(change))), change.shape)
        place = f"{looking.heads[head]} on {looking.categories[category]}"
        told.append(f"{agent} {place} ({signed(float(change[head, category]))})")
    return ", ".join(told)


def _chart(
    cells: pl.DataFrame, agents: Sequence[str], categories: Sequence[str], cap: float
) -> alt.FacetChart:
    layers = cells.get_column("layer").unique().sort().to_list()
    heads = cells.get_column("head").unique().sort().to_list()
    # Wide enough for a heading, and all beside each other within the page.
    panel = max(80.0, min(14.0 * len(layers), _PAGE / len(categories) - 24.0))
    width = panel / len(layers)
    height = max(3.0, min(14.0, 150 / len(heads)))
    every_layer, every_head = max(1, -(-len(layers) // 5)), max(1, -(-len(heads) // 6))
    chart = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X(
                "layer:O",
                title="Layer",
                sort=layers,
                axis=alt.Axis(values=layers[::every_layer], labelAngle=0, ticks=False),
            ),
            y=alt.Y(
                "head:O",
                title="Head",
                sort=heads,
                axis=alt.Axis(values=heads[::every_head], ticks=False),
            ),
            color=signed_colour(
                "value",
                cap,
                f"Change of log-odds (nats): orange more, purple less; saturates at {cap:.2g}",
            ),
        )
        .properties(width=alt.Step(width), height=alt.Step(height))
    )
    column = alt.Column("category:N", sort=list(categories), title=None)
    row = alt.Row("agent:N", sort=list(agents), title=None)
    return grid(chart, column, row, spacing=12)
