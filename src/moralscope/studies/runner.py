"""How is a study run? Stage by stage, from the cache where it can, into a run directory.

    for each task: finished under its key?  yes: reuse   no: compute, commit to the cache
    then: gather tables -> RUN/tables, copy adapters -> RUN/agents, write study.yaml, manifest.json

A run that is killed at any moment goes on from the last finished stage when the same command is
given again; training goes on from its last checkpoint. The run directory is put together only
from finished stages.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import polars as pl

from moralscope import __version__
from moralscope.core.errors import ConfigError
from moralscope.core.files import (
    atomic_folder,
    make_folder,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)
from moralscope.core.hashing import sha256_file, sha256_text
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.sealing import sealed_manifest
from moralscope.core.stage import RECORD, StageCache, cache_folder
from moralscope.core.tables import write_table
from moralscope.studies.estimating.estimate import work_shares
from moralscope.studies.plan import Plan, Task, make_plan, plan_digest, threads, versions
from moralscope.studies.registration import Registry, measuring, register
from moralscope.studies.resources import measured
from moralscope.studies.steps.context import TRAIN, Context, gather
from moralscope.studies.study import Study, study_yaml
from moralscope.studies.verifying.recording import planned
from moralscope.studies.workbench import Workbench

ENGINES = ("local",)


@dataclass(frozen=True)
class StageRun:
    """How one stage went: its cost, and whether it came from the cache."""

    name: str
    package: str
    key: str
    seconds: float
    peak_memory_gib: float
    cached: bool


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        out: the run directory.
        stages: number of stages.
        cached: how many were not computed because the cache had them.
        seconds: wall time of this run.
        runs: each stage.
    """

    out: Path
    stages: int
    cached: int
    seconds: float
    runs: tuple[StageRun, ...] = field(default=())


def run_study(
    study: Study, out: Path, *, engine: str = "local", progress: Progress = silent
) -> RunSummary:
    """Run a study into a run directory.

    Args:
        study: what to run.
        out: the run directory; created, or brought up to date.
        engine: where stages are computed; ``local`` is this process.
        progress: told of stages (task ``stage``) and of steps within them.

    Raises:
        ConfigError: the engine is unknown.
        OutputError: ``out`` or the cache cannot be written.
        MoralscopeError: whatever a stage raises; finished stages are kept.
    """
    if engine not in ENGINES:
        raise ConfigError(
            "There is no such engine",
            seen=engine,
            allowed=", ".join(ENGINES),
            remedy="leave --engine out to compute on this machine",
        )
    require_writable(out)
    cache = StageCache(require_writable(cache_folder()))
    cache.clear_leftovers()
    with measured() as cost:
        plan = make_plan(study, out)
        register(study, [task.stage for task in plan], cache, out)
        folders, runs = _compute(plan, cache, progress)
        tables = gather(folders.values())
    summary = RunSummary(out, len(runs), sum(r.cached for r in runs), cost.seconds, tuple(runs))
    _assemble(plan, folders, tables, summary)
    return summary


def _compute(
    plan: Plan, cache: StageCache, progress: Progress
) -> tuple[dict[str, Path], list[StageRun]]:
    bench = Workbench(plan.study, plan.source)
    folders: dict[str, Path] = {}
    runs: list[StageRun] = []
    shares = work_shares(plan, cache)
    share = 0.0
    registry, data = Registry(cache.root), measuring(task.stage for task in plan)
    for number, task in enumerate(plan, start=1):
        stage = task.stage
        progress(ProgressEvent("stage", number - 1, len(plan.tasks), stage.name, share))
        record = cache.record(stage)
        cached = record is not None
        if record is None:
            folders[stage.name] = _compute_one(task, cache, bench, folders, progress)
            record = cache.record(stage) or {}
        else:
            folders[stage.name] = cache.folder(stage)
        if stage.name in data:
            registry.mark_measured(data[stage.name], stage.name)
        facts: object = record.get("facts")
        cost = cast("dict[str, float]", facts) if isinstance(facts, dict) else {}
        runs.append(
            StageRun(
                stage.name,
                stage.package,
                stage.key,
                float(cost.get("seconds", 0.0)),
                float(cost.get("peak_memory_gib", 0.0)),
                cached,
            )
        )
        share += shares[stage.name]
        progress(ProgressEvent("stage", number, len(plan.tasks), stage.name, share))
    return folders, runs


def _compute_one(
    task: Task,
    cache: StageCache,
    bench: Workbench,
    folders: Mapping[str, Path],
    progress: Progress,
) -> Path:
    work = cache.work_folder(task.stage)
    produced = work / "produced"
    shutil.rmtree(produced, ignore_errors=True)
    make_folder(produced)
    needs = {name: folders[name] for name in task.stage.needs}
    with measured() as cost:
        task.step(Context(produced, work, needs, bench, progress))
    facts = {"seconds": cost.seconds, "peak_memory_gib": cost.peak_memory_gib}
    folder = cache.commit(task.stage, produced, facts)
    shutil.rmtree(work, ignore_errors=True)
    return folder


def _assemble(
    plan: Plan, folders: Mapping[str, Path], tables: Mapping[str, pl.DataFrame], done: RunSummary
) -> None:
    """Put the run directory together from finished stages."""
    out = done.out
    with atomic_folder(out / "tables") as folder:
        for name, table in tables.items():
            write_table(name, table, folder)
    for name, folder in folders.items():
        if name.startswith(TRAIN):
            with atomic_folder(out / "agents" / name.removeprefix(TRAIN)) as copy:
                for file in folder.iterdir():
                    if file.is_file() and file.name != RECORD:
                        write_bytes(copy / file.name, file.read_bytes())
    resolved = study_yaml(plan.study)
    write_text(out / "study.yaml", resolved)
    write_json(out / "claims.json", tables["claims"].to_dicts())
    listing = [
        f"{r.name:<32} {'cached' if r.cached else 'computed':<9} {r.seconds:9.1f} s "
        f"{r.peak_memory_gib:6.2f} GiB  {r.key[:16]}"
        for r in done.runs
    ]
    write_text(out / "logs" / "stages.log", "\n".join(listing) + "\n")
    manifest = {**_manifest(plan, tables, done, resolved), **planned(plan)}
    write_json(out / "manifest.json", sealed_manifest(manifest, out))


def _manifest(
    plan: Plan, tables: Mapping[str, pl.DataFrame], done: RunSummary, resolved: str
) -> dict[str, object]:
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
        },
        "model": {
            "id": plan.source.name,
            "source": plan.source.origin,
            "sha256": plan.source.sha256,
            "dtype": plan.study.dtype,
            "device": plan.study.device,
            "dropped_config_keys": list(plan.source.dropped_keys),
        },
        "seconds_total": done.seconds,
        "seconds_computing": sum(r.seconds for r in done.runs),
        "peak_memory_gib": max(r.peak_memory_gib for r in done.runs),
        "stages": [
            {
                "name": r.name,
                "package": r.package,
                "key": r.key,
                "seconds": r.seconds,
                "peak_memory_gib": r.peak_memory_gib,
                "cached": r.cached,
            }
            for r in done.runs
        ],
        "tables": {
            name: {
                "rows": table.height,
                "sha256": sha256_file(done.out / "tables" / f"{name}.parquet"),
            }
            for name, table in tables.items()
        },
    }
