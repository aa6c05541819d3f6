"""Which prompt does a decision answer? Decisions joined with their prompts, checked on the way.

Every behaviour table starts here. A decision on a prompt that nobody described, or a prompt that
one agent answered and another did not, would change a mean without a trace; both are refused.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtrit

from moralscope.core.errors import TableError
from moralscope.core.tables import conform

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


def mean_or_null(column: str) -> pl.Expr:
    """The mean within a group; null as soon as one value is, never a mean of the others."""
    return pl.when(pl.col(column).null_count() == 0).then(pl.col(column).mean()).alias(column)


def t_half_widths(spreads: pl.Series, counts: pl.Series, level: float = 0.95) -> pl.Series:
    """Half-widths of t intervals for means of independent units.

    ``t_{n-1, (1+level)/2} * s / sqrt(n)``, with ``s`` the standard deviation (n - 1 in the
    denominator).

    Args:
        spreads: ``s`` of each mean, shape (k,), in the unit of the values; null for one unit.
        counts: ``n`` of each mean, shape (k,).
        level: coverage, in (0, 1).

    Returns:
        Shape (k,), at least zero, null where ``n`` is 1.
    """
    n: NDArray[np.float64] = counts.to_numpy().astype(np.float64)
    enough = n > 1
    freedom = np.where(enough, n - 1, 1.0)
    quantile: NDArray[np.float64] = np.asarray(stdtrit(freedom, (1 + level) / 2), dtype=np.float64)
    factors = pl.Series(quantile / np.sqrt(n))
    return (spreads * factors).set(pl.Series(~enough), None)
