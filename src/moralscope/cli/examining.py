"""What can this machine do? The command ``doctor``."""

from __future__ import annotations

from rich.console import Console

from moralscope.cli.drawing import draw_findings, say
from moralscope.core.stage import cache_folder
from moralscope.studies.doctor import examine

ABLE, LACKING = 0, 1


def examine_machine() -> int:
    """Draw the findings; 0 where studies can run, 1 where something is needed first."""
    console = Console()
    findings = examine()
    draw_findings(console, findings)
    say(console, f"Finished stages are kept in {cache_folder()}")
    return LACKING if any(finding.ok is False for finding in findings) else ABLE
