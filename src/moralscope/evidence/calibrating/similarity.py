"""Do tests on bounded quantities and counts keep their level? Alike, apart, and stated odds.

Whether two agents decide alike is simulated with a true mean divergence at the margin, where both
errors are largest. Counts are drawn from the probabilities that are stated for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy import special

from moralscope.evidence.calibrating.cells import (
    ALPHA,
    Cell,
    Procedure,
    Rate,
    error_rate,
    fewer,
    power_rate,
    rejected,
)
from moralscope.evidence.calibrating.generators import to_bfloat16
from moralscope.evidence.calibrating.intervals import no_tails
from moralscope.evidence.divergences import MARGIN, TOP, alike, apart
from moralscope.evidence.statistics.counts import counts_p
from moralscope.evidence.statistics.resampling import Array

ANSWERS = 8
"""Sampled answers to each prompt."""

LEAN = 1.0
"""Planted: sampled answers lean this far to one side, in nats of log-odds."""

_BETWEEN = 1.0
"""Spread of divergences between scenarios, on the log-odds scale of their share of log 2."""


def divergences(cell: Cell, purpose: str, runs: int, mean: float) -> Array:
    """Divergences (runs, G) in nats, whose true mean over scenarios is ``mean``."""
    rng = cell.rng(purpose)
    within = 1.0 if cell.condition == "clustered" else 0.0
    level = _level(mean / TOP, float(np.hypot(_BETWEEN, within)))
    x = level + _BETWEEN * rng.normal(size=(runs, cell.clusters))
    if within:
        prompts = x[..., None] + rng.normal(size=(*x.shape, 3))
        return TOP * special.expit(prompts).mean(axis=-1)
    values = TOP * special.expit(x)
    return to_bfloat16(values) if cell.condition == "rounded" else values


def _level(share: float, spread: float) -> float:
    """The mu for which ``E sigmoid(mu + spread Z)`` is the share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    low, high = -20.0, 20.0
    while high - low > 1e-12:
        middle = (low + high) / 2.0
        if float(special.expit(middle + spread * nodes) @ weights) < share:
            low = middle
        else:
            high = middle
    return low


def _ps(values: Array, decide: Callable[[Array, float], float | None]) -> Array:
    return np.array([decide(each, MARGIN) for each in values], dtype=np.float64)


def _alike(cell: Cell) -> Iterable[Rate]:
    false = rejected(_ps(divergences(cell, "margin", cell.runs, MARGIN), alike))
    note = "the true divergence lies at the margin"
    yield error_rate(false, attainable=ALPHA, note=note)
    near = divergences(cell, "near", fewer(cell.runs), MARGIN / 5.0)
    found = rejected(_ps(near, alike))
    yield power_rate(found, "a divergence of a fifth of the margin")


def _apart(cell: Cell) -> Iterable[Rate]:
    false = rejected(_ps(divergences(cell, "margin", cell.runs, MARGIN), apart))
    note = "the true divergence lies at the margin"
    yield error_rate(false, attainable=ALPHA, note=note)
    far = divergences(cell, "far", fewer(cell.runs), 5.0 * MARGIN)
    yield power_rate(rejected(_ps(far, apart)), "a divergence of five times the margin")


def _counts(cell: Cell) -> Iterable[Rate]:
    """Answers of ``clusters`` prompts; condition *clustered* shares a level among them."""
    rng = cell.rng("answers")
    yield error_rate(_count_rejections(cell, cell.runs, rng, 0.0), attainable=None)
    found = _count_rejections(cell, fewer(cell.runs), rng, LEAN)
    yield power_rate(found, f"{ANSWERS} answers a prompt that lean {LEAN:g} nats to one side")


def _count_rejections(cell: Cell, runs: int, rng: np.random.Generator, lean: float) -> Array:
    counts = [ANSWERS] * cell.clusters
    x = rng.normal(size=(runs, cell.clusters))
    if cell.condition == "clustered":
        x = x + rng.normal(size=(runs, 1))
    leaning: Array = special.expit(x + lean)
    drawn = rng.binomial(ANSWERS, leaning)
    stated: Array = special.expit(x)
    ps = [counts_p(k.tolist(), counts, p.tolist()) for k, p in zip(drawn, stated, strict=True)]
    return rejected(np.array(ps))


def _drawn_from_stated(condition: str, clusters: int) -> str | None:
    del clusters
    if condition == "heavy_tailed":
        return "answers are counted; given their probability they have no other law"
    if condition == "rounded":
        return "rounding the stated probabilities makes them wrong, which the test is to find"
    return None


SIMILARITY = (
    Procedure("alike", "mean divergence below a margin", _alike, excluded=no_tails, share=0.5),
    Procedure("apart", "mean divergence above a margin", _apart, excluded=no_tails, share=0.5),
    Procedure(
        "stated_odds",
        "sampled answers against stated probabilities",
        _counts,
        excluded=_drawn_from_stated,
    ),
)
"""Tests on divergences and counts."""
