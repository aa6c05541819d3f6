"""What did the agent learn? The verdict on label, layout or move, in words with its figures.

Read from the ``transfer`` table alone, so that anyone can check the sentence against it:

- *label*: under the same wording and table order, the change has opposite signs under the two
  label assignments, both intervals off zero;
- *layout*: under the same wording and labels, it has opposite signs under two orders of the
  payoff table, both intervals off zero;
- *move*: it keeps its sign, interval off zero, in every row of every control, and no control is
  missing;
- *undecided*: anything else, with the reason. An agent that turns round under both controls is
  undecided as well: neither the label nor the place explains it alone.

The layout control does not apply to an agent whose training prompts hold no payoff table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.behaviour.transfer import swap_labels
from moralscope.core.tables import conform, from_rows

_EXCHANGED = frozenset({"rows", "both"})
_FIGURES = {
    "trained": "on the prompts it was trained on",
    "swapped_labels": "with the action labels swapped",
    "exchanged_rows": "with the payoff table rearranged",
    "new_wording": "on wordings never trained on",
}
_VERDICTS = {
    "move": "{agent} learned the move: its change keeps its sign under swapped labels, {layout}"
    "and on every new wording",
    "label": "{agent} learned which label to say: its change turns round when the two action "
    "labels are swapped",
    "layout": "{agent} learned a place in the payoff table: its change turns round when the table "
    "is rearranged",
    "undecided": "What {agent} learned is undecided: {reason}",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of ``transfer``, for one agent."""

    control: str
    template: str
    labels: str
    table_order: str | None
    change: float
    low: float | None
    high: float | None
    n_states: int
    keeps_sign: bool | None


def learned_table(transfer: pl.DataFrame) -> pl.DataFrame:
    """Which of label, layout and move did each agent learn?

    Args:
        transfer: a ``transfer`` table.

    Returns:
        A ``learned`` table: one row per agent, in order of appearance; ``sentence`` says the
        verdict, its reason, and the change in nats under each control.

    Raises:
        TableError: the table breaks its schema.
        ConfigError: a label assignment in it is not two words.
    """
    by_agent: dict[str, list[_Row]] = defaultdict(list)
    for row in conform("transfer", transfer).iter_rows(named=True):
        by_agent[row["agent"]].append(
            _Row(
                row["control"],
                row["template"],
                row["labels"],
                row["table_order"],
                row["change_log_odds"],
                row["low"],
                row["high"],
                row["n_states"],
                row["keeps_sign"],
            )
        )
    return from_rows("learned", (_judge(agent, rows) for agent, rows in by_agent.items()))


def _judge(agent: str, rows: Sequence[_Row]) -> dict[str, object]:
    learned, reason = _verdict(rows)
    layout = "under exchanged payoff rows " if _has_table(rows) else ""
    finding = _VERDICTS[learned].format(agent=agent, reason=reason, layout=layout)
    figures = "; ".join(
        f"{words} {_figure(found)}"
        for control, words in _FIGURES.items()
        if (found := [row for row in rows if row.control == control])
    )
    sentence = f"{finding}. Change from base in the log-odds of defecting: {figures}."
    return {"agent": agent, "learned": learned, "sentence": sentence}


def _verdict(rows: Sequence[_Row]) -> tuple[str, str]:
    """The verdict, and for *undecided* its reason."""
    trained = [row for row in rows if row.control == "trained"]
    if not any(row.keeps_sign for row in trained):
        return "undecided", (
            "on the prompts it was trained on its change has no common sign over the memory-one "
            "states, as in an agent that answers what the other did (its memory-one table shows it)"
        )
    label = _turns_round(rows, "swapped_labels")
    layout = _turns_round(rows, "exchanged_rows")
    if label and layout:
        return "undecided", (
            "its change turns round under swapped labels and in a rearranged table alike, which "
            "neither explains alone"
        )
    if label or layout:
        return ("label" if label else "layout"), ""
    reasons = [*_missing(rows), *_unclear(rows)]
    return ("undecided", " and ".join(reasons)) if reasons else ("move", "")


def _turns_round(rows: Sequence[_Row], control: str) -> bool:
    """Whether two rows that differ in the controlled thing alone have clear opposite signs."""
    signs: dict[tuple[str, str | None], set[bool | None]] = defaultdict(set)
    for row in rows:
        if row.control in ("trained", control):
            kept = row.table_order if control == "swapped_labels" else row.labels
            signs[row.template, kept].add(row.keeps_sign)
    return any({True, False} <= found for found in signs.values())


def _missing(rows: Sequence[_Row]) -> list[str]:
    """The controls that were not run, in words."""
    missing: list[str] = []
    labels = {row.labels for row in rows if row.control in ("trained", "swapped_labels")}
    if any(swap_labels(assignment) not in labels for assignment in labels):
        missing.append("it was not evaluated under swapped labels")
    orders = {row.table_order for row in rows if row.control in ("trained", "exchanged_rows")}
    told_apart = None in orders and any(row.control == "exchanged_rows" for row in rows)
    exchanged = bool(orders & _EXCHANGED) and bool(orders & {"original", "columns"})
    if _has_table(rows) and not (told_apart or exchanged):
        missing.append("it was not evaluated with the payoff rows exchanged")
    if not any(row.control == "new_wording" for row in rows):
        missing.append("it was not evaluated on wordings never trained on")
    return missing


def _has_table(rows: Sequence[_Row]) -> bool:
    return any(row.control == "trained" and row.table_order != "none" for row in rows)


def _unclear(rows: Sequence[_Row]) -> list[str]:
    """The controls in which the change does not keep its sign, in words."""
    found: list[str] = []
    for control, words in _FIGURES.items():
        kept = [row.keeps_sign for row in rows if row.control == control]
        if False in kept:
            found.append(f"its change turns round {words} ({kept.count(False)} of {len(kept)})")
        elif None in kept:
            found.append(
                f"its change is not clear of zero {words} ({kept.count(None)} of {len(kept)})"
            )
    return found


def _figure(rows: Sequence[_Row]) -> str:
    """``+3.20 nats (95% interval +2.90 to +3.50 over 4 states)``, or the range of several."""
    if len(rows) == 1:
        (row,) = rows
        if row.low is None or row.high is None:
            return f"{row.change:+.2f} nats (no interval)"
        interval = f"95% interval {row.low:+.2f} to {row.high:+.2f}"
        return f"{row.change:+.2f} nats ({interval} over {row.n_states} states)"
    changes = [row.change for row in rows]
    kept = [row.keeps_sign for row in rows]
    counts = _counted(
        (kept.count(True), "keep the sign"),
        (kept.count(False), "turn round"),
        (kept.count(None), "unclear"),
    )
    return f"{min(changes):+.2f} to {max(changes):+.2f} nats in {len(rows)} conditions ({counts})"


def _counted(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count} {words}" for count, words in counts if count)
