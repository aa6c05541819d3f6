"""Which prompts are variants of one scenario? The table ``prompts``, as far as it can be known.

The scenario is the unit of replication, so it is never guessed: it is told by the prompts table,
by a column ``scenario`` beside a measurement, by the settings, or, where those ask for it, by the
names (``trust_3``: the third variant of ``trust``). Where nobody tells it there are no claims: each
prompt as a scenario of its own would count variants as independent observations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import ConfigError, TableError, nearest
from moralscope.core.tables import conform, schema_of
from moralscope.evidence.auditing.layouts import NOT_RECORDED, layout_of
from moralscope.evidence.auditing.settings import AuditSettings

_VARIANT = re.compile(r"(?P<scenario>.*[^\s._#-])[\s._#-]+(?:v|var|variant|p|n)?\d+")
_TABLES = ("decisions", "patching", "attribution", "norms", "attention", "completeness")


@dataclass(frozen=True, slots=True)
class Situations:
    """The prompts of an audit.

    Attributes:
        prompts: the table; None where the scenarios are not known.
        texts: whether the texts themselves are known, so that copies can be found.
        basis: how the scenarios are known; or why not, and what to add.
        written: the table with whatever is known, for the record.
    """

    prompts: pl.DataFrame | None
    texts: bool
    basis: str
    written: pl.DataFrame


def measured_prompts(tables: Mapping[str, pl.LazyFrame]) -> dict[str, str]:
    """Every prompt that was measured, to the first table that names it."""
    found: dict[str, str] = {}
    for table in (name for name in _TABLES if name in tables):
        names = tables[table].select(pl.col("prompt").unique()).collect(engine="streaming")
        for name in sorted(names.to_series().drop_nulls().to_list()):
            found.setdefault(str(name), table)
    return found


def scenarios_told(frame: pl.LazyFrame, table: str) -> dict[str, str]:
    """Scenarios from a column beside a measurement.

    Raises:
        TableError: a prompt has two of them.
    """
    if "scenario" not in frame.collect_schema().names():
        return {}
    pairs = frame.select("prompt", "scenario").unique().collect(engine="streaming")
    pairs = pairs.drop_nulls().filter(pl.col("scenario") != NOT_RECORDED).sort("prompt", "scenario")
    twice = pairs.filter(pl.col("prompt").is_duplicated())
    if twice.height:
        raise TableError(
            f"Prompt {twice.item(0, 'prompt')!r} stands in two scenarios of the table {table!r}",
            seen=f"{twice.item(0, 'scenario')} and {twice.item(1, 'scenario')}",
            allowed="one scenario for each prompt",
            remedy="correct the column scenario",
        )
    return dict(pairs.iter_rows())


def situations(
    written: pl.DataFrame | None,
    measured: Mapping[str, str],
    told: Mapping[str, str],
    settings: AuditSettings,
) -> Situations:
    """The prompts table.

    Args:
        written: as it was read, scenario and text perhaps null; None if there is none.
        measured: prompts of the other tables, to the table that names them.
        told: scenarios from columns beside measurements.
        settings: what ``audit.yaml`` tells.

    Raises:
        TableError: a measured prompt is not in the prompts table, or some have a scenario and
            others have none.
        ConfigError: the settings place a prompt that is nowhere.
    """
    if written is None:
        written = _bare(list(measured))
    else:
        _refuse_unlisted(written, measured)
    written = _named(written, settings)
    names: list[str] = written.get_column("prompt").to_list()
    known, basis = _scenarios(written, told, settings)
    if known and (lacking := [name for name in names if name not in known]):
        raise TableError(
            f"Prompt {lacking[0]!r} has no scenario, and others have one",
            seen=f"{len(lacking)} of {len(names)} prompts without",
            allowed="a scenario for every prompt, or for none",
            remedy="fill the column scenario, or write scenarios: {PROMPT: SCENARIO} into "
            "audit.yaml",
        )
    placed = [known.get(name, NOT_RECORDED) for name in names]
    texts = written.get_column("text").null_count() == 0 and written.height > 0
    filled = written.with_columns(
        scenario=pl.Series(placed, dtype=pl.String), text=pl.col("text").fill_null(pl.col("prompt"))
    )
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in filled.get_column("text")]
    filled = filled.with_columns(sha256=pl.Series(hashes, dtype=pl.String))
    table = conform("prompts", filled)
    return Situations(table if known else None, texts, basis, table)


def _scenarios(
    written: pl.DataFrame, told: Mapping[str, str], settings: AuditSettings
) -> tuple[dict[str, str], str]:
    names: list[str] = written.get_column("prompt").to_list()
    if isinstance(settings.scenarios, dict):
        for name in settings.scenarios:
            if name not in names:
                raise ConfigError(
                    f"The settings give a scenario to prompt {name!r}, which no table has",
                    seen=name,
                    allowed=", ".join(names[:6]) + (", ..." if len(names) > 6 else ""),
                    remedy=nearest(name, names),
                )
        return dict(settings.scenarios), "scenarios are those of the settings"
    own = written.select("prompt", "scenario").drop_nulls()
    if own.height:
        return dict(own.iter_rows()), "scenarios are those of the prompts table"
    if told:
        return dict(told), "scenarios are those beside the measurements"
    if settings.scenario_from_name:
        return {name: _stem(name) for name in names}, "scenarios are prompt names without number"
    return {}, (
        "not available: nothing says which prompts are variants of one scenario, and counting "
        "variants as independent is what such findings fail by; add a column scenario to the "
        "prompts (or decisions), or write scenarios: into audit.yaml"
    )


def _stem(name: str) -> str:
    found = _VARIANT.fullmatch(name)
    return found["scenario"] if found else name


def _named(written: pl.DataFrame, settings: AuditSettings) -> pl.DataFrame:
    options = {"positive": settings.positive, "negative": settings.negative}
    given = {name: pl.lit(value) for name, value in options.items() if value is not None}
    return written.with_columns(**given)


def _bare(names: list[str]) -> pl.DataFrame:
    fills = layout_of("prompts").fills or {}
    types = schema_of("prompts").dtypes()
    frame = pl.DataFrame({"prompt": names}, schema={"prompt": pl.String})
    others = [n for n in types if n != "prompt"]
    return frame.select(
        pl.col("prompt"), *(pl.lit(fills.get(n), dtype=types[n]).alias(n) for n in others)
    )


def _refuse_unlisted(written: pl.DataFrame, measured: Mapping[str, str]) -> None:
    listed = set(written.get_column("prompt").to_list())
    unlisted = [name for name in measured if name not in listed]
    if unlisted:
        where = measured[unlisted[0]]
        raise TableError(
            f"Prompt {unlisted[0]!r} is in the table {where!r} and not in 'prompts'",
            seen=f"{len(unlisted)} such prompts",
            allowed="every measured prompt in the prompts table",
            remedy=f"add it ({nearest(unlisted[0], listed)}), or leave the prompts table out",
        )
