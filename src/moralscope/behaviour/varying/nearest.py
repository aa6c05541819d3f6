"""Which classic strategy does it play like? Distance in memory-one space, ranked.

A memory-one player is four probabilities, P(C | own last move, other's last move) (Press and Dyson
2012, PNAS 109:10409). The distance of an agent's policy p to a strategy q is the root mean square

    D = sqrt(mean over CC, CD, DC, DD of (p_s - q_s)^2),   0 <= D <= 1,

with p from the mean of the agent's policies over presentations (``presentations``), and an answer
that is no option repeating the agent's own last move, as in play. The interval is the jackknife's
over presentations, ``D +- t_{n-1} se`` with ``se^2 = (n - 1)/n sum_i (D_{-i} - D_.)^2``.

What it does not do: find the strategy that an agent *is*. Every policy is nearest to some strategy,
so the distance matters as much as the rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.behaviour.presentations import Presented, presented
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import Interval, t_quantile
from moralscope.games import OPPONENTS, STATES
from moralscope.games.play.chains import strategy_of

Array = NDArray[np.float64]

_SAME_TABLE = ("suspicious-tit-for-tat",)
"""Opponents that differ from another in their opening alone, which a policy does not hold."""


def classic_strategies() -> dict[str, Array]:
    """The memory-one strategies to compare with, each ``[4]`` = P(C | own last, other's last)."""
    return {
        name: np.array(strategy_of(opponent).p_cooperate)
        for name, opponent in OPPONENTS.items()
        if name not in _SAME_TABLE
    }


def nearest_table(prompts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """How far is each agent from each classic strategy, in each game and under each labels?

    Args:
        prompts: a ``prompts`` table; the family ``structured`` is read.
        decisions: a ``decisions`` table.

    Returns:
        A ``nearest`` table, ranked by distance; strategies at equal distance share the better
        rank. Distances in [0, 1]; the interval is null for one presentation or no spread.

    Raises:
        TableError: the tables break their schemas or do not belong together, or a presentation
            lacks a state that others have.
    """
    strategies = classic_strategies()
    return from_rows(
        "nearest",
        (row for policy in presented(prompts, decisions) for row in _ranked(policy, strategies)),
    )


def _ranked(policy: Presented, strategies: Mapping[str, Array]) -> Iterator[dict[str, object]]:
    cooperates = effective(policy.answers)
    distances = {name: distance(cooperates.mean(axis=0), q) for name, q in strategies.items()}
    # Distances that differ by rounding alone share a rank.
    rounded = {name: round(value, 12) for name, value in distances.items()}
    for name in sorted(distances, key=lambda name: (rounded[name], name)):
        low, high = jackknife(cooperates, strategies[name]) or (None, None)
        yield {
            "agent": policy.agent,
            "game": policy.game,
            "labels": policy.labels,
            "strategy": name,
            "distance": distances[name],
            "low": low,
            "high": high,
            "rank": 1 + sum(other < rounded[name] for other in rounded.values()),
            "n_units": len(cooperates),
        }


def effective(answers: Array) -> Array:
    """P(the move played is C), ``[presentations, 4]``, from answers ``[presentations, 4, 3]``."""
    stays = np.array([s.own_previous == "C" for s in STATES], dtype=np.float64)
    return np.clip(answers[..., 0] + answers[..., 2] * stays, 0.0, 1.0)


def distance(policy: Array, strategy: Array) -> float:
    """Root mean square difference of two policies over the four states, in [0, 1]."""
    return float(np.sqrt(np.mean((policy - strategy) ** 2)))


def jackknife(policies: Array, strategy: Array, level: float = 0.95) -> Interval | None:
    """Jackknife interval, cut to [0, 1], for the distance of the mean policy to a strategy.

    Args:
        policies: (n, 4), one policy per presentation.
        strategy: (4,).
        level: coverage, between 0 and 1.

    Returns:
        None for one presentation or no spread.
    """
    n = len(policies)
    if n < 2 or not np.ptp(policies, axis=0).any():
        return None
    total = policies.sum(axis=0)
    without = np.array([distance((total - row) / (n - 1), strategy) for row in policies])
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = t_quantile(0.5 + level / 2.0, n - 1) * error
    whole = distance(total / n, strategy)
    return max(0.0, whole - half), min(1.0, whole + half)
