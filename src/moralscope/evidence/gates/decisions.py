"""Are the log-odds defined, and do they vary by more than their rounding?

*Undefined values*: log-odds that are null; they are never read as zero. *Resolution*: the standard
deviation in units in the last place of the format that the numbers were stored in, which is seen in
the numbers themselves where it is coarser than the table claims (``site_quality``).
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.gate import Gate, not_available
from moralscope.evidence.gates.site_quality import (
    MANTISSA_BITS,
    MIN_DISTINCT,
    MIN_STEPS,
    mantissa_bits,
    resolution,
)
from moralscope.evidence.units import Tables


def judge_decisions(tables: Tables) -> Iterator[Gate]:
    """Both gates for every agent that decided something."""
    if "agents" not in tables or "decisions" not in tables:
        return
    for agent, dtype in tables["agents"].select("agent", "dtype").iter_rows():
        own = tables["decisions"].filter(pl.col("agent") == agent)
        log_odds = own.get_column("log_odds")
        if len(log_odds):
            yield _undefined(agent, log_odds)
            yield _resolution(agent, dtype, log_odds)


def _undefined(agent: str, log_odds: pl.Series) -> Gate:
    nulls = log_odds.null_count()
    if nulls == len(log_odds):
        return Gate(
            "undefined values", agent, float(nulls), 0.0, None,
            "Not available: the agent has no log-odds at all (a scripted policy); it is compared "
            "by its probabilities only.",
        )  # fmt: skip
    advice = (
        "Every log-odds is defined."
        if nulls == 0
        else f"{nulls} of {len(log_odds)} log-odds are undefined; they are never read as zero. "
        "Find out why the scorer gave none."
    )
    return Gate("undefined values", agent, float(nulls), 0.0, nulls == 0, advice)


def _resolution(agent: str, dtype: str, log_odds: pl.Series) -> Gate:
    values = log_odds.drop_nulls().to_numpy()[:, None]
    bits = mantissa_bits(dtype)
    if len(values) < MIN_DISTINCT:
        reason = f"{len(values)} log-odds, {MIN_DISTINCT} or more are needed."
        return not_available("resolution", agent, MIN_STEPS, reason)
    found = resolution(values, values, MANTISSA_BITS["float64"] if bits is None else bits)
    if bits is None and found.resolved[0]:
        # The numbers themselves show no rounding, but it may have happened before.
        reason = f"the resolution of dtype {dtype} is not known; give the one that was computed in."
        return not_available("resolution", agent, MIN_STEPS, reason)
    steps, distinct = float(found.steps[0]), int(found.values[0])
    passed = found.resolved[0]
    printed = float(found.printed[0])
    unit = (
        f"rounding steps of {printed:.3g}"
        if printed
        else f"units in the last place ({found.bits} mantissa bits)"
    )
    what = f"Log-odds vary by {steps:.3g} {unit}"
    advice = (
        f"{what} and take {distinct} distinct values."
        if passed
        else f"Rounding: {what[0].lower()}{what[1:]} and take {distinct} distinct values, where "
        f"{MIN_STEPS:g} and {MIN_DISTINCT} are needed; measure in float32."
    )
    return Gate("resolution", agent, steps, MIN_STEPS, passed, advice)
