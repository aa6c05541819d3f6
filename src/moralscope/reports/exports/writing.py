"""Which files are exported? Every table as CSV beside its Parquet, summaries, the dictionary.

CSV is written from the Parquet file in a stream; beyond ``LARGE`` bytes of Parquet it is
compressed. Tables that are too long to be drawn from are too long for a spreadsheet as well and
stay Parquet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from moralscope.core.files import atomic_file, write_text
from moralscope.reports.exports.dictionary import (
    dictionary_json,
    dictionary_markdown,
    dictionary_rows,
)
from moralscope.reports.exports.summaries import summaries_of
from moralscope.reports.run import Run

LARGE = 256_000
"""Bytes of a Parquet file from which on its CSV is compressed; CSV is several times longer."""


@dataclass(frozen=True)
class ExportedSummary:
    """A summary: its file, what it holds, how many rows."""

    file: str
    meaning: str
    rows: int


@dataclass(frozen=True)
class Exported:
    """What a folder of exports holds: the file of each table, by its name, and the summaries."""

    tables: dict[str, str]
    summaries: tuple[ExportedSummary, ...]


def planned(run: Run) -> Exported:
    """What ``write_exports`` writes for a run."""
    files = {name: run.path / "tables" / f"{name}.parquet" for name in run.tables}
    return Exported(
        {
            name: f"{name}.csv.gz" if path.stat().st_size > LARGE else f"{name}.csv"
            for name, path in files.items()
            if path.is_file()
        },
        tuple(
            ExportedSummary(f"summary-{summary.name}.csv", summary.meaning, summary.frame.height)
            for summary in summaries_of(run)
        ),
    )


def write_exports(run: Run, folder: Path) -> Exported:
    """Write every table as CSV, summaries and the data dictionary into a folder that exists.

    The same run gives the same bytes.

    Raises:
        OutputError: a file cannot be written.
    """
    exported = planned(run)
    for name, file in exported.tables.items():
        _write_csv(run.path / "tables" / f"{name}.parquet", folder / file)
    for summary in summaries_of(run):
        text = summary.frame.write_csv()
        write_text(folder / f"summary-{summary.name}.csv", text)
    write_text(folder / "data-dictionary.csv", dictionary_rows(run.names).write_csv())
    write_text(folder / "data-dictionary.json", dictionary_json(run.names))
    write_text(folder / "data-dictionary.md", dictionary_markdown(run.names))
    return exported


def _write_csv(source: Path, target: Path) -> None:
    with atomic_file(target) as temporary:
        # The name in the temporary folder is the final one, ending included.
        pl.scan_parquet(source).sink_csv(
            temporary, compression="gzip" if target.suffix == ".gz" else "uncompressed"
        )
