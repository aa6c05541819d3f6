"""Which tables lie in this folder? Files by name, else by their columns; the rest is named too.

A file is recognised by its name (capitals, hyphens, a plural and what other tools say are allowed
for): ``Decisions.csv``, ``patching-0001.parquet`` (one part of several), ``attribution/*.parquet``.
A file of another name is recognised by its columns where only one table has them. Whatever cannot
be recognised is listed, never left out silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.schemas import SCHEMAS
from moralscope.evidence.auditing.layouts import FILE_NAMES, JUDGED, LAYOUTS, missing_columns
from moralscope.evidence.auditing.naming import renaming
from moralscope.evidence.auditing.settings import SETTINGS, AuditSettings

FORMATS = {
    ".csv": "CSV", ".csv.gz": "CSV", ".tsv": "TSV", ".tsv.gz": "TSV", ".parquet": "Parquet",
    ".pq": "Parquet",
}  # fmt: skip
"""File endings that are read."""

UNDEFINED = ("", "NA", "N/A", "n/a", "null", "NULL", "None")
"""What stands for an empty cell in text files; NaN is counted before it becomes one."""

ROW: Final = "row of the file"
"""Column that counts the rows of a file from 1, while it is read."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a table.

    Attributes:
        path: where it lies.
        name: its path inside the folder, for messages.
        form: CSV, TSV or Parquet.
        table: the table that it is (a part of); empty if it is none.
        suffix: what follows the table's name in the file's (an agent, a part's number), or empty.
        why: how the table was recognised, or why none was.
    """

    path: Path
    name: str
    form: str
    table: str
    suffix: str
    why: str


def scan(file: File) -> pl.LazyFrame:
    """The file as it stands, text files with every column as text.

    Raises:
        TableError: it is empty, not UTF-8, not Parquet, or its lines differ in length.
    """
    try:
        empty = file.path.stat().st_size == 0
    except OSError as cause:
        raise _unreadable(file, str(cause)) from cause
    if empty:
        raise _unreadable(file, "the file is empty")
    try:
        if file.form == "Parquet":
            frame = pl.scan_parquet(file.path)
        else:
            frame = pl.scan_csv(
                file.path,
                separator="\t" if file.form == "TSV" else ",",
                infer_schema=False,
                null_values=list(UNDEFINED),
            )
        columns = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError, ValueError) as cause:
        raise read_error(file, cause) from cause
    _refuse_columns(file, columns)
    return frame


def _refuse_columns(file: File, columns: Sequence[str]) -> None:
    """Refuse lines that are separated by something else, and two columns of one name."""
    if file.form == "Parquet":
        return
    if len(columns) == 1:
        other = max(";\t|,", key=columns[0].count)
        if columns[0].count(other):
            named = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}[other]
            raise TableError(
                f"The columns of {file.name} are separated by {named}",
                seen=columns[0][:120],
                allowed=".csv: commas between columns and a point in decimals; .tsv: tabs",
                remedy="write it with commas (and decimal points), or as Parquet",
            )
    # The reader numbers what would have the same name.
    twice = [
        name
        for column in columns
        if (name := re.sub(r"_duplicated_\d+$", "", column)) != column and name in columns
    ]
    if twice:
        raise TableError(
            f"The file {file.name} has two columns of one name",
            seen=twice[0],
            allowed="each name once",
            remedy="remove or rename one of them",
        )


def _unreadable(file: File, why: str) -> TableError:
    return TableError(
        f"The file {file.name} cannot be read",
        seen=why,
        allowed=f"a {file.form} file with a line of column names"
        + ("" if file.form == "Parquet" else ", in UTF-8"),
        remedy="write the file again, or take it out of the folder",
    )


def read_error(file: File, cause: Exception) -> TableError:
    """The refusal of a file that broke off while it was read."""
    said = " ".join(str(cause).split())
    if "truncate_ragged_lines" in said:
        said = "a line with more fields than there are column names"
    return _unreadable(file, said[:200])


def files_in(folder: Path, settings: AuditSettings) -> tuple[File, ...]:
    """Every file of a folder, with the table that it is.

    Args:
        folder: the tables; of a run's folder its ``tables`` are read.
        settings: renames columns.

    Raises:
        TableError: the folder is none or has no table, a table is there in two formats, or a file
            could be one of two tables.
    """
    if not folder.is_dir():
        raise _no_tables(folder, "a file, no folder" if folder.exists() else "no such folder")
    found = list(_listed(folder, settings))
    if not any(file.table for file in found) and (folder / "tables").is_dir():
        found = list(_listed(folder / "tables", settings))
    if not any(file.table for file in found):
        raise _no_tables(folder, ", ".join(file.name for file in found[:6]) or "an empty folder")
    for table in dict.fromkeys(file.table for file in found if file.table):
        _refuse_two_formats(table, [file for file in found if file.table == table])
    return tuple(found)


def _no_tables(folder: Path, seen: str) -> TableError:
    return TableError(
        f"There are no tables in {folder}",
        seen=seen,
        allowed=f"CSV, TSV or Parquet files of tables such as {', '.join(list(LAYOUTS)[:6])}",
        remedy="name each file after its table, for example decisions.csv with the columns agent, "
        "prompt and log_odds",
    )


def _refuse_two_formats(table: str, files: Sequence[File]) -> None:
    if len({file.form for file in files}) > 1 or len({file.suffix for file in files}) < len(files):
        raise TableError(
            f"The table {table!r} is there twice",
            seen=", ".join(file.name for file in files),
            allowed=f"one file of each table, or parts {table}-1, {table}-2 in one format",
            remedy="remove the copies",
        )


def _listed(folder: Path, settings: AuditSettings) -> Iterator[File]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == SETTINGS:
            continue
        if path.is_file():
            yield _recognised(path, path.name, None, settings)
        elif table := _table_called(path.name)[0]:
            for part in sorted(path.iterdir()):
                if part.is_file() and not part.name.startswith("."):
                    yield _recognised(part, f"{path.name}/{part.name}", table, settings)
        else:
            yield File(path, f"{path.name}/", "", "", "", "a folder not named after a table")


def _recognised(path: Path, name: str, within: str | None, settings: AuditSettings) -> File:
    form, stem = _form_of(path.name)
    if not form:
        return File(path, name, "", "", "", "neither CSV nor TSV nor Parquet")
    table, suffix = (within, stem) if within else _table_called(stem)
    if table in JUDGED:
        return File(path, name, form, "", "", "a result of an earlier judgement, made anew here")
    if table:
        return File(path, name, form, table, suffix, "by its name")
    file = File(path, name, form, "", "", "")
    columns = scan(file).collect_schema().names()
    candidates = [each for each in LAYOUTS if _looks_like(each, columns, settings)]
    # A table that asks for all that another does, and more, is the likelier one.
    likeliest = [c for c in candidates if not any(_contains(o, c) for o in candidates if o != c)]
    if len(likeliest) > 1:
        raise TableError(
            f"The file {name} could be one of {len(likeliest)} tables",
            seen=f"columns {', '.join(columns)}: read as {' or as '.join(likeliest)}",
            allowed="a file named after its table",
            remedy=f"name it {likeliest[0]}{path.suffix} or {likeliest[1]}{path.suffix}",
        )
    if not likeliest:
        return File(path, name, form, "", "", f"no table has its columns: {', '.join(columns)}")
    return File(path, name, form, likeliest[0], stem, "by its columns")


def _looks_like(table: str, columns: Sequence[str], settings: AuditSettings) -> bool:
    renamed = renaming(table, columns, settings)
    present = {renamed.get(column, column) for column in columns}
    if table in ("agents", "prompts") and present & {"site", "log_odds", "effect", "site_a"}:
        return False
    telling = {"agents": {"base", "kind", "reward"}, "prompts": {"scenario", "text"}}.get(table)
    if telling is not None and not present & telling:
        return False
    if table == "prompts" and "agent" in present:
        return False
    return not missing_columns(table, present)


def _contains(larger: str, smaller: str) -> bool:
    return set(LAYOUTS[smaller].needs) < set(LAYOUTS[larger].needs)


def _form_of(name: str) -> tuple[str, str]:
    for ending in sorted(FORMATS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return FORMATS[ending], name[: -len(ending)]
    return "", name


def _table_called(stem: str) -> tuple[str, str]:
    """The table that a file's name stands for, and what follows it; both empty if none."""
    name = stem.strip().lower().replace(" ", "_")
    if table := _exact(name.replace("-", "_")):
        return table, ""
    for cut in (i for i, letter in enumerate(name) if letter in "-."):
        if table := _exact(name[:cut].replace("-", "_")):
            return table, stem.strip()[cut + 1 :]
    return "", ""


def _exact(name: str) -> str:
    for each in (name, f"{name}s", name.removesuffix("s"), FILE_NAMES.get(name, "")):
        if each in SCHEMAS:
            return each
    return ""
