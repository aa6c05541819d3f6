"""The command ``verify``: what it prints, writes and returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moralscope.cli.main import main


@pytest.fixture
def run(study_file: Callable[..., Path], tmp_path: Path) -> Path:
    """A run of two agents with nothing but decisions."""
    from moralscope.studies import read_study, run_study  # noqa: PLC0415 - needs the model stack

    study = read_study(
        study_file(
            mechanisms={"methods": []},
            controls={"kernel": False, "dtype": False, "random_directions": 0, "planted": False},
        )
    )
    run_study(study, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_verified_and_then_tampered_with(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"Verified: {run}\n")
    seal = json.loads((run / "manifest.json").read_text())["seal"]
    assert f"Seal: {seal}" in said
    assert main(["verify", str(run), "--against", seal[:20]]) == 0
    capsys.readouterr()

    table = run / "tables" / "decisions.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"?")
    assert main(["verify", str(run), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "Failed: tables/decisions.parquet: the file has the bytes that were written" in said
    assert "Not as it was written" in said
    told = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert (told["passed"], told["seal"]) == (False, seal)
    named = [c["subject"] for c in told["checks"] if c["passed"] is False]
    assert "tables/decisions.parquet" in named

    assert main(["verify", str(run), "--against", "0" * 64]) == 1
    assert "written down elsewhere" in capsys.readouterr().out


def test_nothing_is_written_into_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path / "run", tmp_path / "run" / "deep" / "er"):
        assert main(["verify", str(tmp_path / "run"), "--out", str(out)]) == 2
        assert "does not write into the run" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_and_what_is_no_seal_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "This folder is not a run" in capsys.readouterr().err
    assert main(["verify", str(tmp_path), "--against", "seal"]) == 2
    assert "This is not a seal" in capsys.readouterr().err
