"""What is the mean over scenarios, and how sure is it? Shared by figures and exported summaries.

Means are taken over the prompts of a scenario first and over scenarios then, because prompts of
one scenario are no independent observations. Intervals are t intervals over scenarios,

    mean +- t(0.975, n - 1) sd / sqrt(n).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import special

from moralscope.reports.run import Run


def with_scenario(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the scenario of their prompt."""
    scenarios = run.tables["prompts"].select("prompt", "scenario")
    return rows.join(scenarios, on="prompt", maintain_order="left")


def over_scenarios(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Mean over scenarios of a value, with its t interval, per group.

    Args:
        rows: columns ``by``, scenario and value.
        by: what to group by.

    Returns:
        Columns ``by``, mean, sd, low, high (null below two scenarios) and n (scenarios).
    """
    table = (
        rows.group_by(*by, "scenario", maintain_order=True)
        .agg(pl.col("value").mean())
        .group_by(*by, maintain_order=True)
        .agg(mean=pl.col("value").mean(), sd=pl.col("value").std(), n=pl.len().cast(pl.Int64))
    )
    n = table.get_column("n").to_numpy()
    # Below two scenarios there is no spread; one degree of freedom stands in, and sd is null.
    factor = special.stdtrit(np.maximum(n - 1, 1), 0.975) / np.sqrt(n)
    half = pl.col("sd") * pl.Series(factor)
    return table.with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half).select(
        *by, "mean", "sd", "low", "high", "n"
    )
