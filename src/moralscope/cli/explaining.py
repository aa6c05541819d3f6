"""Look inside models that are named on the command line: the command ``explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moralscope.cli.studying import run_composed
from moralscope.studies.doctor import require_model_stack


def explain_agents(
    agents: Sequence[str], wanted: Mapping[str, object], out: Path, *, dry_run: bool
) -> int:
    """Explain some agents, as a study put together from words.

    Args:
        agents: references, see ``studies.compose``.
        wanted: settings by name, likewise.
        out: the run directory.
        dry_run: draw the estimate and compute nothing.
    """
    require_model_stack()
    from moralscope.studies.compose import compose_study  # noqa: PLC0415 -- needs the model stack

    return run_composed(compose_study(agents, wanted), out, dry_run=dry_run)
