"""Label, layout, order or move, state by state: does an agent keep the pattern that it learned?

An agent that learned to answer what the other did moves some states towards defecting and others
away from it, and its mean change over states says nothing. Its change from base is therefore
compared in each state s by itself, under the same controls as in ``transfer``:

    change(s) = mean over units of (log-odds of agent - log-odds of base),

with the log-odds of defecting and a 95% t interval over units. A condition is a control under one
label assignment and one rearrangement of payoff tables. Its units are its wordings, each averaged
over orders; or the orders in which options and answers are named, each averaged over wordings,
where it has more of those. Each wording of a condition has rows of its own as well, over orders.
The agent's *reference* is the trained condition with the most states whose intervals are off zero
(of equals, the one with the largest changes there).

What it does not do: correct for the number of states and conditions. The verdict that reads this
table asks that all of them agree, which many tests make harder and not easier. Orders are all that
there are and not a sample; wordings stand for others like them.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from moralscope.behaviour.joining import STATE, with_interval
from moralscope.behaviour.learning.training_sets import TrainedOn
from moralscope.behaviour.learning.transfer import CONTROLS, clear_sign, controlled_changes
from moralscope.core.tables import conform, schema_of

ALL = "all"
"""Stands for every wording of a condition in the column ``template``."""

_CONDITION = ("agent", "control", "template", "labels", "table_order")
_STATE = ("game", "scenario", *STATE, "others_cooperated")


def transfer_states_table(
    prompts: pl.DataFrame,
    decisions: pl.DataFrame,
    agents: pl.DataFrame,
    trained: Mapping[str, TrainedOn],
) -> pl.DataFrame:
    """How does each agent's change from base fare under each control, state by state?

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table with the trained agents and their bases.
        agents: an ``agents`` table.
        trained: what each agent to examine was trained on, as for ``transfer_table``.

    Returns:
        A ``transfer_states`` table. ``change_log_odds`` and its interval are in nats towards
        defecting, over ``n_units`` of ``unit``. ``keeps_sign`` compares with the same state of
        the reference: true or false where both intervals are off zero by ``NOISE_FLOOR``, else
        null.

    Raises:
        TableError: the tables break their schemas or do not belong together, an agent or its
            base has no log-odds on a prompt, or none of the prompts was trained on.
        AgentError: an agent or its base is not in the table ``agents``.
    """
    parts = [
        _of_agent(changes) for _, changes in controlled_changes(prompts, decisions, agents, trained)
    ]
    if not parts:
        return pl.DataFrame(schema=schema_of("transfer_states").dtypes())
    return conform("transfer_states", pl.concat(parts))


def _of_agent(changes: pl.DataFrame) -> pl.DataFrame:
    ordered = changes.drop_nulls("change").with_columns(
        wording=pl.col("template"), orders=pl.format("{}{}", "option_order", "answer_order")
    )
    together = ordered.with_columns(
        pl.col("table_order").replace("none", "original"), template=pl.lit(ALL)
    )
    rows = _conditions(pl.concat([together, ordered.select(together.columns)]))
    compared = _compared(rows)
    in_order = pl.col("control").cast(pl.Enum(CONTROLS))
    return compared.sort(in_order, maintain_order=True).select(
        *schema_of("transfer_states").dtypes()
    )


def _conditions(rows: pl.DataFrame) -> pl.DataFrame:
    """The states of every condition, with intervals over whichever units are more."""
    wordings = pl.col("wording").n_unique().over(_CONDITION)
    orders = pl.col("orders").n_unique().over(_CONDITION)
    chosen = rows.with_columns(worded=(wordings > 1) & (wordings >= orders))
    units = chosen.group_by(
        *_CONDITION,
        *_STATE,
        pl.when("worded").then(pl.lit("wordings")).otherwise(pl.lit("orders")).alias("unit"),
        pl.when("worded").then("wording").otherwise("orders").alias("one"),
        maintain_order=True,
    ).agg(pl.col("change").mean())
    states = units.group_by(*_CONDITION, *_STATE, "unit", maintain_order=True).agg(
        change_log_odds=pl.col("change").mean(),
        n_units=pl.len().cast(pl.Int64),
        units=pl.col("change"),
    )
    return with_interval(states, "units").with_columns(clear_sign())


def _compared(rows: pl.DataFrame) -> pl.DataFrame:
    """``reference`` and ``keeps_sign``."""
    key = ("labels", "table_order")
    together = (pl.col("control") == "trained") & (pl.col("template") == ALL)
    best = (
        rows.filter(together)
        .group_by(key, maintain_order=True)
        .agg(
            clear=pl.col("sign").is_not_null().sum(),
            size=pl.col("change_log_odds").abs().filter(pl.col("sign").is_not_null()).sum(),
        )
        .sort("clear", "size", descending=True, maintain_order=True)
        .row(0, named=True)
    )
    reference = together & pl.all_horizontal(pl.col(column) == best[column] for column in key)
    signs = rows.filter(reference).select("game", "scenario", expected="sign")
    return (
        rows.with_columns(reference=reference)
        .join(signs, on=("game", "scenario"), how="left", maintain_order="left")
        .with_columns(keeps_sign=pl.col("sign") == pl.col("expected"))
    )
