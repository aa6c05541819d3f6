"""Does an agent answer what happened before? Contrasts between situations, with intervals.

A contrast is a difference in P(cooperate | legal answer) between two situations, such as after
the other cooperated and after it defected (reciprocity), taken within each unit (a wording, a
text) and averaged over units.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.chosen import games_in_order, values
from moralscope.reports.dots import Measure, interval_panels
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

_PANELS = 6
"""Pairs of game and prompt family that have room."""

_FAMILIES = ("structured", "wordings", "scenarios")
"""Families with units of their own in the first game; drawn before all others."""


def behaviour_contrasts(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Contrasts by agent, a panel per prompt family and game."""
    name, title = "contrasts", "Reciprocity and other contrasts between situations"
    if reason := run.lacks("contrasts"):
        return Absent(name, title, reason)
    every = run.tables["contrasts"]
    chosen = _chosen(every)
    table = every.join(chosen, on=["game", "family"], how="semi", maintain_order="left")
    count = every.select("game", "family").unique().height
    more = f" Shown: {chosen.height} of {count} pairs of game and family." * (count > _PANELS)
    groups = agent_groups(run, colours, values(table, "agent"))
    rows = table.select(
        "agent",
        pl.format("{} · {}", "game", "family").alias("panel"),
        pl.col("contrast").str.replace_all("[-_]", " ").alias("row"),
        pl.col("estimate").alias("value"),
        "low",
        "high",
        pl.col("n_units").alias("n"),
        "unit",
    )
    dots = over_seeds(rows, groups, ["panel", "row"], (-1.0, 1.0))
    return Figure(
        name=name,
        title=title,
        shows="Difference in P(cooperate | legal answer) between two situations, taken within "
        "each unit and averaged over units, by contrast and agent; a contrast that subtracts "
        "nothing is a probability. Right of the dashed line the "
        f"agent cooperates more in the situation that the contrast names first. "
        f"{intervals_told(dots)} {_largest(dots)}{more}",
        does_not_show="Why: an agent may answer the word that names a move, not the move (see the "
        "label control). Intervals are not corrected for the number of contrasts; the claims are.",
        chart=_chart(dots, chosen, groups),
        tables=("contrasts",),
    )


def _largest(dots: pl.DataFrame) -> str:
    clear = dots.filter((pl.col("low") > 0) | (pl.col("high") < 0))
    count = f"{clear.height} of {dots.height} intervals exclude 0"
    if clear.is_empty():
        return f"{count}."
    row = clear.sort(pl.col("value").abs()).row(-1, named=True)
    value = signed(float(row["value"]))
    return f"{count}; the largest is {value} ({row['agent']}, {row['row']}, {row['panel']})."


def _chosen(table: pl.DataFrame) -> pl.DataFrame:
    """Columns game, family: what has room, the first game in several families before the rest.

    Situations stand last, for their contrasts are others.
    """
    games = games_in_order(values(table, "game"))
    found = table.select("game", "family").unique(maintain_order=True)

    def rank(pair: tuple[str, str]) -> tuple[bool, bool, int, int]:
        game, family = pair
        first, known = game == games[0], family in _FAMILIES
        place = _FAMILIES.index(family) if known else len(_FAMILIES)
        return not (first and known), family != "structured", games.index(game), place

    pairs: list[tuple[str, str]] = sorted(found.rows(), key=rank)[:_PANELS]
    pairs.sort(key=lambda pair: pair[1] == "scenarios")
    return pl.DataFrame(pairs, schema=["game", "family"], orient="row")


def _chart(dots: pl.DataFrame, chosen: pl.DataFrame, groups: AgentGroups) -> alt.VConcatChart:
    low = min([-0.05, *dots.get_column("low").drop_nulls(), *dots.get_column("value")])
    high = max([0.05, *dots.get_column("high").drop_nulls(), *dots.get_column("value")])
    ends = (max(-1.04, 1.05 * low), min(1.04, 1.05 * high))
    return interval_panels(
        dots,
        groups,
        [f"{game} · {family}" for game, family in chosen.iter_rows()],
        Measure("Contrast in P(cooperate | legal)", ends, reference=0.0),
    )
