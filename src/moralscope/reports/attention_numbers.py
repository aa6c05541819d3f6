"""What do the figures of attention draw? Means and intervals of masses, changes and edits.

Intervals are Student's 95% over scenarios. Nothing is tested here: the claims do that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from moralscope.evidence.findings.attention import Looking, look
from moralscope.evidence.pairs import compared
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import inference_family, on_family
from moralscope.reports.run import Run

Row = dict[str, object]

UNIT = "scenarios"

EDITED = {
    "own": "its own tokens masked",
    "random": "random tokens masked",
    "amplified": "its own tokens amplified",
}
"""What was altered, in the order of the rows."""


def looked(run: Run) -> Looking | None:
    """Where the agents of a run look; None where none of its prompts is known."""
    agents = run.tables["attention"].get_column("agent").unique(maintain_order=True).to_list()
    return look(run.tables, agents) if "prompts" in run.tables else None


def interval_row(values: Array, **more: object) -> Row:
    """Mean over scenarios with its interval, as the dots of a figure need it."""
    low, high = cluster_t(values) or (None, None)
    return {
        **more,
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "n": len(values),
        "unit": UNIT,
    }


def mass_rows(looking: Looking) -> pl.DataFrame:
    """Mass of each category, mean over heads: columns agent, panel, row, value, low, high, n, unit.

    Bounded by 0: the interval of a share is cut there.
    """
    rows = [
        interval_row(masses[:, at], agent=agent, panel=category, row="mass")
        for agent, masses in looking.masses.items()
        for at, category in enumerate(looking.categories)
    ]
    return _framed(rows).with_columns(pl.col("low").clip(0.0), pl.col("high").clip(0.0, 1.0))


def change_rows(looking: Looking, references: Mapping[str, str | None]) -> pl.DataFrame:
    """Change of the log-odds from the base, mean over heads: columns as ``mass_rows``.

    Args:
        looking: where agents look.
        references: each agent's base.
    """
    rows: list[Row] = []
    for agent, values in looking.values.items():
        base = references.get(agent)
        if base is None or base not in looking.values:
            continue
        change = (values - looking.values[base]).mean(axis=1)
        rows += [
            interval_row(change[:, at], agent=agent, panel=category, row="agent minus base")
            for at, category in enumerate(looking.categories)
        ]
    return _framed(rows)


def seed_distances(run: Run, looking: Looking) -> pl.DataFrame:
    """How far two seeds of one reward lie apart, as an interval about 0.

    Columns first, panel, low, high, pairs: of each group of seeds, named by its first agent, the
    root mean square of the difference of the log-odds of two of them, mean over heads.
    """
    groups: dict[str, list[Array]] = {}
    first_of: dict[str, str] = {}
    for pair in compared(run.tables):
        if pair.kind == "replicate" and set(pair.agents) <= set(looking.values):
            one, other = (looking.values[agent].mean(axis=(0, 1)) for agent in pair.agents)
            head = first_of.setdefault(pair.first, pair.first)
            first_of.setdefault(pair.second, head)
            groups.setdefault(head, []).append(one - other)
    rows: list[Row] = []
    for first, differences in groups.items():
        apart = np.sqrt(np.mean(np.square(differences), axis=0))
        for at, category in enumerate(looking.categories):
            size = float(apart[at])
            row: Row = {"first": first, "panel": category, "pairs": len(differences)}
            rows.append({**row, "low": -size, "high": size})
    return pl.DataFrame(
        rows,
        schema={
            "first": pl.String,
            "panel": pl.String,
            "low": pl.Float64,
            "high": pl.Float64,
            "pairs": pl.Int64,
        },
    )


def edit_rows(run: Run) -> pl.DataFrame:
    """Size of the effect of altering attention: columns as ``mass_rows``, row one of ``EDITED``."""
    table, prompts = run.tables["attention_edits"], run.tables["prompts"]
    table = table.filter(pl.col("layers") == table.get_column("layers").first())
    family = inference_family(prompts, table.get_column("prompt"))
    if family is None:
        return _framed([])
    what = (
        pl.when(pl.col("draw") >= 0)
        .then(pl.lit("random"))
        .when(pl.col("how") == "mask")
        .then(pl.lit("own"))
        .otherwise(pl.lit("amplified"))
    )
    key = ["agent", "category", "what"]
    means = (
        on_family(table, prompts, family)
        .with_columns(what=what, size=pl.col("effect").abs())
        .group_by(*key, "scenario", maintain_order=True)
        .agg(pl.col("size").mean())
    )
    rows = [
        interval_row(part.get_column("size").to_numpy(), agent=agent, panel=category, row=edited)
        for (agent, category, edited), part in means.group_by(key, maintain_order=True)
    ]
    order = list(EDITED)
    found = _framed(rows)
    rank = pl.col("row").replace_strict({name: at for at, name in enumerate(order)}, default=0)
    return (
        found.with_columns(pl.col("low").clip(0.0), rank=rank.cast(pl.Int64))
        .sort("rank", maintain_order=True)
        .with_columns(pl.col("row").replace_strict(EDITED, default=""))
        .drop("rank")
    )


def _framed(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={
            "agent": pl.String,
            "panel": pl.String,
            "row": pl.String,
            "value": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "n": pl.Int64,
            "unit": pl.String,
        },
    )
