"""Which prompt does a decision answer? Decisions joined with their prompts, checked on the way.

Every behaviour table starts here. A decision on a prompt that nobody described, or a prompt that
one agent answered and another did not, would change a mean without a trace; both are refused.
"""

from __future__ import annotations

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.tables import conform
from moralscope.evidence.statistics.intervals import cluster_t

STATE = ("own_previous", "opponent_previous")
"""The columns of the one-step memory: the agent's own last move, then the other's."""


def join_prompts(prompts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Decisions with the description of their prompts, one row per agent and prompt.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table on (some of) these prompts.

    Returns:
        The columns of ``decisions``, those of ``prompts`` (game and scenario from ``prompts``),
        and ``p_cooperate = 1 - p_positive_given_legal``, in the order of ``decisions``.

    Raises:
        TableError: a table breaks its schema, a decision is on an unknown prompt, or the two
            tables disagree about a prompt's game or scenario.
    """
    known = conform("prompts", prompts)
    made = conform("decisions", decisions)
    _refuse_unknown(known, made)
    joined = made.join(known, on="prompt", how="left", maintain_order="left", suffix="_described")
    for column in ("game", "scenario"):
        described = f"{column}_described"
        differing = joined.filter(pl.col(column) != pl.col(described))
        if differing.height:
            row = differing.row(0, named=True)
            raise TableError(
                f"Tables 'decisions' and 'prompts' disagree about the {column} of a prompt",
                seen=f"{row['prompt']!r}: {row[column]} and {row[described]}",
                allowed=f"one {column} per prompt",
                remedy="take both tables from the same run",
            )
        joined = joined.drop(described)
    return joined.with_columns(p_cooperate=1.0 - pl.col("p_positive_given_legal"))


def _refuse_unknown(prompts: pl.DataFrame, decisions: pl.DataFrame) -> None:
    unknown = decisions.join(prompts, on="prompt", how="anti")
    if unknown.height:
        raise TableError(
            "A decision is on a prompt that the table 'prompts' does not have",
            seen=unknown.get_column("prompt")[0],
            allowed="prompts named in the table 'prompts'",
            remedy="take both tables from the same run",
        )


def with_state(joined: pl.DataFrame) -> pl.DataFrame:
    """The rows whose prompt states both last moves."""
    return joined.filter(*(pl.col(column).is_not_null() for column in STATE))


def with_memory(joined: pl.DataFrame) -> pl.DataFrame:
    """The rows whose prompt states both last moves, or in a group how many others cooperated."""
    others = pl.col("opponent_previous").is_not_null() | pl.col("others_cooperated").is_not_null()
    return joined.filter(pl.col("own_previous").is_not_null() & others)


def named_first(column: str = "option_order") -> pl.Expr:
    """Which move is named first: ``C`` or ``D``, by the labels and one of the two orders.

    Orders are stored by the alphabet (0: the earlier label first), which has no meaning of its
    own: an agent that takes what is named first cooperates with one move first, whatever its label.

    Args:
        column: ``option_order`` or ``answer_order``.
    """
    cooperate, defect = (
        pl.col("labels").str.split("/").list.get(place, null_on_oob=True) for place in (0, 1)
    )
    first = (cooperate < defect) == (pl.col(column) == 0)
    return pl.when(first).then(pl.lit("C")).otherwise(pl.lit("D"))


def mean_or_null(column: str) -> pl.Expr:
    """The mean within a group; null as soon as one value is, never a mean of the others."""
    return pl.when(pl.col(column).null_count() == 0).then(pl.col(column).mean()).alias(column)


def with_interval(frame: pl.DataFrame, units: str) -> pl.DataFrame:
    """``low`` and ``high``: the 95% t interval for the mean over independent units.

    Args:
        frame: one row per mean.
        units: its column with the list of values, one per unit; replaced by the two bounds.

    Returns:
        The frame with the bounds in the unit of the values, null where one unit or no spread
        leaves them undefined, or a value is undefined itself.
    """
    found = [_interval(values) for values in frame.get_column(units).cast(pl.List(pl.Float64))]
    bounds = pl.DataFrame(found, schema={"low": pl.Float64, "high": pl.Float64}, orient="row")
    return frame.drop(units).hstack(bounds)


def _interval(values: pl.Series) -> tuple[float | None, float | None]:
    if values.null_count():
        return None, None
    return cluster_t(values.to_numpy()) or (None, None)
