"""How are two runs compared? Their files, in pairs, none of them read that are the same.

    settings   key by key of the study file with every default written out
    claims     by id: appeared, vanished, another verdict, other numbers, other words
    tables     row by row on their keys, column by column

    half_widths = |estimate_2 - estimate_1| / ((high_1 - low_1) / 2)

Wall times (``training.seconds``, and those in the manifest) are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from moralscope.core.comparing import TableDifference, compare_tables
from moralscope.core.errors import ConfigError
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import from_rows, read_table
from moralscope.reports.differing.difference import (
    APPEARED,
    NUMBERS,
    VANISHED,
    VERDICT,
    WORDS,
    Changed,
    ClaimChanged,
    Difference,
)

TIMES: Mapping[str, tuple[str, ...]] = {"training": ("seconds",)}
"""Columns in which equal runs may differ."""

_CIRCUMSTANCES = ("moralscope", "code", "versions", "platform", "model")
_SETTINGS = ("study.yaml", "audit.yaml")


@dataclass(frozen=True)
class Side:
    """One of the two runs: its folder, settings, manifest, and where its tables lie."""

    path: Path
    settings: Mapping[str, object]
    manifest: Mapping[str, object]
    tables: Mapping[str, Path]


def compare_runs(first: Path, second: Path, progress: Progress = silent) -> Difference:
    """Compare two runs, or two audits.

    Args:
        first: a run folder.
        second: another, which is spoken of as the newer one.
        progress: told of each table.

    Raises:
        ConfigError: a folder is no run, or its settings or its manifest cannot be read.
        TableError: a table is damaged or does not follow its schema.
    """
    one, other = open_side(first), open_side(second)
    shared = [name for name in one.tables if name in other.tables]
    tables: list[TableDifference] = []
    equal: list[str] = []
    for number, name in enumerate(shared):
        progress(ProgressEvent("diff", number, len(shared), name))
        if name == "claims":
            continue
        found = _table(name, one.tables[name], other.tables[name])
        if found is None or found.equal:
            equal.append(name)
        else:
            tables.append(found)
    progress(ProgressEvent("diff", len(shared), len(shared), "done"))
    claims, kept = _claims(one, other)
    return Difference(
        first=str(first),
        second=str(second),
        settings=tuple(_changed(flat(one.settings), flat(other.settings))),
        circumstances=tuple(_changed(_circumstances(one), _circumstances(other))),
        stages=tuple(_changed(_stages(one), _stages(other))),
        claims=tuple(claims),
        claims_equal=kept,
        tables=tuple(tables),
        tables_equal=tuple(equal),
        only_first=tuple(n for n in one.tables if n not in other.tables and n != "claims"),
        only_second=tuple(n for n in other.tables if n not in one.tables and n != "claims"),
    )


def open_side(path: Path) -> Side:
    """What there is to compare of a run.

    Raises:
        ConfigError: the folder is no run, or its settings or its manifest cannot be read.
    """
    present = {name: path / "tables" / f"{name}.parquet" for name in SCHEMAS}
    tables = {name: file for name, file in present.items() if file.is_file()}
    if not tables:
        raise ConfigError(
            "This folder is not a run",
            seen=path,
            allowed="a folder with tables/*.parquet, as moralscope run and audit leave it",
            remedy="give the folders that --out named",
        )
    settings = next((path / name for name in _SETTINGS if (path / name).is_file()), None)
    manifest = path / "manifest.json"
    return Side(
        path,
        {} if settings is None else _mapping(settings),
        _mapping(manifest) if manifest.is_file() else {},
        tables,
    )


def _mapping(path: Path) -> Mapping[str, object]:
    try:
        text = path.read_bytes().decode()
        value: object = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as cause:
        raise ConfigError(
            f"{path.name} cannot be read",
            seen=f"{path} ({cause})".partition("\n")[0],
            allowed="the file that the run wrote",
            remedy=f"find out what became of it: moralscope verify {path.parent}",
        ) from cause
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path.name} is not what a run writes",
            seen=f"{path} ({type(value).__name__})",
            allowed="keys and values",
            remedy=f"find out what became of it: moralscope verify {path.parent}",
        )
    return cast("dict[str, object]", value)


def flat(value: object, name: str = "") -> dict[str, str]:
    """Nested settings with their keys joined by dots, values as JSON; lists stay whole.

    >>> flat({"a": {"b": 1}, "c": ["x"]})
    {'a.b': '1', 'c': '["x"]'}
    """
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, held in cast("dict[object, object]", value).items():
            found.update(flat(held, f"{name}.{key}" if name else str(key)))
        return found
    return (
        {name: json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)} if name else {}
    )


def _changed(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Changed]:
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield Changed(name, first.get(name), second.get(name))


def _circumstances(side: Side) -> dict[str, str]:
    return flat({key: side.manifest[key] for key in _CIRCUMSTANCES if key in side.manifest})


def _stages(side: Side) -> dict[str, str]:
    listed = side.manifest.get("stages")
    stages = cast("list[object]", listed) if isinstance(listed, list) else []
    told = [cast("dict[str, object]", stage) for stage in stages if isinstance(stage, dict)]
    return {str(stage.get("name")): str(stage.get("key")) for stage in told}


def _table(name: str, one: Path, other: Path) -> TableDifference | None:
    """How a table differs; None where its file does not."""
    if sha256_file(one) == sha256_file(other):
        return None
    first, second = read_table(name, one.parent), read_table(name, other.parent)
    return compare_tables(name, first, second, ignored=TIMES.get(name, ()))


def _claims(one: Side, other: Side) -> tuple[list[ClaimChanged], int]:
    """Claims that differ, and how many do not."""
    first, second = _claims_of(one), _claims_of(other)
    found: list[ClaimChanged] = []
    equal = 0
    for name in dict.fromkeys((*first, *second)):
        claim = _claim(name, first.get(name), second.get(name))
        if claim is None:
            equal += 1
        else:
            found.append(claim)
    return found, equal


def _claims_of(side: Side) -> dict[str, Mapping[str, object]]:
    present = "claims" in side.tables
    table = read_table("claims", side.path / "tables") if present else from_rows("claims", [])
    return {str(row["id"]): row for row in table.iter_rows(named=True)}


def _claim(
    name: str, first: Mapping[str, object] | None, second: Mapping[str, object] | None
) -> ClaimChanged | None:
    """How one claim differs; None where it does not."""
    any_of = second or first or {}
    columns = tuple(
        key for key in any_of if first is None or second is None or first[key] != second[key]
    )
    if not columns:
        return None
    before, after = _number(first, "estimate"), _number(second, "estimate")
    shift = None if before is None or after is None else after - before
    return ClaimChanged(
        id=name,
        kind=_kind(first, second, columns),
        statement=str(any_of["statement"]),
        verdict_first=None if first is None else str(first["verdict"]),
        verdict_second=None if second is None else str(second["verdict"]),
        estimate_first=before,
        estimate_second=after,
        unit=str(any_of["unit"]),
        shift=shift,
        half_widths=_half_widths(shift, first, second),
        columns=columns,
    )


def _kind(
    first: Mapping[str, object] | None,
    second: Mapping[str, object] | None,
    columns: tuple[str, ...],
) -> str:
    if first is None:
        return APPEARED
    if second is None:
        return VANISHED
    if "verdict" in columns:
        return VERDICT
    numeric = {c for c in columns if isinstance(first[c], float) or isinstance(second[c], float)}
    return NUMBERS if numeric or {"n_units", "n_tests"} & {*columns} else WORDS


def _half_widths(
    shift: float | None,
    first: Mapping[str, object] | None,
    second: Mapping[str, object] | None,
) -> float | None:
    for row in (first, second):
        low, high = _number(row, "low"), _number(row, "high")
        if shift is not None and low is not None and high is not None and high > low:
            return abs(shift) / ((high - low) / 2)
    return None


def _number(row: Mapping[str, object] | None, column: str) -> float | None:
    value = None if row is None else row[column]
    return float(value) if isinstance(value, int | float) else None
