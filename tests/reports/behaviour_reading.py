"""Figures of the synthetic tables of behaviour, each made once, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import polars as pl
from synthetic_behaviour import COLOURS, behaviour_tables

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.look import styled
from moralscope.reports.run import Run, run_of

TABLES = behaviour_tables()
RUN = run_of(TABLES)
GROUP = "game (3 seeds)"
T2 = 4.302652729911275
"""97.5% quantile of Student's t with 2 degrees of freedom, from a printed table."""


def replaced(**tables: pl.DataFrame | None) -> Run:
    """The run with tables replaced, or left out where None."""
    found = {**TABLES, **tables}
    return run_of({name: table for name, table in found.items() if table is not None})


@cache
def whole(make: Callable[[Run, dict[str, str]], Figure | Absent]) -> Figure:
    """A figure of the run that has every table, made once for all tests."""
    return drawn(make(RUN, COLOURS))


def drawn(made: Figure | Absent) -> Figure:
    assert isinstance(made, Figure), made
    return made


def data(made: Figure | Absent, *columns: str) -> list[dict[str, object]]:
    """Rows of the specification that have all these columns."""
    sets = styled(drawn(made).chart)["datasets"]
    assert isinstance(sets, dict)
    return [row for rows in sets.values() for row in rows if set(columns) <= row.keys()]


def rows_of(table: str) -> Iterator[dict[str, object]]:
    return TABLES[table].iter_rows(named=True)


def number(value: object) -> float:
    assert isinstance(value, (int, float))
    return float(value)


def over_three(found: list[float], low: float, high: float) -> tuple[float, float, float]:
    """Mean of three seeds and its interval, cut at what is possible, by hand."""
    mean = sum(found) / 3
    sd = math.sqrt(sum((x - mean) ** 2 for x in found) / 2)
    half = T2 * sd / math.sqrt(3)
    return mean, max(low, mean - half), min(high, mean + half)
