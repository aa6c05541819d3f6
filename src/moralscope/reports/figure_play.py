"""How do agents fare with others? Cooperation and payoff in exact repeated play.

Long-run averages of the Markov chain of two memory-one players from uniform starting states, in
points a round; each agent against classic strategies, and agents against each other.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.chosen import games_in_order, values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.matrix import Scale, half_width, heat_panels
from moralscope.reports.run import Run

_OPPONENTS = 14
"""Columns of a panel that keep their figures."""


def cooperation_in_play(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Cooperation by game and opponent, a panel per agent."""
    del colours  # a panel per agent; colours tell how much
    name, title = "play_cooperation", "Cooperation by game and opponent, in exact play"
    rows, reason = _against(run, "strategy")
    if reason:
        return Absent(name, title, reason)
    shown, more = _strategies(rows)
    return Figure(
        name=name,
        title=title,
        shows="How often each agent (panels) cooperates in the long run of exact play against "
        f"each strategy, by game.{_noise(rows)}{more} {_ends(shown, 'cooperation')}",
        does_not_show="Intervals: cooperation in play has none in the table; those of payoffs, "
        "over presentations, are in the next figure. The long run says nothing of the first "
        "rounds.",
        chart=heat_panels(
            _cells(shown, "cooperation", noted=False),
            Scale("Cooperation of the agent (share of rounds)", 0.0, 1.0, diverging=True),
            _agents(run, shown),
            values(shown, "other"),
            games_in_order(values(shown, "game")),
        ),
        tables=("play",),
    )


def payoffs_in_play(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Payoff by game and opponent, a panel per agent, with intervals over presentations."""
    del colours  # a panel per agent; colours tell how much
    name, title = "play_payoffs", "Payoff by game and opponent, in exact play"
    rows, reason = _against(run, "strategy")
    if reason:
        return Absent(name, title, reason)
    shown, more = _strategies(rows)
    return Figure(
        name=name,
        title=title,
        shows="Points a round of each agent (panels) in the long run of exact play against each "
        f"strategy, by game.{_noise(rows)}{more} {_units(shown)} {_ends(shown, 'payoff')}",
        does_not_show="What could be had: payoffs of different games are on different scales, and "
        "the price of morality below says what was given up.",
        chart=heat_panels(
            _cells(shown, "payoff", noted=True),
            _payoff_scale(shown),
            _agents(run, shown),
            values(shown, "other"),
            games_in_order(values(shown, "game")),
        ),
        tables=("play",),
    )


def cross_play(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Payoff of each agent with each other one, a panel per game."""
    del colours  # names stand at the sides; colours tell how much
    name, title = "cross_play", "Cross-play: agents with each other"
    rows, reason = _against(run, "agent")
    if reason:
        return Absent(name, title, reason)
    return Figure(
        name=name,
        title=title,
        shows="Points a round of the agent at the side in the long run of exact play with the "
        "agent on top, by game; on the diagonal with a copy of itself. Training seeds stand for "
        f"themselves here.{_noise(rows)} {_units(rows)} {_selves(rows)}",
        does_not_show="Learning: policies are fixed while they meet. What the partner gets is "
        "in the mirrored cell where the game is the same from both seats.",
        chart=heat_panels(
            _cells(rows, "payoff", noted=True),
            _payoff_scale(rows),
            games_in_order(values(rows, "game")),
            _agents(run, rows, "other"),
            _agents(run, rows),
            titles=("with", "points of"),
        ),
        tables=("play",),
    )


def _against(run: Run, kind: str) -> tuple[pl.DataFrame, str]:
    """Rows against strategies or agents with the least noise and the first labels."""
    if reason := run.lacks("play"):
        return pl.DataFrame(), reason
    rows = run.tables["play"].filter(pl.col("other_kind") == kind)
    if rows.is_empty():
        words = "strategies" if kind == "strategy" else "other agents"
        return rows, f"The table play has no rows against {words}."
    first = rows.get_column("labels")[0]
    rows = rows.filter(pl.col("labels") == first)
    return rows.filter(pl.col("noise") == pl.col("noise").min()), ""


def _strategies(rows: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    found = values(rows, "other")
    if len(found) <= _OPPONENTS:
        return rows, ""
    shown = rows.filter(pl.col("other").is_in(found[:_OPPONENTS]))
    return shown, f" Of {len(found)} strategies the first {_OPPONENTS} are shown."


def _agents(run: Run, rows: pl.DataFrame, column: str = "agent") -> list[str]:
    found = values(rows, column)
    known = [agent.name for agent in run.agents if agent.name in found]
    return known + [name for name in found if name not in known]


def _noise(rows: pl.DataFrame) -> str:
    noise, labels = rows.get_column("noise")[0], rows.get_column("labels")[0]
    words = f"with noise {noise:g}" if noise else "without noise"
    return f" Play is {words}, under the labels {labels} in both assignments."


def _units(rows: pl.DataFrame) -> str:
    """How many presentations, and how wide the intervals are."""
    known = rows.drop_nulls("low")
    if known.is_empty():
        return "There is one presentation, or no spread between them, so no interval."
    counts = known.get_column("n_units").unique().sort().to_list()
    over = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    widest = known.select(((pl.col("high") - pl.col("low")) / 2).max()).item()
    return (
        f"\N{PLUS-MINUS SIGN}: half the 95% interval over {over} presentations, at most "
        f"{widest:.2f}."
    )


def _ends(rows: pl.DataFrame, column: str) -> str:
    order = rows.sort(column, maintain_order=True)
    low, high = order.row(0, named=True), order.row(-1, named=True)
    told = [
        f"{words} {row[column]:.2f} ({row['agent']} against {row['other']}, {row['game']})"
        for words, row in (("least", low), ("most", high))
    ]
    return f"From {listing(told).replace(' and most', ' to most')}."


def _selves(rows: pl.DataFrame) -> str:
    """How often copies cooperate with each other, at most and at least."""
    own = rows.filter(pl.col("agent") == pl.col("other")).sort("cooperation", maintain_order=True)
    if own.is_empty():
        return "No agent met a copy of itself."
    low, high = own.row(0, named=True), own.row(-1, named=True)
    return (
        f"Copies cooperate in {low['cooperation']:.2f} ({low['agent']}, {low['game']}) to "
        f"{high['cooperation']:.2f} ({high['agent']}, {high['game']}) of rounds."
    )


def _payoff_scale(rows: pl.DataFrame) -> Scale:
    low, high = (float(str(f())) for f in (rows["payoff"].min, rows["payoff"].max))
    return Scale("Payoff of the agent (points a round)", min(0.0, low), max(high, low + 1e-9))


def _cells(rows: pl.DataFrame, column: str, *, noted: bool) -> pl.DataFrame:
    """Rows as a heat map takes them; panels are agents against strategies, else games."""
    against = rows.get_column("other_kind")[0] == "strategy"
    panel, y = ("agent", "game") if against else ("game", "agent")
    return rows.select(
        pl.col(panel).alias("panel"),
        pl.col("other").alias("x"),
        pl.col(y).alias("y"),
        pl.col(column).alias("value"),
        pl.col(column).map_elements(lambda v: f"{v:.2f}", pl.String).alias("cell"),
        (half_width() if noted else pl.lit("")).alias("note"),
    )
