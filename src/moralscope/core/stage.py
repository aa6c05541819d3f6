"""Has this been computed already? Stages named by what they depend on, and their cache.

A stage is a pure function. Its key is the hash of the task, its code version (the source of its
package and of the layers to its left), its resolved inputs and the keys of the stages it reads.
Its outputs are files in one folder named by that key, written once. Studies share the cache, so
no study computes what another has; killing a run loses only the stage that was under way.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from moralscope.core.errors import OutputError
from moralscope.core.files import atomic_folder, make_folder, remove_leftovers, write_json
from moralscope.core.hashing import code_version, sha256_file, sha256_value

RECORD = "stage.json"
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Stage:
    """What is computed, from what.

    Attributes:
        name: readable name, unique in a plan (``train-game``).
        package: the package whose function computes it; fixes the code version.
        task: which of the package's functions that is (``train``): two stages with equal inputs
            may still compute different things.
        inputs: JSON-like values that determine the result, everything resolved.
        needs: what each stage whose outputs it reads is to it (``source``, ``target``), to the
            key of that stage.
    """

    name: str
    package: str
    task: str
    inputs: Mapping[str, object]
    needs: Mapping[str, str]

    @property
    def key(self) -> str:
        """The content address: 64 hexadecimal digits.

        Equal for equal dependencies and different as soon as one of them differs, or as two of
        them exchange their parts. The name is not in it, so two studies that call the same work
        by other names share it.
        """
        return sha256_value(
            {
                "code": code_version(self.package),
                "task": [self.package, self.task],
                "inputs": dict(self.inputs),
                "needs": dict(self.needs),
            }
        )


def cache_folder() -> Path:
    """``$MORALSCOPE_CACHE``, or the platform's cache folder for this user."""
    chosen = os.environ.get("MORALSCOPE_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("moralscope")


@dataclass(frozen=True)
class StageCache:
    """Finished stages on disk, one folder per key."""

    root: Path

    def folder(self, stage: Stage) -> Path:
        """Where the outputs of a stage are, or will be."""
        return self.folder_of(stage.key)

    def folder_of(self, key: str) -> Path:
        """Where the outputs of the stage with this key are, or will be."""
        return self.root / "stages" / key[:2] / key

    def lock(self, stage: Stage) -> Path:
        """The lock (``core.locking``) that whoever computes a stage holds meanwhile."""
        return self.root / "locks" / f"{stage.key}.lock"

    def work_folder(self, stage: Stage) -> Path:
        """Scratch space that survives an interruption, for stages that resume within."""
        return make_folder(self.root / "work" / stage.key)

    def record(self, stage: Stage) -> dict[str, object] | None:
        """The record of a finished stage; None if it is not finished or was damaged.

        A folder whose files do not match their recorded hashes counts as not finished.
        """
        folder = self.folder(stage)
        try:
            record = json.loads((folder / RECORD).read_text())
            files = dict(record["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        intact = all(
            (folder / name).is_file() and sha256_file(folder / name) == digest
            for name, digest in files.items()
        )
        return record if intact else None

    def commit(self, stage: Stage, produced: Path, facts: Mapping[str, object]) -> Path:
        """Move a folder of outputs into the cache under the stage's key; returns its place.

        Two processes may finish the same stage at the same time: the first to arrive stays.

        Args:
            stage: what was computed.
            produced: the folder that holds its outputs; it must lie in ``self.root``.
            facts: what is worth keeping about the run (seconds, peak memory).
        """
        files = {
            path.relative_to(produced).as_posix(): sha256_file(path)
            for path in sorted(produced.rglob("*"))
            if path.is_file()
        }
        write_json(
            produced / RECORD,
            {
                "name": stage.name,
                "package": stage.package,
                "task": stage.task,
                "inputs": dict(stage.inputs),
                "needs": dict(stage.needs),
                "key": stage.key,
                "files": files,
                "facts": dict(facts),
            },
        )
        destination = self.folder(stage)
        if self.record(stage) is None:
            try:
                with atomic_folder(destination) as temporary:
                    for path in produced.iterdir():
                        path.replace(temporary / path.name)
            except OutputError:
                if self.record(stage) is None:
                    raise
        shutil.rmtree(produced, ignore_errors=True)
        return destination

    def clear_leftovers(self) -> None:
        """Remove what commits left behind that were interrupted an hour ago or longer."""
        for shard in (self.root / "stages").glob("*"):
            remove_leftovers(shard, idle_seconds=_ABANDONED_SECONDS)
