"""Errors, findings, plans and verdicts as they appear."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from moralscope.cli.drawing import draw_error, draw_estimate, draw_findings, draw_verdicts
from moralscope.core.errors import ConfigError
from moralscope.studies import Estimate, StageEstimate
from moralscope.studies.doctor import Finding


def shown(draw: Any, value: Any, width: int = 60) -> list[str]:
    out = io.StringIO()
    draw(Console(file=out, width=width), value)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_an_error_shows_its_four_fields() -> None:
    error = ConfigError(
        "The study names an unknown reward",
        seen="[bold]utilitarain[/bold]\x1b[2J",
        allowed="game, deontological, utilitarian, hybrid, and so on until the line is long",
        remedy="did you mean 'utilitarian'",
    )
    assert shown(draw_error, error) == [
        "Error: The study names an unknown reward",
        "  seen:    [bold]utilitarain[/bold]�[2J",
        "  allowed: game, deontological, utilitarian, hybrid, and so on until the line is long",
        "  next:    did you mean 'utilitarian'",
    ]


def test_findings_say_what_is_needed() -> None:
    findings = (
        Finding("Python", "3.11.7", ok=True),
        Finding("torch", "not installed", ok=False, advice="pip install it"),
        Finding("accelerator", "none", ok=None, advice="fine"),
    )
    lines = shown(draw_findings, findings)
    assert lines[1].split() == ["ok", "Python", "3.11.7"]
    assert lines[2].split() == ["needed", "torch", "not", "installed", "pip", "install", "it"]
    assert lines[3].split() == ["accelerator", "none", "fine"]
    assert lines[-1] == "Needed before a study can run: torch."
    assert shown(draw_findings, findings[:1])[-1] == "This machine can run studies."


def test_a_plan_shows_every_stage_and_the_sum() -> None:
    plan = Estimate(
        (
            StageEstimate("prompts", True, 0, 0.0, 0),
            StageEstimate("train-game", False, 1600, 150.0, 120 * 2**20),
            StageEstimate("patch-base>game", False, 80, 45.0, 3 * 2**20),
        )
    )
    lines = shown(draw_estimate, plan, width=80)
    assert lines[0].split() == ["stage", "forwards", "time", "disk"]
    assert lines[1].split() == ["prompts", "cached"]
    assert lines[2].split() == ["train-game", "1,600", "2", "min", "30", "s", "120.0", "MiB"]
    assert lines[3].split() == ["patch-base>game", "80", "45", "s", "3.0", "MiB"]
    assert lines[-1] == (
        "To compute: 2 stages, 1,680 forwards, about 3 min 15 s, 123.0 MiB of disk."
    )


def test_a_plan_with_nothing_to_do_says_so() -> None:
    plan = Estimate((StageEstimate("prompts", True, 0, 0.0, 0),))
    assert shown(draw_estimate, plan, width=80)[-1].startswith("Everything is cached")


def test_verdicts_are_counted() -> None:
    verdicts = ["supported", "artefact", "supported"]
    assert shown(draw_verdicts, verdicts) == ["3 claims: 2 supported, 1 artefact."]
    assert shown(draw_verdicts, ["supported"]) == ["1 claim: 1 supported."]
    assert shown(draw_verdicts, []) == ["No claims."]
