"""What do all these files say together? Every table in the documented form, written once.

Tables that are judged in parts (sweeps of patches by pair of agents, attributions and attention by
agent) are written part by part, so that none of them is ever in memory as a whole. Rows that repeat
another exactly are collapsed and counted; rows that contradict each other are refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from moralscope.core.errors import ConfigError, TableError, nearest
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import conform, schema_of
from moralscope.evidence.auditing.completing import completed
from moralscope.evidence.auditing.folder import File, read_error, scan
from moralscope.evidence.auditing.naming import refuse_absent
from moralscope.evidence.auditing.reading import IN_MEMORY, Reading, read_file
from moralscope.evidence.auditing.roster import Facts, facts_told, measured_agents, roster
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.auditing.situations import (
    Situations,
    measured_prompts,
    scenarios_told,
    situations,
)
from moralscope.evidence.units import collapse_rows

BY: Mapping[str, tuple[str, ...]] = {
    "patching": ("source", "target"), "approximations": ("source", "target"),
    "attribution": ("agent",), "attention": ("agent",), "norms": ("agent",), "lens": ("agent",),
}  # fmt: skip
"""Tables that are written in parts, and the columns that tell the parts apart."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """All tables of a folder in the documented form.

    Attributes:
        tables: where each lies, by name; ``agents`` and ``prompts`` among them.
        rows: how many rows each has.
        notes: per table what was read as what.
        files: what lay in the folder.
        undefined: (table, column) to the number of NaN that became null.
        repeated: table to the number of rows that repeated another.
        prompts: what is known of the scenarios.
        agents_basis: how it is known who is the base, or why nobody is.
        has_base: whether some agent is.
        baselines: whether patches have a baseline.
    """

    tables: Mapping[str, Path]
    rows: Mapping[str, int]
    notes: Mapping[str, tuple[str, ...]]
    files: tuple[File, ...]
    undefined: Mapping[tuple[str, str], int]
    repeated: Mapping[str, int]
    prompts: Situations
    agents_basis: str
    has_base: bool
    baselines: bool

    def scan(self, table: str) -> pl.LazyFrame:
        """The rows of a table, not read yet."""
        return pl.scan_parquet(self.tables[table])


@dataclass(slots=True)
class _Gathered:
    """What was found while the files were read."""

    notes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    undefined: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    frames: dict[str, pl.LazyFrame] = field(default_factory=dict[str, pl.LazyFrame])
    scenarios: dict[str, str] = field(default_factory=dict[str, str])
    facts: dict[str, Facts] = field(default_factory=dict[str, Facts])


def normalise(files: Sequence[File], settings: AuditSettings, out: Path) -> Normalised:
    """Read every table and write it to ``out``, a Parquet file each.

    Args:
        files: what lies in the folder.
        settings: what ``audit.yaml`` tells.
        out: an empty folder.

    Raises:
        TableError: a table cannot be read, contradicts itself or another one.
        ConfigError: the settings speak of what is not there.
    """
    work = out / ".work"
    work.mkdir()
    gathered = _Gathered()
    try:
        _refuse_no_scenarios(files, settings)
        for table in (name for name in SCHEMAS if any(f.table == name for f in files)):
            _gather(table, [f for f in files if f.table == table], settings, work, gathered)
        return _written(files, settings, out, gathered)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_no_scenarios(files: Sequence[File], settings: AuditSettings) -> None:
    """Refuse settings that take the scenario from a column which no file has."""
    named = settings.scenarios
    if not isinstance(named, str):
        return
    columns = {c for file in files if file.table for c in scan(file).collect_schema().names()}
    if named not in columns:
        raise ConfigError(
            "The settings take the scenario from a column that no table has",
            seen=f"scenarios: {named}",
            allowed=", ".join(sorted(columns)[:24]),
            remedy=f"{nearest(named, columns)}, or list them: scenarios: {{PROMPT: SCENARIO}}",
        )


def _gather(
    table: str, files: Sequence[File], settings: AuditSettings, work: Path, found: _Gathered
) -> None:
    """Read the files of one table and complete its columns."""
    size = sum(f.path.stat().st_size * (8 if f.name.endswith(".gz") else 1) for f in files)
    readings = [read_file(file, settings, work, large=size > IN_MEMORY) for file in files]
    columns = [name for file in files for name in scan(file).collect_schema().names()]
    refuse_absent(table, columns, settings)
    parts: list[pl.LazyFrame] = []
    notes = found.notes.setdefault(table, [])
    for reading in readings:
        notes += [note for note in reading.notes if note not in notes]
        for column, count in reading.undefined.items():
            key = (table, column)
            found.undefined[key] = found.undefined.get(key, 0) + count
        _tell(table, reading, found)
        done = completed(table, reading.frame, found.frames.get("decisions"))
        notes += [note for note in done.notes if note not in notes]
        parts.append(done.frame)
    found.frames[table] = pl.concat(parts) if len(parts) > 1 else parts[0]
    if not sum(reading.rows for reading in readings):
        raise TableError(
            f"The table {table!r} has no rows",
            seen=", ".join(file.name for file in files),
            allowed="at least one row",
            remedy="measure something, or take the file out of the folder",
        )


def _tell(table: str, reading: Reading, found: _Gathered) -> None:
    """Keep what a measurement's columns tell of prompts and agents."""
    columns = reading.frame.collect_schema().names()
    if table not in ("agents", "prompts") and "prompt" in columns and "scenario" in columns:
        for prompt, scenario in scenarios_told(reading.frame, table).items():
            if found.scenarios.setdefault(prompt, scenario) != scenario:
                raise TableError(
                    f"Prompt {prompt!r} stands in two scenarios",
                    seen=f"{found.scenarios[prompt]}, and {scenario} in {reading.file.name}",
                    allowed="one scenario for each prompt",
                    remedy="correct the column scenario of one of them",
                )
    if table not in ("agents", "prompts") and "agent" in columns:
        for agent, facts in facts_told(reading.frame, table).items():
            found.facts.setdefault(agent, {}).update(facts)


