"""What stands in tables of any size? Gates and claims, judged one sweep at a time.

A family of tests lies within one sweep, one pair of agents or one agent with its base, so patches,
attributions and attention are read and judged by these parts, each with the small tables that it
needs; what remains is judged at once. Gates of all parts are merged, and the claims are corrected
for each other together (``claims.judge_findings``), so that judging in parts gives what judging
whole would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.progress import ProgressEvent
from moralscope.evidence.auditing.measuring import Failed, Judge, Measured, measure, told
from moralscope.evidence.auditing.normalising import Normalised
from moralscope.evidence.auditing.parts import (
    IN_PARTS,
    Frames,
    Part,
    about,
    beside,
    parts_to_judge,
    rows_of,
    small_tables,
    with_seeds,
)
from moralscope.evidence.claims import FINDERS, find_all, judge_findings
from moralscope.evidence.hypotheses.grammar import Named, not_registered
from moralscope.evidence.hypotheses.judging import hypotheses_table, hypothesis_findings
from moralscope.evidence.ledger import Finding

BASIS = "Named in the settings of the audit, after the tables existed."
"""When hypotheses of an audit were named."""


@dataclass(slots=True)
class Judged:
    """What an audit found.

    Attributes:
        measured: controls, gates and designs.
        claims, hypotheses: the tables of these names.
        failed: (question, subject) to the reason for which it could not be judged.
        found: table to the number of claims that its parts gave; ``""``: the small tables.
    """

    measured: Measured
    claims: pl.DataFrame
    hypotheses: pl.DataFrame
    failed: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    found: dict[str, int] = field(default_factory=dict[str, int])


def judge(known: Normalised, how: Judge) -> Judged:
    """Gates, claims, designs and hypotheses of normalised tables.

    Raises:
        ConfigError: a hypothesis names what the tables do not have, or a level is out of range.
    """
    small = small_tables(known, how.settings)
    parts = tuple(parts_to_judge(known, small))
    failed: Failed = {}
    measured = measure(known, how, small, parts, failed)
    findings: list[Finding] = []
    found: dict[str, int] = {}
    with_gates = {**small, "gates": measured.gates}
    if known.prompts.prompts is not None:
        for table, made in _findings(known, how, with_gates, parts, failed):
            found[table] = found.get(table, 0) + len(made)
            findings += made
    named = not_registered(how.settings.hypotheses, BASIS)
    setting = how.setting(with_gates)
    findings += [f for each in named for f in _hypothesis(known, how, with_gates, each)]
    claims = judge_findings(setting, findings)
    return Judged(measured, claims, hypotheses_table(named), failed, found)


def _findings(
    known: Normalised,
    how: Judge,
    small: Frames,
    parts: Sequence[Part],
    failed: Failed,
) -> Iterator[tuple[str, list[Finding]]]:
    """Claims of the small tables under their finder's name, then those of each part."""
    setting = how.setting(small)
    for name, find in FINDERS.items():
        try:
            more = with_seeds(known, small) if name == "replicates" else small
            yield name, list(find(setting if more is small else how.setting(more)))
        except TableError as cause:
            failed["claims", name] = told(cause)
    for done, part in enumerate(parts):
        how.progress(ProgressEvent("claims", done, len(parts), f"{part.table} {part.subject}"))
        tables = beside(small, how.settings, part) | {"gates": small["gates"]}
        tables.pop("decisions", None)  # what they tell has been told
        try:
            made = find_all(how.setting(tables | {part.table: rows_of(known, part)}))
        except TableError as cause:
            failed["claims", f"{part.table} {part.subject}"] = told(cause)
            continue
        yield part.table, [f for f in made if known.baselines or not f.id.startswith("flips:")]
    if parts:
        how.progress(ProgressEvent("claims", len(parts), len(parts)))


def _hypothesis(known: Normalised, how: Judge, small: Frames, named: Named) -> list[Finding]:
    """The finding about one hypothesis, from the rows of the agents that it is about."""
    tables = dict(small)
    for table in IN_PARTS:
        if table in known.tables:
            part = Part(table, named.hypothesis.id, about(table, named.hypothesis, small))
            tables[table] = rows_of(known, part)
    return hypothesis_findings(how.setting(tables), [named])
