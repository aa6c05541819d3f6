"""What did the agent learn? The verdict on label, layout, order or move, in words with figures.

Read from the tables ``transfer`` and ``transfer_states`` alone, so that anyone can check the
sentence against them. *Turning round* means opposite signs under two conditions that differ in one
thing, both intervals off zero. That thing is named:

- *label*: the label assignment, under the same wording and table order;
- *order*: which move is mentioned first, between a wording without a payoff table and its mirror:
  two such wordings turn round at least, and none keeps its sign. A rearranged table may turn
  the agent round as well, since it mentions the moves the other way round;
- *layout*: the order of the payoff table, where order of mention does not explain it;
- *move*: nothing does, the change keeps its sign, interval off zero, in every row of every
  control, and no control is missing;
- *undecided*: anything else, with the reason. An agent that turns round with the labels and with
  a place in the text is undecided as well: neither explains it alone.

The changes compared are means over the memory-one states where those have a common sign. Where
they have none, and some states move clearly up and others clearly down, each state is compared by
itself (``learned_states``); the column ``basis`` says which.

The layout control does not apply to an agent whose training prompts hold no payoff table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.behaviour.learning.learned_states import (
    Pattern,
    judge_states,
    opposite_mirrors,
    patterns_of,
)
from moralscope.behaviour.learning.training_sets import swap_labels
from moralscope.behaviour.learning.transfer import mirror_of
from moralscope.core.tables import conform, from_rows

_EXCHANGED = frozenset({"rows", "both"})
_FIGURES = {
    "trained": "on the prompts it was trained on",
    "swapped_labels": "with the action labels swapped",
    "exchanged_rows": "with the payoff table rearranged",
    "new_wording": "on wordings never trained on",
    "mirrored_wording": "on mirrored wordings",
}
_UNKNOWN = {
    "trained": "on the structured text under both label assignments, which stands in for a "
    "training that is not known",
    "new_wording": "on other wordings",
}
_VERDICTS = {
    "move": "{agent} learned the move: {change} keeps its sign{states} under swapped labels, "
    "{layout}on every {new} wording and on their mirrors",
    "label": "{agent} learned which label to say: {change} turns round{states} when the two action "
    "labels are swapped",
    "layout": "{agent} learned a place in the payoff table: {change} turns round{states} when the "
    "table is rearranged",
    "order": "{agent} learned an order of mention: {change} turns round{states} when a text "
    "mentions the two moves the other way round{pairs}",
    "undecided": "What {agent} learned is undecided: {reason}",
}
_BOTH = (
    "its change turns round under swapped labels and {place} alike, which neither explains alone"
)
_NO_SIGN = (
    "{trained} its change has no common sign over the memory-one states, as in an agent that "
    "answers what the other did (its memory-one table shows it)"
)


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
    known: bool


@dataclass(frozen=True, slots=True)
class _Verdict:
    learned: str
    reason: str = ""
    pattern: Pattern | None = None


def learned_table(transfer: pl.DataFrame, states: pl.DataFrame | None = None) -> pl.DataFrame:
    """Which of label, layout, order and move did each agent learn?

    Args:
        transfer: a ``transfer`` table.
        states: the ``transfer_states`` table of the same agents. Without it an agent that moves
            some states up and others down is undecided.

    Returns:
        A ``learned`` table: one row per agent, in order of appearance; ``sentence`` says the
        verdict, its reason, and the change in nats under each control. It says so where the
        agent's training is not known.

    Raises:
        TableError: a table breaks its schema.
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
                row["training_known"] is not False,
            )
        )
    patterns = {} if states is None else patterns_of(states)
    return from_rows("learned", (_judge(agent, rows, patterns) for agent, rows in by_agent.items()))


def _judge(
    agent: str, rows: Sequence[_Row], patterns: Mapping[str, Sequence[Pattern]]
) -> dict[str, object]:
    known = all(row.known for row in rows)
    words = _FIGURES if known else {**_FIGURES, **_UNKNOWN}
    found = _verdict(rows, patterns.get(agent, ()), words)
    finding = _VERDICTS[found.learned].format(
        agent=agent,
        reason=found.reason,
        change="its change" if found.pattern is None else f"its change, {found.pattern.words},",
        states="" if found.pattern is None else " in each of these states",
        layout="under exchanged payoff rows, " if _has_table(rows) else "",
        new="new" if known else "other",
        pairs=_pairs_in_words(rows) if found.pattern is None else "",
    )
    figures = "; ".join(
        f"{said} {_figure(these)}"
        for control, said in words.items()
        if (these := [row for row in rows if row.control == control])
    )
    over = "" if found.pattern is None else ", mean over states"
    return {
        "agent": agent,
        "learned": found.learned,
        "sentence": f"{finding}. Change from base in the log-odds of defecting{over}: {figures}.",
        "basis": "mean over states" if found.pattern is None else "each state",
    }


