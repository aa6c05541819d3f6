"""Is this run what it says it is? The command ``verify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moralscope.cli.drawing import say
from moralscope.cli.progress import drawn
from moralscope.cli.words import counted, printable
from moralscope.core.errors import ConfigError
from moralscope.core.files import write_json
from moralscope.studies.verifying.check import PARTS, Check, Verification
from moralscope.studies.verifying.verify import verify_run

VERIFIED, BROKEN = 0, 1
OUTPUT = "verify.json"
SHOWN = 20
"""Failed checks that the terminal shows; the file has all."""


def show_verification(run: Path, *, against: str | None, out: Path | None) -> int:
    """Verify a run, draw what was found, and write it where asked.

    Args:
        run: the run folder; nothing is written into it.
        against: a seal that was written down elsewhere.
        out: folder for ``verify.json``.

    Returns:
        0 where nothing failed, 1 where something did.

    Raises:
        ConfigError: the folder is no run, ``against`` is no seal, or ``out`` lies in the run.
        OutputError: ``verify.json`` cannot be written.
    """
    _refuse_inside(run, out)
    with drawn(Console(stderr=True)) as progress:
        found = verify_run(run, against=against, progress=progress)
    console = Console()
    _draw(console, found)
    if out is not None:
        write_json(out / OUTPUT, _as_json(found))
        say(console, f"Verification: {out / OUTPUT}", "bold")
    return VERIFIED if found.passed else BROKEN


def _refuse_inside(run: Path, out: Path | None) -> None:
    if out is not None and run.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError(
            "A verification does not write into the run that it verifies",
            seen=out,
            allowed="a folder outside the run",
            remedy="choose another --out",
        )


def _draw(console: Console, found: Verification) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    for heading in ("holds", "failed", "not verified"):
        table.add_column(heading, justify="right")
    for part in PARTS:
        own = [check for check in found.checks if check.part == part]
        table.add_row(part, *(f"{sum(c.passed is r for c in own):,}" for r in (True, False, None)))
    console.print(table)
    _list(console, found.failed, "Failed", "red")
    _list(console, found.open, "Not verified", "yellow")
    say(console, f"Seal: {found.seal or 'none'}")
    if found.passed:
        say(console, f"Verified: {found.run}", "green")
    else:
        many = counted(len(found.failed), "check")
        say(console, f"Not as it was written: {found.run} ({many} failed)", "red")


def _list(console: Console, checks: Sequence[Check], heading: str, style: str) -> None:
    for check in checks[:SHOWN]:
        line = Text(f"{heading}: ", style=style)
        console.print(
            line + Text(printable(f"{check.subject}: {check.what}: {check.found}")), soft_wrap=True
        )
    if len(checks) > SHOWN:
        say(console, f"and {len(checks) - SHOWN} more; --out has all of them", style)


def _as_json(found: Verification) -> dict[str, object]:
    return {
        "run": found.run,
        "seal": found.seal,
        "passed": found.passed,
        "checks": [asdict(check) for check in found.checks],
    }
