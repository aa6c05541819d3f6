"""Runs to verify: one as it was written, with a report's files, and copies to be tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from moralscope.core.files import write_json
from moralscope.core.hashing import sha256_file
from moralscope.core.sealing import seal_report, sealed_manifest
from moralscope.core.tables import read_table, write_table
from moralscope.studies.verifying.check import Check
from moralscope.studies.verifying.completeness import completeness_checks
from moralscope.studies.verifying.deriving import derived_checks
from moralscope.studies.verifying.files import file_checks
from moralscope.studies.verifying.judging import claim_checks
from moralscope.studies.verifying.numbers import number_checks
from moralscope.studies.verifying.opening import open_run
from moralscope.studies.verifying.verify import verify_run

Change = Callable[[pl.DataFrame], pl.DataFrame]


def add_report(run: Path) -> None:
    """A small report, sealed as a large one is."""
    there = (run / "tables" / "claims.parquet").is_file()
    claims = read_table("claims", run / "tables").to_dicts() if there else []
    rows = {p.stem: pl.read_parquet(p).height for p in (run / "tables").iterdir()}
    report = {
        "manifest_sha256": sha256_file(run / "manifest.json"), "claims": claims, "tables": rows,
    }  # fmt: skip
    write_json(run / "report.json", report)
    (run / "report.html").write_text("<p>figures</p>")
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / "lens.svg").write_text("<svg/>")
    seal_report(run)


@dataclass(frozen=True)
class Copy:
    """A copy of a run, to be changed."""

    path: Path

    def manifest(self) -> dict[str, Any]:
        """What its manifest says."""
        return json.loads((self.path / "manifest.json").read_text())

    def seal(self, **changes: object) -> None:
        """Seal everything again, as somebody would who covers an edit up."""
        manifest = {**self.manifest(), **changes}
        for name, entry in dict(manifest["tables"]).items():
            path = self.path / "tables" / f"{name}.parquet"
            if path.is_file():
                rows = pl.read_parquet(path).height
                manifest["tables"][name] = {**entry, "sha256": sha256_file(path), "rows": rows}
        manifest.pop("seal", None)
        write_json(self.path / "manifest.json", sealed_manifest(manifest, self.path))
        if (self.path / "report.json").is_file():
            add_report(self.path)

    def change(self, name: str, change: Change) -> None:
        """Another table in place of one, with what repeats it, all sealed."""
        table = change(read_table(name, self.path / "tables"))
        write_table(name, table, self.path / "tables")
        if name == "claims":
            write_json(self.path / "claims.json", table.to_dicts())
        self.seal()

    def failed(self, **named: str | None) -> list[Check]:
        """What fails."""
        return list(verify_run(self.path, **named).failed)

    def failing(self, part: str) -> list[Check]:
        """What fails of one part alone."""
        run, found = open_run(self.path)
        checks = {
            "files": lambda: [*found, *file_checks(run)],
            "completeness": lambda: completeness_checks(run),
            "numbers": lambda: [*number_checks(run), *derived_checks(run)],
            "claims": lambda: claim_checks(run),
        }[part]()
        return [check for check in checks if check.passed is False]


@pytest.fixture(scope="session")
def whole(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a report, as it was written; not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(finished.out, path)
    add_report(path)
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Copy:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "run")
    return Copy(tmp_path / "run")
