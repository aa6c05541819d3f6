"""Does it hold? Every named hypothesis tested by itself, as it was stated.

Registered hypotheses are corrected among themselves by Holm, and so are published statements that
are tested anew. Those that were named after the data existed are exploratory like any other claim
(``evidence.judged``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.hypotheses.grammar import Named, statement_of
from moralscope.evidence.hypotheses.quantities import QUANTITIES
from moralscope.evidence.ledger import (
    LATE,
    OPEN,
    PUBLISHED,
    REGISTERED,
    Finding,
    Setting,
    Stated,
)


def hypothesis_findings(setting: Setting, hypotheses: Sequence[Named]) -> list[Finding]:
    """One finding per hypothesis that is asked, in their order; its id is ``hypothesis:ID``.

    Raises:
        ConfigError: a hypothesis names an agent, a reward or a site that the tables do not have.
    """
    return [_answer(setting, named) for named in hypotheses if named.asked]


def _answer(setting: Setting, named: Named) -> Finding:
    found = QUANTITIES[named.hypothesis.quantity].find(setting, named.hypothesis)
    kind = PUBLISHED if named.hypothesis.form.published else LATE
    if named.registered:
        kind = REGISTERED
    stated = replace(found.hypothesis or Stated(OPEN), kind=kind)
    if kind == PUBLISHED:
        return replace(found, hypothesis=stated)
    return replace(
        found,
        found=f"{found.found} {named.basis}",
        observed=f"{found.observed} {named.basis}",
        hypothesis=stated,
    )


def hypotheses_table(hypotheses: Sequence[Named]) -> pl.DataFrame:
    """The ``hypotheses`` table: what was said, and whether before anything was measured."""
    return from_rows("hypotheses", [_row(named) for named in hypotheses])


def _row(named: Named) -> dict[str, object]:
    said = named.hypothesis
    return {
        "id": said.id,
        "statement": statement_of(said),
        "quantity": said.quantity,
        "agents": ",".join(said.agents),
        "sites": ",".join(said.sites),
        "direction": said.direction,
        "margin": said.margin,
        "published": said.published,
        "registered": named.registered,
        "basis": named.basis,
    }
