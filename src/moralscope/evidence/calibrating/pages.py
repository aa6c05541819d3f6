"""What did the simulations show, on one page? Summaries and Markdown of a ``calibration`` table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.calibrating.cells import CLUSTERS, CONDITIONS, COVERED, POWER
from moralscope.evidence.calibrating.procedures import PROCEDURES

ABSENT = "–"
"""Stands where a test does not apply."""

CELLS = (
    "Each cell holds the measured error rate, the largest that so many units allow, and the power "
    "for a planted effect."
)

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Summary:
    """One test over all its conditions.

    Attributes:
        test: its name.
        quantity: its error rate, or ``coverage``.
        worst: the largest error rate, or smallest coverage; None where it applies nowhere.
        attainable: the largest size that any of its designs allows; None where that is unknown.
        kept: cells (conditions by numbers of units) in which the rate keeps its limit.
        judged: cells in which it has one.
        inapplicable: cells to which the test does not apply.
        power: the lowest and highest power; None where there is none.
    """

    test: str
    quantity: str
    worst: float | None
    attainable: float | None
    kept: int
    judged: int
    inapplicable: int
    power: tuple[float, float] | None


def summaries(table: pl.DataFrame) -> list[Summary]:
    """Every test of a ``calibration`` table, in its order."""
    found: list[Summary] = []
    for name in table.get_column("test").unique(maintain_order=True).to_list():
        rows = table.filter(pl.col("test") == name)
        bars = rows.filter(pl.col("quantity") != POWER)
        quantity = str(bars.get_column("quantity")[0])
        values: list[float] = bars.get_column("value").drop_nulls().sort().to_list()
        sizes: list[float] = bars.get_column("attainable").drop_nulls().sort().to_list()
        powers = rows.filter(pl.col("quantity") == POWER).get_column("value").drop_nulls()
        ordered: list[float] = powers.sort().to_list()
        judged = bars.get_column("passed").drop_nulls()
        found.append(
            Summary(
                test=str(name),
                quantity=quantity,
                worst=(values[0] if quantity == COVERED else values[-1]) if values else None,
                attainable=sizes[-1] if sizes else None,
                kept=int(judged.sum()),
                judged=len(judged),
                inapplicable=bars.height - len(judged),
                power=(ordered[0], ordered[-1]) if ordered else None,
            )
        )
    return found


def missed(table: pl.DataFrame) -> pl.DataFrame:
    """The rates beyond their limit."""
    return table.filter(pl.col("passed").not_())


def verdict(table: pl.DataFrame) -> str:
    """How many rates keep their limit, in one sentence."""
    judged = table.get_column("passed").drop_nulls()
    beyond = len(judged) - int(judged.sum())
    tests = table.get_column("test").n_unique()
    if beyond:
        names = ", ".join(missed(table).get_column("test").unique(maintain_order=True).to_list())
        return f"{beyond} of {len(judged)} rates of {tests} tests miss their limit: {names}."
    return f"All {len(judged)} rates of {tests} tests keep their limit."


def calibration_page(table: pl.DataFrame) -> str:
    """Error rates with power, coverage and exclusions as Markdown, below a first-level heading."""
    parts = [verdict(table)]
    measured = table.filter(pl.col("value").is_not_null())
    of_errors = pl.col("quantity").is_in((COVERED, POWER)).not_()
    errors, covered = measured.filter(of_errors), measured.filter(pl.col("quantity") == COVERED)
    powers = measured.filter(pl.col("quantity") == POWER)
    if errors.height:
        parts += ["## Error rates and power", CELLS, _rates(errors, powers)]
    if powers.height:
        parts += ["### What was planted", _planted(powers)]
    if covered.height:
        parts += ["## Coverage of 95% intervals", _rates(covered, powers)]
    reasons = _exclusions(table)
    if reasons:
        parts += ["## Where a test does not apply", reasons]
    again = measured.filter(pl.col("note").str.contains("simulated again"))
    if again.height:
        parts += ["## Looked at twice", _twice(again)]
    return "\n\n".join(parts) + "\n"


def _rates(rows: pl.DataFrame, powers: pl.DataFrame) -> str:
    """A line per test and condition, a column per number of units; misses in bold."""
    found = dict(_grouped(powers, "test", "condition"))
    lines: list[list[str]] = []
    for (name, condition), cells in _grouped(rows, "test", "condition"):
        beside = found.get((name, condition), {})
        figures = [_cell(cells.get(units), beside.get(units)) for units in CLUSTERS]
        about = PROCEDURES[name].meaning if name in PROCEDURES else ""
        lines.append([f"`{name}`", about, condition.replace("_", " "), *figures])
    head = ["test", "what", "units", *(str(units) for units in CLUSTERS)]
    return _table(head, _thinned(lines))


def _cell(row: Row | None, power: Row | None) -> str:
    """An error rate with attainable size and power, or a coverage alone."""
    if row is None or row["quantity"] == COVERED:
        return _figure(row)
    attainable = ABSENT if row["attainable"] is None else f"{row['attainable']:.3f}"
    found = ABSENT if power is None else f"{power['value']:.2f}"
    return f"{_figure(row)} / {attainable} / {found}"


def _planted(powers: pl.DataFrame) -> str:
    lines: list[list[str]] = []
    for (name, note), _ in _grouped(powers, "test", "note"):
        if not lines or lines[-1][0] != f"`{name}`":
            lines.append([f"`{name}`", note.partition("; simulated again")[0]])
    return _table(["test", "planted"], lines)


def _exclusions(table: pl.DataFrame) -> str:
    """Each reason once, with the conditions and numbers of units that it covers."""
    rows = table.filter(pl.col("runs") == 0)
    lines: list[list[str]] = []
    for (name, note), cells in _grouped(rows, "test", "note", key="condition"):
        where = [c.replace("_", " ") for c in CONDITIONS if c in cells]
        of_test = rows.filter((pl.col("test") == name) & (pl.col("note") == note))
        counts = sorted(set(of_test.get_column("clusters").to_list()))
        if len(counts) < len(CLUSTERS):
            where.append(f"with {', '.join(str(n) for n in counts)} units")
        reason = note.removeprefix("Not applicable: ").removesuffix(".")
        lines.append([f"`{name}`", ", ".join(where), reason])
    return _table(["test", "where", "why"], lines) if lines else ""


def _twice(rows: pl.DataFrame) -> str:
    lines = [
        [f"`{row['test']}`", str(row["condition"]).replace("_", " "), str(row["clusters"]),
         str(row["note"]).rpartition("simulated again: ")[2], _figure(row)]
        for row in rows.iter_rows(named=True)
        if row["quantity"] != POWER
    ]  # fmt: skip
    return _table(["test", "units", "number", "at first", "with four times the studies"], lines)


Groups = Iterable[tuple[tuple[str, ...], dict[object, Row]]]


def _grouped(rows: pl.DataFrame, *by: str, key: str = "clusters") -> Groups:
    """Rows under each combination of columns, by number of units, in order of appearance."""
    found: dict[tuple[str, ...], dict[object, Row]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(tuple(str(row[name]) for name in by), {})[row[key]] = row
    return found.items()


def _figure(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return ABSENT
    said = f"{row['value']:.3f}"
    return f"**{said}**" if row["passed"] is False else said


def _thinned(lines: list[list[str]]) -> list[list[str]]:
    """The same lines, a test named and described in the first of its lines only."""
    thin: list[list[str]] = []
    for at, line in enumerate(lines):
        repeated = at > 0 and lines[at - 1][0] == line[0]
        thin.append(["", "", *line[2:]] if repeated else line)
    return thin


def _table(head: list[str], lines: Iterable[list[str]]) -> str:
    every = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)
