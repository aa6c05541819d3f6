"""One run at a time in a folder, one study to a folder, and nothing of others overwritten."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moralscope.core.errors import OutputError
from moralscope.core.progress import ProgressEvent
from moralscope.studies import Study, assembling, run_study
from moralscope.studies.occupying import occupied, taken_over

StudyOf = Callable[..., Study]


def test_a_second_run_is_refused_if_it_is_not_to_wait(finished: Any, tmp_path: Path) -> None:
    told = "Another run is at work in this folder. Seen: .*run: process .*choose another --out"
    with occupied(tmp_path / "run"), pytest.raises(OutputError, match=told):
        run_study(finished.study, tmp_path / "run", wait=False)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_second_run_waits_says_for_whom_and_finds_everything_done(
    finished: Any, warm_cache: Path, tmp_path: Path
) -> None:
    out, events, summaries = tmp_path / "run", list[ProgressEvent](), list[Any]()

    def second() -> None:
        summaries.append(run_study(finished.study, out, progress=events.append))

    with occupied(out):
        waiting = threading.Thread(target=second)
        waiting.start()
        deadline = time.monotonic() + 60
        while not events and time.monotonic() < deadline:
            time.sleep(0.01)
    waiting.join(120)
    waits = [event for event in events if event.task == f"wait for {out}"]
    assert [event.done for event in waits] == [0, 1]
    assert waits[0].note.startswith("in use by process ")
    assert summaries[0].cached == summaries[0].stages


def copied(finished: Any, folder: Path) -> Path:
    return Path(shutil.copytree(finished.out, folder / "run"))


def changed(run: Path, **fields: object) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_same_run_again_needs_no_words(finished: Any, tmp_path: Path) -> None:
    assert taken_over(copied(finished, tmp_path), finished.study) == ()
    assert taken_over(tmp_path / "nothing", finished.study) == ()


def test_the_run_of_another_study_is_not_overwritten(finished: Any, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    other = finished.study.model_copy(update={"name": "other"})
    told = "the run of another study. Seen: .*run: 'study'. Allowed: .* a run of 'other'"
    with pytest.raises(OutputError, match=told):
        run_study(other, run)
    assert (run / "manifest.json").read_bytes() == (finished.out / "manifest.json").read_bytes()


def test_folders_that_no_run_wrote_are_not_overwritten(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.csv").write_text("precious")
    told = "something that no run wrote. Seen: .*: tables. .*choose another --out"
    with pytest.raises(OutputError, match=told):
        run_study(finished.study, tmp_path)
    assert (tmp_path / "tables" / "mine.csv").read_text() == "precious"


def test_a_run_of_another_version_and_an_edited_study_are_told(
    finished: Any, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path)
    changed(run, moralscope="0.0.1", study_sha256="0" * 64)
    version, study = taken_over(run, finished.study)
    assert "held a run of moralscope 0.0.1, this is " in version
    assert "is computed again, and the tables are replaced" in version
    assert "held an earlier form of this study" in study


def test_a_folder_that_was_interrupted_while_it_was_filled_is_taken_up_again(
    finished: Any, warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moved = copied(finished, tmp_path), list[str]()
    (run / "agents" / "former").mkdir()
    really = assembling._move

    def stop(new: Path, place: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(place.name)
        really(new, place)

    with monkeypatch.context() as patch:
        patch.setattr(assembling, "_move", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study(finished.study, run)
    assert not (run / "manifest.json").exists()  # so that nobody takes it for a whole run
    run_study(finished.study, run)
    finished.same_tables(run)
    assert {p.name for p in run.iterdir()} == {p.name for p in finished.out.iterdir()}
    assert {p.name for p in (run / "agents").iterdir()} == {"game"}  # what no run has made is gone
