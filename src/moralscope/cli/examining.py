"""What can this machine do, and what would a study need? The command ``doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from moralscope.cli.drawing import draw_findings, say
from moralscope.core.stage import cache_folder
from moralscope.studies.doctor import Finding, examine

ABLE, LACKING = 0, 1


def examine_machine(study: Path | None = None) -> int:
    """Draw the findings; 0 where studies can run, 1 where something is needed first.

    Args:
        study: a study file, whose needs are told as well.

    Raises:
        ConfigError: the study file cannot be read, or something in it is wrong.
    """
    console = Console()
    findings = examine()
    if study is None:
        draw_findings(console, findings)
    else:
        needs = _needs(study)
        draw_findings(console, findings)
        say(console, "")
        say(console, f"What {study} needs", "bold")
        draw_findings(console, needs, "This study can run on this machine.")
        findings = (*findings, *needs)
    say(console, f"Finished stages are kept in {cache_folder()}")
    return LACKING if any(finding.ok is False for finding in findings) else ABLE


def _needs(path: Path) -> Sequence[Finding]:
    # A machine is examined without any of this.
    from moralscope.studies.examining.needs import examine_study  # noqa: PLC0415
    from moralscope.studies.study import read_study  # noqa: PLC0415

    return examine_study(read_study(path), Path("runs") / path.stem)
