"""What does this file say, column by column? Values of the documented types, faults by row.

Text becomes numbers here, and the first value that is none is named with its row. NaN is undefined
and becomes null where a column may be null; elsewhere it is refused, as is every infinity.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.tables import Column, schema_of
from moralscope.evidence.auditing.folder import ROW, File, read_error, scan
from moralscope.evidence.auditing.layouts import (
    NOT_RECORDED,
    layout_of,
    missing_columns,
    needs_of,
)
from moralscope.evidence.auditing.melting import melted
from moralscope.evidence.auditing.naming import EXTRA, renaming
from moralscope.evidence.auditing.settings import AuditSettings

IN_MEMORY: Final = 64_000_000
"""Bytes of a table's text files up to which they are held in memory."""

OVERSHOOT: Final = 1e-4
"""What rounding may add to a probability."""

_PROBABILITIES = ("p_positive", "p_negative", "legal_mass", "p_positive_given_legal")
_NUMBERS: Mapping[str, str] = {
    "reward": "text", "base": "text", "kind": "text", "dtype": "text", "training_seed": "integer",
    "scenario": "text",
}  # fmt: skip
_FLAGS: Mapping[str, bool] = {
    "true": True, "yes": True, "1": True, "1.0": True, "t": True, "y": True,
    "false": False, "no": False, "0": False, "0.0": False, "f": False, "n": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """A file with the documented names and types.

    Attributes:
        file: where it came from.
        frame: its rows; columns that were not there are missing still.
        rows: how many.
        notes: what was read as what, and what was not used.
        undefined: column to the number of NaN that became null.
    """

    file: File
    frame: pl.LazyFrame
    rows: int
    notes: tuple[str, ...]
    undefined: Mapping[str, int]


def read_file(file: File, settings: AuditSettings, work: Path, *, large: bool) -> Reading:
    """One file of a table.

    Args:
        file: as recognised.
        settings: renames columns, and says what the cells of wide tables are.
        work: a folder for what does not fit into memory.
        large: whether the files of this table come to more than ``IN_MEMORY``.

    Raises:
        TableError: a column is missing, a value is none of its kind, undefined where it must not
            be, or infinite.
    """
    raw = _held(file, work, large=large)
    try:
        narrow = melted(file, raw, settings)
        columns = narrow.frame.collect_schema().names()
        names = renaming(file.table, columns, settings)
        frame = narrow.frame.rename(names)
        kept = _wanted(file.table, frame.collect_schema().names())
        _require(file, kept, [name for name in columns if name != ROW])
        notes = [*narrow.notes, *(f"the column {a} is read as {b}" for a, b in names.items())]
        unused = [c for c in columns if names.get(c, c) not in (*kept, ROW)]
        if unused:
            notes.append(f"not used: {', '.join(unused)}")
        typed = frame.select(ROW, *(_typed(file.table, name, frame) for name in kept))
        undefined, rows = _checked(file, frame, kept)
    except pl.exceptions.PolarsError as cause:
        raise read_error(file, cause) from cause
    defined = typed.with_columns(pl.col(pl.Float64).fill_nan(None)).drop(ROW)
    return Reading(file, defined, rows, tuple(notes), undefined)


def _held(file: File, work: Path, *, large: bool) -> pl.LazyFrame:
    """The file's rows, numbered; a large text file is turned into Parquet once."""
    frame = scan(file)
    if file.form == "Parquet":
        return frame.with_row_index(ROW, 1)
    try:
        if not large:
            return frame.with_row_index(ROW, 1).collect().lazy()
        copy = work / f"{file.table}-{file.path.name}.raw"
        frame.sink_parquet(copy)
    except pl.exceptions.PolarsError as cause:
        raise read_error(file, cause) from cause
    return pl.scan_parquet(copy).with_row_index(ROW, 1)


def _wanted(table: str, columns: Sequence[str]) -> list[str]:
    own = [name for name in schema_of(table).dtypes() if name in columns]
    return [*own, *(name for name in EXTRA.get(table, ()) if name in columns and name not in own)]


def _require(file: File, present: Sequence[str], columns: Sequence[str]) -> None:
    lacking = missing_columns(file.table, present)
    if lacking:
        first = lacking[0].split()[0]
        raise TableError(
            f"The table {file.table!r} lacks {'a column' if len(lacking) == 1 else 'columns'}: "
            f"{', '.join(lacking)}",
            seen=f"{file.name} with the columns {_some(columns)}",
            allowed=f"{needs_of(file.table)} at least",
            remedy=f"they come from {layout_of(file.table).source}; a column of another name is "
            f"renamed in audit.yaml: columns: {{{file.table}: {{THEIRS: {first}}}}}",
        )


def _column(table: str, name: str) -> Column:
    for column in schema_of(table).columns:
        if column.name == name:
            return column
    return Column(name, _NUMBERS[name], "", "", nullable=True)


def _typed(table: str, name: str, frame: pl.LazyFrame) -> pl.Expr:
    kind, dtype = _column(table, name).kind, frame.collect_schema()[name]
    value = pl.col(name)
    if kind == "text":
        return value.cast(pl.String)
    if dtype == pl.String:
        value = value.str.strip_chars()
        if kind == "flag":
            return value.str.to_lowercase().replace_strict(
                _FLAGS, default=None, return_dtype=pl.Boolean
            )
    elif kind == "flag":
        return pl.when(value.cast(pl.Float64, strict=False).is_in([0.0, 1.0])).then(
            value.cast(pl.Float64, strict=False) == 1.0
        )
    number = value.cast(pl.Float64, strict=False)
    if kind == "integer":
        whole = number.is_finite() & (number == number.round())
        return pl.when(whole).then(number).cast(pl.Int64).alias(name)
    return number


def _checked(file: File, raw: pl.LazyFrame, kept: Sequence[str]) -> tuple[dict[str, int], int]:
    """Refuse what cannot be used; returns NaN counts by column and the number of rows."""
    written = [pl.col(name).alias(f"as written: {name}") for name in kept]
    both = raw.select(ROW, *written, *(_typed(file.table, name, raw) for name in kept))
    asked = [pl.len().alias("rows")]
    for name in kept:
        for fault, where in _faults(file.table, name).items():
            asked.append(where.sum().alias(f"{fault} {name}"))
            asked.append(pl.col(ROW).filter(where).min().alias(f"first {fault} {name}"))
    found = both.select(asked).collect(engine="streaming").row(0, named=True)
    for name in kept:
        for fault in ("mistyped", "infinite", "missing", "outside"):
            if found.get(f"{fault} {name}"):
                row = int(found[f"first {fault} {name}"])
                seen = raw.filter(pl.col(ROW) == row).select(name).collect().item(0, 0)
                raise _refusal(file, name, fault, (int(found[f"{fault} {name}"]), row, seen))
    counts = {name: int(found.get(f"undefined {name}") or 0) for name in kept}
    return {name: count for name, count in counts.items() if count}, int(found["rows"])


def _faults(table: str, name: str) -> dict[str, pl.Expr]:
    column = _column(table, name)
    written, value = pl.col(f"as written: {name}"), pl.col(name)
    faults: dict[str, pl.Expr] = {}
    if column.kind != "text":
        faults["mistyped"] = written.is_not_null() & value.is_null()
    if column.kind == "number":
        faults["infinite"] = value.is_infinite()
        faults["undefined"] = value.is_nan()
    if name in _PROBABILITIES:
        # Probabilities in float32 overshoot by some 1e-7.
        faults["outside"] = value.is_finite() & ((value < 0.0) | (value > 1.0 + OVERSHOOT))
    if name in _required_cells(table):
        absent = value.is_null() | value.is_nan() if column.kind == "number" else value.is_null()
        faults["missing"] = absent
    return faults


def _required_cells(table: str) -> set[str]:
    """Columns that must be filled in every row where they are there."""
    layout = layout_of(table)
    needed = {*layout.needs, *itertools.chain.from_iterable(layout.any_of)}
    if table not in ("agents", "prompts"):
        known = {*(layout.fills or {}), "layer", "kind", "head", "source_prompt"}
        needed |= {c.name for c in schema_of(table).columns} - known
    return {c.name for c in schema_of(table).columns if c.name in needed and not c.nullable}


_FAULTS = {
    "mistyped": (
        "values that are no {kind}",
        "{kind}s throughout",
        "correct them, or leave the cell empty where the value is undefined",
    ),
    "infinite": (
        "infinite values",
        "finite numbers",
        "find the division or logarithm of zero behind them; leave undefined cells empty",
    ),
    "outside": (
        "values that are no probability",
        "0 to 1",
        "divide percentages by 100; log-odds have a column of their own, log_odds",
    ),
    "missing": (
        "undefined values",
        "a value in every row",
        "measure them, or remove the rows and say so: they cannot be read as zero",
    ),
}


def _refusal(file: File, name: str, fault: str, seen: tuple[int, int, object]) -> TableError:
    count, row, value = seen
    what, allowed, remedy = _FAULTS[fault]
    kind = {"integer": "whole number", "flag": "yes or no"}.get(
        _column(file.table, name).kind, "number"
    )
    return TableError(
        f"Column {name!r} of {file.name} has {what.format(kind=kind)}",
        seen=f"{count}, the first in row {row}: {value!r}",
        allowed=allowed.format(kind=kind),
        remedy=remedy,
    )


def extra_columns(table: str, columns: Sequence[str]) -> Iterator[str]:
    """Columns of a reading that tell of prompts or agents and are none of the table's own."""
    own = schema_of(table).dtypes()
    yield from (name for name in EXTRA.get(table, ()) if name in columns and name not in own)


def stated(value: str | None) -> bool:
    """Whether a text column says anything."""
    return value is not None and value != NOT_RECORDED


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(n if n.isprintable() else repr(n[:40]) for n in names[:12]) + more
