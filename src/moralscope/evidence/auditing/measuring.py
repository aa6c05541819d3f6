"""May anything be concluded from these tables, and what could be? Controls, gates and designs.

Judged for the small tables at once and for each part of the large ones, and merged: a gate that was
judged somewhere stands before one that was not available elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.core.tables import from_rows
from moralscope.evidence.auditing.normalising import Normalised
from moralscope.evidence.auditing.parts import Frames, Part, beside, rows_of, with_seeds
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.claims import setting_of
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.designing.table import QUESTIONS, design_table
from moralscope.evidence.gates.copies import judge_prompts, repeated_rows
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.ledger import Setting

SEEDS = "seeds"
"""The question that needs the attribution of all agents at once."""

Failed = dict[tuple[str, str], str]
"""(question, subject) to the reason for which it could not be judged."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What judging needs to know beside the tables."""

    alpha: float
    seed: int
    draws: int
    margin: float | None
    settings: AuditSettings
    progress: Progress

    def setting(self, tables: Mapping[str, pl.DataFrame]) -> Setting:
        """What claims are made from."""
        return setting_of(
            tables, alpha=self.alpha, seed=self.seed, draws=self.draws, margin=self.margin
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the measurement before anything is claimed.

    Attributes:
        gates, design, control_results: the tables of these names.
    """

    gates: pl.DataFrame
    design: pl.DataFrame
    control_results: pl.DataFrame


@dataclass(slots=True)
class _Collected:
    gates: list[pl.DataFrame] = field(default_factory=list[pl.DataFrame])
    designs: list[pl.DataFrame] = field(default_factory=list[pl.DataFrame])
    controls: list[pl.DataFrame] = field(default_factory=list[pl.DataFrame])


def measure(
    known: Normalised, how: Judge, small: Frames, parts: Sequence[Part], failed: Failed
) -> Measured:
    """Controls, gates and designs of all tables; ``failed`` learns what could not be judged."""
    found = _Collected()
    _judge(small, how, "", ([q for q in QUESTIONS if q != SEEDS], failed), found)
    found.designs += _tried(
        failed,
        ("designs", SEEDS),
        lambda: design_table(
            with_seeds(known, small), alpha=how.alpha, draws=how.draws, questions=[SEEDS]
        ),
    )
    for done, part in enumerate(parts):
        subject = f"{part.table} {part.subject}"
        how.progress(ProgressEvent("gates", done, len(parts), subject))
        tables = beside(small, how.settings, part) | {part.table: rows_of(known, part)}
        _judge(tables, how, subject, (("sites",), failed), found)
    if parts:
        how.progress(ProgressEvent("gates", len(parts), len(parts)))
    gates = _merged([*found.gates, _own_gates(known)], ("gate", "subject"))
    design = pl.concat([*found.designs, from_rows("design", [])])
    return Measured(
        gates=_with_texts(gates, known),
        design=design.unique(["question", "subject"], keep="first", maintain_order=True),
        control_results=_merged(
            [*found.controls, from_rows("control_results", [])], ("control", "subject")
        ),
    )


def _judge(
    tables: Frames,
    how: Judge,
    subject: str,
    asked: tuple[Sequence[str], Failed],
    found: _Collected,
) -> None:
    questions, failed = asked
    controls = _tried(
        failed,
        ("controls", subject),
        lambda: judge_controls(tables, alpha=how.alpha, seed=how.seed, draws=how.draws),
    )
    found.controls += controls
    with_controls = {**tables, "control_results": controls[0]} if controls else tables
    found.gates += _tried(failed, ("gates", subject), lambda: judge_gates(with_controls))
    found.designs += _tried(
        failed,
        ("designs", subject),
        lambda: design_table(tables, alpha=how.alpha, draws=how.draws, questions=questions),
    )


def _tried(
    failed: Failed,
    key: tuple[str, str],
    make: Callable[[], pl.DataFrame],
) -> list[pl.DataFrame]:
    """What was made, in a list; an empty one, with the reason noted, where tables forbid it."""
    try:
        return [make()]
    except TableError as cause:
        failed[key] = told(cause)
        return []


def told(cause: TableError) -> str:
    """Why something could not be judged, in words."""
    return f"{cause.problem} ({cause.seen}). Next: {cause.remedy}."


def _own_gates(known: Normalised) -> pl.DataFrame:
    """Gates on the files themselves: repeated rows and undefined values."""
    rows = [
        repeated_rows(table, known.rows[table] + count, count).row()
        for table, count in known.repeated.items()
        if count
    ]
    rows += [
        {
            "gate": "undefined values", "subject": f"{table}.{column}", "measured": float(count),
            "threshold": 0.0, "passed": False,
            "advice": f"{count} values of {column} are NaN; they are undefined, never zero. Find "
            "out what they were divided by.",
        }
        for (table, column), count in known.undefined.items()
    ]  # fmt: skip
    return from_rows("gates", rows)


def _merged(frames: Sequence[pl.DataFrame], key: tuple[str, str]) -> pl.DataFrame:
    """One row for each key: a result before none, a later one before an earlier.

    Copies that were found anywhere are copies: a part may lack the table that shows them.
    """
    numbered = pl.concat(frames).with_row_index("order")
    first = numbered.group_by(key).agg(pl.col("order").min().alias("first"))
    best = (
        numbered.sort(
            pl.col("passed").is_null(),
            (pl.col(key[0]) == "duplicates") & pl.col("passed"),
            -pl.col("order").cast(pl.Int64),
        )
        .unique(list(key), keep="first", maintain_order=True)
        .join(first, on=list(key))
        .sort("first")
    )
    return best.drop("order", "first")


def _with_texts(gates: pl.DataFrame, known: Normalised) -> pl.DataFrame:
    """Copies among prompts: looked for without scenarios too, and only where texts are known."""
    if known.prompts.texts:
        if known.prompts.prompts is not None:
            return gates
        copies = [gate.row() for gate in judge_prompts({"prompts": known.prompts.written})]
        own = from_rows("gates", copies).filter(pl.col("subject") == "prompts")
        return pl.concat([gates, own])
    about = pl.col("subject").is_in(["prompts", "scenarios"]) & (pl.col("gate") == "duplicates")
    found = gates.filter(about & ~pl.col("passed")).get_column("subject").to_list()
    about &= ~pl.col("subject").is_in(found)
    rows = [
        {
            "gate": "duplicates", "subject": subject, "measured": None, "threshold": 0.0,
            "passed": None,
            "advice": "Not available: the texts of the prompts are not in the tables; add the "
            "column text to the prompts, so that copies of a text are found.",
        }
        for subject in ("prompts", "scenarios")
        if subject not in found
    ]  # fmt: skip
    return pl.concat([gates.filter(~about), from_rows("gates", rows)])
