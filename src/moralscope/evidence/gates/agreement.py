"""Is the decision metric what the agent does? Only where sampled answers agree with it.

One subject for each agent, prompt family and way of reading answers (``AGENT FAMILY strict``).
What is measured is how far the share of positive answers may lie from the one that the log-odds
state: the larger end, in size, of the 95% interval of the difference over prompts.

    passed: |difference| <= 0.1 throughout the interval, and the exact test does not refute that
            the answers are drawn from the probabilities scored (p >= 0.001)
    failed: refuted, or the whole interval beyond 0.1

In between it is not available, and neither with fewer than 36 legal answers: a handful that all
agree leave an interval of no width, but would agree now and then (0.9^n > 2.5%) if one answer in
ten were another. More answers would tell. The level is strict because there are many subjects,
each of which would otherwise cry wolf now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moralscope.evidence.units import Tables

GATE = "metric agreement"
MARGIN = 0.1
"""Largest difference in share that counts as agreement."""

FEWEST = 36
"""Legal answers below which none is too few to rule out a share of ``MARGIN``: .9^36 < .025."""

REFUTED = 0.001
"""p below which the answers are not those that the metric states."""

Row = dict[str, Any]


def subject_of(agent: str, family: str, parser: str) -> str:
    """What the gate is about, as the column ``subject`` has it."""
    return f"{agent} {family} {parser}"


def judge_agreement(tables: Tables) -> Iterator[Row]:
    """Rows of the gates table for every row of ``metric_agreement``; none without that table."""
    if "metric_agreement" in tables:
        for row in tables["metric_agreement"].iter_rows(named=True):
            yield _judge(row)


def _judge(row: Row) -> Row:
    bounds = _bounds(row)
    measured = None if bounds is None else max(abs(bounds[0]), abs(bounds[1]))
    passed = None if bounds is None else _passes(row, bounds)
    return {
        "gate": GATE,
        "subject": subject_of(row["agent"], row["family"], row["parser"]),
        "measured": measured,
        "threshold": MARGIN,
        "passed": passed,
        "advice": _advice(row, bounds, passed),
    }


def _bounds(row: Row) -> tuple[float, float] | None:
    """The interval of the difference; a point where prompts do not differ; None if unknown."""
    if row["observed"] is None:
        return None
    if row["low"] is not None:
        return row["low"], row["high"]
    difference = row["observed"] - row["expected"]
    return None if row["n_prompts"] < 2 else (difference, difference)


def _passes(row: Row, bounds: tuple[float, float]) -> bool | None:
    low, high = bounds
    if _refuted(row) or low > MARGIN or high < -MARGIN:
        return False
    legal = round(row["legal_observed"] * row["n_answers"])
    return True if legal >= FEWEST and max(abs(low), abs(high)) <= MARGIN else None


def _refuted(row: Row) -> bool:
    return row["p"] is not None and row["p"] < REFUTED


def _advice(row: Row, bounds: tuple[float, float] | None, passed: bool | None) -> str:
    legal = (
        f"{row['legal_observed']:.1%} of {row['n_answers']} sampled answers are legal, "
        f"{row['legal_expected']:.1%} expected"
    )
    if bounds is None:
        few = "no answer can be compared" if not row["n_prompts"] else "one prompt can be compared"
        return f"Not available: {few} ({legal}); sample more answers, on more prompts."
    shares = (
        f"{row['observed']:.1%} of legal answers are positive where the log-odds state "
        f"{row['expected']:.1%} (difference {bounds[0]:+.3f} to {bounds[1]:+.3f}, "
        f"exact p {row['p']:.2g}; {legal})"
    )
    if passed:
        return f"Sampled answers agree with the log-odds: {shares}."
    if passed is None:
        return f"Not available: too few answers to tell; {shares}. Sample more."
    if row["parser"] == "tolerant":
        return (
            f"What the agent says in its own words is not what its log-odds state: {shares}. "
            "Report both, and read claims as being about the forms that were scored."
        )
    return (
        f"Sampled answers refute the log-odds: {shares}. Check the options' forms and the stem; no "
        "claim about log-odds on these prompts is about what the agent does."
    )
