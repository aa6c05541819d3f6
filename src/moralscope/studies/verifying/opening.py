"""What is in this run, as far as it can be read? Manifest, study, tables; what cannot, is named.

A damaged file ends nothing here: it becomes a failed check, and everything that needs it becomes
one that could not be made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl

from moralscope import __version__
from moralscope.core.errors import ConfigError, MoralscopeError
from moralscope.core.hashing import code_version, sha256_file
from moralscope.core.schemas import SCHEMAS
from moralscope.core.sealing import MANIFEST
from moralscope.core.tables import read_table
from moralscope.studies.study import Study, read_study
from moralscope.studies.verifying.check import FILES, WHOLE, Check, table_file
from moralscope.studies.verifying.recording import PACKAGE

STUDY = "study.yaml"
CLAIMS_FILE = "claims.json"


@dataclass(frozen=True)
class Opened:
    """A run as it was found.

    Attributes:
        path: the folder.
        manifest: its content; None where there is none, or it is no JSON object.
        study: the study that was run; None where its file cannot be read.
        tables: those that can be read, by name.
        damaged: names of tables that are there and cannot be read.
        series: whether it is a series of runs, which has no study of its own.
    """

    path: Path
    manifest: Mapping[str, object] | None
    study: Study | None
    tables: Mapping[str, pl.DataFrame]
    damaged: Sequence[str]
    series: bool = False

    @property
    def failed(self) -> dict[str, str]:
        """Stages that were not computed, with the reason that the manifest gives."""
        found: dict[str, str] = {}
        for entry in self.listed("failed"):
            if isinstance(entry, dict):
                told = cast("dict[str, object]", entry)
                needed = told.get("skipped")
                why = str(told.get("why", "")) or "no reason is given"
                found[str(told.get("name", ""))] = f"skipped, {needed} failed" if needed else why
        return found

    @property
    def same_software(self) -> bool:
        """Whether the software that made the run is this one, to the letter."""
        made = self.manifest or {}
        return made.get("moralscope") == __version__ and made.get("code") == code_version(PACKAGE)

    def listed(self, field: str) -> list[object]:
        """A list in the manifest; empty where it has none."""
        found = (self.manifest or {}).get(field)
        return cast("list[object]", found) if isinstance(found, list) else []


def open_run(path: Path) -> tuple[Opened, list[Check]]:
    """Read a run, and say what of it cannot be read.

    Raises:
        ConfigError: the folder is no run of a study.
    """
    _require_run(path)
    checks: list[Check] = []
    manifest = _manifest(path / MANIFEST)
    tables, damaged = _tables(path, manifest, checks)
    series = "members" in (manifest or {})
    study = None if series else _study(path / STUDY, checks)
    return Opened(path, manifest, study, tables, damaged, series), checks


def _require_run(path: Path) -> None:
    if (path / "audit.yaml").is_file() and not (path / STUDY).is_file():
        raise ConfigError(
            "This folder is an audit, not the run of a study",
            seen=path,
            allowed="a folder that moralscope run, demo, explain or evaluate wrote",
            remedy=f"run the audit again elsewhere and compare: moralscope diff {path} OTHER",
        )
    if not any((path / name).exists() for name in (MANIFEST, STUDY, "tables")):
        raise ConfigError(
            "This folder is not a run",
            seen=path,
            allowed="a folder with manifest.json, study.yaml and tables/, as moralscope run "
            "leaves it",
            remedy="give the folder that --out named",
        )


def _manifest(path: Path) -> Mapping[str, object] | None:
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the checks of files say so
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _study(path: Path, checks: list[Check]) -> Study | None:
    what = "the study file can be read"
    if not path.is_file():
        checks.append(Check(FILES, STUDY, what, passed=False, found="the file is missing"))
        return None
    try:
        study = read_study(path)
    except MoralscopeError as error:
        checks.append(Check(FILES, STUDY, what, passed=False, found=_line(error)))
        return None
    checks.append(Check(FILES, STUDY, what, passed=True))
    return study


def _tables(
    run: Path, manifest: Mapping[str, object] | None, checks: list[Check]
) -> tuple[Mapping[str, pl.DataFrame], Sequence[str]]:
    """The tables that have the bytes that were written; others are not even decoded."""
    folder = run / "tables"
    listed = (manifest or {}).get("files")
    digests = cast("dict[str, object]", listed) if isinstance(listed, dict) else {}
    what = "the table follows its schema, and no two rows share their key"
    found: dict[str, pl.DataFrame] = {}
    damaged: list[str] = []
    for name in SCHEMAS:
        path = folder / f"{name}.parquet"
        if not path.is_file():
            continue
        if sha256_file(path) != digests.get(table_file(name), sha256_file(path)):
            damaged.append(name)  # the checks of files say so
            continue
        try:
            found[name] = read_table(name, folder)
        except MoralscopeError as error:
            damaged.append(name)
            checks.append(Check(WHOLE, table_file(name), what, passed=False, found=_line(error)))
        else:
            checks.append(Check(WHOLE, table_file(name), what, passed=True))
    return found, damaged


def _line(error: MoralscopeError) -> str:
    return f"{error.problem}: {error.seen}".partition("\n")[0]
