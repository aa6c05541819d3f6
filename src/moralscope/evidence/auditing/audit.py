"""Which claims of these tables stand? From a folder of any tool's tables to gates and verdicts.

1. Recognise the files, read and normalise them. 2. Judge gates, claims and hypotheses, sweep by
sweep. 3. Write it all in the form of a run: ``tables/``, ``claims.json``, ``audit.yaml`` (what was
assumed), ``manifest.json`` (what was read). Neither torch nor transformers is imported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl
import yaml

from moralscope.core.files import make_folder, write_json, write_text
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.tables import write_table
from moralscope.evidence.auditing.coverage import coverage_table
from moralscope.evidence.auditing.folder import files_in
from moralscope.evidence.auditing.judging import Judged, judge
from moralscope.evidence.auditing.measuring import Judge
from moralscope.evidence.auditing.normalising import Normalised, normalise
from moralscope.evidence.auditing.settings import SETTINGS, AuditSettings, read_settings
from moralscope.evidence.claims import check_levels

DEFAULT_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit concluded.

    Attributes:
        gates, claims, hypotheses, coverage: the tables.
        rows: rows read, all tables together.
        seconds: it took.
    """

    gates: pl.DataFrame
    claims: pl.DataFrame
    hypotheses: pl.DataFrame
    coverage: pl.DataFrame
    rows: int
    seconds: float


def audit(
    folder: Path,
    out: Path,
    *,
    settings: Path | None = None,
    alpha: float = DEFAULT_ALPHA,
    seed: int = 0,
    draws: int = 9_999,
    progress: Progress = silent,
) -> Audit:
    """Judge the tables of a folder and write everything but the report.

    Args:
        folder: any subset of the documented tables, as CSV, TSV or Parquet.
        out: an empty folder; callers that want all or nothing pass a temporary one.
        settings: the settings file; ``audit.yaml`` of the folder unless given.
        alpha: family-wise level; that of the settings where it is the default.
        seed: of the randomisation tests.
        draws: random relabellings where there are too many to enumerate.
        progress: told of each table and each part.

    Raises:
        TableError: a table cannot be read.
        ConfigError: the settings, or a hypothesis, say what cannot be meant.
        OutputError: ``out`` cannot be written.
    """
    start = time.monotonic()
    told, source = read_settings(folder, settings)
    level = told.alpha if told.alpha is not None and alpha == DEFAULT_ALPHA else alpha
    check_levels(level, draws, told.margin)
    progress(ProgressEvent("read tables", 0, 1))
    known = normalise(files_in(folder, told), told, make_folder(out / "tables"))
    progress(ProgressEvent("read tables", 1, 1))
    how = Judge(level, seed, draws, told.margin, told, progress)
    judged = judge(known, how)
    coverage = coverage_table(known, judged)
    _write(out, judged, coverage)
    resolved = _resolved(known, told, level)
    write_text(out / SETTINGS, resolved)
    write_json(out / "claims.json", judged.claims.to_dicts())
    seconds = time.monotonic() - start
    write_json(out / "manifest.json", _manifest(folder, out, known, source, (level, seed, seconds)))
    return Audit(
        judged.measured.gates, judged.claims, judged.hypotheses, coverage,
        sum(known.rows.values()), seconds,
    )  # fmt: skip


def _write(out: Path, judged: Judged, coverage: pl.DataFrame) -> None:
    tables = {
        "gates": judged.measured.gates,
        "claims": judged.claims,
        "design": judged.measured.design,
        "control_results": judged.measured.control_results,
        "hypotheses": judged.hypotheses,
        "coverage": coverage,
    }
    for name, table in tables.items():
        if table.height or name in ("gates", "claims", "coverage"):
            write_table(name, table, out / "tables")


def _resolved(known: Normalised, told: AuditSettings, alpha: float) -> str:
    """The settings in force, discovered agents included, as a file that can be used again."""
    agents = pl.read_parquet(known.tables["agents"]) if "agents" in known.tables else None
    found: dict[str, dict[str, object]] = {}
    rows = agents.iter_rows(named=True) if agents is not None else ()
    roles = {"base": "base", "policy": "policy"}
    for row in rows:
        said: dict[str, object] = {"role": roles.get(row["kind"], "trained")}
        said |= {"reward": row["reward"], "seed": row["training_seed"]}
        found[row["agent"]] = {key: value for key, value in said.items() if value is not None}
    given = told.model_dump(mode="json", exclude_defaults=True)
    if known.has_base:
        given["agents"] = {
            name: facts | told.agents[name].model_dump(mode="json", exclude_none=True)
            if name in told.agents
            else facts
            for name, facts in found.items()
        }
    given["alpha"] = alpha
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


def _manifest(
    folder: Path,
    out: Path,
    known: Normalised,
    source: Path | None,
    numbers: tuple[float, int, float],
) -> dict[str, object]:
    alpha, seed, seconds = numbers
    paths = [file.path for file in known.files if file.table]
    paths += [source] if source is not None else []
    return {
        "moralscope": version("moralscope"),
        "audit": folder.resolve().name,
        "seed": seed,
        "alpha": alpha,
        "versions": {name: version(name) for name in ("numpy", "polars", "scipy")},
        "seconds_total": seconds,
        "inputs": {
            path.name if path.parent == folder else str(path.relative_to(folder))
            if path.is_relative_to(folder) else path.name: sha256_file(path)
            for path in paths
        },
        "tables": {
            path.stem: {
                "rows": pl.scan_parquet(path).select(pl.len()).collect().item(),
                "sha256": sha256_file(path),
            }
            for path in sorted((out / "tables").glob("*.parquet"))
        },
    }  # fmt: skip
