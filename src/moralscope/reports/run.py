"""What is in this run directory? Everything that a report is made from, read once and checked.

Any table may be missing: a report says what it lacks and shows the rest. A table that is there
but damaged, or a manifest that is not one, is an error, because a report that quietly leaves out
a broken file would read as if nothing had been measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from moralscope.core.errors import ConfigError
from moralscope.core.hashing import sha256_file
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import from_rows, read_table

MOST_ROWS = 2_000_000
"""Tables with more rows are left to the claims: no figure shows so many."""


class StageRecord(BaseModel):
    """One stage of the run: what it was, what it cost, whether it came from the cache."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    package: str = ""
    key: str = ""
    seconds: float | None = None
    peak_memory_gib: float | None = None
    cached: bool | None = None


class FailedStage(BaseModel):
    """A stage that did not finish, or that was not tried because another one did not.

    ``skipped`` is false for one that failed itself, else true or which stage it waited for.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    why: str = ""
    skipped: bool | str | tuple[str, ...] | None = None


class Manifest(BaseModel):
    """``manifest.json``; every field may be absent in a run made elsewhere.

    ``seconds_total`` is how long the last command took, ``seconds_computing`` what its stages
    took when they were computed, be that then or earlier.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    moralscope: str = ""
    study: str = ""
    audit: str = ""
    seed: int | None = None
    versions: dict[str, str | None] = {}
    platform: dict[str, object] = {}
    model: dict[str, object] = {}
    seconds_total: float | None = None
    seconds_computing: float | None = None
    peak_memory_gib: float | None = None
    stages: tuple[StageRecord, ...] = ()
    failed: tuple[FailedStage, ...] = ()
    tables: dict[str, dict[str, object]] = {}


@dataclass(frozen=True)
class AgentFacts:
    """An agent as the report speaks of it.

    Attributes:
        name: the agent's name.
        kind: base, adapter, checkpoint or policy (scripted); empty where no table says.
        reward, opponent, training_seed: of its training, where known.
        reference: name of the base agent that its changes are measured from; None for a base and
            a scripted policy.
    """

    name: str
    kind: str
    reward: str | None
    opponent: str | None
    training_seed: int | None
    reference: str | None


