"""Measure how agents behave: the command ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moralscope.cli.studying import run_composed
from moralscope.studies.doctor import require_model_stack


def evaluate_agents(
    agents: Sequence[str], wanted: Mapping[str, object], out: Path, *, dry_run: bool
) -> int:
    """Evaluate some agents, as a study put together from words.

    Args:
        agents: references, see ``studies.references``.
        wanted: settings by name, see ``studies.compose.compose_evaluation``.
        out: the run directory.
        dry_run: draw the estimate and compute nothing.
    """
    require_model_stack()
    from moralscope.studies.compose import (  # noqa: PLC0415 -- needs the model stack
        compose_evaluation,
    )

    return run_composed(compose_evaluation(agents, wanted), out, dry_run=dry_run)
