"""Do comparisons of profiles keep their level? Correlation of two analyses, and likeness.

Two analyses have profiles over sites that come out of every scenario and have nothing to do with
each other: where only one of the two nulls of ``associations`` holds, its error rate is largest.
Likeness is simulated on units of three entries each, whose two columns correlate.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from moralscope.evidence.calibrating.cells import (
    COVERED,
    DRAWS,
    Cell,
    Procedure,
    Rate,
    attainable_size,
    coverage_rate,
    error_rate,
    fewer,
    power_rate,
    rejected,
)
from moralscope.evidence.calibrating.generators import unit_means, unit_scale
from moralscope.evidence.calibrating.intervals import holds
from moralscope.evidence.statistics.associations import associate
from moralscope.evidence.statistics.likeness import likeness
from moralscope.evidence.statistics.resampling import EXACT_UNITS, Array, sign_flip_floor

SITES = 12
"""Sites over which two analyses are correlated."""

SHARED = 0.8
"""Planted: correlation of the two profiles over sites."""

ENTRIES, ALIKE = 3, 0.5
"""Entries of each unit, and how the two vectors correlate."""

_STEADY = 2.0


def _ps(cell: Cell, purpose: str, runs: int, shared: float) -> Array:
    rng = cell.rng(purpose)
    scale = _STEADY * unit_scale(cell.condition, cell.clusters)
    found: list[float] = []
    for _ in range(runs):
        first, own = rng.normal(size=(2, SITES))
        second = shared * first + np.sqrt(1.0 - shared**2) * own
        units = [
            profile * scale + unit_means(cell.condition, (cell.clusters, SITES), rng)
            for profile in (first, second)
        ]
        association = associate(units[0], units[1], rng, DRAWS)
        found.append(1.0 if association is None else association.p)
    return np.array(found)


def _associate(cell: Cell) -> Iterable[Rate]:
    exact = cell.clusters <= EXACT_UNITS
    of_units = attainable_size(sign_flip_floor(cell.clusters, 0 if exact else DRAWS))
    attainable = min(of_units, attainable_size(1.0 / (DRAWS + 1)))
    note = "two steady profiles that have nothing to do with each other"
    yield error_rate(rejected(_ps(cell, "null", cell.runs, 0.0)), attainable=attainable, note=note)
    planted = rejected(_ps(cell, "planted", fewer(cell.runs), SHARED))
    yield power_rate(planted, f"profiles that correlate by {SHARED:g} over {SITES} sites")


def _likeness(cell: Cell) -> Iterable[Rate]:
    rng = cell.rng("vectors")
    names = [f"u{g}" for g in range(cell.clusters) for _ in range(ENTRIES)]
    mix = np.array([[1.0, ALIKE], [0.0, np.sqrt(1.0 - ALIKE**2)]])
    covered: list[bool | None] = []
    for _ in range(cell.runs):
        rows = rng.normal(size=(cell.clusters, ENTRIES, 2))
        if cell.condition == "clustered":
            rows = rows + rng.normal(size=(cell.clusters, 1, 2))
        vectors = rows.reshape(-1, 2) @ mix
        found = likeness(vectors[:, 0], vectors[:, 1], names, "pearson")
        interval = None if found is None else found.interval
        covered.append(holds(interval, ALIKE))
    yield coverage_rate(covered, f"a correlation of {ALIKE:g}")


def _defined(condition: str, clusters: int) -> str | None:
    del clusters
    if condition == "heavy_tailed":
        return "a correlation without variance has no true value"
    if condition == "rounded":
        return "rounding changes the correlation itself; the resolution gate refuses such values"
    return None


PROFILES = (
    Procedure("associate", "two analyses over sites", _associate, share=0.25),
    Procedure("likeness", "correlation of vectors, jackknife", _likeness, COVERED, _defined, 2.5),
)
"""Comparisons of profiles."""
