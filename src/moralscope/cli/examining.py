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
        study: a study file, whose needs are told as well; of a series, those of each member.

    Raises:
        ConfigError: the study file cannot be read, or something in it is wrong.
    """
    console = Console()
    findings = examine()
    if study is None:
        draw_findings(console, findings)
    else:
        told = _needs(study)
        draw_findings(console, findings)
        for subject, needs in told.items():
            say(console, "")
            say(console, f"What {subject} needs", "bold")
            draw_findings(console, needs, "This study can run on this machine.")
            findings = (*findings, *needs)
    say(console, f"Finished stages are kept in {cache_folder()}")
    return LACKING if any(finding.ok is False for finding in findings) else ABLE


def _needs(path: Path) -> dict[str, Sequence[Finding]]:
    """Of a study, or of each member of a series."""
    # A machine is examined without any of this.
    from moralscope.studies.examining.needs import examine_study  # noqa: PLC0415
    from moralscope.studies.series import MEMBERS, is_series, read_series  # noqa: PLC0415
    from moralscope.studies.study import read_study  # noqa: PLC0415

    out = Path("runs") / path.stem
    if not is_series(path):
        return {str(path): examine_study(read_study(path), out)}
    _, studies = read_series(path)
    return {
        f"member {name} of {path}": examine_study(study, out / MEMBERS / name)
        for name, study in studies.items()
    }
