"""Do the mechanistic and the behavioural transition come at the same step?

For each seed the lag ``d = t_behaviour - t_mechanism`` in steps, positive where behaviour comes
later; its mean with Student's interval over seeds, wider by what the recording leaves open. They
*coincide* if two one-sided tests put the mean lag inside a margin set beforehand, less that width.

Two events that both follow the learning rate coincide in every seed without having to do with each
other. Where they have to, the behaviour of a seed follows the mechanism *of that seed*: the mean
distance is compared with that over all pairings of behaviours and mechanisms across seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.equivalence import MIN_UNITS, tost
from moralscope.evidence.statistics.intervals import cluster_interval
from moralscope.organisms.paths.walk import Array, Steps

Timing = Literal["coincide", "apart", "open", "not identified"]

_ENUMERATED = 7
_TIE = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class Coincidence:
    """How far apart two transitions are.

    Attributes:
        outcome: ``coincide``; ``apart``, the interval leaves out zero; ``open``; or ``not
            identified`` with fewer than five seeds.
        lag: mean of behaviour minus mechanism, in steps.
        low, high: its 95% interval, resolution included; None for one seed.
        p_equivalent: of two one-sided tests against the margin; None with fewer than five seeds.
        p_pairing: share of pairings across seeds that are as close as the true one.
        floor: the smallest that it can be.
        seeds: how many.
    """

    outcome: Timing
    lag: float
    low: float | None
    high: float | None
    p_equivalent: float | None
    p_pairing: float
    floor: float
    seeds: int


def coincidence(
    mechanism: Mapping[int, float],
    behaviour: Mapping[int, float],
    rng: np.random.Generator,
    *,
    margin: float,
    resolution: float,
    draws: int = 9_999,
) -> Coincidence:
    """Do two transitions come together?

    Args:
        mechanism: step of the mechanistic transition, by training seed.
        behaviour: step of the behavioural one, of the same seeds.
        rng: draws pairings where there are more than seven seeds.
        margin: lag that is too small to matter, in steps.
        resolution: steps between records, the coarser of the two.
        draws: pairings that are drawn, the true one besides.

    Raises:
        EvidenceError: seeds differ, there is none, or the margin is within the resolution.
    """
    if set(mechanism) != set(behaviour) or not mechanism:
        raise EvidenceError(
            "Two transitions are not those of the same trainings",
            seen=f"seeds {sorted(mechanism)} and {sorted(behaviour)}",
            allowed="one step of each for every seed",
            remedy="measure both on the same trainings",
        )
    if margin <= resolution or resolution <= 0.0:
        raise EvidenceError(
            "Coincidence cannot be told at this resolution",
            seen=f"a margin of {margin:g} steps, records {resolution:g} steps apart",
            allowed="a margin above the distance between records",
            remedy="record more often, or call a longer lag too small to matter",
        )
    seeds = sorted(mechanism)
    one = np.array([mechanism[seed] for seed in seeds], dtype=np.float64)
    other = np.array([behaviour[seed] for seed in seeds], dtype=np.float64)
    lags = other - one
    low, high = _interval(lags, rng, resolution)
    p = tost(lags, margin - resolution) if len(seeds) >= MIN_UNITS else None
    outcome: Timing = "open"
    if p is None or low is None or high is None:
        outcome = "not identified"
    elif p <= 0.05:
        outcome = "coincide"
    elif not low <= 0.0 <= high:
        outcome = "apart"
    orders = _pairings(len(seeds), rng, draws)
    distance = np.abs(other[orders] - one).mean(axis=1)
    ways = math.factorial(min(len(seeds), 20))
    return Coincidence(
        outcome=outcome,
        lag=float(lags.mean()),
        low=low,
        high=high,
        p_equivalent=p,
        p_pairing=float((distance <= distance[0] * _TIE).mean()),
        floor=1.0 / ways if len(seeds) <= _ENUMERATED else max(1.0 / ways, 1.0 / (draws + 1)),
        seeds=len(seeds),
    )


def _interval(
    lags: Array, rng: np.random.Generator, resolution: float
) -> tuple[float | None, float | None]:
    if len(lags) < 2:
        return None, None
    mean = float(lags.mean())
    # Equal lags in all seeds have no spread of their own; the recording still leaves some open.
    low, high = cluster_interval(lags, rng) or (mean, mean)
    return low - resolution, high + resolution


def _pairings(seeds: int, rng: np.random.Generator, draws: int) -> Steps:
    """Ways to pair, the true one first, (ways, seeds)."""
    if seeds <= _ENUMERATED:
        return np.array(list(itertools.permutations(range(seeds))), dtype=np.int64)
    orders = np.tile(np.arange(seeds, dtype=np.int64), (draws + 1, 1))
    orders[1:] = rng.permuted(orders[1:], axis=1)
    return orders
