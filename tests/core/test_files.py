"""A result is whole or absent, whatever fails while it is written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core import files
from moralscope.core.errors import OutputError
from moralscope.core.files import (
    TEMPORARY_PREFIX,
    atomic_file,
    atomic_folder,
    make_folder,
    remove_leftovers,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(st.binary(max_size=2000))
def test_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("bytes") / "deep" / "file"
    write_bytes(path, data)
    assert path.read_bytes() == data
    assert names(path.parent) == ["file"]


def test_text_is_utf8_and_json_is_sorted(tmp_path: Path):
    write_text(tmp_path / "t", "π ≥ 3\n")
    assert (tmp_path / "t").read_bytes() == "π ≥ 3\n".encode()
    write_json(tmp_path / "j", {"b": 1, "a": [None, True]})
    text = (tmp_path / "j").read_text()
    assert json.loads(text) == {"a": [None, True], "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path):
    write_json(tmp_path / "j", 1)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "j", float("nan"))
    assert (tmp_path / "j").read_text() == "1\n"


def test_files_are_readable_by_others(tmp_path: Path):
    write_bytes(tmp_path / "file", b"x")
    with atomic_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def a_full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", a_full_disk)
    else:
        monkeypatch.setattr(Path, "replace", a_full_disk)
    with pytest.raises(OutputError, match="No space left on device") as refusal:
        write_bytes(path, b"new")
    assert refusal.value.problem == "A result cannot be written"
    assert "free some space" in refusal.value.remedy
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_really_full_device_is_explained():
    # Writing to /dev/full fails at the flush, as a full disk does.
    with pytest.raises(OutputError, match="A result cannot be written"):
        write_bytes(Path("/dev/full/file"), b"x")


def test_a_file_in_the_way_of_a_folder_is_explained(tmp_path: Path):
    (tmp_path / "out").write_text("I am a file")
    for attempt in (make_folder, require_writable):
        with pytest.raises(OutputError, match="cannot be written") as refusal:
            attempt(tmp_path / "out")
        assert str(tmp_path / "out") in str(refusal.value.seen)
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "out" / "table", "x")
    with pytest.raises(OutputError, match="cannot be written"), atomic_folder(tmp_path / "out/x"):
        pass
    assert (tmp_path / "out").read_text() == "I am a file"


def test_a_folder_in_the_way_of_a_file_is_explained(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_text(tmp_path / "out", "x")
    assert names(tmp_path) == ["out"]


def test_a_folder_that_refuses_files_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def read_only(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    assert require_writable(tmp_path / "fine") == tmp_path / "fine"
    assert names(tmp_path / "fine") == []
    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OutputError, match="Permission denied"):
        require_writable(tmp_path / "fine")


def test_a_file_written_by_others_appears_whole(tmp_path: Path):
    path = tmp_path / "deep" / "file"
    for text in ("old", "new"):
        with atomic_file(path) as inside:
            inside.write_text(text)
            (inside.parent / "beside").write_text("left by the writer")
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
        assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [ValueError("bad input"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file(tmp_path: Path, failure: BaseException):
    (tmp_path / "file").write_text("old")

    def write_half(path: Path) -> None:
        path.write_text("half of the n")
        raise failure

    with pytest.raises(type(failure)), atomic_file(tmp_path / "file") as inside:
        write_half(inside)
    with pytest.raises(OutputError, match="No space left"), atomic_file(tmp_path / "file"):
        a_full_disk()
    with pytest.raises(OutputError, match="cannot be written"), atomic_file(tmp_path / "file"):
        pass  # the writer wrote nothing
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_appears_whole(tmp_path: Path):
    with atomic_folder(tmp_path / "run") as inside:
        (inside / "a").write_text("1")
        assert not (tmp_path / "run").exists()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["a"]


def test_a_folder_replaces_the_old_one_entirely(tmp_path: Path):
    with atomic_folder(tmp_path / "run") as inside:
        (inside / "old").write_text("1")
    with atomic_folder(tmp_path / "run") as inside:
        (inside / "new").write_text("2")
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


@pytest.mark.parametrize("failure", [ValueError("bad input"), KeyboardInterrupt()])
def test_a_failing_block_leaves_the_old_folder(tmp_path: Path, failure: BaseException):
    with atomic_folder(tmp_path / "run") as inside:
        (inside / "old").write_text("1")

    def stop_half_way() -> None:
        with atomic_folder(tmp_path / "run") as inside:
            (inside / "half").write_text("2")
            raise failure

    with pytest.raises(type(failure)):
        stop_half_way()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["old"]


def test_a_failing_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "run"
    with atomic_folder(run) as inside:
        (inside / "old").write_text("1")
    rename = Path.replace

    def refuse_the_new_one(self: Path, target: Path) -> Path:
        if Path(target) == run and (self / "new").exists():
            a_full_disk()
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse_the_new_one)
    with pytest.raises(OutputError, match="No space left"), atomic_folder(run) as inside:
        (inside / "new").write_text("2")
    assert names(tmp_path) == ["run"]
    assert names(run) == ["old"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / f"{TEMPORARY_PREFIX}a").write_text("half")
    (tmp_path / f"{TEMPORARY_PREFIX}b").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}b" / "c").write_text("half")
    (tmp_path / "result").write_text("whole")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["result"]
    remove_leftovers(tmp_path / "absent")


def test_the_unfinished_work_of_others_is_spared(tmp_path: Path):
    for name, age in (("fresh", 10.0), ("stale", 100.0)):
        path = tmp_path / (TEMPORARY_PREFIX + name)
        path.write_text("half")
        os.utime(path, (time.time() - age, time.time() - age))
    remove_leftovers(tmp_path, idle_seconds=50.0)
    assert names(tmp_path) == [f"{TEMPORARY_PREFIX}fresh"]


WRITER = """
import sys
from pathlib import Path
from moralscope.core.files import atomic_folder, write_bytes

folder = Path(sys.argv[1])
sys.stdout.write("ready\\n")
sys.stdout.flush()
for version in range(1_000_000):
    digit = b"%d" % (version % 10)
    write_bytes(folder / "file", digit * 300_000)
    with atomic_folder(folder / "fresh" / str(version)) as inside:
        (inside / "a").write_bytes(digit * 1000)
        (inside / "b").write_bytes(digit * 1000)
"""


def test_a_kill_at_any_moment_leaves_nothing_half_written(tmp_path: Path):
    for delay in (0.0, 0.011, 0.023, 0.037, 0.052, 0.08):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        if (tmp_path / "file").exists():
            data = (tmp_path / "file").read_bytes()
            assert len(data) == 300_000
            assert len(set(data)) == 1
        for folder in (tmp_path / "fresh").glob("[0-9]*"):
            assert names(folder) == ["a", "b"]
            assert len(set((folder / "a").read_bytes() + (folder / "b").read_bytes())) == 1
    assert (tmp_path / "file").exists()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "fresh")
    assert names(tmp_path) == ["file", "fresh"]
    assert all(path.name.isdigit() for path in (tmp_path / "fresh").iterdir())
