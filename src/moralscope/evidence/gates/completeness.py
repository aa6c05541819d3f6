"""Do the parts of an attribution sum to the whole?

    measured: largest |sum of contributions - logit difference| / max(1, |logit difference|)

Where the table ``completeness`` holds both, at most 1e-4 may be missing. Tables of other tools
often lack it; then contributions are summed here, and compared with what is at hand: the logit
difference read by the lens at the last depth, else the log-odds. Such figures were often rounded
on the way, so 1% is allowed. Log-odds also hold other forms and further tokens of the options, so
a difference from them of less than 10% is not held against the attribution: it is *not available*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.gates.gate import Gate, not_available
from moralscope.evidence.gates.sites import answer_rows
from moralscope.evidence.units import Tables

GATE = "completeness"

MAX_COMPLETENESS = 1e-4
"""Largest attribution error, as a share of max(1, |logit difference|)."""

MAX_SUMMED = 1e-2
"""The same where the parts are summed here, from tables that may have been rounded."""

MIN_MISSED = 0.1
"""Smallest share of log-odds that cannot be put down to further forms and tokens."""

NEEDED = (
    "give the table completeness (agent, prompt, error, logit_diff), or decisions with the "
    "log_odds of the same agent on the same prompts."
)


def judge_completeness(tables: Tables) -> Iterator[Gate]:
    """One gate for every agent that has ``completeness`` or an attribution."""
    stored: set[str] = set()
    if "completeness" in tables:
        whole = pl.max_horizontal(pl.lit(1.0), pl.col("logit_diff").abs())
        relative = (pl.col("error").abs() / whole).max()
        worst = tables["completeness"].group_by("agent", maintain_order=True).agg(relative)
        for agent, measured in worst.iter_rows():
            stored.add(agent)
            yield _of_table(agent, measured)
    if "attribution" in tables:
        sums, token = _sums(tables["attribution"])
        for agent in sums.get_column("agent").unique(maintain_order=True):
            if agent not in stored:
                yield _of_sums(tables, str(agent), sums.filter(pl.col("agent") == agent), token)


def _of_table(agent: str, measured: float) -> Gate:
    passed = measured <= MAX_COMPLETENESS
    advice = (
        f"The parts sum to the logit difference within {measured:.1e} of it."
        if passed
        else f"The parts miss the logit difference by {measured:.1e} of it "
        f"({MAX_COMPLETENESS:.0e} is allowed); the attribution leaves something out, so no share "
        "of it can be trusted. Add what is missing, biases included, with one frozen norm scale."
    )
    return Gate(GATE, agent, measured, MAX_COMPLETENESS, passed, advice)


def _sums(attribution: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, token = answer_rows(attribution)
    sums = rows.group_by("agent", "prompt", maintain_order=True).agg(pl.col("contribution").sum())
    return sums, token


@dataclass(frozen=True, slots=True)
class _Whole:
    """What contributions are compared with: (prompt, whole) of one agent."""

    rows: pl.DataFrame
    name: str
    exact: bool


def _whole(tables: Tables, agent: str, token: int) -> _Whole | None:
    if "lens" in tables and token >= 0:
        last = tables["lens"].filter(
            (pl.col("agent") == agent) & (pl.col("token") == token)
        ).sort("layer", pl.col("sublayer") == "mlp").group_by("prompt").last()  # fmt: skip
        if last.height:
            rows = last.select("prompt", pl.col("logit_diff").alias("whole"))
            return _Whole(rows, "logit difference at the last depth of the lens", exact=True)
    if "decisions" in tables:
        own = tables["decisions"].filter(
            (pl.col("agent") == agent) & pl.col("log_odds").is_not_null()
        )
        if own.height:
            rows = own.select("prompt", pl.col("log_odds").alias("whole"))
            return _Whole(rows, "log-odds", exact=False)
    return None


def _of_sums(tables: Tables, agent: str, sums: pl.DataFrame, token: int) -> Gate:
    whole = _whole(tables, agent, token)
    joined = None if whole is None else sums.join(whole.rows, on="prompt", how="inner")
    if whole is None or joined is None or joined.height == 0:
        reason = f"the whole that the parts should sum to is not known; {NEEDED}"
        return not_available(GATE, agent, MAX_SUMMED, reason)
    size = pl.max_horizontal(pl.lit(1.0), pl.col("whole").abs())
    error = (pl.col("contribution") - pl.col("whole")).abs() / size
    worst = float(joined.select(error.max()).item())
    if worst <= MAX_SUMMED:
        words = f"Summed over sites, the parts give the {whole.name} within {worst:.1e} of it."
        return Gate(GATE, agent, worst, MAX_SUMMED, True, words)
    if not whole.exact and worst < MIN_MISSED:
        return Gate(
            GATE, agent, worst, MAX_SUMMED, None,
            f"Not available: summed over sites, the parts differ from the {whole.name} by "
            f"{worst:.1%} of them, which further forms or tokens of the options may explain; "
            "give the table completeness (agent, prompt, error, logit_diff).",
        )  # fmt: skip
    return Gate(
        GATE, agent, worst, MAX_SUMMED, False,
        f"The parts do not sum to the whole: over {joined.height} prompts they miss the "
        f"{whole.name} by up to {worst:.2g} of it ({MAX_SUMMED:.0%} is allowed), so no share of "
        "it can be trusted. Attribute every site, biases included, with one frozen norm scale "
        "instead of normalising part by part.",
    )  # fmt: skip
