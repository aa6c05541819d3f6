"""Who was measured, and who was made from whom? The table ``agents``, as far as it can be known.

An agents table and the settings come first. Where neither says who is the base, an agent of a name
such as ``base`` or ``pretrained`` is it, if there is exactly one; otherwise nobody is, and what
needs a base is not available.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import ConfigError, TableError, nearest
from moralscope.core.tables import from_rows
from moralscope.evidence.auditing.layouts import NOT_RECORDED
from moralscope.evidence.auditing.reading import extra_columns, stated
from moralscope.evidence.auditing.settings import AgentSetting, AuditSettings

Facts = dict[str, object]

_BASE_NAMES = frozenset(
    ("base", "baseline", "base_model", "pretrained", "untrained", "original", "reference")
)
_WHO: Mapping[str, tuple[str, ...]] = {
    "decisions": ("agent",), "patching": ("source", "target"), "attribution": ("agent",),
    "completeness": ("agent",), "norms": ("agent",), "attention": ("agent",),
    "interactions": ("agent",), "lens": ("agent",), "ablation": ("agent",),
    "projections": ("agent",), "attention_edits": ("agent",), "update_norms": ("agent",),
}  # fmt: skip
_FACTS = ("base", "kind", "reward", "training_seed", "dtype")


@dataclass(frozen=True, slots=True)
class Roster:
    """The agents of an audit.

    Attributes:
        agents: the table ``agents``.
        basis: how it is known who is the base; or why nobody is.
        has_base: whether some agent is.
    """

    agents: pl.DataFrame
    basis: str
    has_base: bool


def measured_agents(tables: Mapping[str, pl.LazyFrame]) -> dict[str, str]:
    """Every agent that was measured, in order, to the first table that names it."""
    found: dict[str, str] = {}
    for table, columns in _WHO.items():
        for column in columns if table in tables else ():
            names = tables[table].select(pl.col(column).unique()).collect(engine="streaming")
            for name in sorted(names.to_series().drop_nulls().to_list()):
                found.setdefault(str(name), table)
    return found


def facts_told(frame: pl.LazyFrame, table: str) -> dict[str, Facts]:
    """What columns beside a measurement tell of its agents (reward, seed, base, dtype).

    Raises:
        TableError: they tell two things of one agent.
    """
    beside = extra_columns(table, frame.collect_schema().names())
    present = [name for name in beside if name in _FACTS]
    if not present:
        return {}
    rows = frame.select("agent", *present).unique().collect(engine="streaming")
    twice = rows.filter(pl.col("agent").is_duplicated()).sort("agent", *present)
    if twice.height:
        raise TableError(
            f"The rows of agent {twice.item(0, 'agent')!r} tell two things of its training",
            seen=f"{twice.row(0, named=True)} and {twice.row(1, named=True)}",
            allowed=f"one {', '.join(present)} for each agent",
            remedy="give each training run an agent name of its own",
        )
    return {row.pop("agent"): row for row in rows.iter_rows(named=True)}


def roster(
    written: pl.DataFrame | None,
    measured: Mapping[str, str],
    told: Mapping[str, Facts],
    settings: AuditSettings,
) -> Roster:
    """The agents table, with what its rows rest on.

    Args:
        written: the agents table as it was read; None if there is none.
        measured: agents of the other tables, to the table that names them.
        told: what columns beside measurements tell of them.
        settings: what ``audit.yaml`` tells.

    Raises:
        TableError: a measured agent is not in the agents table.
        ConfigError: the settings speak of an agent that is nowhere, or of a base that is none.
    """
    rows: dict[str, Facts] = {}
    if written is not None:
        rows = {row["agent"]: row for row in written.iter_rows(named=True)}
        _refuse_unlisted(rows, measured)
    for name in measured:
        rows.setdefault(name, {"agent": name})
    for name, facts in told.items():
        rows[name] |= {key: value for key, value in facts.items() if value is not None}
    for name, setting in settings.agents.items():
        if name not in rows:
            raise ConfigError(
                f"The settings speak of agent {name!r}, which no table has",
                seen=name,
                allowed=", ".join(rows),
                remedy=nearest(name, rows),
            )
        rows[name] |= _set(setting)
    bases, basis = _bases(rows, settings)
    for name, row in rows.items():
        _place(name, row, rows, bases, settings)
    return Roster(
        from_rows("agents", [_documented(row) for row in rows.values()]), basis, bool(bases)
    )


def _refuse_unlisted(rows: Mapping[str, Facts], measured: Mapping[str, str]) -> None:
    unlisted = [name for name in measured if name not in rows]
    if unlisted:
        raise TableError(
            f"Agent {unlisted[0]!r} is in the table {measured[unlisted[0]]!r} and not in 'agents'",
            seen=", ".join(unlisted),
            allowed=", ".join(rows),
            remedy=f"add it to the agents table ({nearest(unlisted[0], rows)}), or remove that "
            "table",
        )


def _set(setting: AgentSetting) -> Facts:
    kinds = {"base": "base", "trained": "checkpoint", "policy": "policy"}
    told: Facts = {
        "kind": kinds[setting.role] if setting.role else None,
        "reward": setting.reward,
        "training_seed": setting.seed,
        "opponent": setting.opponent,
        "dtype": setting.dtype,
    }
    return {key: value for key, value in told.items() if value is not None}


def _bases(rows: Mapping[str, Facts], settings: AuditSettings) -> tuple[list[str], str]:
    said = [name for name, row in rows.items() if row.get("kind") == "base"]
    named = {s.base for s in settings.agents.values() if s.base is not None}
    unknown = sorted(named - set(rows))
    if unknown:
        raise ConfigError(
            f"The settings name {unknown[0]!r} as a base, which no table has",
            seen=unknown[0],
            allowed=", ".join(rows),
            remedy=nearest(unknown[0], rows),
        )
    said += sorted(name for name in named if name not in said)
    if said:
        return said, f"the tables or the settings say that {', '.join(said)} is the base"
    likely = [name for name in rows if name.strip().lower().replace("-", "_") in _BASE_NAMES]
    if len(likely) == 1:
        return likely, f"{likely[0]} is taken for the base because of its name"
    why = f"{', '.join(likely)} could all be it" if likely else "none has a name that says so"
    return [], (
        f"not available: nothing says which of {_some(list(rows))} is the base ({why}); write "
        "agents: {NAME: {role: base}} into audit.yaml"
    )


def _place(
    name: str, row: Facts, rows: Mapping[str, Facts], bases: Sequence[str], settings: AuditSettings
) -> None:
    """Complete kind and base of one agent."""
    if name in bases:
        row["kind"] = "base"
        row["base"] = row["base"] if stated(_text(row, "base")) else name
        return
    if not row.get("kind"):
        row["kind"] = "policy" if name.startswith("policy:") else "checkpoint"
    own = settings.agents.get(name, AgentSetting()).base
    if own is None and _text(row, "base") in bases:
        own = _text(row, "base")
    if own is None and not stated(_text(row, "base")) and len(bases) == 1:
        own = bases[0]
    if own is not None:
        of_base = _text(rows[own], "base")
        row["base"] = of_base if stated(of_base) else own


def _text(row: Facts, key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)


def _documented(row: Facts) -> Facts:
    filled: Facts = {"base": NOT_RECORDED, "kind": "checkpoint", "dtype": NOT_RECORDED}
    return filled | {key: value for key, value in row.items() if value is not None}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
