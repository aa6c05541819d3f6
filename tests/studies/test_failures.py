"""A stage that fails costs what needs it: all else is there, and the run says what is missing."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from moralscope.core.errors import AgentError, OutputError
from moralscope.core.tables import read_table
from moralscope.reports import build_report
from moralscope.studies import Study, run_study
from moralscope.studies.steps import measuring, mechanisms

StudyOf = Callable[..., Study]


@pytest.fixture
def two(study_of: StudyOf) -> Study:
    """A study of two agents trained here."""
    agents = {"base": {}, "game": {"reward": "game"}, "util": {"reward": "utilitarian"}}
    return study_of(agents=agents)


def failing(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, victim: str) -> None:
    """Let a function of the steps fail for one agent."""
    really = getattr(module, name)

    def fails(*args: Any, **named: Any) -> Any:
        if victim in args:
            raise ZeroDivisionError("a loss that is no number")
        return really(*args, **named)

    monkeypatch.setattr(module, name, fails)


def manifest_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def agents_in(run: Path, table: str, column: str = "agent") -> set[str]:
    return set(read_table(table, run / "tables").get_column(column))


def test_an_agent_whose_training_fails_is_missing_and_all_else_is_there(
    two: Study, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        failing(patch, measuring, "train_agent", "util")
        summary = run_study(two, out)
    failed = {m.name: m.skipped for m in summary.failed}
    assert failed.pop("train-util") is None
    assert set(failed) == {
        "decide-util", "explain-util", "patch-base>util", "patch-util>util", "control-base>util",
    }  # fmt: skip
    assert set(failed.values()) == {"train-util"}
    why = "ZeroDivisionError: a loss that is no number (fails, line"
    assert all(m.why.startswith(why) for m in summary.failed)
    assert len(summary.runs) + len(summary.failed) == summary.stages

    for table in ("agents", "decisions", "policy", "cooperation", "lens", "attribution"):
        assert agents_in(out, table) == {"base", "game"}, table
    assert agents_in(out, "patching", "target") == {"game"}
    claims = read_table("claims", out / "tables")
    assert claims.height > 0
    assert not any("util" in row for row in claims.get_column("id"))

    manifest = manifest_of(out)
    assert {one["name"] for one in manifest["failed"]} == {"train-util", *failed}
    assert next(m for m in manifest["failed"] if m["name"] == "decide-util") == {
        "name": "decide-util", "why": summary.failed[0].why, "skipped": "train-util",
    }  # fmt: skip
    log = json.loads((out / "logs" / "failures.json").read_text())
    assert "ZeroDivisionError" in log[0]["trace"]
    assert (out / "logs" / "stages.log").read_text().count("skipped") == len(failed)
    page = build_report(out).read_text()
    assert "a loss that is no number" in page

    again = run_study(two, out)
    assert again.failed == ()
    computed = {run.name for run in again.runs if not run.cached}
    assert computed == {"train-util", *failed, "agents", "behaviour", "evidence"}
    assert agents_in(out, "agents") == {"base", "game", "util"}
    assert manifest_of(out)["failed"] == []
    assert not (out / "logs" / "failures.json").exists()


def test_a_method_that_fails_leaves_the_others(
    two: Study, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **named: object) -> None:
        raise AgentError("It broke", seen="3", allowed="4", remedy="try again")

    monkeypatch.setattr(mechanisms, "patching_table", fails)
    summary = run_study(two, tmp_path / "run")
    patches = [m for m in summary.failed if m.skipped is None]
    assert {m.name for m in patches} >= {"patch-base>game", "patch-base>util"}
    assert {m.why for m in patches} == {"It broke. Seen: 3. Next: try again"}
    tables = {p.stem for p in (tmp_path / "run" / "tables").iterdir()}
    assert {"decisions", "lens", "attribution", "claims", "gates"} <= tables
    assert "patching" not in tables
    assert agents_in(tmp_path / "run", "decisions") == {"base", "game", "util"}


def test_what_everything_rests_on_ends_the_run_with_its_error(
    two: Study, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, measuring, "decisions_table", "base")
    with pytest.raises(Exception, match="a loss that is no number"):
        run_study(two, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_disk_in_the_middle_of_a_stage_says_what_is_free_and_what_is_needed(
    two: Study, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "train_agent", full)
        told = (
            r"The disk is full. Seen: .*No space left on device.*; \d+\.\d [GM]iB free at .*"
            r"Allowed: about \d+\.\d [GM]iB for what is left of the run.*same command again"
        )
        with pytest.raises(OutputError, match=told):
            run_study(two, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_claims_of_a_run_without_an_agent_are_those_of_the_study_without_it(
    two: Study, finished: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, measuring, "train_agent", "util")
        run_study(two, tmp_path / "less")
    runs = (tmp_path / "less", finished.out)
    for name in ("policy", "cooperation", "transfer", "learned", "patching", "gates"):
        less, small = (read_table(name, run / "tables") for run in runs)
        assert less.equals(small), name
    claims: list[pl.DataFrame] = [
        read_table("claims", run / "tables").select("id", "estimate", "p", "verdict")
        for run in runs
    ]
    assert claims[0].equals(claims[1])