def _written(
    files: Sequence[File], settings: AuditSettings, out: Path, found: _Gathered
) -> Normalised:
    repeated: dict[str, int] = {}
    paths: dict[str, Path] = {}
    measured = {n: f for n, f in found.frames.items() if n not in ("agents", "prompts")}
    for table, frame in measured.items():
        path, count = _write(table, frame, out)
        paths[table] = path
        repeated[table] = count
        # What follows reads the file, not the sources again.
        measured[table] = found.frames[table] = pl.scan_parquet(path)
    small = {
        name: _collapsed(name, found.frames[name].collect(), repeated)
        for name in ("agents", "prompts")
        if name in found.frames
    }
    who = roster(small.get("agents"), measured_agents(measured), found.facts, settings)
    where = situations(small.get("prompts"), measured_prompts(measured), found.scenarios, settings)
    for name, frame in (("agents", who.agents), ("prompts", where.written)):
        if frame.height:
            paths[name] = out / f"{name}.parquet"
            conform(name, frame).write_parquet(paths[name])
    return Normalised(
        tables=paths,
        rows={n: pl.scan_parquet(p).select(pl.len()).collect().item() for n, p in paths.items()},
        notes={name: tuple(notes) for name, notes in found.notes.items()},
        files=tuple(files),
        undefined=found.undefined,
        repeated=repeated,
        prompts=where,
        agents_basis=who.basis,
        has_base=who.has_base,
        baselines=_has_baselines(measured),
    )


def _has_baselines(measured: Mapping[str, pl.LazyFrame]) -> bool:
    if "patching" not in measured:
        return True
    nulls = measured["patching"].select(pl.col("baseline_log_odds").null_count())
    return nulls.collect(engine="streaming").item() == 0


def _collapsed(table: str, frame: pl.DataFrame, repeated: dict[str, int]) -> pl.DataFrame:
    kept, count = collapse_rows(frame, list(schema_of(table).key), table)
    repeated[table] = count
    return kept


def _write(table: str, frame: pl.LazyFrame, out: Path) -> tuple[Path, int]:
    """One Parquet file, written part by part; returns it and how many rows repeated another."""
    path = out / f"{table}.parquet"
    key = list(schema_of(table).key)
    total = 0
    try:
        if table not in BY:
            kept, total = collapse_rows(frame.collect(engine="streaming"), key, table)
            conform(table, kept).write_parquet(path, compression="zstd")
            return path, total
        whole = out / ".work" / f"{table}.parquet"
        frame.sink_parquet(whole)
        pieces: list[Path] = []
        for part in parts_of(pl.scan_parquet(whole), BY[table]):
            kept, count = collapse_rows(part, key, table)
            total += count
            pieces.append(out / ".work" / f"{table}-{len(pieces)}.parquet")
            conform(table, kept).write_parquet(pieces[-1], compression="zstd")
        pl.scan_parquet(pieces).sink_parquet(path, compression="zstd")
    except pl.exceptions.PolarsError as cause:
        missing = File(path, f"{table} (all files)", "table", table, "", "")
        raise read_error(missing, cause) from cause
    return path, total


def parts_of(frame: pl.LazyFrame, by: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows of each combination of some columns, in order of their names, read one at a time."""
    keys = frame.select(by).unique().collect(engine="streaming").sort(by)
    for key in keys.iter_rows(named=True):
        chosen = pl.all_horizontal(pl.col(name) == value for name, value in key.items())
        yield frame.filter(chosen).collect(engine="streaming")
