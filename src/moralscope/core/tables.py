"""What does each column mean? Every table of the package, declared once.

A table is a tidy Parquet file with a documented schema. ``conform`` turns any frame into one that
follows its schema exactly, or says why it cannot; writing goes through it, so a file on disk is
right by construction. Signs: effects and log-odds point towards the decision's positive option
(defect, in games). Log-odds, logits and effects are in nats.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from moralscope.core.errors import TableError, nearest
from moralscope.core.files import write_bytes
from moralscope.core.schemas import SCHEMAS

__all__ = ["Column", "Schema", "conform", "from_rows", "read_table", "schema_of", "write_table"]

_DTYPES: dict[str, type[pl.DataType]] = {
    "text": pl.String,
    "integer": pl.Int64,
    "number": pl.Float64,
    "flag": pl.Boolean,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its kind (``text``, ``integer``, ``number``, ``flag``), unit and meaning."""

    name: str
    kind: str
    unit: str
    meaning: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """One table: what a row is, which columns identify it, and its columns in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def dtypes(self) -> dict[str, type[pl.DataType]]:
        """Column names to polars types, in order."""
        return {column.name: _DTYPES[column.kind] for column in self.columns}


def schema_of(name: str) -> Schema:
    """The schema of a table.

    Raises:
        TableError: there is no such table.
    """
    if name not in SCHEMAS:
        raise TableError(
            "There is no table of this name",
            seen=name,
            allowed=", ".join(sorted(SCHEMAS)),
            remedy=nearest(name, SCHEMAS),
        )
    row, key, lines = SCHEMAS[name]
    columns = tuple(_column(line) for line in lines.strip().splitlines())
    return Schema(name, row, tuple(key.split()), columns)


def _column(line: str) -> Column:
    name, kind, unit, meaning = (part.strip() for part in line.split("|", 3))
    return Column(name, kind.rstrip("?"), unit, meaning, kind.endswith("?"))


def conform(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with exactly the columns of its schema, in order and type.

    Nullable columns that are missing are filled with null. NaN and infinity are refused: an
    undefined number is null, never zero and never NaN.

    Raises:
        TableError: a column is missing, unknown, of the wrong type, null where it must not be,
            not finite, or the key is not unique.
    """
    schema = schema_of(name)
    _refuse_unknown(schema, frame.columns)
    conformed = pl.DataFrame([_conform_column(name, c, frame) for c in schema.columns])
    repeats = conformed.height - conformed.select(schema.key).unique().height
    if repeats:
        raise _error(
            name,
            f"repeats its key ({', '.join(schema.key)})",
            f"{repeats} repeated rows",
            "aggregate or remove the repeated rows",
        )
    return conformed


def _refuse_unknown(schema: Schema, names: Iterable[str]) -> None:
    known = schema.dtypes()
    for extra in names:
        if extra not in known:
            what = f"has an unknown column {extra!r}"
            raise _error(schema.name, what, extra, nearest(extra, known))


def _conform_column(table: str, column: Column, frame: pl.DataFrame) -> pl.Series:
    dtype = _DTYPES[column.kind]
    if column.name not in frame.columns:
        if not column.nullable:
            raise _error(
                table,
                f"lacks the column {column.name!r}",
                frame.columns,
                f"add it: {column.meaning}",
            )
        return pl.Series(column.name, [None] * frame.height, dtype=dtype)
    series = frame.get_column(column.name)
    if series.dtype != dtype:
        widening = (
            series.dtype == pl.Null
            or (series.dtype.is_integer() and column.kind in ("integer", "number"))
            or (series.dtype.is_float() and column.kind == "number")
            or (isinstance(series.dtype, (pl.Categorical, pl.Enum)) and column.kind == "text")
        )
        cast = series.cast(dtype, strict=False) if widening else series
        if not widening or cast.null_count() != series.null_count():
            raise _wrong_type(table, column, series.dtype)
        series = cast
    if not column.nullable and series.null_count():
        raise _error(
            table,
            f"has nulls in column {column.name!r}",
            f"{series.null_count()} nulls",
            "fill them or leave the rows out, saying so",
        )
    if column.kind == "number" and not series.drop_nulls().is_finite().all():
        raise _error(
            table,
            f"has values that are not finite in column {column.name!r}",
            series.drop_nulls().filter(~series.drop_nulls().is_finite()).head(3).to_list(),
            "store an undefined number as null and find out where it came from",
        )
    return series


def _wrong_type(table: str, column: Column, seen: object) -> TableError:
    return _error(
        table,
        f"has the wrong type in column {column.name!r}",
        seen,
        f"store it as {column.kind}",
    )


def _error(table: str, what: str, seen: object, remedy: str) -> TableError:
    columns = ", ".join(column.name for column in schema_of(table).columns)
    return TableError(
        f"Table {table!r} {what}", seen=seen, allowed=f"the columns {columns}", remedy=remedy
    )


def from_rows(name: str, rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """A conforming table from rows given as mappings; no rows give an empty table.

    Python and numpy scalars are taken as they are, never rounded or parsed to fit.

    Raises:
        TableError: as for ``conform``.
    """
    schema = schema_of(name)
    listed = list(rows)
    if not listed:
        return pl.DataFrame(schema=schema.dtypes())
    present = set[str]().union(*listed)
    _refuse_unknown(schema, sorted(present))
    columns = [_column_of_rows(name, c, listed) for c in schema.columns if c.name in present]
    return conform(name, pl.DataFrame(columns))


def _column_of_rows(table: str, column: Column, rows: list[Mapping[str, object]]) -> pl.Series:
    values = [row.get(column.name) for row in rows]
    try:
        return pl.Series(column.name, values, dtype=_DTYPES[column.kind], strict=True)
    except (TypeError, ValueError) as cause:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise _wrong_type(table, column, ", ".join(kinds)) from cause


def write_table(name: str, frame: pl.DataFrame, folder: Path) -> Path:
    """Write ``folder/NAME.parquet`` whole or not at all; returns its path.

    Raises:
        TableError: the frame does not follow the schema.
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    conform(name, frame).write_parquet(buffer, compression="zstd", statistics=False)
    path = folder / f"{name}.parquet"
    write_bytes(path, buffer.getvalue())
    return path


def read_table(name: str, folder: Path) -> pl.DataFrame:
    """Read ``folder/NAME.parquet`` and check it against its schema.

    Raises:
        TableError: the file is missing, is not Parquet, or does not follow the schema.
    """
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise TableError(
            f"Table {name!r} is missing",
            seen=path,
            allowed=f"a Parquet file named {name}.parquet",
            remedy="run the study that writes it, or copy the file there",
        )
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as cause:
        raise TableError(
            f"Table {name!r} cannot be read",
            seen=f"{path} ({cause})",
            allowed="a Parquet file",
            remedy="run the study that writes it again, or copy the file anew",
        ) from cause
    return conform(name, frame)
