"""The command ``calibrate``: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moralscope.cli.main import main
from moralscope.core.tables import read_table
from moralscope.evidence.calibrating import procedures
from moralscope.evidence.calibrating.cells import Procedure, error_rate


def test_results_are_written_and_their_place_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", "--runs", "20", "--tests", "tost,cluster_t", "--out", str(tmp_path)]
    assert main(words) == 0
    table = read_table("calibration", tmp_path / "tables")
    assert table.get_column("test").unique(maintain_order=True).to_list() == ["tost", "cluster_t"]
    summary = json.loads((tmp_path / "calibration.json").read_text())
    assert [each["test"] for each in summary["tests"]] == ["tost", "cluster_t"]
    assert (summary["runs"], summary["seed"], summary["missed"]) == (20, 0, [])
    page = (tmp_path / "calibration.md").read_text()
    assert page.startswith("# Calibration\n\nAll 32 rates of 2 tests keep their limit.")
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"Error rates, coverage and power: {tmp_path}/calibration.md"
    row = next(line for line in said.splitlines() if line.startswith("tost")).split()
    assert row[1:3] == ["type", "I"]
    assert "16 of 16" in said


def test_the_same_command_reads_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["calibrate", "--runs", "20", "--tests", "tost", "--out", str(tmp_path)]
    assert main(words) == 0
    first = (tmp_path / "calibration.md").read_bytes()

    def refuse(cell: object) -> None:
        raise AssertionError(cell)

    only = Procedure("tost", "never simulated", refuse)  # type: ignore[arg-type]
    monkeypatch.setattr(procedures, "PROCEDURES", {"tost": only})
    assert main(words) == 0
    assert (tmp_path / "calibration.md").read_bytes() == first
    assert "tost" in capsys.readouterr().out


def test_a_missed_limit_ends_with_an_exit_code_and_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Procedure(
        "liberal", "rejects always", lambda cell: [error_rate(np.ones(cell.runs), attainable=None)]
    )
    monkeypatch.setattr(procedures, "PROCEDURES", {"liberal": wrong})
    assert main(["calibrate", "--runs", "20", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "16 of 16 rates of 1 tests miss their limit: liberal." in said
    first = next(line for line in said.splitlines() if line.startswith("Missed"))
    assert first == (
        "Missed: type_I of liberal, independent, 5 units: 1.0000, above 0.1231 (80 studies)."
    )
    assert len(json.loads((tmp_path / "calibration.json").read_text())["missed"]) == 16


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--tests", "max_t"], "did you mean 'max_t_12'"),
        (["--tests", ","], "name one or more"),
        (["--runs", "3"], "200 give a quick look"),
        (["--seed", "-4"], "use 0 unless another draw is wanted"),
    ],
)
def test_bad_words_are_refused(
    words: list[str], remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *words, "--out", str(tmp_path)]) == 2
    assert remedy in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "calibration.md").exists()


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("here first")
    assert main(["calibrate", "--runs", "20", "--out", str(taken)]) == 2
    assert "A result cannot be written" in capsys.readouterr().err
