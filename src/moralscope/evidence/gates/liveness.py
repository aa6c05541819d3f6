"""Does the agent still do what it did when it was trained?

    b = sum(dm du) / sum(du^2)        passed: 0.9 <= b <= 1 / 0.9, over 20 prompts or more

d is agent minus base in log-odds, m as measured and u as stored when the agent was trained (its
fingerprint): b is 1 for an intact agent and 0 for a dead one. An adapter that was merged into
bfloat16 weights keeps about half a percent of what it did, one that is applied twice doubles it.
The same is asked of b without each prompt in turn, so that one large change hides no dead ones.
Without a fingerprint liveness is *not available*; where the stored change itself is nil there is
*no effect* to retain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.gates.gate import Gate, not_available
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables

GATE = "liveness"

MIN_RETENTION = 0.9
"""Smallest retention slope of a live agent."""

MIN_LIVENESS_PROMPTS = 20
"""Fewest prompts on which liveness is judged."""

NIL_EFFECT = 1e-3
"""Root mean square stored change, in nats, below which there is no effect to retain."""


def judge_liveness(tables: Tables) -> Iterator[Gate]:
    """One gate for every trained agent."""
    if "agents" in tables and "decisions" in tables:
        for agent in trained_agents(tables["agents"]):
            yield _judge(tables["agents"], tables["decisions"], agent)


def _judge(agents: pl.DataFrame, decisions: pl.DataFrame, agent: str) -> Gate:
    def unknown(reason: str) -> Gate:
        return not_available(GATE, agent, MIN_RETENTION, reason)

    base = base_of(agents, agent)
    if base is None:
        return unknown("no base agent to compare with; measure the base on the same prompts.")
    of_base = decisions.filter(pl.col("agent") == base).select(
        "prompt", pl.col("log_odds").alias("base_log_odds")
    )
    own = decisions.filter(pl.col("agent") == agent).join(of_base, on="prompt", how="inner")
    stored = own.filter(pl.col("fingerprint_log_odds").is_not_null())
    if stored.height == 0:
        return unknown("the agent carries no fingerprint; store one when it is trained.")
    if (
        stored.get_column("log_odds").null_count()
        or stored.get_column("base_log_odds").null_count()
    ):
        return unknown("log-odds are undefined on prompts of the fingerprint; score them.")
    if stored.height < MIN_LIVENESS_PROMPTS:
        return unknown(
            f"{stored.height} prompts with a fingerprint, {MIN_LIVENESS_PROMPTS} are needed."
        )
    measured, kept, zero = (
        stored.get_column(name).to_numpy()
        for name in ("log_odds", "fingerprint_log_odds", "base_log_odds")
    )
    return _retention(agent, measured - zero, kept - zero)


def _retention(agent: str, measured: Array, stored: Array) -> Gate:
    """Judge the slope of measured on stored changes from base, (prompts,) each."""
    size = float(np.sqrt(np.mean(stored**2)))
    if size < NIL_EFFECT:
        return Gate(
            GATE, agent, size, NIL_EFFECT, None,
            f"No effect: as stored, the agent differs from base by {size:.2g} nats (root mean "
            f"square; {NIL_EFFECT:g} are needed), so there is nothing to retain; check that its "
            "training did anything.",
        )  # fmt: skip
    slope = float((measured * stored).sum() / (stored**2).sum())
    worst = _without_one(measured, stored)
    did = f"on {len(stored)} prompts the agent does {slope:.1%} of what it did when trained"
    if slope < MIN_RETENTION:
        advice = (
            f"Dead or damaged: {did.replace('does', 'does only')} ({MIN_RETENTION:.0%} are "
            "needed). Load the adapter un-merged, in the dtype it was trained in: merging into "
            "narrow weights such as bfloat16 rounds it away."
        )
    elif slope > 1.0 / MIN_RETENTION:
        advice = (
            f"Not the agent that was trained: {did} (at most {1.0 / MIN_RETENTION:.0%} are "
            "allowed). See that its adapter is applied once, with the scale it was trained with."
        )
    elif worst is not None and not _alive(worst):
        advice = (
            f"Dead or damaged: {did}, but that hangs on one prompt; without it {worst:.1%} remain "
            f"({MIN_RETENTION:.0%} to {1.0 / MIN_RETENTION:.0%} are allowed). Compare the changes "
            "prompt by prompt."
        )
    else:
        advice = f"{did[0].upper()}{did[1:]}."
    alive = _alive(slope) and (worst is None or _alive(worst))
    return Gate(GATE, agent, slope, MIN_RETENTION, alive, advice)


def _alive(slope: float) -> bool:
    return MIN_RETENTION <= slope <= 1.0 / MIN_RETENTION


def _without_one(measured: Array, stored: Array) -> float | None:
    """The slope that is furthest from 1 when one prompt is left out; None where nothing remains."""
    products, squares = measured * stored, stored**2
    rest = squares.sum() - squares
    # Where one prompt holds all of the stored change the others have nothing to retain.
    kept = rest >= NIL_EFFECT**2 * len(stored)
    if not kept.any():
        return None
    slopes = (products.sum() - products)[kept] / rest[kept]
    return float(slopes[np.argmax(np.abs(slopes - 1.0))])