def _verdict(
    rows: Sequence[_Row], patterns: Sequence[Pattern], words: Mapping[str, str]
) -> _Verdict:
    """The verdict, and for *undecided* its reason."""
    missing = _missing(rows, words)
    if not any(row.keeps_sign for row in rows if row.control == "trained"):
        judged = judge_states(patterns, words)
        if judged is None:
            return _Verdict("undecided", _NO_SIGN.format(trained=words["trained"]))
        turned, unclear, reference = judged
        return _decide(turned, [*missing, *unclear], reference)
    turned = {
        "label": _turns_round(rows, ("trained", "swapped_labels"), "labels"),
        "layout": _turns_round(rows, ("trained", "exchanged_rows"), "table_order"),
        "order": _mirrors_turn(rows),
    }
    return _decide(turned, [*missing, *_unclear(rows, words)], None)


def _decide(
    turned: Mapping[str, bool], against: Sequence[str], pattern: Pattern | None
) -> _Verdict:
    """From what turns the change round, and what speaks against the move, to the verdict."""
    place = turned["layout"] or turned["order"]
    if turned["label"] and place:
        where = "in mirrored wordings" if turned["order"] else "in a rearranged table"
        return _Verdict("undecided", _BOTH.format(place=where), pattern)
    for learned in ("label", "order", "layout"):
        if turned[learned]:
            return _Verdict(learned, pattern=pattern)
    if against:
        return _Verdict("undecided", " and ".join(against), pattern)
    return _Verdict("move", pattern=pattern)


def _turns_round(rows: Sequence[_Row], controls: Sequence[str], varied: str) -> bool:
    """Whether two rows that differ in the controlled thing alone have clear opposite signs."""
    signs: dict[tuple[str, str | None], set[bool | None]] = defaultdict(set)
    for row in rows:
        if row.control in controls:
            kept = row.table_order if varied == "labels" else row.labels
            signs[row.template, kept].add(row.keeps_sign)
    return any({True, False} <= found for found in signs.values())


def _mirrors_turn(rows: Sequence[_Row]) -> bool:
    """Whether wordings without a table and their mirrors have opposite signs wherever clear."""
    return opposite_mirrors(_told_in_words(rows))


def _told_in_words(rows: Sequence[_Row]) -> dict[tuple[str, str], bool | None]:
    """By wording without a table and label assignment, whether the sign is kept."""
    return {
        (row.template, row.labels): row.keeps_sign
        for row in rows
        if row.control in ("trained", "new_wording", "mirrored_wording")
        and row.table_order in (None, "none")
    }


def _pairs_in_words(rows: Sequence[_Row]) -> str:
    """``, in 4 of 10 pairs of a wording and its mirror; the others are not clear``."""
    kept = _told_in_words(rows)
    pairs = {
        frozenset({(template, labels), (mirror_of(template), labels)})
        for template, labels in kept
        if (mirror_of(template), labels) in kept
    }
    clear = sum(all(kept[place] is not None for place in pair) for pair in pairs)
    others = "" if clear == len(pairs) else "; the others are not clear"
    return f", in {clear} of {len(pairs)} pairs of a wording and its mirror{others}"


def _missing(rows: Sequence[_Row], words: Mapping[str, str]) -> list[str]:
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
        missing.append(f"it was not evaluated {words['new_wording']}")
    texts = {row.template for row in rows if row.control in _FIGURES}
    if not any(mirror_of(template) in texts for template in texts):
        missing.append("it was not evaluated on a wording and its mirror")
    return missing


def _has_table(rows: Sequence[_Row]) -> bool:
    return any(row.control == "trained" and row.table_order != "none" for row in rows)


def _unclear(rows: Sequence[_Row], words: Mapping[str, str]) -> list[str]:
    """The controls in which the change does not keep its sign, in words."""
    found: list[str] = []
    for control, said in words.items():
        kept = [row.keeps_sign for row in rows if row.control == control]
        if False in kept:
            found.append(f"its change turns round {said} ({kept.count(False)} of {len(kept)})")
        elif None in kept:
            found.append(
                f"its change is not clear of zero {said} ({kept.count(None)} of {len(kept)})"
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
