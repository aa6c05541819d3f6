"""What does the terminal show at the end? Errors, findings, plans and verdicts, laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moralscope.cli.words import counted, duration, printable, size
from moralscope.core.errors import MoralscopeError

if TYPE_CHECKING:  # studies may need the model stack, which an error must not wait for
    from moralscope.studies import Estimate
    from moralscope.studies.doctor import Finding

_MARKS = {True: ("ok", "green"), False: ("needed", "red"), None: ("", "dim")}


def say(console: Console, line: str, style: str = "") -> None:
    """One line, never broken or interpreted: paths stay whole, brackets stay brackets."""
    console.print(Text(printable(line), style=style), soft_wrap=True)


def draw_error(console: Console, error: MoralscopeError) -> None:
    """The four fields of an error, one a line."""
    heading = Text("Error: ", style="bold red")
    console.print(heading + Text(printable(error.problem), style="bold"), soft_wrap=True)
    for name, value in (
        ("seen", error.seen),
        ("allowed", error.allowed),
        ("next", error.remedy),
    ):
        line = Text(f"  {name + ':':<9}", style="cyan") + Text(printable(value))
        console.print(line, soft_wrap=True)


def draw_findings(
    console: Console, findings: Sequence[Finding], able: str = "This machine can run studies."
) -> None:
    """What a machine has, one finding a row, with what to do about it.

    Args:
        console: where to.
        findings: what was found.
        able: what is said where nothing is lacking.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "advice"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        word, style = _MARKS[finding.ok]
        cells = (finding.name, finding.value, finding.advice)
        table.add_row(Text(word, style=style), *(Text(printable(cell)) for cell in cells))
    console.print(table)
    lacking = [finding.name for finding in findings if finding.ok is False]
    if lacking:
        say(console, f"Needed before a study can run: {', '.join(lacking)}.", "red")
    else:
        say(console, able, "green")


def draw_estimate(console: Console, estimate: Estimate) -> None:
    """What a study will compute: a row a stage, and what they come to."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", overflow="fold")
    for heading in ("forwards", "time", "disk"):
        table.add_column(heading, justify="right")
    for stage in estimate.stages:
        name = Text(printable(stage.name))
        if stage.cached:
            table.add_row(name, Text("cached", style="dim"), "", "")
        else:
            table.add_row(
                name, f"{stage.forwards:,}", duration(stage.seconds), size(stage.disk_bytes)
            )
    console.print(table)
    waiting = sum(not stage.cached for stage in estimate.stages)
    if not waiting:
        say(console, "Everything is cached: the same command without --dry-run takes moments.")
        return
    figures = (
        counted(estimate.forwards, "forward"),
        f"about {duration(estimate.seconds)}",
        f"{size(estimate.disk_bytes)} of disk",
    )
    if estimate.assumed is not None:
        device, rate = estimate.assumed
        say(
            console,
            f"This machine has no {device}: times are for {rate / 1e12:.0f} TFLOP/s in float32, as "
            "data-centre GPUs have.",
        )
    say(console, f"To compute: {counted(waiting, 'stage')}, {', '.join(figures)}.")


def draw_verdicts(console: Console, verdicts: Iterable[str]) -> None:
    """How many claims came out how, the commonest verdict first."""
    counts = Counter(verdicts)
    found = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    say(console, f"{counted(counts.total(), 'claim')}: {found}." if found else "No claims.")
