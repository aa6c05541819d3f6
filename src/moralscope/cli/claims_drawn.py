"""How do claims look in a terminal? The list of them, and the walk down from one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moralscope.cli.drawing import say
from moralscope.cli.words import counted, printable
from moralscope.evidence.explaining import Claim, Explanation, layers_of
from moralscope.evidence.verdicts import ARTEFACT, EQUIVALENT, NOISE, NOT_IDENTIFIED, SUPPORTED

UNITS_SHOWN = 20
"""More units than this are in the file only."""

_STYLES: Final = {
    SUPPORTED: "green",
    EQUIVALENT: "green",
    NOISE: "",
    ARTEFACT: "red",
    NOT_IDENTIFIED: "yellow",
}
_RESULTS: Final = {"passed": "green", "failed": "red", "not available": "yellow"}


def draw_claims(console: Console, claims: pl.DataFrame) -> None:
    """One claim a line: its verdict and its numbers, and who named it.

    Lines are not broken at the width of the terminal: names are copied to walk down from them, and
    lines can be searched.
    """
    headings = ("claim", "verdict", "estimate", "n", "adjusted p", "q", "")
    rows = [
        (
            printable(row["id"]),
            str(row["verdict"]),
            _estimate(row),
            str(row["n_units"]),
            _number(row["p_adjusted"]),
            _number(row["q"]),
            ", ".join(filter(None, ("registered" * bool(row["registered"]), row["outcome"]))),
        )
        for row in claims.iter_rows(named=True)
    ]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    say(console, _line(headings, widths).plain, "bold")
    for row in rows:
        line = _line(row, widths)
        start = widths[0] + 2
        line.stylize(_STYLES.get(row[1], ""), start, start + len(row[1]))
        console.print(line, soft_wrap=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> Text:
    """Cells beside each other, words to the left and numbers to the right."""
    padded = [
        cell.rjust(width) if 3 <= index <= 5 else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return Text("  ".join(padded).rstrip())


def draw_explanation(console: Console, explanation: Explanation) -> None:
    """From the sentence to its numbers, gates, units and rows, and the query that leads there."""
    claim = explanation.claim
    say(console, str(claim["id"]), "bold")
    say(console, str(claim["statement"]))
    _numbers(console, claim)
    _gates(console, explanation)
    if explanation.design.height:
        say(console, "\nDesign", "bold")
        for sentence in explanation.design.get_column("sentence"):
            say(console, f"  {sentence}")
    units = explanation.units
    _heading(console, "Units", units.height, UNITS_SHOWN, "units.csv")
    _frame(console, units.head(UNITS_SHOWN))
    _heading(console, "Rows", explanation.n_rows, explanation.first.height, "rows.parquet")
    _frame(console, explanation.first)
    say(console, "\nQuery", "bold")
    layers = layers_of(str(claim["query"]))
    for line in (*layers.parts.replace("unit_means AS (", "\n  unit_means AS (").split("\n"),
                 layers.last):  # fmt: skip
        say(console, f"  {line.strip()}")
    figures = f"{_number(explanation.recomputed)} {claim['unit']}"
    say(
        console,
        f"\nRecomputed: {counted(explanation.n_rows, 'row')} in "
        f"{counted(units.n_unique('unit'), 'unit')} give {figures}"
        f"{', which the claim states.' if explanation.agrees else '; the claim states another.'}",
        "" if explanation.agrees else "bold red",
    )


def _numbers(console: Console, claim: Claim) -> None:
    """All figures of a claim, each with what it is."""
    replicate = claim["replicate"] or "units"
    tests = claim["n_tests"]
    shown: list[tuple[str, object]] = [
        ("verdict", claim["verdict"]),
        ("outcome", claim["outcome"]),
        ("why", claim["reason"]),
        ("named", "registered before anything was measured" if claim["registered"] else None),
        ("estimate", _estimate(claim)),
        ("units", f"{claim['n_units']} {replicate}"),
        ("test", claim["test"]),
        ("p", _or_none(claim["p"])),
        ("adjusted p", _with(claim["p_adjusted"], "" if tests is None else f" ({tests} tests)")),
        ("smallest possible p", _or_none(claim["p_floor"])),
        ("q", _with(claim["q"], " (among all exploratory claims that were tested)")),
        ("found with 80% power", _with(claim["detectable"], f" {claim['unit']}")),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in shown:
        if value is not None:
            table.add_row(name, Text(printable(value)))
    console.print(table)


def _gates(console: Console, explanation: Explanation) -> None:
    say(console, "\nGates", "bold")
    if not explanation.gates:
        say(console, "  none applies")
        return
    for gate in explanation.gates:
        measured = (
            ""
            if gate.measured is None
            else f"measured {_number(gate.measured)}, threshold {_number(gate.threshold)}. "
        )
        line = Text("  ") + Text(gate.result, style=_RESULTS.get(gate.result, ""))
        line += Text(printable(f"  {gate.gate} ({gate.subject}): {measured}{gate.advice}"))
        console.print(line, soft_wrap=True)


def _heading(console: Console, what: str, count: int, shown: int, file: str) -> None:
    more = f", the first {shown} of them; all in {file}" if count > shown else f"; {file}"
    say(console, f"\n{what}: {count:,}{more}", "bold")


def _frame(console: Console, frame: pl.DataFrame) -> None:
    table = Table(box=None, pad_edge=False)
    for name in frame.columns:
        numeric = frame.schema[name].is_numeric()
        table.add_column(name, overflow="fold", justify="right" if numeric else "left")
    for row in frame.iter_rows():
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: Iterable[object]) -> Sequence[Text]:
    return [Text(_number(cell) if isinstance(cell, float) else printable(cell)) for cell in row]


def _estimate(claim: Claim) -> str:
    if claim["estimate"] is None:
        return "none"
    between = (
        "" if claim["low"] is None else f" [{_number(claim['low'])}, {_number(claim['high'])}]"
    )
    return f"{_number(claim['estimate'])}{between} {claim['unit']}"


def _or_none(value: object) -> str | None:
    return None if value is None else _number(value)


def _with(value: object, words: str) -> str | None:
    return None if value is None else f"{_number(value)}{words}"


def _number(value: object) -> str:
    """Four significant digits; a dash for what is not there."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
