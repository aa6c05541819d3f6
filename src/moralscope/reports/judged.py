"""What else was judged? Named hypotheses, controls, the design, and what an audit covered.

Read from the tables ``hypotheses``, ``control_results``, ``design`` and ``coverage`` as they are;
nothing is judged again here. A hypothesis stands beside the claim that answers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.designing.question import Question
from moralscope.reports.findings import Finding, VerdictGroup
from moralscope.reports.run import Run

CLAIM_OF = "hypothesis:"
"""What the id of a claim that answers a hypothesis begins with."""


@dataclass(frozen=True)
class NamedHypothesis:
    """A hypothesis and the claim that answers it; ``finding`` is None where there is none."""

    id: str
    statement: str
    quantity: str
    registered: bool
    basis: str
    published: float | None
    finding: Finding | None


@dataclass(frozen=True)
class Gate:
    """A row of the table ``gates``; ``passed`` is null where the gate is not available."""

    gate: str
    subject: str
    measured: float | None
    threshold: float | None
    passed: bool | None
    advice: str


@dataclass(frozen=True)
class ControlResult:
    """A row of the table ``control_results``; ``passed`` is null where it is not available."""

    control: str
    subject: str
    kind: str
    measured: float | None
    low: float | None
    high: float | None
    expected: float | None
    unit: str
    n: int
    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class Covered:
    """A row of the table ``coverage`` of an audit."""

    question: str
    subject: str
    ran: bool
    sentence: str


@dataclass(frozen=True)
class Judged:
    """All of it; each empty where its table is missing.

    Attributes:
        hypotheses: registered ones first.
        controls: failed first, then unavailable, then passed.
        design: questions that cannot be answered first.
        coverage: what could not be run first.
    """

    hypotheses: tuple[NamedHypothesis, ...]
    controls: tuple[ControlResult, ...]
    design: tuple[Question, ...]
    coverage: tuple[Covered, ...]


def judged(run: Run, groups: Sequence[VerdictGroup]) -> Judged:
    """What was judged besides the claims themselves."""
    order = {False: 0, None: 1, True: 2}
    controls = [
        ControlResult(**row) for row in _table(run, "control_results").iter_rows(named=True)
    ]
    design = [Question(**row) for row in _table(run, "design").iter_rows(named=True)]
    coverage = [Covered(**row) for row in _table(run, "coverage").iter_rows(named=True)]
    return Judged(
        hypotheses=_hypotheses(run, groups),
        controls=tuple(sorted(controls, key=lambda control: order[control.passed])),
        design=tuple(sorted(design, key=lambda row: row.identified)),
        coverage=tuple(sorted(coverage, key=lambda row: row.ran)),
    )


def _table(run: Run, name: str) -> pl.DataFrame:
    return run.tables.get(name, pl.DataFrame())


def _hypotheses(run: Run, groups: Sequence[VerdictGroup]) -> tuple[NamedHypothesis, ...]:
    answers = {finding.id: finding for group in groups for finding in group.findings}
    named = [
        NamedHypothesis(
            id=row["id"],
            statement=row["statement"],
            quantity=row["quantity"],
            registered=row["registered"],
            basis=row["basis"],
            published=row["published"],
            finding=answers.get(f"{CLAIM_OF}{row['id']}"),
        )
        for row in _table(run, "hypotheses").iter_rows(named=True)
    ]
    return tuple(sorted(named, key=lambda hypothesis: not hypothesis.registered))
