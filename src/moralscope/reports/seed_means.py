"""What is the mean over training runs, and how sure is it? Means with intervals over seeds.

    mean +- t(.975, n - 1) s / sqrt(n)

with the standard deviation s over n runs; a single run has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from moralscope.evidence.statistics.intervals import t_quantile


def seed_means(frame: pl.DataFrame, keys: Sequence[str], value: str) -> pl.DataFrame:
    """Mean over the rows of each group.

    Args:
        frame: one row per training run and group.
        keys: columns that tell groups apart.
        value: the column that is averaged.

    Returns:
        Columns: keys, mean, low and high (95%; null for one run), n; groups as they come.
    """
    half = pl.col("sd") * pl.col("n").map_elements(_factor, pl.Float64, skip_nulls=True)
    return (
        frame.group_by(keys, maintain_order=True)
        .agg(mean=pl.col(value).mean(), sd=pl.col(value).std(), n=pl.len().cast(pl.Int64))
        .with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)
        .select(*keys, "mean", "low", "high", "n")
    )


def _factor(n: int) -> float | None:
    return t_quantile(0.975, n - 1) / math.sqrt(n) if n > 1 else None
