"""How does each agent play? Memory-one tables and cooperation by game.

A memory-one table gives P(cooperate | own last move, other's last move) given a legal answer.
Cooperation by game averages over scenarios, with the interval that the table ``cooperation``
holds.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import grid
from moralscope.reports.figure import Absent, Figure, Rows, interval_rows, listing
from moralscope.reports.look import DIVERGING, INK, agent_colour
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run


def memory_one(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(cooperate) after each pair of last moves, agents across, label assignments down."""
    name, title = "memory_one", "Memory-one tables: what each agent does after each pair of moves"
    if reason := run.lacks("policy"):
        return Absent(name, title, reason)
    cells = _structured(run.tables["policy"])
    if cells.is_empty():
        return Absent(name, title, "The table policy has no rows of the family structured.")
    agents = [a for a in colours if a in set(cells.get_column("agent").to_list())]
    labels = cells.get_column("wording").unique(maintain_order=True).to_list()
    lowest = float(cells.get_column("legal_mass").to_numpy().min())
    return Figure(
        name=name,
        title=title,
        shows="Probability of cooperating given a legal answer, after the agent's own last move "
        "(rows) and the other's (columns), for each agent and label assignment; small figures "
        f"are the legal mass, at least {plain(lowest)} here. The same table under both assignments "
        "means the agent follows the move, not the word that names it.",
        does_not_show="One wording of one game with its payoff table in the original order; other "
        "wordings and exchanged rows are in the label control below. A cell averages few prompts "
        "and has no interval.",
        chart=_cells_chart(cells, agents, labels),
        tables=("policy",),
    )


def _structured(policy: pl.DataFrame) -> pl.DataFrame:
    """Rows of the structured family, original table order where there is a choice.

    Of several games the first, and of several pairs of labels the first in both assignments: the
    trained ones stand first.
    """
    rows = policy.filter(pl.col("family") == "structured")
    original = rows.filter(pl.col("table_order") == "original")
    rows = rows if original.is_empty() else original
    pair = pl.col("labels").str.split("/").list.sort().list.join("/")
    rows = rows.filter((pl.col("game") == pl.col("game").first()) & (pair == pair.first()))
    several = rows.select("game", "template").unique().height > 1
    cooperate = pl.format("C = {}", pl.col("labels").str.split("/").list.first())
    return rows.select(
        "agent",
        (pl.format("{} {} {}", "game", "template", cooperate) if several else cooperate).alias(
            "wording"
        ),
        "own_previous",
        "opponent_previous",
        "p_cooperate",
        "legal_mass",
        pl.col("p_cooperate")
        .map_elements(lambda p: f"{p:.2f}", pl.String)
        .fill_null("\N{EN DASH}")
        .alias("cell"),
        pl.col("legal_mass").map_elements(lambda p: f"legal {p:.2f}", pl.String).alias("note"),
    )


def _cells_chart(cells: pl.DataFrame, agents: list[str], labels: list[str]) -> alt.FacetChart:
    middle = [i / (len(DIVERGING) - 1) for i in range(len(DIVERGING))]
    colour = alt.Color(
        "p_cooperate:Q",
        scale=alt.Scale(domain=middle, range=list(reversed(DIVERGING))),
        legend=alt.Legend(
            title="P(cooperate | legal answer)",
            orient="top",
            direction="horizontal",
            gradientLength=260,
            gradientThickness=10,
            values=[0, 0.25, 0.5, 0.75, 1],
            format=".2~f",
            titleLimit=400,
        ),
    )
    ink = alt.condition(
        "isValid(datum.p_cooperate) && (datum.p_cooperate < 0.15 || datum.p_cooperate > 0.85)",
        alt.value("white"),
        alt.value(INK),
    )
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False)
    base = alt.Chart().encode(
        x=alt.X("opponent_previous:N", title="other's last move", axis=axis),
        y=alt.Y("own_previous:N", title="own last move", axis=axis),
    )
    layers = alt.layer(
        base.mark_rect(stroke="white", strokeWidth=2).encode(color=colour),
        base.mark_text(fontSize=14, dy=-4).encode(text="cell:N", color=ink),
        base.mark_text(fontSize=9, dy=11, opacity=0.85).encode(text="note:N", color=ink),
        data=cells,
    ).properties(width=116, height=96)
    return grid(
        layers,
        column=alt.Column("agent:N", sort=agents, title=None),
        row=alt.Row("wording:N", sort=labels, title=None, header=alt.Header(labelAngle=-90)),
        spacing=14,
    )


def cooperation_by_game(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(cooperate) per game and prompt family with its interval over scenarios."""
    name, title = "cooperation", "Cooperation by game and prompt family"
    if reason := run.lacks("cooperation"):
        return Absent(name, title, reason)
    table = run.tables["cooperation"]
    agents = [a for a in colours if a in set(table.get_column("agent").to_list())]
    families = table.get_column("family").unique(maintain_order=True).to_list()
    families.sort(key=lambda family: family != "clusters")
    blocks = [
        Rows(
            family,
            table.filter(pl.col("family") == family).select(
                pl.col("game").alias("row"),
                "agent",
                pl.col("p_cooperate").alias("value"),
                "low",
                "high",
            ),
        )
        for family in families
    ]
    single = table.filter(pl.col("low").is_null()).height
    note = f" {single} points rest on one scenario and have none." if single else ""
    return Figure(
        name=name,
        title=title,
        shows="Probability of cooperating given a legal answer, mean over scenarios with 95% "
        f"interval over scenarios, by game, for the prompt families {listing(families)}.{note}",
        does_not_show="It averages over states and over both label assignments: an agent that "
        "only follows a label shows up near one half here. The dashed line marks one half.",
        chart=interval_rows(
            blocks,
            agents=agents,
            colour=agent_colour(colours, agents),
            x_title="P(cooperate | legal answer)",
            domain=(0.0, 1.0),
            reference=0.5,
            axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f"),
        ),
        tables=("cooperation",),
    )