@dataclass(frozen=True)
class Run:
    """A run directory in memory.

    Attributes:
        path: the folder.
        tables: the tables that exist, by name.
        manifest: None where ``manifest.json`` is missing.
        manifest_sha256: hash of that file.
        config: the resolved study file as text; None where it is missing.
        config_name: its name: study.yaml, of an audit audit.yaml.
        unread: tables with too many rows to be drawn from, and how many they have.
        adapters: names of the agents whose weights lie in ``agents/``.
        agents: who was studied, in order, base models first, scripted policies last.
    """

    path: Path
    tables: Mapping[str, pl.DataFrame]
    manifest: Manifest | None
    manifest_sha256: str | None
    config: str | None
    adapters: tuple[str, ...]
    agents: tuple[AgentFacts, ...]
    config_name: str = "study.yaml"
    unread: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def names(self) -> tuple[str, ...]:
        """Every table that is there, those that are not read included, by name."""
        return tuple(sorted({*self.tables, *self.unread}))

    def lacks(self, *names: str) -> str | None:
        """A sentence naming the first of these tables that is missing or empty, or None."""
        for name in names:
            if name not in self.tables:
                if name in self.unread:
                    return f"The table {name} has too many rows to be drawn."
                return f"The table {name} is not in this run."
            if self.tables[name].is_empty():
                return f"The table {name} of this run has no rows."
        return None

    @property
    def option_words(self) -> tuple[str, str]:
        """What the positive and the negative option are called."""
        prompts = self.tables.get("prompts")
        user = prompts is not None and prompts.get_column("game").eq("user").all()
        return ("positive", "negative") if user else ("defect", "cooperate")


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        ConfigError: the folder is not a run, or its manifest is not one.
        TableError: a table is damaged or does not follow its schema.
    """
    folder = path / "tables"
    present = [name for name in SCHEMAS if (folder / f"{name}.parquet").is_file()]
    if not present and not (path / "claims.json").is_file():
        raise ConfigError(
            "This folder is not a run",
            seen=path,
            allowed="a folder with tables/*.parquet, as moralscope run leaves it",
            remedy="give the folder that --out named",
        )
    rows = {name: _height(folder / f"{name}.parquet") for name in present}
    unread = {name: height for name, height in rows.items() if height > MOST_ROWS}
    tables = {name: read_table(name, folder) for name in present if name not in unread}
    if "claims" not in tables and (path / "claims.json").is_file():
        tables["claims"] = _claims_from_json(path / "claims.json")
    manifest_path = path / "manifest.json"
    config = path / ("audit.yaml" if "coverage" in tables else "study.yaml")
    adapters = path / "agents"
    return Run(
        path=path,
        tables=tables,
        manifest=_read_manifest(manifest_path) if manifest_path.is_file() else None,
        manifest_sha256=sha256_file(manifest_path) if manifest_path.is_file() else None,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
        adapters=tuple(sorted(p.name for p in adapters.iterdir() if p.is_dir()))
        if adapters.is_dir()
        else (),
        agents=_agents(tables),
        config_name=config.name,
        unread=unread,
    )


def _height(path: Path) -> int:
    """Rows of a Parquet file; 0 for a file that is none, which reading it then explains."""
    try:
        return pl.scan_parquet(path).select(pl.len()).collect().item()
    except pl.exceptions.PolarsError:
        return 0


def run_of(tables: Mapping[str, pl.DataFrame]) -> Run:
    """Tables in memory as a run without a folder, for figures."""
    return Run(Path(), tables, None, None, None, (), _agents(tables))


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise ConfigError(
            f"{path.name} is not JSON",
            seen=cause,
            allowed="the file that the run wrote",
            remedy="run the study again; finished stages are kept",
        ) from cause


def _read_manifest(path: Path) -> Manifest:
    value = _read_json(path)
    try:
        return Manifest.model_validate(value)
    except ValidationError as cause:
        first = cause.errors()[0]
        raise ConfigError(
            "manifest.json is not the manifest of a run",
            seen=f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}",
            allowed="an object with versions, model, stages and tables",
            remedy="run the study again; finished stages are kept",
        ) from cause


def _claims_from_json(path: Path) -> pl.DataFrame:
    value = _read_json(path)
    try:
        rows = TypeAdapter(list[dict[str, object]]).validate_python(value)
    except ValidationError as cause:
        raise ConfigError(
            "claims.json is not a list of claims",
            seen=cause.errors()[0]["msg"],
            allowed="a list of objects with the columns of the table claims",
            remedy="run the study again; finished stages are kept",
        ) from cause
    return from_rows("claims", rows)


def _agents(tables: Mapping[str, pl.DataFrame]) -> tuple[AgentFacts, ...]:
    table = tables.get("agents")
    if table is None:
        return _agents_by_name(tables)
    bases: dict[str, str] = {
        row["base"]: row["agent"] for row in table.iter_rows(named=True) if row["kind"] == "base"
    }
    facts = [
        AgentFacts(
            name=row["agent"],
            kind=row["kind"],
            reward=row["reward"],
            opponent=row["opponent"],
            training_seed=row["training_seed"],
            reference=None if row["kind"] in ("base", "policy") else bases.get(row["base"]),
        )
        for row in table.iter_rows(named=True)
    ]
    return _in_order(facts)


def _in_order(facts: Iterable[AgentFacts]) -> tuple[AgentFacts, ...]:
    """Base models, then what was made of them, then scripted policies."""
    ranks = {"base": 0, "policy": 2}
    return tuple(sorted(facts, key=lambda agent: ranks.get(agent.kind, 1)))


def _agents_by_name(tables: Mapping[str, pl.DataFrame]) -> tuple[AgentFacts, ...]:
    """Without the table ``agents``, names tell: ``base``, and ``policy:`` and a strategy."""
    names = list(dict.fromkeys(_named_agents(tables)))
    reference = "base" if "base" in names else None
    facts = [
        AgentFacts(
            name=name,
            kind="base" if name == reference else "policy" if _scripted(name) else "",
            reward=None,
            opponent=None,
            training_seed=None,
            reference=None if name == reference or _scripted(name) else reference,
        )
        for name in names
    ]
    return _in_order(facts)


def _scripted(name: str) -> bool:
    return name.startswith("policy:")


def _named_agents(tables: Mapping[str, pl.DataFrame]) -> Iterable[str]:
    for name in ("decisions", "policy", "cooperation", "training", "transfer", "lens"):
        if name in tables:
            yield from tables[name].get_column("agent").unique(maintain_order=True).to_list()
