"""Where is the report? The command ``report``, and the last lines of every run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from moralscope.cli.drawing import draw_verdicts, say
from moralscope.cli.progress import drawn
from moralscope.core.tables import read_table
from moralscope.reports import build_report


def write_report(run: Path, *, exports: bool = True) -> int:
    """Build the report of a run, count its verdicts and say where the report is.

    Args:
        run: the folder of a run.
        exports: whether tables are written as CSV too.

    Raises:
        ConfigError: the folder does not hold a run.
    """
    console = Console()
    with drawn(Console(stderr=True)) as progress:
        page = build_report(run, progress, exports=exports)
    if (run / "tables" / "claims.parquet").is_file():
        draw_verdicts(console, read_table("claims", run / "tables").get_column("verdict"))
    say(console, f"Report: {page}", "bold")
    return 0
