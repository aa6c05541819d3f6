"""What follows from the tables of a study? Every table that is concluded from others, in order.

    measured tables -> controls, course -> gates, design -> claims -> cascade, answers

A study writes them when it ends, and whoever verifies a run makes them again in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from moralscope.evidence.claims import make_claims
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.course.table import course_table
from moralscope.evidence.designing.table import design_table
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Named
from moralscope.evidence.hypotheses.judging import hypotheses_table
from moralscope.evidence.questions.answering import answer_questions
from moralscope.evidence.synthesis.cascade import cascade_table

CONCLUDED: Final = (
    "control_results", "course", "gates", "design", "claims", "cascade", "questions", "hypotheses",
)  # fmt: skip
"""The tables that ``conclude`` makes, as far as a study has what they need."""


def conclude(
    measured: Mapping[str, pl.DataFrame],
    *,
    alpha: float,
    seed: int,
    draws: int,
    named: Sequence[Named] = (),
) -> dict[str, pl.DataFrame]:
    """Everything that is concluded from a study's tables.

    Args:
        measured: its tables; those of ``CONCLUDED`` among them are left aside.
        alpha: family-wise level, between 0 and 1.
        seed: of the randomisation tests; equal seeds give equal tables.
        draws: random patterns where there are too many to enumerate.
        named: hypotheses, with how each stood before anything was measured.

    Returns:
        By name, in the order in which they are made: controls, the course of trainings where
        checkpoints were looked at, gates, design and claims; where agents are compared the
        cascade and the answers to the research questions; hypotheses where some were named.

    Raises:
        ConfigError: a level or a number of draws is out of range, or a hypothesis names what the
            tables do not have.
        TableError: tables do not belong together.
    """
    tables = {name: table for name, table in measured.items() if name not in CONCLUDED}
    made: dict[str, pl.DataFrame] = {}
    controls = judge_controls(tables, alpha=alpha, seed=seed, draws=draws)
    tables["control_results"] = made["control_results"] = controls
    if "checkpoints" in tables:
        tables["course"] = made["course"] = course_table(tables)
    made["gates"] = judge_gates(tables)
    made["design"] = design_table(tables, alpha=alpha, draws=draws)
    made["claims"] = make_claims(
        {**tables, "gates": made["gates"]}, alpha=alpha, seed=seed, draws=draws, hypotheses=named
    )
    if "comparisons" in tables:
        made["cascade"] = cascade_table(tables, alpha=alpha, seed=seed, draws=draws)
        made["questions"] = answer_questions({**tables, "claims": made["claims"]}, named)
    if named:
        made["hypotheses"] = hypotheses_table(named)
    return made
