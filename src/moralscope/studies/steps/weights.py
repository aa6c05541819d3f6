"""How are the stages of weight updates computed? One agent's updates; all comparisons of them.

They take the context of ``steps.context``.
"""

from __future__ import annotations

from moralscope.core.tables import write_table
from moralscope.mechanisms.weights.tables import comparison_tables, update_tables
from moralscope.studies.catalogue import mechanism_prompts
from moralscope.studies.steps.context import Context, Step
from moralscope.studies.study import Study, base_name, compared, inside

COMPARED = "overlap"
"""The stage that compares all updates."""


def updated(study: Study) -> tuple[str, ...]:
    """The agents that have an update: all that are looked inside but the base."""
    return tuple(name for name in inside(study) if name != base_name(study))


def overlapped(study: Study) -> tuple[tuple[str, str], ...]:
    """The pairs whose updates are compared, those between seeds included, each once.

    Tests over seeds need every distance; a claim by itself is made only of those that are tested.
    """
    names = set(updated(study))
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in compared(study):
        if set(pair.agents) <= names:
            found.setdefault(frozenset(pair.agents), pair.agents)
    return tuple(found.values())


def weigh(name: str) -> Step:
    """One agent's updates: sizes, spectra, directions."""

    def step(context: Context) -> None:
        bench = context.bench
        tables = update_tables(
            bench.roster([name], context.trained),
            name,
            bench.encoded(tuple(mechanism_prompts(bench.study))),
            spectrum=bench.study.mechanisms.weights.spectrum,
            progress=context.progress,
        )
        for table, frame in tables.items():
            write_table(table, frame, context.out)

    return step


def compare_updates(context: Context) -> None:
    """Subspaces and distances of all pairs."""
    bench = context.bench
    tables = comparison_tables(
        bench.roster(updated(bench.study), context.trained),
        overlapped(bench.study),
        tops=bench.study.mechanisms.weights.tops,
        progress=context.progress,
    )
    for table, frame in tables.items():
        write_table(table, frame, context.out)
