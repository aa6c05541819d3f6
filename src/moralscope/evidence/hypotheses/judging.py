"""Does it hold? Every named hypothesis tested by itself, as it was stated.

Registered hypotheses are corrected among themselves by Holm, and so are those that were named
after the data existed; exploratory claims do not enter.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.hypotheses.grammar import Named, statement_of
from moralscope.evidence.hypotheses.quantities import QUANTITIES
from moralscope.evidence.ledger import Finding, Setting


def hypothesis_findings(setting: Setting, hypotheses: Sequence[Named]) -> list[Finding]:
    """One finding per hypothesis, in their order; its id is ``hypothesis:ID``.

    Raises:
        ConfigError: a hypothesis names an agent, a reward or a site that the tables do not have.
    """
    return [QUANTITIES[n.hypothesis.quantity].find(setting, n.hypothesis) for n in hypotheses]


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
