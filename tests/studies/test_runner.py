"""Runs: whole, resumable, never half-written, equal however often they were interrupted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moralscope.core.errors import ConfigError, OutputError
from moralscope.core.hashing import sha256_file, sha256_text
from moralscope.core.progress import ProgressEvent
from moralscope.core.schemas import SCHEMAS
from moralscope.core.stage import StageCache
from moralscope.core.tables import read_table
from moralscope.studies import Study, make_plan, read_study, run_study, runner, workbench

StudyOf = Callable[..., Study]
STAGES = ["prompts", "replicate-base", "train-game", "agents", "comparisons", "decide-base",
          "decide-game", "explain-base", "explain-game", "patch-base>game", "patch-game>game",
          "control-base>game", "behaviour", "evidence"]  # fmt: skip


class StopHereError(Exception):
    pass


def no_weights(*args: object, **named: object) -> None:
    raise AssertionError("weights were loaded")


def leftovers(*folders: Path) -> list[Path]:
    return [p for folder in folders for p in folder.rglob(".partial-*")]


def test_a_run_directory_holds_all_that_was_promised(finished: Any) -> None:
    out = finished.out
    assert {p.name for p in out.iterdir()} == {
        "agents", "claims.json", "logs", "manifest.json", "study.yaml", "tables",
    }  # fmt: skip
    assert {p.name for p in (out / "agents" / "game").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "fingerprint.json", "training.json",
        "training.parquet", "diagnostics.parquet",
    }  # fmt: skip
    assert read_study(out / "study.yaml") == finished.study
    claims = read_table("claims", out / "tables")
    assert json.loads((out / "claims.json").read_text()) == claims.to_dicts()
    log = (out / "logs" / "stages.log").read_text().splitlines()
    assert [line.split()[0] for line in log] == STAGES
    assert leftovers(out, finished.cache) == []
    assert not any((finished.cache / "work").iterdir())


def test_every_table_follows_its_schema_and_speaks_of_the_same_things(finished: Any) -> None:
    folder = finished.out / "tables"
    tables = {p.stem: read_table(p.stem, folder) for p in folder.iterdir()}
    assert set(tables) == {
        "agents", "comparisons", "prompts", "training", "diagnostics", "decisions", "policy",
        "cooperation",
        "transfer", "transfer_states", "trained_on", "learned", "lens", "lens_controls",
        "stabilisation", "stabilisation_summary",
        "attribution", "completeness", "patching", "controls",
        "replicas", "control_patches", "control_results", "gates", "design", "claims",
        "cascade", "questions",
    } <= set(SCHEMAS)  # fmt: skip
    agents, prompts = set(tables["agents"]["agent"]), set(tables["prompts"]["prompt"])
    assert agents == {"base", "game"}
    assert tables["decisions"].height == len(agents) * len(prompts)
    assert set(tables["decisions"]["prompt"]) == prompts
    few = set(tables["patching"]["prompt"])
    assert len(few) == 8  # four scenarios in two texts
    assert set(tables["lens"]["prompt"]) == set(tables["completeness"]["prompt"]) == few < prompts
    assert set(tables["patching"]["site"]) == {
        "all",
        *(f"L{layer}.{part}" for layer in (0, 1) for part in ("h0", "h1", "h2", "h3", "mlp")),
    }
    assert set(zip(tables["controls"]["control"], tables["controls"]["subject"], strict=True)) == {
        ("write_all", "base>game"),
        ("self_patch", "game"),
    }
    assert float(tables["controls"]["value"].max() or 1) < 5e-5
    rewards = tables["claims"].filter(tables["claims"]["id"] == "reward:game")
    assert rewards["verdict"].to_list() == ["not identified by this design"]


def test_the_manifest_says_what_was_done(finished: Any) -> None:
    manifest = json.loads((finished.out / "manifest.json").read_text())
    assert [s["name"] for s in manifest["stages"]] == STAGES
    assert not any(s["cached"] for s in manifest["stages"])
    assert all(s["seconds"] > 0 and s["peak_memory_gib"] > 0 for s in manifest["stages"])
    assert manifest["seconds_computing"] == pytest.approx(
        sum(s["seconds"] for s in manifest["stages"])
    )
    assert manifest["seconds_total"] >= manifest["seconds_computing"]
    assert manifest["study_sha256"] == sha256_text((finished.out / "study.yaml").read_text())
    for name, said in manifest["tables"].items():
        assert said["sha256"] == sha256_file(finished.out / "tables" / f"{name}.parquet")
        assert said["rows"] == read_table(name, finished.out / "tables").height
    assert set(manifest["tables"]) == {p.stem for p in (finished.out / "tables").iterdir()}
    assert manifest["model"]["source"] == "folder"
    assert manifest["model"]["sha256"] == make_plan(finished.study).source.sha256


def test_the_manifest_names_the_keys_of_the_plan(finished: Any, warm_cache: Path) -> None:
    manifest = json.loads((finished.out / "manifest.json").read_text())
    plan = make_plan(finished.study)
    assert [s["key"] for s in manifest["stages"]] == [t.stage.key for t in plan]
    held = StageCache(warm_cache)
    for task in plan:
        record = held.record(task.stage)
        assert record is not None
        assert record["name"] == task.stage.name


def test_a_second_run_computes_nothing_and_loads_no_weights(
    finished: Any, warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbench, "load_model", no_weights)
    events: list[ProgressEvent] = []
    summary = run_study(finished.study, tmp_path / "again", progress=events.append)
    assert (summary.stages, summary.cached) == (len(STAGES), len(STAGES))
    finished.same_tables(tmp_path / "again")
    manifest = json.loads((tmp_path / "again" / "manifest.json").read_text())
    assert all(s["cached"] for s in manifest["stages"])
    assert manifest["seconds_computing"] > 0  # what the stages took when they were computed
    assert {e.task for e in events} == {"stage"}
    assert [e.done for e in events if e.note == "evidence"] == [len(STAGES) - 1, len(STAGES)]


def test_a_run_that_stops_in_every_stage_ends_like_one_that_never_stopped(
    finished: Any, cache: Path, tmp_path: Path
) -> None:
    """Each attempt gets one stage further before it is interrupted."""
    out = tmp_path / "run"
    for number, wanted in enumerate(STAGES):

        def stop(event: ProgressEvent, begun: tuple[str, int] = (wanted, number)) -> None:
            if event.task == "stage" and (event.note, event.done) == begun:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_study(finished.study, out, progress=stop)
        assert list(out.iterdir()) == []  # nothing before everything is there
    summary = run_study(finished.study, out)
    assert summary.cached == len(STAGES) - 1
    finished.same_tables(out)
    adapter = Path("agents/game/adapter_model.safetensors")
    assert (out / adapter).read_bytes() == (finished.out / adapter).read_bytes()
    assert leftovers(out, cache) == []


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    finished: Any, cache: Path, tmp_path: Path
) -> None:
    trained: list[int] = []

    def stop(event: ProgressEvent) -> None:
        if event.task == "train game":
            trained.append(event.done)
            if len(trained) == 1:
                raise StopHereError

    with pytest.raises(StopHereError):
        run_study(finished.study, tmp_path / "run", progress=stop)
    run_study(finished.study, tmp_path / "run", progress=stop)
    assert trained == [1, 2]  # the first step is not repeated
    finished.same_tables(tmp_path / "run")


CHILD = """
import sys, time
from pathlib import Path
from moralscope.studies import read_study, run_study

