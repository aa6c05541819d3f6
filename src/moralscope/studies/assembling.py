"""What lies in a run folder? Tables, agents, claims, the resolved study, logs, the manifest.

Everything is written beside its place first, where a full disk does no harm to the run that was
there, and then moved: the old manifest goes first and the new one comes last, so that a folder
with a manifest is a whole run.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from moralscope import __version__
from moralscope.core.files import (
    atomic_folder,
    make_folder,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from moralscope.core.hashing import sha256_file, sha256_text
from moralscope.core.sealing import MANIFEST, sealed_manifest
from moralscope.core.stage import RECORD
from moralscope.core.tables import write_table
from moralscope.studies.engines.driving import StageRun
from moralscope.studies.engines.scheduling import Missing
from moralscope.studies.occupying import NEXT
from moralscope.studies.plan import Plan, plan_digest, threads, versions
from moralscope.studies.registration import measuring
from moralscope.studies.steps.context import TRAIN
from moralscope.studies.study import study_yaml
from moralscope.studies.verifying.recording import planned

_PARTS = ("tables", "agents", "logs", "claims.json", "study.yaml", MANIFEST)
"""In the order in which they are put into place."""


@dataclass(frozen=True)
class Result:
    """What came of a study.

    Attributes:
        plan: what was planned.
        runs: finished stages.
        failed: failed and skipped ones.
        folders: outputs of the finished stages.
        tables: all tables together.
        engine: where stages were computed.
        seconds: wall time of the run.
    """

    plan: Plan
    runs: tuple[StageRun, ...]
    failed: tuple[Missing, ...]
    folders: Mapping[str, Path]
    tables: Mapping[str, pl.DataFrame]
    engine: str
    seconds: float


def assemble(result: Result, out: Path) -> None:
    """Put a run folder together from finished stages.

    Args:
        result: what came of the study.
        out: the run folder.

    Raises:
        OutputError: it cannot be written; what was there before is still there.
    """
    remove_leftovers(out)
    ready = out / NEXT
    with atomic_folder(ready) as folder:
        _fill(folder, result)
    (out / MANIFEST).unlink(missing_ok=True)
    for part in _PARTS:
        _move(ready / part, out / part)
    shutil.rmtree(ready, ignore_errors=True)


def _move(new: Path, place: Path) -> None:
    """Put a file or folder into its place; what the run no longer has goes."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if new.exists():
        new.replace(place)


def _fill(folder: Path, result: Result) -> None:
    make_folder(folder / "tables")
    for name, table in result.tables.items():
        write_table(name, table, folder / "tables")
    for name, outputs in result.folders.items():
        if name.startswith(TRAIN):
            copy = folder / "agents" / name.removeprefix(TRAIN)
            for file in outputs.iterdir():
                if file.is_file() and file.name != RECORD:
                    write_bytes(copy / file.name, file.read_bytes())
    resolved = study_yaml(result.plan.study)
    write_text(folder / "study.yaml", resolved)
    claims = result.tables.get("claims")
    write_json(folder / "claims.json", [] if claims is None else claims.to_dicts())
    _write_logs(folder / "logs", result)
    manifest = {**_manifest(folder, result, resolved), **planned(result.plan)}
    write_json(folder / MANIFEST, sealed_manifest(manifest, folder))


def _write_logs(folder: Path, result: Result) -> None:
    listing = [
        f"{r.name:<32} {'cached' if r.cached else 'computed':<9} {r.seconds:9.1f} s "
        f"{r.peak_memory_gib:6.2f} GiB  {r.key[:16]}"
        for r in result.runs
    ]
    listing += [f"{m.name:<32} {'skipped' if m.skipped else 'failed'}" for m in result.failed]
    write_text(folder / "stages.log", "\n".join(listing) + "\n")
    if result.failed:
        write_json(folder / "failures.json", [asdict(missing) for missing in result.failed])


def failed_stages(missing: tuple[Missing, ...]) -> list[dict[str, str | None]]:
    """Failed and skipped stages as the manifest lists them: name, why, skipped.

    ``skipped`` is the failed stage without which this one was not tried; null if it failed itself.
    """
    return [{"name": m.name, "why": m.why, "skipped": m.skipped} for m in missing]


def _manifest(folder: Path, result: Result, resolved: str) -> dict[str, object]:
    plan, runs = result.plan, result.runs
    return {
        "moralscope": __version__,
        "study": plan.study.name,
        "study_sha256": sha256_text(resolved),
        "seed": plan.study.seed,
        "plan": plan_digest(plan),
        "measured": measuring(task.stage for task in plan),
        "versions": versions(),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": threads(),
            "engine": result.engine,
        },
        "model": {
            "id": plan.source.name,
            "source": plan.source.origin,
            "sha256": plan.source.sha256,
            "dtype": plan.study.dtype,
            "device": plan.study.device,
            "dropped_config_keys": list(plan.source.dropped_keys),
        },
        "seconds_total": result.seconds,
        "seconds_computing": sum(r.seconds for r in runs),
        "peak_memory_gib": max((r.peak_memory_gib for r in runs), default=0.0),
        "stages": [asdict(run) for run in runs],
        "failed": failed_stages(result.failed),
        "tables": {
            name: {
                "rows": table.height,
                "sha256": sha256_file(folder / "tables" / f"{name}.parquet"),
            }
            for name, table in result.tables.items()
        },
    }
