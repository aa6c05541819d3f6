"""Where do two versions of a table differ? Row by row, on the key of its schema.

Rows with the same key are compared column by column. Numbers agree where

    |a - b| <= tolerance max(1, |a|, |b|)

everything else where it is equal; null agrees with null alone. Rows that stand in one version only
are counted apart. The order of rows does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.tables import schema_of

_FIRST, _SECOND = "first ", "second "
"""Before column names; no column of a schema begins so."""


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """A column in which rows differ.

    Attributes:
        column: its name.
        rows: how many rows differ in it.
        largest: largest absolute difference of its numbers, in its unit; None where it has none.
        key: the row where it differs most, or first.
        first, second: what the two versions say there.
    """

    column: str
    rows: int
    largest: float | None
    key: Mapping[str, object]
    first: object
    second: object

    def sentence(self) -> str:
        """One line: where, and what the two versions say."""
        where = ", ".join(str(value) for value in self.key.values())
        return f"{self.column} of {where}: {self.first!r} and {self.second!r}"


@dataclass(frozen=True, slots=True)
class TableDifference:
    """Two versions of a table.

    Attributes:
        table: its name.
        rows_first, rows_second: rows of each.
        only_first, only_second: rows whose key the other lacks.
        example_first, example_second: key of such a row; None where there is none.
        columns: those in which rows differ, in the order of the schema.
    """

    table: str
    rows_first: int
    rows_second: int
    only_first: int
    only_second: int
    example_first: Mapping[str, object] | None
    example_second: Mapping[str, object] | None
    columns: tuple[ColumnDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_first or self.only_second or self.columns)

    def sentence(self) -> str:
        """The first difference in words; empty where there is none."""
        for count, key, which in (
            (self.only_first, self.example_first, "first"),
            (self.only_second, self.example_second, "second"),
        ):
            if count and key is not None:
                where = ", ".join(str(value) for value in key.values())
                return f"{count} rows stand in the {which} alone, such as {where}"
        return self.columns[0].sentence() if self.columns else ""


def compare_tables(
    name: str,
    first: pl.DataFrame,
    second: pl.DataFrame,
    *,
    ignored: Sequence[str] = (),
    tolerance: float = 0.0,
) -> TableDifference:
    """Compare two versions of a table, both of which follow its schema.

    Args:
        name: of the table.
        first: one version.
        second: the other.
        ignored: columns that may differ.
        tolerance: of numbers, relative to the larger of 1 and their size.

    Raises:
        TableError: there is no such table.
    """
    schema = schema_of(name)
    key = list(schema.key)
    columns = [c.name for c in schema.columns if c.name not in (*key, *ignored)]
    numbers = {c.name for c in schema.columns if c.kind in ("number", "integer")}
    alone_first = alone_second = first.clear().select(key)
    if first.height == second.height and first.select(key).equals(second.select(key)):
        # The usual case, told without a join.
        both = pl.concat(
            [first.select(key), _named(first, columns, _FIRST), _named(second, columns, _SECOND)],
            how="horizontal",
        )
    else:
        ours = pl.concat([first.select(key), _named(first, columns, _FIRST)], how="horizontal")
        theirs = pl.concat([second.select(key), _named(second, columns, _SECOND)], how="horizontal")
        both = ours.join(theirs, on=key, how="inner", nulls_equal=True, maintain_order="left")
        # Keys are unique, so as many pairs as rows leave nobody alone.
        if both.height < first.height:
            alone_first = _without(first.select(key), second.select(key))
        if both.height < second.height:
            alone_second = _without(second.select(key), first.select(key))
    found = (_column(both, key, c, tolerance, numeric=c in numbers) for c in columns)
    return TableDifference(
        table=name,
        rows_first=first.height,
        rows_second=second.height,
        only_first=alone_first.height,
        only_second=alone_second.height,
        example_first=alone_first.row(0, named=True) if alone_first.height else None,
        example_second=alone_second.row(0, named=True) if alone_second.height else None,
        columns=tuple(difference for difference in found if difference is not None),
    )


def _named(frame: pl.DataFrame, columns: Sequence[str], prefix: str) -> pl.DataFrame:
    return frame.select(pl.col(column).alias(f"{prefix}{column}") for column in columns)


def _without(keys: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    return keys.join(others, on=keys.columns, how="anti", nulls_equal=True, maintain_order="left")


def _column(
    both: pl.DataFrame, key: list[str], column: str, tolerance: float, *, numeric: bool
) -> ColumnDifference | None:
    a, b = pl.col(f"{_FIRST}{column}"), pl.col(f"{_SECOND}{column}")
    apart = (a - b).abs().cast(pl.Float64) if numeric else pl.lit(None, dtype=pl.Float64)
    differs = a.ne_missing(b)
    if numeric and tolerance > 0:
        bound = tolerance * pl.max_horizontal(pl.lit(1.0), a.abs(), b.abs())
        differs &= ~(apart <= bound).fill_null(value=False)
    rows = both.select(*key, a, b, apart.alias("apart")).filter(differs)
    if not rows.height:
        return None
    largest = rows.get_column("apart").max()
    at = rows.get_column("apart").arg_max() or 0
    worst = rows.row(at, named=True)
    return ColumnDifference(
        column=column,
        rows=rows.height,
        largest=None if largest is None else float(str(largest)),
        key={name: worst[name] for name in key},
        first=worst[f"{_FIRST}{column}"],
        second=worst[f"{_SECOND}{column}"],
    )
