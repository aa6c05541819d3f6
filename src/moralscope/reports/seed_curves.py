"""What did trainings that differ in their seed only reach, step by step, and how far apart?

With ``y_1, ..., y_n`` the values that n such trainings have at a step, Student's interval for
their mean is

    mean +- t_{n-1}(0.975) sd / sqrt(n),

cut at the possible range: 0 and 1 for probabilities, 0 for a divergence. The scale is that of the
values, not log-odds: there the mean of four seeds at .9999 and one at .1 would be above .99, and
the seed that failed would not be seen. One seed, or seeds without any spread, give no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.reports.run import Run
from moralscope.reports.seed_groups import SeedGroup, has

DRAWN_STEPS = 250
"""Steps of a training that a curve has room for."""

_RANGES = {
    "p_defect": (0.0, 1.0),
    "reward": (-math.inf, math.inf),
    "legal_mass": (0.0, 1.0),
    "kl": (0.0, math.inf),
}
"""What each measure can be at all."""


def stride(group: SeedGroup) -> int:
    """One step in how many is kept of a long training."""
    return math.ceil(group.first.steps / DRAWN_STEPS)


def seed_values(run: Run, groups: Sequence[SeedGroup]) -> pl.DataFrame:
    """What is drawn of each training, one value a row.

    Columns: group, agent, seed, step, measure (of ``p_defect``, ``reward``, ``legal_mass``,
    ``kl``), labels (``as given`` or ``exchanged`` for ``p_defect``; ``not told apart`` where the
    table has neither and elsewhere), value. Steps of long trainings are thinned out evenly.
    """
    table = run.tables["training"].sort("step")
    parts: list[pl.DataFrame] = []
    for group in groups:
        every = stride(group)
        for member in group.members:
            rows = table.filter(
                (pl.col("agent") == member.agent) & (pl.col("training_seed") == member.seed)
            ).with_columns(group=pl.lit(group.name), seed="training_seed")
            last = pl.col("step") == member.steps
            parts.append(_long(rows.filter(((pl.col("step") - 1) % every == 0) | last)))
    return pl.concat(parts)


def _long(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of one training, a measure under an assignment of labels at a time."""
    series = [
        ("p_defect", "as given", pl.col("p_defect_same")),
        ("p_defect", "exchanged", pl.col("p_defect_swapped")),
        ("reward", "not told apart", pl.col("reward_mean")),
        ("legal_mass", "not told apart", pl.col("legal_mass")),
        ("kl", "not told apart", pl.col("kl")),
    ]
    if not has(rows, "p_defect_same") and not has(rows, "p_defect_swapped"):
        series[:2] = [("p_defect", "not told apart", 1.0 - pl.col("cooperation"))]
    return pl.concat(
        rows.select(
            "group",
            "agent",
            "seed",
            "step",
            measure=pl.lit(measure),
            labels=pl.lit(labels),
            value=value,
        )
        for measure, labels, value in series
    ).drop_nulls("value")


def seed_intervals(values: pl.DataFrame) -> pl.DataFrame:
    """Mean over seeds at each step, with its 95% interval.

    Args:
        values: as from ``seed_values``.

    Returns:
        Columns: group, measure, labels, step, mean, low, high (null for one seed, and for seeds
        that do not differ), n (seeds that have a value at this step).
    """
    keys = ["group", "measure", "labels", "step"]
    least = pl.col("measure").replace_strict({m: low for m, (low, _) in _RANGES.items()})
    most = pl.col("measure").replace_strict({m: high for m, (_, high) in _RANGES.items()})
    value = pl.col("value")
    return (
        values.group_by(keys, maintain_order=True)
        .agg(mean=value.mean(), sd=value.std(), apart=value.max() > value.min(), n=pl.len())
        .with_columns(
            half=pl.when("apart").then(
                pl.col("sd") * pl.col("n").map_elements(_factor, pl.Float64, skip_nulls=True)
            )
        )
        .with_columns(
            # An estimate may lie outside what it estimates; the interval still holds it.
            low=pl.max_horizontal(
                pl.col("mean") - pl.col("half"), pl.min_horizontal(least, "mean")
            ),
            high=pl.min_horizontal(
                pl.col("mean") + pl.col("half"), pl.max_horizontal(most, "mean")
            ),
        )
        .select(
            *keys,
            "mean",
            pl.when(pl.col("half").is_not_null()).then("low"),
            pl.when(pl.col("half").is_not_null()).then("high"),
            pl.col("n").cast(pl.Int64),
        )
    )


def _factor(n: int) -> float | None:
    """Half the interval, in standard deviations over n seeds."""
    return t_quantile(0.975, n - 1) / math.sqrt(n) if n > 1 else None
