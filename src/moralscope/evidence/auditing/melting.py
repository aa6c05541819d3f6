"""Is this table wide? One column per agent or site, or a square of sites, turned into rows.

Only where there is one reading. A table with one column per site beside a column ``site``, or wide
decisions that could be log-odds as well as probabilities, is refused with both readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import SiteError, TableError
from moralscope.core.site import parse_site
from moralscope.core.tables import schema_of
from moralscope.evidence.auditing.folder import ROW, File
from moralscope.evidence.auditing.layouts import WIDE, missing_columns
from moralscope.evidence.auditing.naming import renaming
from moralscope.evidence.auditing.settings import AuditSettings


@dataclass(frozen=True, slots=True)
class Narrow:
    """Rows in long form, and how they came about; no notes where the table was long."""

    frame: pl.LazyFrame
    notes: tuple[str, ...] = ()


def melted(file: File, raw: pl.LazyFrame, settings: AuditSettings) -> Narrow:
    """A table in long form.

    Raises:
        TableError: it can be read in two ways.
    """
    columns = raw.collect_schema().names()
    if file.table not in WIDE:
        square = file.table == "interactions"
        return _square(file, raw, columns, settings) if square else Narrow(raw)
    names = renaming(file.table, columns, settings)
    ours = [names.get(column, column) for column in columns]
    identity, across, value = WIDE[file.table]
    spread = _sites_among(columns) if across == "site" else ()
    if spread and "site" in ours:
        raise _ambiguous(
            file,
            f"one row for each site ({across} is a column)",
            f"one column for each site ({', '.join(spread[:3])})",
            "remove the columns that are named after sites, or the column site",
        )
    if across == "agent" or not set(identity) <= set(ours):
        across_agents = across == "agent" and set(identity) <= set(ours)
        return _agents_across(file, raw, settings, names) if across_agents else Narrow(raw)
    built = _site_from_parts(raw, ours, names)
    if built is not None:
        return built
    if not spread or not missing_columns(file.table, ours):
        return Narrow(raw)
    rest = [column for column in columns if column not in spread]
    frame = raw.unpivot(on=list(spread), index=rest, variable_name="site", value_name=value)
    note = f"{len(spread)} columns named after sites are read as {value}"
    return Narrow(frame, (note,))


def _sites_among(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(column for column in columns if is_site(column))


def is_site(name: str) -> bool:
    """Whether this is the name of a site, ours or TransformerLens's."""
    try:
        parse_site(name)
    except SiteError:
        return False
    return True


def _site_from_parts(
    raw: pl.LazyFrame, ours: Sequence[str], names: dict[str, str]
) -> Narrow | None:
    """The site named by its layer and head, or by its layer and kind."""
    if "site" in ours or "layer" not in ours or not {"head", "kind"} & set(ours):
        return None
    theirs = {names.get(c, c): c for c in raw.collect_schema().names()}
    layer = pl.col(theirs["layer"]).cast(pl.String).str.replace(r"\.0$", "")
    whole = pl.format("L{}.{}", layer, pl.col(theirs["kind"])) if "kind" in theirs else None
    if "head" not in theirs:
        return Narrow(raw.with_columns(site=whole), ("sites are named by layer and kind",))
    head = pl.col(theirs["head"]).cast(pl.String).str.replace(r"\.0$", "")
    site = pl.when(head.is_not_null()).then(pl.format("L{}.h{}", layer, head)).otherwise(whole)
    return Narrow(raw.with_columns(site=site), ("sites are named by layer and head",))


def _agents_across(
    file: File, raw: pl.LazyFrame, settings: AuditSettings, names: dict[str, str]
) -> Narrow:
    columns = [c for c in raw.collect_schema().names() if c != ROW]
    ours = {names.get(column, column) for column in columns}
    if "agent" in ours or not missing_columns(file.table, ours):
        return Narrow(raw)
    agents = _named_after_agents(file.table, raw, columns, names)
    if len(agents) < 2 or ours & {"log_odds", "p_positive", "p_positive_given_legal"}:
        return Narrow(raw)
    value = settings.values.get(file.table) or _scale_of(file, raw, agents)
    rest = [c for c in raw.collect_schema().names() if c not in agents]
    frame = raw.unpivot(on=agents, index=rest, variable_name="agent", value_name=value)
    note = f"{len(agents)} columns ({', '.join(agents[:4])}) are read as agents, cells as {value}"
    return Narrow(frame, (note,))


def _named_after_agents(
    table: str, raw: pl.LazyFrame, columns: Sequence[str], names: dict[str, str]
) -> list[str]:
    """Columns that are no documented ones; an agent may be called ``game``, if that is a number."""
    kinds = {
        column.name: column.kind
        for each in ("prompts", table)
        for column in schema_of(each).columns
    }
    words = [c for c in columns if kinds.get(names.get(c, c)) == "text" and c != "prompt"]
    numeric: dict[str, bool] = {}
    if words:
        asked = [
            (pl.col(c).cast(pl.Float64, strict=False).is_not_null() | pl.col(c).is_null()).all()
            & pl.col(c).is_not_null().any()
            for c in words
        ]
        numeric = raw.select(asked).collect(engine="streaming").row(0, named=True)
    return [c for c in columns if names.get(c, c) not in kinds or numeric.get(c, False)]


def _scale_of(file: File, raw: pl.LazyFrame, agents: Sequence[str]) -> str:
    """Log-odds where a cell lies outside 0 to 1; anything else could be probabilities too."""
    cells = raw.select(pl.col(agents).cast(pl.Float64, strict=False))
    outside = cells.select(
        pl.any_horizontal(((pl.col(name) < 0.0) | (pl.col(name) > 1.0)).any() for name in agents)
    )
    if outside.collect(engine="streaming").item():
        return "log_odds"
    raise _ambiguous(
        file,
        "log-odds of the positive option, one column for each agent",
        "probabilities of the positive option, one column for each agent",
        f"write into audit.yaml: values: {{{file.table}: log_odds}} or "
        f"values: {{{file.table}: p_positive_given_legal}}",
    )


def _square(
    file: File, raw: pl.LazyFrame, columns: Sequence[str], settings: AuditSettings
) -> Narrow:
    """A matrix whose rows and columns are sites, of the agent that a column or the file names."""
    names = renaming(file.table, columns, settings)
    ours = {names.get(column, column) for column in columns}
    if {"site_a", "site_b"} <= ours:
        return Narrow(raw)
    spread = _sites_among(columns)
    rest = [c for c in columns if c not in spread and c != ROW]
    first = [c for c in rest if names.get(c, c) not in ("agent", "measure", "n")]
    if not spread or len(first) != 1:
        return Narrow(raw)
    index = [c for c in columns if c not in spread]
    frame = raw.unpivot(on=list(spread), index=index, variable_name="site_b", value_name="value")
    frame = frame.rename({first[0]: "site_a"})
    notes = [f"a square of {len(spread)} sites is read as pairs"]
    if "agent" not in ours:
        if not file.suffix:
            return Narrow(frame, tuple(notes))
        frame = frame.with_columns(agent=pl.lit(file.suffix))
        notes.append(f"of the agent {file.suffix} that the file's name tells")
    return Narrow(frame, tuple(notes))


def _ambiguous(file: File, one: str, other: str, remedy: str) -> TableError:
    return TableError(
        f"The file {file.name} can be read in two ways",
        seen=f"{one}; or {other}",
        allowed="one reading",
        remedy=remedy,
    )
