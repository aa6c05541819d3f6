"""Does behaviour carry over to other games, labels and tables? One mean per way of asking.

For each game, label assignment and order of the payoff table of the structured text,

    P(C) = mean over the four states of (mean over orders of P(C | state, order)),

and beside it the change from base in the log-odds of defecting, averaged in the same way.

What it does not do: sample states. The four memory-one states are all there are, so the interval
over them says how far the mean hangs on the state, not how far it is from other states.
"""

from __future__ import annotations

import polars as pl

from moralscope.behaviour.joining import join_prompts, mean_or_null, with_state
from moralscope.core.tables import conform
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.statistics.bounded import bounded_interval

_WAY = ("game", "labels", "table_order")
_FAMILY = "structured"


def generalisation_table(
    prompts: pl.DataFrame, decisions: pl.DataFrame, agents: pl.DataFrame
) -> pl.DataFrame:
    """How often does each agent cooperate in each game, under each labels and table order?

    Args:
        prompts: a ``prompts`` table; the family ``structured`` is read.
        decisions: a ``decisions`` table.
        agents: an ``agents`` table, which says whose base is who.

    Returns:
        A ``generalisation`` table: ``p_cooperate`` in [0, 1], null where a prompt has no legal
        answer at all; ``change_log_odds`` in nats towards defecting, null for bases, scripted
        policies and where a log-odds is undefined. The interval is over the states and null
        without spread.

    Raises:
        TableError: the tables break their schemas or do not belong together.
    """
    joined = with_state(join_prompts(prompts, decisions)).filter(pl.col("family") == _FAMILY)
    listed = conform("agents", agents)
    present = joined.get_column("agent").unique(maintain_order=True).to_list()
    bases = {name: base_of(listed, name) for name in trained_agents(listed) if name in present}
    rows = joined.with_columns(
        pl.col("p_cooperate").fill_nan(None),
        base=pl.col("agent").replace_strict(bases, default=None, return_dtype=pl.String),
    )
    before = joined.select("prompt", base="agent", before="log_odds")
    changes = rows.join(before, on=["base", "prompt"], how="left", maintain_order="left")
    states = (
        changes.with_columns(change_log_odds=pl.col("log_odds") - pl.col("before"))
        .group_by("agent", *_WAY, "scenario", maintain_order=True)
        .agg(
            mean_or_null("p_cooperate"),
            mean_or_null("change_log_odds"),
            pl.col("legal_mass").mean(),
        )
    )
    ways = states.group_by("agent", *_WAY, maintain_order=True).agg(
        mean_or_null("p_cooperate"),
        mean_or_null("change_log_odds"),
        pl.col("legal_mass").mean(),
        pl.len().cast(pl.Int64).alias("n_states"),
        units=pl.col("p_cooperate"),
    )
    bounds = [
        (None, None) if units.null_count() else bounded_interval(units.to_numpy()) or (None, None)
        for units in ways.get_column("units")
    ]
    ends = pl.DataFrame(bounds, schema={"low": pl.Float64, "high": pl.Float64}, orient="row")
    return conform("generalisation", ways.drop("units").hstack(ends))
