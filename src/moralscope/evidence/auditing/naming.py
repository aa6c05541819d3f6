"""What do other tools call these columns? Theirs to ours, where that is unambiguous.

Two columns that would get the same name are an error that shows both. What the settings say comes
first, then columns that have the right name already (capitals, blanks and hyphens aside), then the
names that other tools use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moralscope.core.errors import ConfigError, TableError, nearest
from moralscope.core.tables import schema_of
from moralscope.evidence.auditing.layouts import ALIASES, ALIASES_OF
from moralscope.evidence.auditing.settings import AuditSettings

EXTRA = {
    "prompts": (),
    "decisions": ("base", "kind", "reward", "training_seed", "dtype"),
    "patching": ("scenario",),
    "attribution": ("scenario", "base", "kind", "reward", "training_seed", "dtype"),
    "norms": ("scenario", "base", "kind", "reward", "training_seed", "dtype"),
    "attention": ("scenario",),
    "completeness": ("scenario",),
}
"""Columns beyond a table's own that tell of its prompts or agents."""


def known_columns(table: str) -> tuple[str, ...]:
    """The columns that are read from a table: its own, and those that tell of others."""
    return (*schema_of(table).dtypes(), *EXTRA.get(table, ()))


def renaming(table: str, columns: Sequence[str], settings: AuditSettings) -> dict[str, str]:
    """Columns of a file that have another name here: theirs to ours.

    Raises:
        ConfigError: the settings rename a column that is not there.
        TableError: two columns stand for the same one.
    """
    wanted = settings.renamed(table)
    known = known_columns(table)
    found: dict[str, str] = {}
    if isinstance(settings.scenarios, str) and settings.scenarios in columns:
        found[settings.scenarios] = "scenario"
    for column in columns:
        ours = wanted.get(column) or found.get(column) or _ours(table, column, known, columns)
        if ours is not None and ours != column:
            found[column] = ours
    _refuse_clashes(table, columns, found)
    return found


def refuse_absent(table: str, columns: Sequence[str], settings: AuditSettings) -> None:
    """Refuse settings that rename a column which no file of the table has.

    Raises:
        ConfigError: naming it and the nearest that there is.
    """
    for theirs in settings.renamed(table):
        if theirs not in columns:
            raise ConfigError(
                f"The settings rename a column that the table {table!r} does not have",
                seen=theirs,
                allowed=", ".join(columns),
                remedy=nearest(theirs, columns),
            )


def _ours(table: str, column: str, known: Sequence[str], columns: Sequence[str]) -> str | None:
    plain = column.strip().lower().replace(" ", "_").replace("-", "_").replace(".", "_")
    if plain in known:
        return plain
    ours = ALIASES_OF.get(table, {}).get(plain) or ALIASES.get(plain)
    # A name that is right as it stands is not displaced by one that means the same.
    return ours if ours in known and ours not in columns else None


def _refuse_clashes(table: str, columns: Sequence[str], found: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for column in columns:
        ours = found.get(column, column)
        if ours in taken:
            raise TableError(
                f"Two columns of the table {table!r} mean {ours!r}",
                seen=f"{taken[ours]} and {column}",
                allowed="one of them",
                remedy=f"write columns: {{{table}: {{{column}: {ours}}}}} and remove "
                f"{taken[ours]}, or the other way round",
            )
        taken[ours] = column
