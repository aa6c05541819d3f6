"""Whose is this run folder? One run at a time in a folder, and one study to a folder.

A folder is free for a study if it holds no run, or the run of a study of the same name: an edited
study brings its folder up to date. Another study's run, and folders called ``tables`` or ``agents``
that no run wrote, are never overwritten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import cast

from moralscope import __version__
from moralscope.core.errors import OutputError
from moralscope.core.files import require_writable
from moralscope.core.hashing import sha256_text
from moralscope.core.locking import Holder, held
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.sealing import MANIFEST
from moralscope.studies.study import Study, study_yaml

LOCK = ".lock"
NEXT = ".next"
"""Where a run folder is put together before it takes its place."""

_OURS = ("tables", "agents")


@contextlib.contextmanager
def occupied(out: Path, *, wait: bool = True, progress: Progress = silent) -> Generator[None]:
    """Keep other runs out of a run folder for the length of the block.

    Args:
        out: the folder; created.
        wait: wait for a run that is at work there.
        progress: told that, and for whom, the run waits.

    Raises:
        OutputError: the folder cannot be written, or another run is at work and ``wait`` is false.
    """
    require_writable(out)
    name = f"wait for {out}"
    waited: list[Holder] = []

    def waiting(holder: Holder) -> None:
        if not wait:
            raise OutputError(
                "Another run is at work in this folder",
                seen=f"{out}: {holder}",
                allowed="one run at a time in a folder",
                remedy="wait until it has finished, or choose another --out",
            )
        waited.append(holder)
        progress(ProgressEvent(name, 0, 1, f"in use by {holder}"))

    with held(out / LOCK, waiting):
        if waited:
            progress(ProgressEvent(name, 1, 1))
        yield


def taken_over(out: Path, study: Study) -> tuple[str, ...]:
    """What is to be said of the run that a folder holds already; nothing of the same.

    Args:
        out: the folder.
        study: that is to be run in it.

    Raises:
        OutputError: the folder holds something else than a run of this study.
    """
    held_name, version, digest = _run_in(out)
    if held_name is None:
        strange = [name for name in _OURS if (out / name).exists()]
        if not strange:
            return ()
        raise _refusal(
            "The folder holds something that no run wrote",
            f"{out}: {' and '.join(strange)}",
            study,
        )
    if held_name != study.name:
        raise _refusal("The folder holds the run of another study", f"{out}: {held_name!r}", study)
    notices: list[str] = []
    if version is not None and version != __version__:
        notices.append(
            f"{out} held a run of moralscope {version}, this is {__version__}: what that changes "
            "is computed again, and the tables are replaced."
        )
    if digest is not None and digest != sha256_text(study_yaml(study)):
        notices.append(f"{out} held an earlier form of this study: its tables are replaced.")
    return tuple(notices)


def _refusal(problem: str, seen: str, study: Study) -> OutputError:
    return OutputError(
        problem,
        seen=seen,
        allowed=f"a folder without a run, or with a run of {study.name!r}",
        remedy="choose another --out, or remove what is there",
    )


def _run_in(out: Path) -> tuple[str | None, str | None, str | None]:
    """Name of the study, version of the software and hash of the study; None where unknown."""
    manifest = _manifest_in(out)
    name, version = manifest.get("study"), manifest.get("moralscope")
    digest = manifest.get("study_sha256")
    return (
        None if name is None else str(name),
        None if version is None else str(version),
        None if digest is None else str(digest),
    )


def _manifest_in(out: Path) -> dict[str, object]:
    """The folder's manifest, or that of the run whose putting together was interrupted."""
    for place in (out / MANIFEST, out / NEXT / MANIFEST):
        try:
            found: object = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return cast("dict[str, object]", found)
    return {}
