"""Where was training when it stopped? Checkpoints that make a resumed run equal to a whole one.

A checkpoint is a folder ``snapshots/step-00000020`` with tensors (adapters, optimiser moments,
value heads), the rows of the tables so far, and a record: format, step, what training it belongs
to, statistics, and the hash of every other file and of itself. It appears whole or not at all.
Every draw is a function of seed and step, so the step is the state of all random numbers.

The two newest stay and older ones are removed: should the newest be damaged, the one before it is
used, with a warning that names both. One that belongs to other settings, or was written in another
format, is an error, and nothing is overwritten or removed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from torch import Tensor

from moralscope.core.documents import flattened
from moralscope.core.errors import ConfigError, OutputError
from moralscope.core.files import (
    atomic_folder,
    make_folder,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from moralscope.core.hashing import sha256_file, sha256_value
from moralscope.core.tables import read_table, write_table
from moralscope.models.libraries import safetensors_torch

FOLDER = "snapshots"
RECORD_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"

FORMAT = 1
"""Of the record; a record of any format carries ``format`` and its own ``sha256``."""

KEPT = 2
"""Newest checkpoints that stay."""

SHARE = 0.05
"""Largest part of the time that ``auto`` spends on checkpoints."""

FIRST_AFTER = 10.0
"""Seconds of training before the first checkpoint, whose cost is not known yet."""

_NAME = re.compile(r"step-(\d{8,})")
_TOLD = 6


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint cannot be used, and an earlier one, or none, is used instead."""


@dataclass(frozen=True)
class Snapshot:
    """The whole state of a training after a step.

    Attributes:
        step: steps done.
        tensors: everything that is a tensor, by any names.
        tables: rows so far, by the names of their schemas.
        values: statistics, as JSON values; finite numbers are read back to the same bits.
    """

    step: int
    tensors: Mapping[str, Tensor]
    tables: Mapping[str, pl.DataFrame]
    values: Mapping[str, object]


