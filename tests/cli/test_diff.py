"""The command ``diff``: what it prints, writes and returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from moralscope.cli.main import main
from moralscope.core.tables import from_rows, write_table


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        {"agent": agent, "game": "IPD", "family": "clusters", "p_cooperate": 0.25,
         "legal_mass": 1.0, "n_scenarios": 4, "n_prompts": 8}
        for agent in ("base", "game")
    ]  # fmt: skip
    write_table("cooperation", from_rows("cooperation", rows), tmp_path / "run" / "tables")
    (tmp_path / "run" / "study.yaml").write_text(yaml.safe_dump({"name": "s", "seed": 0}))
    return tmp_path / "run"


def test_equal_runs_return_0_and_different_ones_1(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert main(["diff", str(run), str(other)]) == 0
    assert capsys.readouterr().out == f"Equal: {run} and {other}\n"

    table = pl.read_parquet(other / "tables" / "cooperation.parquet")
    edited = table.with_columns(p_cooperate=pl.col("p_cooperate") + pl.lit(0.5)).head(1)
    write_table("cooperation", edited, other / "tables")
    (other / "study.yaml").write_text(yaml.safe_dump({"name": "s", "seed": 3}))
    assert main(["diff", str(run), str(other), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "1 row only in the first, 0 only in the second" in said
    assert "p_cooperate (1, at most 0.5)" in said
    assert "Different: 1 setting, 0 claims, 1 table." in said
    assert str(tmp_path / "out" / "difference.html") in said
    assert (tmp_path / "out" / "difference.html").is_file()
    told = json.loads((tmp_path / "out" / "difference.json").read_text())
    assert told["settings"] == [{"name": "seed", "first": "0", "second": "3"}]


def test_a_folder_that_is_no_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(run), str(tmp_path / "nowhere")]) == 2
    assert "This folder is not a run" in capsys.readouterr().err
