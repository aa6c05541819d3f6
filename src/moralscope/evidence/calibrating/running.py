"""What are the error rates of every test in use? The cells, simulated one after another.

A rate that misses its limit is simulated once more, with four times the studies and draws of its
own, and the second figure counts. Of several hundred rates at their nominal level one or two lie
beyond three Monte-Carlo errors by chance; none of those does so twice, while a test that is wrong
misses the narrower limit as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from moralscope.core.errors import ConfigError, TableError
from moralscope.core.files import make_folder
from moralscope.core.hashing import code_version, sha256_value
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.evidence.calibrating.cells import (
    ALPHA,
    CLUSTERS,
    CONDITIONS,
    COVERAGE,
    COVERED,
    Cell,
    Procedure,
    Rate,
)
from moralscope.evidence.calibrating.procedures import chosen

RUNS = 2_000
"""Simulated studies in each cell, unless told otherwise."""

MIN_RUNS, MAX_RUNS = 20, 1_000_000
FEWEST = 5
"""Studies in a cell of the costliest tests, whatever was asked for."""

AGAIN = 4
"""Times as many studies where a rate missed its limit."""

Row = dict[str, object]


def calibrate(
    names: Sequence[str] | None = None,
    *,
    runs: int = RUNS,
    seed: int = 0,
    keep: Path | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Error rates, coverage and power of tests, by simulation.

    Args:
        names: which tests; all of them by default.
        runs: simulated studies in each cell; a test may take a stated multiple of it.
        seed: of everything drawn; equal seeds give equal tables.
        keep: folder in which finished tests stay, so that the same call goes on from there. A
            test is simulated anew when its runs, seed or code changed.
        progress: told after each cell.

    Returns:
        The ``calibration`` table.

    Raises:
        ConfigError: a test is unknown, or ``runs`` or ``seed`` out of range.
        OutputError: ``keep`` cannot be written.
    """
    _check(runs, seed)
    tests = chosen(names)
    cells = len(CONDITIONS) * len(CLUSTERS)
    frames: list[pl.DataFrame] = []
    for at, procedure in enumerate(tests):

        def tell(done: int, first: int = at * cells, name: str = procedure.name) -> None:
            progress(ProgressEvent("calibrate", first + done, len(tests) * cells, name))

        folder = None if keep is None else keep / _address(procedure, runs, seed)
        frame = _finished(folder)
        if frame is None:
            frame = from_rows("calibration", _rows(procedure, runs, seed, tell))
            if folder is not None:
                write_table("calibration", frame, make_folder(folder))
        else:
            tell(cells)
        frames.append(frame)
    return pl.concat(frames)


def _address(procedure: Procedure, runs: int, seed: int) -> str:
    """Names the result of one test by everything that it depends on."""
    inputs = {"code": code_version("evidence"), "runs": runs, "seed": seed}
    return f"{procedure.name}-{sha256_value(inputs)[:16]}"


def _finished(folder: Path | None) -> pl.DataFrame | None:
    """The kept result of a test; None where there is none, or it was damaged."""
    if folder is None:
        return None
    try:
        return read_table("calibration", folder)
    except TableError:
        return None


def _rows(procedure: Procedure, runs: int, seed: int, tell: Callable[[int], None]) -> Iterator[Row]:
    """Every rate of a test, cell by cell."""
    size = max(FEWEST, round(runs * procedure.share))
    done = 0
    for condition in CONDITIONS:
        for clusters in CLUSTERS:
            cell = Cell(procedure.name, condition, clusters, size, seed)
            reason = procedure.excluded(condition, clusters)
            rates = _measured(procedure, cell) if reason is None else [_none(procedure, reason)]
            yield from (_row(cell, rate) for rate in rates)
            done += 1
            tell(done)


def _none(procedure: Procedure, reason: str) -> Rate:
    nominal = COVERAGE if procedure.quantity == COVERED else ALPHA
    return Rate(procedure.quantity, None, 0, nominal, None, f"Not applicable: {reason}.")


def _measured(procedure: Procedure, cell: Cell) -> Iterable[Rate]:
    """The rates of a cell; simulated again, with more studies, where one misses its limit."""
    rates = list(procedure.simulate(cell))
    missed = {rate.quantity: rate for rate in rates if rate.passed is False}
    if not missed:
        return rates
    again = dataclasses.replace(cell, runs=AGAIN * cell.runs, round=1)
    return [
        dataclasses.replace(rate, note=_twice(rate, missed.get(rate.quantity)))
        for rate in procedure.simulate(again)
    ]


def _twice(rate: Rate, first: Rate | None) -> str:
    if first is None or first.value is None:
        return rate.note
    said = f"simulated again: {first.value:.4f} of {first.runs} studies missed the limit"
    return "; ".join(part for part in (rate.note, said) if part)


def _row(cell: Cell, rate: Rate) -> Row:
    return {
        "test": cell.test,
        "condition": cell.condition,
        "clusters": cell.clusters,
        "quantity": rate.quantity,
        "value": rate.value,
        "nominal": rate.nominal,
        "attainable": rate.attainable,
        "limit": rate.limit,
        "runs": rate.runs,
        "passed": rate.passed,
        "note": rate.note,
    }


def _check(runs: int, seed: int) -> None:
    if not MIN_RUNS <= runs <= MAX_RUNS:
        raise ConfigError(
            "The number of simulated studies is out of range",
            seen=runs,
            allowed=f"{MIN_RUNS} to {MAX_RUNS:,} in each cell",
            remedy=f"leave it out for {RUNS:,}; 200 give a quick look",
        )
    if seed < 0:
        raise ConfigError(
            "A seed cannot be negative",
            seen=seed,
            allowed="0 or a larger whole number",
            remedy="use 0 unless another draw is wanted",
        )
