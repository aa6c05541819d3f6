"""Do agents behave alike? Jensen-Shannon divergence of their decisions, against a margin.

For every pair of agents and every prompt family, the divergence of their answers (positive option,
negative option, neither) averaged over prompts within a scenario and then over scenarios, with an
interval over scenarios that respects its range, and the p of the one-sided test that it reaches
the margin (``evidence.divergences``).

What it does not do: compare what agents compute. Agents alike on these prompts may get there by
different ways, and may part on others.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.core.tables import conform, from_rows
from moralscope.evidence.divergences import (
    MARGIN,
    alike,
    check_margin,
    divergence_interval,
    divergences,
)

__all__ = ["MARGIN", "similarity_table"]


def similarity_table(
    prompts: pl.DataFrame, decisions: pl.DataFrame, margin: float = MARGIN
) -> pl.DataFrame:
    """How alike does each pair of agents decide, family by family?

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.
        margin: the divergence that would matter, nats, above 0 and below log 2.

    Returns:
        A ``similarity`` table: ``divergence`` in [0, log 2] nats, ``total_variation`` in [0, 1];
        pairs in order of appearance. The interval is null for one scenario or no spread,
        ``p_equivalent`` for one scenario.

    Raises:
        ConfigError: the margin is out of range.
        TableError: the tables break their schemas, or two agents were measured on different
            prompts of a family.
    """
    check_margin(margin)
    asked, made = conform("prompts", prompts), conform("decisions", decisions)
    families = made.join(asked.select("prompt", "family"), on="prompt", how="inner")
    order = families.select("family", "agent").unique(maintain_order=True)
    rows: list[dict[str, object]] = []
    for family in order.get_column("family").unique(maintain_order=True):
        agents = order.filter(pl.col("family") == family).get_column("agent").to_list()
        if len(agents) > 1:
            rows += _rows(asked, made, family, agents, margin)
    return from_rows("similarity", rows)


def _rows(
    prompts: pl.DataFrame, decisions: pl.DataFrame, family: str, agents: list[str], margin: float
) -> Iterator[dict[str, object]]:
    found = divergences(prompts, decisions, family, agents)
    for k, (first, second) in enumerate(found.pairs):
        values = found.js[:, k]
        low, high = divergence_interval(values) or (None, None)
        yield {
            "first": first,
            "second": second,
            "family": family,
            "divergence": float(values.mean()),
            "low": low,
            "high": high,
            "total_variation": float(found.tv[:, k].mean()),
            "margin": margin,
            "p_equivalent": alike(values, margin),
            "n_scenarios": len(found.scenarios),
        }
