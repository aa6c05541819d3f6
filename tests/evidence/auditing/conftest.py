"""Folders of tables to audit."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write frames as CSV, texts as they are, and return the folder."""

    def written(tables: Mapping[str, pl.DataFrame | str], form: str = "csv") -> Path:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, table in tables.items():
            if isinstance(table, str):
                (folder / name).write_text(table, encoding="utf-8")
            elif form == "parquet":
                table.write_parquet(folder / f"{name}.parquet")
            else:
                separator = "\t" if form == "tsv" else ","
                table.write_csv(folder / f"{name}.{form}", separator=separator)
        return folder

    return written
