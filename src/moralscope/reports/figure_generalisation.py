"""Does what was trained in one game carry over? Cooperation by game, labels and table order."""

from __future__ import annotations

import polars as pl

from moralscope.reports.agent_groups import agent_groups, intervals_told, over_seeds
from moralscope.reports.chosen import defined, games_in_order, values
from moralscope.reports.dots import PROBABILITY, Measure, interval_grid
from moralscope.reports.figure import Absent, Figure, Rows
from moralscope.reports.run import Run

_ORDERS = ("original", "rows", "columns", "both")


def generalisation_grid(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(cooperate) by game, labels and table order, a column per agent."""
    name, title = "generalisation", "Cross-game generalisation, by labels and table order"
    if reason := run.lacks("generalisation"):
        return Absent(name, title, reason)
    table = run.tables["generalisation"]
    legal, undefined = defined(table, "p_cooperate")
    if legal.is_empty():
        return Absent(name, title, "No row of the table generalisation has a legal answer.")
    groups = agent_groups(run, colours, values(legal, "agent"))
    rows = legal.select(
        "agent",
        "game",
        pl.col("labels").alias("row"),
        pl.col("table_order").alias("kind"),
        pl.col("p_cooperate").alias("value"),
        "low",
        "high",
        pl.col("n_states").alias("n"),
        pl.lit("states").alias("unit"),
    )
    dots = over_seeds(rows, groups, ["game", "row", "kind"], (0.0, 1.0))
    games = games_in_order(values(dots, "game"))
    least = table.get_column("legal_mass").min()
    found = values(dots, "kind")
    orders = [o for o in _ORDERS if o in found] + [o for o in found if o not in _ORDERS]
    return Figure(
        name=name,
        title=title,
        shows="P(cooperate | legal answer) in each game with its own payoffs, by the words that "
        "name cooperation and defection and by the order of the payoff table (shape), mean over "
        f"the states. {intervals_told(dots)} Legal mass is at least {least:.2f}. "
        f"{_spans(dots)}{undefined}",
        does_not_show="How an agent answers moves: it averages over the four states, which are "
        "few and not a sample. Two rows of one pair of labels that mirror each other about one "
        "half follow the word, not the move.",
        chart=interval_grid(
            [Rows(game, dots.filter(pl.col("game") == game)) for game in games],
            groups,
            Measure("P(cooperate | legal)", (-0.04, 1.04), 0.5, PROBABILITY),
            shapes=("Payoff table", orders),
        ),
        tables=("generalisation",),
    )


def _spans(dots: pl.DataFrame) -> str:
    """From which game to which each agent's cooperation ranges."""
    told: list[str] = []
    for agent in values(dots, "agent"):
        means = (
            dots.filter(pl.col("agent") == agent)
            .group_by("game", maintain_order=True)
            .agg(pl.col("value").mean())
            .sort("value", maintain_order=True)
        )
        low, high = means.row(0, named=True), means.row(-1, named=True)
        told.append(
            f"{agent} {low['value']:.2f} ({low['game']}) to {high['value']:.2f} ({high['game']})"
        )
    return f"Over everything else: {'; '.join(told)}."
