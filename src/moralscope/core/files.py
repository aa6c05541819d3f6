"""Whole or not at all: files and folders that appear complete under their final name.

A result is written beside its destination under a temporary name, flushed to disk, and renamed.
A reader therefore sees the old version or the new one, never half of either, and an interrupted
run leaves only a temporary name that the next run removes.

Known trade-off, accepted: a folder cannot replace a non-empty folder in one system call, so
``atomic_folder`` moves the old one aside first. An error between the two renames puts it back; a
kill there leaves the old version under its aside name and the next write starts afresh.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from moralscope.core.errors import OutputError

TEMPORARY_PREFIX = ".partial-"


def _refusal(path: Path, cause: OSError) -> OutputError:
    return OutputError(
        "A result cannot be written",
        seen=f"{path} ({cause.strerror or cause})",
        allowed="a folder that can be created and written, with space left",
        remedy="choose another --out, free some space or fix the permissions; then run the same "
        "command again, finished stages are kept",
    )


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as cause:
        raise _refusal(path, cause) from cause


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; returns it.

    Raises:
        OutputError: it cannot be created or is a file.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def require_writable(path: Path) -> Path:
    """Check, before any work is spent, that results can be written into a folder."""
    make_folder(path)
    with _explained(path), tempfile.TemporaryFile(dir=path):
        pass
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        OutputError: the disk is full, or the folder is missing or read-only; no partial file
            is left under the final name.
    """
    make_folder(path.parent)
    with _explained(path):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """A file that takes its final name only when the block ends without an error.

    For writers that are given a name, and may put files of their own beside it; an ``OSError`` in
    the block is taken for theirs.

    Yields:
        The name to write to, in a temporary folder beside ``path``.

    Raises:
        OutputError: as ``write_bytes``.
    """
    make_folder(path.parent)
    with _explained(path):
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
        try:
            temporary = folder / path.name
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """``write_bytes`` for text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """``write_bytes`` for a JSON value, indented and with sorted keys; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """A folder to fill that takes its final name only when the block ends without an error.

    Yields:
        A temporary folder beside ``path``. Whatever it holds at the end replaces ``path``.

    Raises:
        OutputError: the folder cannot be created or renamed.
    """
    make_folder(path.parent)
    with _explained(path):
        temporary = Path(
            tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=path.parent)
        )
    try:
        yield temporary
        with _explained(path):
            temporary.chmod(0o755)
            _take_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _take_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    try:
        old = path.replace(aside / path.name)
        try:
            temporary.replace(path)
        except BaseException:
            old.replace(path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, *, idle_seconds: float = 0.0) -> None:
    """Remove what interrupted writes left in a folder.

    Args:
        folder: where to look, not deeper.
        idle_seconds: spare what changed more recently than this. Where other processes write,
            their unfinished work looks just like a leftover; only its age tells them apart.
    """
    newest = time.time() - idle_seconds
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            spared = leftover.stat().st_mtime > newest
        except FileNotFoundError:  # its writer has just finished
            continue
        if spared:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
