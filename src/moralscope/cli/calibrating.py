"""What are the tests worth? The command ``calibrate``: error rates by simulation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moralscope import __version__
from moralscope.cli.drawing import say
from moralscope.cli.progress import drawn
from moralscope.core.files import require_writable, write_json, write_text
from moralscope.core.tables import write_table
from moralscope.evidence.calibrating.pages import (
    ABSENT,
    Summary,
    calibration_page,
    missed,
    summaries,
    verdict,
)
from moralscope.evidence.calibrating.running import RUNS, calibrate

KEPT, MISSED = 0, 1
FINISHED = "finished"
"""Folder of an output in which the result of each finished test stays."""


def calibrate_tests(out: Path, *, runs: int | None, tests: str | None, seed: int) -> int:
    """Simulate, draw a line per test, write table, summary and page; 1 where a limit is missed.

    Args:
        out: where the results go; tests that it holds for the same runs, seed and code are read.
        runs: simulated studies in each cell; None for 2,000.
        tests: names joined by commas; None for all.
        seed: of everything drawn.

    Raises:
        ConfigError: a test is unknown, or ``runs`` or ``seed`` out of range.
        OutputError: ``out`` cannot be written.
    """
    console = Console()
    names = None if tests is None else [name.strip() for name in tests.split(",") if name.strip()]
    wanted = RUNS if runs is None else runs
    with drawn(Console(stderr=True)) as progress:
        keep = require_writable(out) / FINISHED
        table = calibrate(names, runs=wanted, seed=seed, keep=keep, progress=progress)
    found = summaries(table)
    write_table("calibration", table, out / "tables")
    write_json(
        out / "calibration.json",
        {
            "version": __version__,
            "runs": wanted,
            "seed": seed,
            "verdict": verdict(table),
            "tests": [asdict(each) for each in found],
            "missed": missed(table).to_dicts(),
        },
    )
    page = out / "calibration.md"
    write_text(page, f"# Calibration\n\n{calibration_page(table)}")
    draw_summaries(console, found)
    draw_missed(console, missed(table))
    beyond = missed(table).height > 0
    say(console, verdict(table), "bold red" if beyond else "green")
    say(console, f"Error rates, coverage and power: {page}", "bold")
    return MISSED if beyond else KEPT


def draw_summaries(console: Console, found: list[Summary]) -> None:
    """A row per test: worst rate, largest attainable size, limits kept, range of the power."""
    table = Table(box=None, pad_edge=False)
    table.add_column("test", overflow="fold")
    table.add_column("quantity")
    for heading in ("worst", "attainable", "kept", "power"):
        table.add_column(heading, justify="right")
    for each in found:
        style = "green" if each.kept == each.judged else "red"
        table.add_row(
            each.test,
            each.quantity.replace("_", " "),
            ABSENT if each.worst is None else f"{each.worst:.3f}",
            ABSENT if each.attainable is None else f"{each.attainable:.3f}",
            Text(f"{each.kept} of {each.judged}", style=style),
            ABSENT if each.power is None else f"{each.power[0]:.2f} to {each.power[1]:.2f}",
        )
    console.print(table)


def draw_missed(console: Console, rows: pl.DataFrame) -> None:
    """A line per rate beyond its limit."""
    for row in rows.iter_rows(named=True):
        side = "below" if row["quantity"] == "coverage" else "above"
        say(
            console,
            f"Missed: {row['quantity']} of {row['test']}, {row['condition']}, "
            f"{row['clusters']} units: {row['value']:.4f}, {side} {row['limit']:.4f} "
            f"({row['runs']:,} studies).",
            "red",
        )
