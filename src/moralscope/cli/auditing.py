"""Which claims of these tables stand? The command ``audit``: judge, report, and say it in short."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console
from rich.text import Text

from moralscope.cli.drawing import draw_verdicts, say
from moralscope.cli.progress import drawn
from moralscope.cli.words import counted, duration, printable
from moralscope.core.errors import ConfigError
from moralscope.core.files import atomic_folder
from moralscope.evidence.auditing.audit import Audit, audit
from moralscope.reports import build_report

_FEW = 8
"""Lines of a kind that the console shows; the report has them all."""


def audit_tables(
    tables: Path, settings: Path | None, out: Path | None, *, alpha: float, seed: int
) -> int:
    """Judge the tables of a folder, write a report, and say what stands.

    Args:
        tables: a folder with result tables from any tool.
        settings: the settings file; ``audit.yaml`` among the tables unless given.
        out: where the results go; ``runs/audit-NAME`` unless given. An earlier audit there is
            replaced as a whole once the new one is complete.
        alpha: family-wise level.
        seed: of the randomisation tests.

    Raises:
        MoralscopeError: a table or the settings cannot be used, or ``out`` holds something else;
            nothing is written.
    """
    out = out if out is not None else Path("runs") / f"audit-{tables.resolve().name}"
    _refuse_other_content(tables, out)
    console = Console()
    with drawn(Console(stderr=True)) as progress, atomic_folder(out) as folder:
        done = audit(tables, folder, settings=settings, alpha=alpha, seed=seed, progress=progress)
        build_report(folder, progress)
    _say_gates(console, done.gates)
    draw_verdicts(console, done.claims.get_column("verdict"))
    _say_hypotheses(console, done)
    _say_not_run(console, done.coverage)
    say(
        console,
        f"{counted(done.rows, 'row')} judged in {duration(done.seconds)}; "
        f"walk from a claim to its rows with: moralscope claims {out}",
    )
    say(console, f"Report: {out / 'report.html'}", "bold")
    return 0


def _refuse_other_content(tables: Path, out: Path) -> None:
    """Only an earlier audit may be replaced."""
    same = out.resolve() == tables.resolve() or out.resolve() in tables.resolve().parents
    earlier = (out / "tables" / "coverage.parquet").is_file()
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if same or not (earlier or empty):
        raise ConfigError(
            "The folder for the results holds something else",
            seen=out,
            allowed="a new folder, or one that holds an earlier audit",
            remedy="give another folder with --out",
        )


def _say_gates(console: Console, gates: pl.DataFrame) -> None:
    passed = gates.get_column("passed")
    failed = gates.filter(~pl.col("passed"))
    line = f"{counted(gates.height, 'gate')}: {int(passed.sum())} passed, {failed.height} failed, "
    say(console, f"{line}{passed.null_count()} not available.")
    _say_some(
        console,
        [(f"{r['gate']} ({r['subject']})", r["advice"]) for r in failed.iter_rows(named=True)],
        "red",
    )


def _say_hypotheses(console: Console, done: Audit) -> None:
    for row in done.hypotheses.iter_rows(named=True):
        claim = done.claims.filter(pl.col("id") == f"hypothesis:{row['id']}").row(0, named=True)
        say(console, f"{row['id']}: {row['statement']}", "bold")
        outcome = f"{claim['outcome']} ({claim['verdict']})"
        say(console, f"  {outcome}: {claim['reason'] or claim['statement']}")


def _say_not_run(console: Console, coverage: pl.DataFrame) -> None:
    left = coverage.filter(~pl.col("ran"))
    if left.height:
        say(console, f"Not run, or not read ({left.height}):")
    # What is missing for one question is often missing for others too.
    names: dict[str, list[str]] = {}
    for row in left.iter_rows(named=True):
        name = f"{row['question']} {row['subject']}".strip()
        names.setdefault(row["sentence"], []).append(name)
    _say_some(console, [("; ".join(n), sentence) for sentence, n in names.items()], "yellow")


def _say_some(console: Console, lines: list[tuple[str, str]], style: str) -> None:
    for name, sentence in lines[:_FEW]:
        head = Text(f"  {printable(name)}: ", style=style)
        console.print(head + Text(printable(sentence)), soft_wrap=True)
    if len(lines) > _FEW:
        say(console, f"  and {len(lines) - _FEW} more; the report lists them all.")
