"""What is one observation? From rows of tables to one mean per unit of replication.

Rows are never units: two wordings of a scenario share its quirks, so they are averaged before
anything is tested. ``y[g, k] = mean over the prompts of cluster g of column k``. Every column must
cover the same clusters; a missing or undefined cell is an error that names it, because leaving it
out would silently change what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.tables import conform, schema_of
from moralscope.evidence.statistics.resampling import Array

Tables = Mapping[str, pl.DataFrame]

PREFERRED_FAMILY = "clusters"
"""The prompt family that is made for inference."""


@dataclass(frozen=True, slots=True)
class Units:
    """Means per unit of replication.

    Attributes:
        names: the G clusters.
        columns: the K things measured on each (agents, sites).
        values: (G, K) means over the prompts of a cluster.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: Array

    def column(self, name: str) -> Array:
        """The (G,) means of one column."""
        return self.values[:, self.columns.index(name)]

    def keep(self, columns: Sequence[str]) -> Units:
        """The same units with some of the columns, in the order given."""
        index = [self.columns.index(name) for name in columns]
        return Units(self.names, tuple(columns), self.values[:, index])


def checked(tables: Tables) -> dict[str, pl.DataFrame]:
    """The tables, each conforming to its schema, rows that are repeated as they stand kept once.

    Raises:
        TableError: a table is unknown or does not follow its schema (NaN counts as that), or has
            two different rows for the same thing.
    """
    return {name: conform(name, _once(name, frame)) for name, frame in tables.items()}


