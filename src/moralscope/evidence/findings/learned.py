"""Label, layout, order or move? The verdict on what an agent learned, taken over from its control.

The control itself (evaluation under swapped labels, exchanged payoff rows, new wordings and their
mirrors) is made where behaviour is measured; here its outcome becomes a claim with its unit, which
is the memory-one state. There are four of those, so the claim rests on intervals and not on a p.
Where each state was judged by itself, the estimate is the mean size of the change in the states
that were clear in training, since the mean change says nothing of such an agent.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.findings import queries
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.ledger import Finding, Setting, consult
from moralscope.evidence.statistics.intervals import Interval

LEARNED = ("move", "label", "layout", "order")
"""Outcomes of the control that say something; the other is ``undecided``."""


def learned_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per row of the ``learned`` table."""
    if not setting.has("learned"):
        return
    for agent, learned, sentence, basis in (
        setting.tables["learned"].select("agent", "learned", "sentence", "basis").iter_rows()
    ):
        rows = _transfer(setting, agent)
        by_state = basis == "each state" and setting.has("transfer_states")
        estimate, interval = _sizes(setting, agent) if by_state else _mean_change(rows)
        n = max(rows.get_column("n_states").to_list(), default=0)
        judged = [key for key in decision_gates(setting, [agent]) if key in setting.gates]
        words = f"{sentence.rstrip()} Unit: memory-one states, n = {n}."
        test = (
            "sign of the change from base in each state under each control, 95% interval over "
            "wordings or orders"
            if by_state
            else "sign of the change from base under each control, 95% interval over states"
        )
        yield Finding(
            id=f"learned:{agent}",
            found=words,
            observed=words,
            estimate=estimate,
            interval=interval,
            unit="nats",
            n=n,
            replicate="memory-one states",
            test=test,
            query=queries.trained_sizes(agent) if by_state else queries.trained_change(agent),
            consulted=consult(setting, [agent], judged),
            decided=learned in LEARNED,
            missing=None
            if rows.height
            else "the transfer table of the control is not there, so its states are not known; "
            "keep both tables together.",
        )


def _mean_change(rows: pl.DataFrame) -> tuple[float | None, Interval | None]:
    """Mean over the trained conditions; with the interval where there is one of them."""
    trained = rows.filter(pl.col("control") == "trained")
    change = trained.get_column("change_log_odds").to_list()
    bounds = list(trained.select("low", "high").iter_rows())
    only = bounds[0] if len(bounds) == 1 and None not in bounds[0] else None
    return (sum(change) / len(change) if change else None), only


def _sizes(setting: Setting, agent: str) -> tuple[float | None, Interval | None]:
    """Mean absolute change over the states that are clear in the reference."""
    clear = setting.tables["transfer_states"].filter(
        pl.col("agent") == agent, pl.col("reference"), pl.col("keeps_sign")
    )
    sizes = clear.get_column("change_log_odds").abs().to_list()
    return (sum(sizes) / len(sizes) if sizes else None), None


def _transfer(setting: Setting, agent: str) -> pl.DataFrame:
    from_table = setting.tables.get("transfer")
    if from_table is None:
        schema = {"control": pl.String, "change_log_odds": pl.Float64, "low": pl.Float64}
        return pl.DataFrame(schema={**schema, "high": pl.Float64, "n_states": pl.Int64})
    return from_table.filter(pl.col("agent") == agent)
