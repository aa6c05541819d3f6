"""What stands? Controls, gates, design, claims and answers, from the tables of all other stages."""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.tables import write_table
from moralscope.evidence.claims import make_claims
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.course.table import course_table
from moralscope.evidence.designing.table import design_table
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Named
from moralscope.evidence.hypotheses.judging import hypotheses_table
from moralscope.evidence.questions.answering import answer_questions
from moralscope.evidence.synthesis.cascade import cascade_table
from moralscope.studies.steps.context import Context, Step, gather


def judge(named: Sequence[Named]) -> Step:
    """Controls, gates and claims from all tables, named hypotheses among them."""

    def step(context: Context) -> None:
        study = context.bench.study
        tables = gather(context.needs.values())
        alpha, draws = study.evidence.alpha, study.evidence.draws
        controls = judge_controls(tables, alpha=alpha, seed=study.seed, draws=draws)
        write_table("control_results", controls, context.out)
        tables["control_results"] = controls
        if "checkpoints" in tables:
            tables["course"] = course_table(tables)
            write_table("course", tables["course"], context.out)
        gates = judge_gates(tables)
        write_table("gates", gates, context.out)
        write_table("design", design_table(tables, alpha=alpha, draws=draws), context.out)
        claims = make_claims(
            {**tables, "gates": gates},
            alpha=alpha,
            seed=study.seed,
            draws=draws,
            hypotheses=named,
        )
        write_table("claims", claims, context.out)
        if "comparisons" in tables:
            cascade = cascade_table(tables, alpha=alpha, seed=study.seed, draws=draws)
            write_table("cascade", cascade, context.out)
            questions = answer_questions({**tables, "claims": claims})
            write_table("questions", questions, context.out)
        if named:
            write_table("hypotheses", hypotheses_table(named), context.out)

    return step