class _DamagedError(Exception):
    """Why a checkpoint cannot be used."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        work: the training's scratch folder.
        identity: all that its course depends on: JSON values by name, nested as one likes.
    """

    work: Path
    identity: Mapping[str, object]

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.work / FOLDER

    def save(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint; then, and only then, remove all but it and the one before it.

        One of a later step is removed as well: training went on from an earlier one because it
        is damaged.

        Returns:
            Its folder.

        Raises:
            OutputError: it cannot be written; those before it are untouched.
        """
        place = self.folder / f"step-{snapshot.step:08d}"
        make_folder(self.folder)
        remove_leftovers(self.folder)
        with atomic_folder(place) as folder:
            self._fill(folder, snapshot)
            _sync(folder)
        # The rename itself lasts through a power cut only when the folder above is on disk.
        _sync(self.folder)
        steps = self._steps()
        stay = [step for step in steps if step <= snapshot.step][:KEPT]
        for step, old in steps.items():
            if step not in stay:
                shutil.rmtree(old, ignore_errors=True)
        return place

    def _fill(self, folder: Path, snapshot: Snapshot) -> None:
        tensors = {k: t.detach().cpu().contiguous() for k, t in snapshot.tensors.items()}
        write_bytes(folder / TENSORS_FILE, safetensors_torch.save(tensors))
        for name, table in snapshot.tables.items():
            write_table(name, table, folder)
        record: dict[str, object] = {
            "format": FORMAT,
            "step": snapshot.step,
            "identity": dict(self.identity),
            "values": dict(snapshot.values),
            "tables": sorted(snapshot.tables),
            "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / RECORD_FILE, record | {"sha256": sha256_value(record)})

    def newest(self) -> Snapshot | None:
        """The newest checkpoint that is whole; None where there is none.

        Warns:
            DamagedCheckpointWarning: one was passed over: which, why, and what is used instead.

        Raises:
            ConfigError: it belongs to a training with other settings, or is of another format.
        """
        damaged: list[tuple[Path, str]] = []
        found: Snapshot | None = None
        for place in self._steps().values():
            try:
                found = self._load(place)
            except _DamagedError as cause:
                damaged.append((place, str(cause)))
                continue
            break
        used = "training starts over" if found is None else f"step {found.step} is used instead"
        for place, cause in damaged:
            warnings.warn(
                f"The checkpoint {place} is damaged: {cause}; {used}",
                DamagedCheckpointWarning,
                stacklevel=2,
            )
        return found

    def _steps(self) -> dict[int, Path]:
        """Folders of checkpoints by step, newest first."""
        if not self.folder.is_dir():
            return {}
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        found = {int(match[1]): path for match, path in named if match}
        return dict(sorted(found.items(), reverse=True))

    def _load(self, place: Path) -> Snapshot:
        record = _record(place)
        if record["format"] != FORMAT:
            raise ConfigError(
                "The checkpoint was written by another version",
                seen=f"format {record['format']} in {place}",
                allowed=f"format {FORMAT}",
                remedy="go on with the version that wrote it, or train into another folder (--out)",
            )
        self._refuse_others(record["identity"])
        for name, digest in record["files"].items():
            try:
                seen = sha256_file(place / name)
            except OSError as cause:
                raise _DamagedError(f"{name} cannot be read ({cause.strerror})") from cause
            if seen != digest:
                raise _DamagedError(f"{name} is not what was written")
        return Snapshot(
            record["step"],
            safetensors_torch.load_file(str(place / TENSORS_FILE)),
            {name: read_table(name, place) for name in record["tables"]},
            record["values"],
        )

    def _refuse_others(self, old: Mapping[str, object]) -> None:
        # Through JSON, which makes lists of tuples.
        new = json.loads(json.dumps(dict(self.identity)))
        differing = differences(old, new)
        if not differing:
            return
        told = [_told(*difference) for difference in differing[:_TOLD]]
        if len(differing) > _TOLD:
            told.append(f"and {len(differing) - _TOLD} more")
        raise ConfigError(
            "The training in this folder was started with other settings",
            seen=", ".join(told),
            allowed=f"the settings that {self.folder} was started with",
            remedy="take those back, or train into another folder (--out)",
        )


def _record(place: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, known to be as it was written."""
    try:
        record: Any = json.loads((place / RECORD_FILE).read_bytes())
        rest = {key: value for key, value in record.items() if key != "sha256"}
        whole = sha256_value(rest) == record["sha256"]
    except OSError as cause:
        raise _DamagedError(f"{RECORD_FILE} cannot be read ({cause.strerror})") from cause
    except (ValueError, AttributeError, KeyError) as cause:
        raise _DamagedError(f"{RECORD_FILE} is not a whole record") from cause
    if not whole:
        raise _DamagedError(f"{RECORD_FILE} is not what was written")
    return record


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as cause:
        if cause.errno != errno.EINVAL:  # file systems that cannot are not at fault
            raise OutputError(
                "A checkpoint cannot be written",
                seen=f"{folder} ({cause.strerror})",
                allowed="a folder that can be written, with space left",
                remedy="free some space, then run the same command again; others are kept",
            ) from cause
    finally:
        os.close(handle)


_MISSING = object()


def differences(
    old: Mapping[str, object], new: Mapping[str, object]
) -> list[tuple[str, object, object]]:
    """Where two nested JSON values differ: dotted key, the old value and the new one, by key.

    Lists are compared whole. A key that is on one side only differs from every value.
    """
    before, after = flattened(old), flattened(new)
    rows = [(k, before.get(k, _MISSING), after.get(k, _MISSING)) for k in sorted(before | after)]
    return [row for row in rows if row[1] != row[2]]


def _told(key: str, old: object, new: object) -> str:
    first, second = _short(old), _short(new)
    return f"{key} other values" if first == second else f"{key} {first} -> {second}"


def _short(value: object) -> str:
    text = "(not set)" if value is _MISSING else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@dataclass
class CheckpointClock:
    """When is the next checkpoint due? By steps, or by what checkpoints have cost so far.

    ``auto`` writes one as soon as it can be afforded: with T seconds trained, W seconds spent on
    checkpoints and w on the last one, when

        W + w <= 0.05 (T + W + w)

    and the first, whose cost is not known, after ten seconds. Only measured times enter, and the
    course of training does not depend on when checkpoints are written.

    Attributes:
        every: steps between checkpoints, or ``auto``.
    """

    every: int | Literal["auto"]
    _trained: float = 0.0
    _writing: float = 0.0
    _last: float | None = None

    def due(self, step: int, seconds: float) -> bool:
        """Whether to write one now; called once after each step.

        Args:
            step: steps done.
            seconds: that the last of them took.
        """
        self._trained += seconds
        if self.every != "auto":
            return step % self.every == 0
        if self._last is None:
            return self._trained >= FIRST_AFTER
        cost = self._writing + self._last
        return cost <= SHARE * (self._trained + cost)

    def saved(self, seconds: float) -> None:
        """A checkpoint was written, and took so long."""
        self._last = seconds
        self._writing += seconds


@dataclass(frozen=True)
class TrainingLog:
    """One line of JSON a row of the table ``training``, for those who watch a run from outside.

    Training never reads it. Numbers that are not finite are null.

    Attributes:
        work: the training's scratch folder; the log is ``log.jsonl`` there.
    """

    work: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.work / LOG_FILE

    def cut(self, step: int) -> None:
        """Begin after a step: remove lines of later ones, and what an interruption left of a line.

        Raises:
            OutputError: the log cannot be written.
        """
        make_folder(self.work)
        remove_leftovers(self.work)
        if not self.path.exists():
            return
        text = self.path.read_bytes().decode(errors="replace")
        kept = "".join(f"{line}\n" for line in text.splitlines() if _is_until(step, line))
        if kept != text:
            write_text(self.path, kept)

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add the rows of a step.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        lines = [{key: _finite(value) for key, value in row.items()} for row in rows]
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as cause:
            raise OutputError(
                "The log of a training cannot be written",
                seen=f"{self.path} ({cause.strerror or cause})",
                allowed="a folder that can be written, with space left",
                remedy="free some space, then run the same command again; checkpoints are kept",
            ) from cause


def _is_until(step: int, line: str) -> bool:
    try:
        row: Any = json.loads(line)
        return row["step"] <= step
    except (ValueError, TypeError, KeyError):
        return False


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
