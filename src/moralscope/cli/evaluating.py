"""Measure how agents behave: the command ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from rich.console import Console

from moralscope.cli.drawing import say
from moralscope.cli.studying import run_composed
from moralscope.core.tables import read_table
from moralscope.studies.doctor import require_model_stack

LABELS_GATE = "trained labels"


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

    study = compose_evaluation(agents, wanted)
    code = run_composed(study, out, dry_run=dry_run)
    if not dry_run:
        warn_of_labels(out)
        warn_of_reference(out, study.prompts.words)
    return code


def warn_of_labels(out: Path) -> None:
    """Say on the terminal too which agents were not asked with the labels of their training."""
    for row in read_table("gates", out / "tables").iter_rows(named=True):
        if row["gate"] == LABELS_GATE and row["passed"] is False:
            say(Console(stderr=True), f"Warning, {row['subject']}: {row['advice']}")


def warn_of_reference(out: Path, words: tuple[str, str]) -> None:
    """Say which agents were trained with other labels than those that all is compared with."""
    if not (out / "tables" / "trained_on.parquet").is_file():
        return
    given = {"/".join(words), "/".join(reversed(words))}
    trained = read_table("trained_on", out / "tables").filter(pl.col("known"))
    for agent, labels in trained.select("agent", "labels").iter_rows():
        own = str(labels).split(",")
        if given.isdisjoint(own):
            say(
                Console(stderr=True),
                f"Warning, {agent}: It was trained with {own[0]}, but {'/'.join(words)} are the "
                f"labels that all else is compared with here. Give --words {own[0]}.",
            )
