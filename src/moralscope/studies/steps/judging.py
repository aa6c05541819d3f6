"""What stands? Controls, gates, design, claims and answers, from the tables of all other stages."""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.tables import write_table
from moralscope.evidence.concluding import conclude
from moralscope.evidence.hypotheses.grammar import Named
from moralscope.studies.steps.context import Context, Step, gather


def judge(named: Sequence[Named]) -> Step:
    """Controls, gates and claims from all tables, named hypotheses among them."""

    def step(context: Context) -> None:
        study = context.bench.study
        concluded = conclude(
            gather(context.needs.values()),
            alpha=study.evidence.alpha,
            seed=study.seed,
            draws=study.evidence.draws,
            named=named,
        )
        for name, table in concluded.items():
            write_table(name, table, context.out)

    return step
