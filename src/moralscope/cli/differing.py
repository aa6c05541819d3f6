"""What differs between two runs? The command ``diff``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moralscope.cli.drawing import say
from moralscope.cli.progress import drawn
from moralscope.cli.words import counted, printable
from moralscope.reports.differing.comparing import compare_runs
from moralscope.reports.differing.difference import KINDS, Changed, ClaimChanged, Difference
from moralscope.reports.differing.page import TWIN, write_difference

EQUAL, DIFFERENT = 0, 1
SHOWN = 12
"""Rows of each part that the terminal shows; the page and its twin have more."""


def show_difference(first: Path, second: Path, *, out: Path | None) -> int:
    """Compare two runs, draw what differs, and write it where asked.

    Args:
        first: a run folder.
        second: another.
        out: folder for ``difference.html`` and ``difference.json``.

    Returns:
        0 where settings, claims and tables are equal, 1 where they differ.

    Raises:
        ConfigError: a folder is no run, or its settings or its manifest cannot be read.
        TableError: a table is damaged.
        OutputError: ``out`` cannot be written.
    """
    with drawn(Console(stderr=True)) as progress:
        found = compare_runs(first, second, progress)
    console = Console()
    _draw(console, found)
    if out is not None:
        page = write_difference(found, out)
        say(console, f"Difference: {page}, {out / TWIN}", "bold")
    return EQUAL if found.equal else DIFFERENT


def _draw(console: Console, found: Difference) -> None:
    _changes(console, "setting", found.settings)
    for kind in KINDS:
        claims = found.claims_of(kind)
        if claims:
            _claims(console, f"claim ({kind})", claims)
    _tables(console, found)
    _changes(console, "circumstance", found.circumstances)
    if found.stages:
        names = ", ".join(stage.name for stage in found.stages[:SHOWN])
        more = f" and {len(found.stages) - SHOWN} more" if len(found.stages) > SHOWN else ""
        say(console, f"Computed from other inputs: {names}{more}", "dim")
    counts = (
        counted(len(found.settings), "setting"),
        counted(len(found.claims), "claim"),
        counted(len(found.tables) + len(found.only_first) + len(found.only_second), "table"),
    )
    if found.equal:
        say(console, f"Equal: {found.first} and {found.second}", "green")
    else:
        say(console, f"Different: {', '.join(counts)}.", "yellow")


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows[:SHOWN]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _more(console: Console, count: int) -> None:
    if count > SHOWN:
        say(console, f"and {count - SHOWN} more; --out has them", "dim")


def _changes(console: Console, what: str, changes: Sequence[Changed]) -> None:
    if changes:
        rows = [(c.name, _or_none(c.first), _or_none(c.second)) for c in changes]
        console.print(_grid((what, "first", "second"), rows))
        _more(console, len(changes))


def _or_none(value: object) -> str:
    return "not there" if value is None else str(value)


def _claims(console: Console, what: str, claims: Sequence[ClaimChanged]) -> None:
    rows = [(claim.id, _verdicts(claim), _estimates(claim)) for claim in claims]
    console.print(_grid((what, "verdict", "estimate"), rows))
    _more(console, len(claims))


def _verdicts(claim: ClaimChanged) -> str:
    said = dict.fromkeys(v for v in (claim.verdict_first, claim.verdict_second) if v is not None)
    return " -> ".join(said)


def _estimates(claim: ClaimChanged) -> str:
    said = dict.fromkeys(
        f"{value:.4g}"
        for value in (claim.estimate_first, claim.estimate_second)
        if value is not None
    )
    apart = f" ({claim.half_widths:.2g} half-widths)" if claim.half_widths else ""
    return f"{' -> '.join(said)} {claim.unit}{apart}" if said else ""


def _tables(console: Console, found: Difference) -> None:
    rows = [(name, "only in the first", "") for name in found.only_first]
    rows += [(name, "only in the second", "") for name in found.only_second]
    for table in found.tables:
        own = counted(table.only_first, "row")
        alone = f"{own} only in the first, {table.only_second:,} only in the second"
        columns = ", ".join(
            f"{c.column} ({c.rows:,}{'' if c.largest is None else f', at most {c.largest:.3g}'})"
            for c in table.columns
        )
        both = table.only_first or table.only_second
        rows.append((table.table, alone if both else "the same rows", columns or "equal values"))
    if rows:
        console.print(_grid(("table", "rows", "columns that differ (rows, by how much)"), rows))
        _more(console, len(rows))
