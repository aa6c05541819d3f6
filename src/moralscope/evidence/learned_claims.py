"""Label, layout or move? The verdict on what an agent learned, taken over from its control.

The control itself (evaluation under swapped labels, exchanged payoff rows and new wordings) is
made where behaviour is measured; here its outcome becomes a claim with its unit, which is the
memory-one state. There are four of those, so the claim rests on intervals and not on a p.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence import queries
from moralscope.evidence.ledger import Finding, Setting, consult

LEARNED = ("move", "label", "layout")
"""Outcomes of the control that say something; the other is ``undecided``."""


def learned_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per row of the ``learned`` table."""
    if not setting.has("learned"):
        return
    for agent, learned, sentence in setting.tables["learned"].iter_rows():
        rows = _transfer(setting, agent)
        trained = rows.filter(pl.col("control") == "trained")
        change = trained.get_column("change_log_odds").to_list()
        states = rows.get_column("n_states").to_list()
        bounds = list(trained.select("low", "high").iter_rows())
        n = max(states, default=0)
        words = f"{sentence.rstrip()} Unit: memory-one states, n = {n}."
        yield Finding(
            id=f"learned:{agent}",
            found=words,
            observed=words,
            estimate=sum(change) / len(change) if change else None,
            interval=bounds[0] if len(bounds) == 1 and None not in bounds[0] else None,
            unit="nats",
            n=n,
            replicate="memory-one states",
            test="sign of the change from base under each control, 95% interval over states",
            query=queries.trained_change(agent),
            consulted=consult(setting, [agent]),
            decided=learned in LEARNED,
            missing=None
            if rows.height
            else "the transfer table of the control is not there, so its states are not known; "
            "keep both tables together.",
        )


def _transfer(setting: Setting, agent: str) -> pl.DataFrame:
    from_table = setting.tables.get("transfer")
    if from_table is None:
        schema = {"control": pl.String, "change_log_odds": pl.Float64, "low": pl.Float64}
        return pl.DataFrame(schema={**schema, "high": pl.Float64, "n_states": pl.Int64})
    return from_table.filter(pl.col("agent") == agent)