study, out, mark, task, done = sys.argv[1:]
def wait(event):
    if (event.task, event.note, event.done)[:2] == tuple(task.split("|")) or event.task == task:
        if event.done == int(done):
            Path(mark).touch()
            time.sleep(60)
run_study(read_study(Path(study)), Path(out), progress=wait)
"""


def kill_at(study: Path, out: Path, mark: Path, moment: tuple[str, int]) -> None:
    words = [str(study), str(out), str(mark), moment[0], str(moment[1])]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *words])
    deadline = time.monotonic() + 120
    while not mark.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert mark.exists()
    mark.unlink()


def test_a_killed_run_goes_on_to_equal_tables(
    finished: Any, cache: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(yaml.safe_dump(settings))
    for moment in (("train game", 1), ("patch base>game", 3), ("stage|evidence", len(STAGES) - 1)):
        kill_at(study, out, tmp_path / "mark", moment)
        assert [p.name for p in out.iterdir()] == [".lock"]  # which nobody holds any more
    summary = run_study(read_study(study), out)
    assert summary.cached == len(STAGES) - 1
    finished.same_tables(out)


@pytest.mark.parametrize("damage", ["changed", "cut", "lost", "record"])
def test_a_damaged_stage_is_computed_again_and_nothing_else(
    finished: Any, cache: Path, tmp_path: Path, damage: str
) -> None:
    run_study(finished.study, tmp_path / "run")
    task = next(t for t in make_plan(finished.study) if t.stage.name == "decide-game")
    folder = StageCache(cache).folder(task.stage)
    table = folder / "decisions.parquet"
    if damage == "changed":
        data = bytearray(table.read_bytes())
        data[100] ^= 255
        table.write_bytes(data)
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:50])
    elif damage == "lost":
        table.unlink()
    else:
        (folder / "stage.json").write_text("{")
    summary = run_study(finished.study, tmp_path / "run")
    assert [r.name for r in summary.runs if not r.cached] == ["decide-game"]
    finished.same_tables(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    finished: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_computed", no_weights)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot be written. Seen: .*file.*choose another --out"):
        run_study(finished.study, blocked / "run")
    monkeypatch.setenv("MORALSCOPE_CACHE", str(blocked / "cache"))
    with pytest.raises(OutputError, match="cannot be written. Seen: .*file"):
        run_study(finished.study, tmp_path / "run")
    assert blocked.read_text() == "in the way"


def test_an_unknown_engine_is_refused_before_anything_is_written(
    finished: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no such engine. Seen: cloud. Allowed: local, local:N"):
        run_study(finished.study, tmp_path / "run", engine="cloud")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [0, 2, 6, 20])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(
    finished: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    out, written = tmp_path / "run", []

    def flush(handle: int) -> None:
        written.append(handle)
        if len(written) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", flush)
        told = "The disk is full. Seen: .*No space left on device.*free at .*Allowed: about .* MiB"
        with pytest.raises(OutputError, match=told):
            run_study(finished.study, out)
    assert len(written) == room + 1  # it stopped at once
    assert leftovers(out, cache) == []
    assert not (out / "manifest.json").exists()
    held = StageCache(cache)
    kept = [t.stage.name for t in make_plan(finished.study) if held.record(t.stage)]
    assert kept == STAGES[: len(kept)]
    summary = run_study(finished.study, out)
    assert [r.name for r in summary.runs if r.cached] == kept
    finished.same_tables(out)