def _once(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    key = [column for column in schema_of(name).key if column in frame.columns]
    return collapse_rows(frame, key, name)[0] if len(key) == len(schema_of(name).key) else frame


def collapse_rows(
    frame: pl.DataFrame, key: Sequence[str], name: str = "table"
) -> tuple[pl.DataFrame, int]:
    """The frame with rows that repeat another in every column left out, and how many they were.

    Args:
        frame: any table.
        key: columns that identify a row; all of them must be there.
        name: what messages call the table.

    Raises:
        TableError: two rows share their key and differ elsewhere; both are shown.
    """
    if not frame.height or frame.select(key).n_unique() == frame.height:
        return frame, 0
    distinct = frame.unique(maintain_order=True)
    clash = distinct.filter(pl.struct(key).is_duplicated())
    if clash.height:
        first = clash.head(1)
        one, two = clash.join(first.select(key), on=list(key), nulls_equal=True).head(2).to_dicts()
        differing = [column for column in frame.columns if one[column] != two[column]]
        raise TableError(
            f"Table {name!r} has different rows for the same {', '.join(key)}",
            seen=f"{ {column: one[column] for column in key} }: "
            + "; ".join(f"{c} is {one[c]!r} and {two[c]!r}" for c in differing),
            allowed="one row for each of them, or rows that repeat each other exactly",
            remedy="find out which is right and remove the other; if both were measured, they "
            "need a column that tells them apart",
        )
    return distinct, frame.height - distinct.height


def collapsed_prompts(prompts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Prompts without those that repeat the text of another in their scenario, and how many.

    A text under two names is one observation. Of the copies (same scenario, family, rendered text
    and options) the first in the alphabet stays, which SQL calls ``MIN(prompt)``.

    Args:
        prompts: the prompts table, or the part of it that was measured.
    """
    text = ["scenario", "family", "sha256", "positive", "negative"]
    kept = prompts.filter(pl.col("prompt") == pl.col("prompt").min().over(text))
    return kept, prompts.height - kept.height


def matrix(frame: pl.DataFrame, unit: str, column: str, value: str) -> Units:
    """Mean of ``value`` per ``unit`` (rows) and ``column`` (columns), both in order of appearance.

    Raises:
        TableError: a value is null, or a unit lacks one of the columns.
    """
    undefined = frame.filter(pl.col(value).is_null())
    if undefined.height:
        raise TableError(
            f"Undefined values of {value!r} cannot be averaged",
            seen=f"{undefined.height} nulls, the first at {undefined.row(0, named=True)}",
            allowed="a number in every row that is compared",
            remedy="find out why they are undefined, or leave the agent out of the comparison",
        )
    means = frame.group_by(unit, column, maintain_order=True).agg(pl.col(value).mean())
    columns: list[str] = means.get_column(column).unique(maintain_order=True).to_list()
    # By number: an agent may be called like the unit.
    numbered = {name: str(at) for at, name in enumerate(columns)}
    means = means.with_columns(pl.col(column).replace_strict(numbered, return_dtype=pl.String))
    wide = means.pivot(on=column, index=unit, values=value, maintain_order=True)
    wide = wide.select(unit, *numbered.values())
    gaps_of = wide.select(numbered.values()).null_count().row(0) if columns else ()
    for name, gaps in zip(columns, gaps_of, strict=True):
        if gaps:
            missing = wide.filter(pl.col(numbered[name]).is_null()).get_column(unit).to_list()
            raise TableError(
                f"{name!r} was not measured on every {unit}",
                seen=f"{len(missing)} missing, such as {missing[0]!r}",
                allowed=f"the same {unit}s for everything that is compared",
                remedy="measure the missing ones, or leave them out of every column",
            )
    values = np.ascontiguousarray(wide.drop(unit).to_numpy(), dtype=np.float64)
    return Units(tuple(wide.get_column(unit).to_list()), tuple(columns), values)


def inference_family(prompts: pl.DataFrame, used: pl.Series) -> str | None:
    """The prompt family to test on: ``clusters``, else the one with most scenarios.

    Args:
        prompts: the prompts table.
        used: names of the prompts on which the table at hand has rows.

    Returns:
        The family, or None if none of the prompts is in the prompts table.
    """
    scenarios = (
        prompts.filter(pl.col("prompt").is_in(used.unique().to_list()))
        .group_by("family")
        .agg(pl.col("scenario").n_unique().alias("n"))
        .sort("n", "family", descending=[True, False])
    )
    families: list[str] = scenarios.get_column("family").to_list()
    if PREFERRED_FAMILY in families:
        return PREFERRED_FAMILY
    return families[0] if families else None


def on_family(frame: pl.DataFrame, prompts: pl.DataFrame, family: str) -> pl.DataFrame:
    """The rows of a table on one prompt family, with the prompts' ``scenario`` and ``labels``.

    Prompts that repeat the text of another count once: a cloned prompt adds no weight.
    """
    used = (pl.col("family") == family) & pl.col("prompt").is_in(
        frame.get_column("prompt").unique().to_list()
    )
    places = collapsed_prompts(prompts.filter(used))[0].select("prompt", "scenario", "labels")
    bare = frame.drop("scenario", "labels", strict=False)
    return bare.join(places, on="prompt", how="inner", maintain_order="left")


def paired(
    rows: pl.DataFrame, first: str, second: str, value: str, extra: Sequence[str] = ()
) -> pl.DataFrame:
    """``difference`` = value of agent ``first`` minus that of agent ``second``, prompt by prompt.

    Args:
        rows: a table with ``agent``, ``prompt``, ``scenario``, ``labels`` and the value.
        first: the agent that is measured.
        second: the agent that is subtracted.
        value: the column that is subtracted.
        extra: further columns that identify a row within an agent and prompt (``site``).

    Raises:
        TableError: the two agents were not measured on the same prompts.
    """
    key = ["prompt", "scenario", "labels", *extra]
    left = rows.filter(pl.col("agent") == first).select(*key, pl.col(value).alias("of_first"))
    right = rows.filter(pl.col("agent") == second).select(*key, pl.col(value).alias("of_second"))
    alone = pl.concat(
        [left.join(right, on=key, how="anti"), right.join(left, on=key, how="anti")],
        how="diagonal",
    )
    if alone.height:
        raise TableError(
            f"Agents {first!r} and {second!r} were not measured on the same prompts",
            seen=f"{alone.height} rows of one without a partner, such as "
            f"{alone.row(0, named=True)['prompt']!r}",
            allowed="the same prompts (and sites) for both",
            remedy="measure both on the same prompt set; a paired comparison needs all of it",
        )
    joined = left.join(right, on=key, how="inner", maintain_order="left")
    return joined.with_columns((pl.col("of_first") - pl.col("of_second")).alias("difference"))
