"""What does an agent do? Its memory-one response, exactly, and its cooperation game by game.

A one-step-memory agent in a two-move game is four numbers: P(cooperate | own last move, other's
last move) (Press and Dyson 2012, PNAS 109:10409). They are read off the answer probabilities,
not sampled: ``P(C | state) = P(negative) / (P(negative) + P(positive))``, averaged over the orders
in which the options are named.

What it does not do: play. Whether an agent reaches a state is a question about play; a policy
table weighs all states alike.
"""

from __future__ import annotations

import polars as pl

from moralscope.behaviour.joining import (
    STATE,
    join_prompts,
    mean_or_null,
    with_interval,
    with_state,
)
from moralscope.core.tables import conform

NARRATIVE_FAMILIES = ("scenarios",)
"""Families whose texts say more than the state, so that a state is not all that they ask about."""


def policy_table(prompts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """How does each agent respond to each memory-one state, by wording and label assignment?

    Every quantity is the mean over the prompts of a cell, which differ in the orders of options
    and answers alone. ``log_odds`` is the mean of log-odds, which is not the log-odds of the mean
    probability. Prompts that do not state both last moves are left out, and so are those of
    ``NARRATIVE_FAMILIES``.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.

    Returns:
        A ``policy`` table, p_cooperate and legal_mass in [0, 1], log_odds of defecting in nats
        (null for scripted policies); agents and cells in order of appearance. Where a prompt has
        no legal answer at all, ``p_cooperate`` is null: nothing is divided by zero.

    Raises:
        TableError: the tables break their schemas or do not belong together.
    """
    joined = with_state(join_prompts(prompts, decisions)).filter(
        ~pl.col("family").is_in(NARRATIVE_FAMILIES)
    )
    cells = joined.group_by(
        "agent", "game", "family", "template", "labels", "table_order", *STATE, maintain_order=True
    ).agg(
        mean_or_null("p_cooperate"),
        pl.col("legal_mass").mean(),
        mean_or_null("log_odds"),
        pl.len().cast(pl.Int64).alias("n_prompts"),
    )
    return conform("policy", cells)


def cooperation_table(prompts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """How often does each agent cooperate in each game, and how sure is that?

    The scenario is the unit: prompts are averaged within their scenario first, and the mean and
    its 95% t interval are over scenarios, ``mean +- t_{G-1} s / sqrt(G)``. Prompts of one scenario
    are wordings of one question; counting them as independent would narrow the interval by no
    new evidence. Prompts with a rearranged payoff table are a control, not behaviour, and are left
    out.

    The interval is computed on the probability scale, because the mean probability is what is
    claimed (a mean of log-odds is another quantity), and cut to [0, 1]: the quantity lies
    there, so removing the impossible part leaves the coverage as it is. It holds for
    scenarios like these and is approximate with few of them. Where all scenarios give one value,
    as scripted policies may, there is no spread to build it from, and it is null.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.

    Returns:
        A ``cooperation`` table: one row per agent, game and family; ``low`` and ``high`` are null
        where there is one scenario or no spread, and so is everything but the legal mass where
        a prompt has no legal answer at all.

    Raises:
        TableError: the tables break their schemas or do not belong together.
    """
    per_game = ["agent", "game", "family"]
    scenarios = (
        join_prompts(prompts, decisions)
        .filter(pl.col("table_order").is_in(("original", "none")))
        .group_by(*per_game, "scenario", maintain_order=True)
        .agg(mean_or_null("p_cooperate"), pl.col("legal_mass").mean(), prompts=pl.len())
    )
    games = scenarios.group_by(per_game, maintain_order=True).agg(
        mean_or_null("p_cooperate"),
        pl.col("legal_mass").mean(),
        pl.len().cast(pl.Int64).alias("n_scenarios"),
        pl.col("prompts").sum().cast(pl.Int64).alias("n_prompts"),
        units=pl.col("p_cooperate"),
    )
    bounded = with_interval(games, "units").with_columns(pl.col("low", "high").clip(0.0, 1.0))
    return conform("cooperation", bounded)
