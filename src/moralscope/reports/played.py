"""What had the other player done before each decision of sampled training?

The prompt tells the agent the other's last move. Where the run has the prompts that were trained
on, it is read from them; else it is the other's move in the round before, and the first round of a
game, whose situation is drawn, is left out.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.run import Run


def played_rounds(run: Run) -> pl.DataFrame:
    """Decisions against one other player whose last move is known.

    Columns: agent, training_seed, step, own (C, D or illegal), opponent_previous (C or D).
    """
    table = run.tables["plays"].filter(pl.col("others").str.len_chars() == 1)
    game = ["agent", "training_seed", "step", "game_number"]
    rounds = table.sort(*game, "round").with_columns(
        before=pl.col("others").shift(1).over(game), told=pl.lit(None, pl.String)
    )
    if "prompts" in run.tables:
        prompts = run.tables["prompts"].select("prompt", told="opponent_previous")
        rounds = rounds.drop("told").join(prompts, on="prompt", how="left", maintain_order="left")
    return (
        rounds.with_columns(opponent_previous=pl.coalesce("told", "before"))
        .filter(pl.col("opponent_previous").is_in(["C", "D"]))
        .select("agent", "training_seed", "step", "own", "opponent_previous")
    )


def rounds_told(run: Run) -> str:
    """How many decisions are left out, in words; empty where there are none."""
    every = run.tables["plays"].height
    out = every - played_rounds(run).height
    if not out:
        return ""
    return f" Of {every} decisions {out} are left out: the other's last move is not on record."


def window(count: int, least: int) -> pl.Expr:
    """The middle of the window that a step lies in.

    An agent's windows are equal, at most ``count``, with ``least`` decisions each on average.
    """
    windows = pl.min_horizontal(pl.len() / least, pl.lit(float(count))).floor().clip(lower_bound=1)
    size = (pl.col("step").max() / windows).ceil().over("agent")
    return ((pl.col("step") - 1) / size).floor() * size + (size + 1) / 2
