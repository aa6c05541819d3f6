"""Do tests against zero keep their level? Sign flips, max-T, Holm, screening, equivalence.

Each simulated study is a matrix of unit means, units by columns, without an effect for the error
rate and with a planted one for power. Screening plants effects in a fifth of the columns and counts
which share of what it reports is false. Equivalence is simulated with the true mean at the margin,
where its error rate is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.random import Generator

from moralscope.evidence.calibrating.cells import (
    ALPHA,
    DRAWS,
    FALSE_DISCOVERY,
    FAMILY_WISE,
    Cell,
    Procedure,
    Rate,
    attainable_size,
    error_rate,
    fewer,
    power_rate,
    rejected,
)
from moralscope.evidence.calibrating.generators import unit_means, unit_scale
from moralscope.evidence.statistics.equivalence import tost
from moralscope.evidence.statistics.multiplicity import benjamini_hochberg, holm
from moralscope.evidence.statistics.multiverse import multiverse
from moralscope.evidence.statistics.resampling import (
    EXACT_UNITS,
    Array,
    max_t,
    sign_flip,
    sign_flip_floor,
)

EFFECT = 1.0
"""Planted effect, in standard deviations between units."""

FAMILY, SWEEP, SCREENED = 12, 300, 50
"""Columns of a family of named claims, of a sweep over sites, and of a screening."""

SCREENED_EFFECT = 1.5
"""Planted effects of a screening, in standard deviations between units."""

SPECIFICATIONS = 8
"""Columns of a multiverse: reasonable ways of measuring the same thing."""

_VALUES_AT_ONCE = 1_000_000


def studies(
    cell: Cell, columns: int, purpose: str, runs: int, effect: Array | float = 0.0
) -> Iterator[Array]:
    """Matrices of unit means (G, K), one a study."""
    rng = cell.rng(purpose)
    at_once = max(1, _VALUES_AT_ONCE // (4 * cell.clusters * columns))
    for start in range(0, runs, at_once):
        shape = (min(at_once, runs - start), cell.clusters, columns)
        yield from unit_means(cell.condition, shape, rng, effect)


def sign_flip_ps(cell: Cell, purpose: str, runs: int, effect: float) -> Array:
    """One p a study. Where all patterns are enumerated, studies are the columns of one test."""
    columns = list(studies(cell, 1, purpose, runs, effect))
    rng = cell.rng(purpose, "signs")
    if cell.clusters <= EXACT_UNITS:
        return max_t(np.hstack(columns), rng, DRAWS).p
    return np.array([sign_flip(each[:, 0], rng, DRAWS)[0] for each in columns])


def _floor(cell: Cell) -> float:
    return sign_flip_floor(cell.clusters, 0 if cell.clusters <= EXACT_UNITS else DRAWS)


def _sign_flip(cell: Cell) -> Iterable[Rate]:
    false = rejected(sign_flip_ps(cell, "null", cell.runs, 0.0))
    yield error_rate(false, attainable=attainable_size(_floor(cell)))
    planted = sign_flip_ps(cell, "planted", cell.runs, EFFECT)
    yield power_rate(rejected(planted), f"an effect of {EFFECT:g} SD")


def _max_t(cell: Cell, columns: int) -> Iterable[Rate]:
    attainable = attainable_size(_floor(cell))
    return _family(cell, columns, lambda y, rng: max_t(y, rng, DRAWS).p_adjusted, attainable)


def _holm(cell: Cell) -> Iterable[Rate]:
    attainable = FAMILY * attainable_size(_floor(cell), ALPHA / FAMILY)
    return _family(cell, FAMILY, lambda y, rng: holm(max_t(y, rng, DRAWS).p), attainable)


def _family(
    cell: Cell, columns: int, adjust: Callable[[Array, Generator], Array], attainable: float
) -> Iterable[Rate]:
    """Any false rejection among the columns; then whether one planted effect is found."""
    rng = cell.rng("signs")
    nothing = studies(cell, columns, "null", cell.runs)
    false = np.array([rejected(adjust(y, rng)).max() for y in nothing])
    yield error_rate(false, attainable=attainable, quantity=FAMILY_WISE)
    effect = np.zeros(columns)
    effect[0] = EFFECT
    planted = studies(cell, columns, "planted", fewer(cell.runs), effect)
    found = np.array([rejected(adjust(y, rng))[0] for y in planted])
    yield power_rate(found, f"one effect of {EFFECT:g} SD among {columns} columns")


def _screening(cell: Cell) -> Iterable[Rate]:
    """False share of what is reported, and found share of what was planted."""
    real = SCREENED // 5
    effect = np.where(np.arange(SCREENED) < real, SCREENED_EFFECT, 0.0)
    rng = cell.rng("signs")
    false: list[float] = []
    found: list[float] = []
    for y in studies(cell, SCREENED, "planted", cell.runs, effect):
        q = rejected(benjamini_hochberg(max_t(y, rng, DRAWS).p))
        false.append(float(q[real:].sum()) / max(1.0, float(q.sum())))
        found.append(float(q[:real].mean()))
    note = f"{real} of {SCREENED} columns have an effect of {SCREENED_EFFECT:g} SD"
    # The rate of Benjamini and Hochberg is that of the columns without an effect.
    reached = ALPHA * (1.0 - real / SCREENED) if _floor(cell) < ALPHA else 0.0
    yield error_rate(np.array(false), attainable=reached, quantity=FALSE_DISCOVERY, note=note)
    yield power_rate(np.array(found), f"{note}; share of them found")


def _tost(cell: Cell) -> Iterable[Rate]:
    at_margin = studies(cell, 1, "margin", cell.runs, EFFECT)
    margin = float(EFFECT * unit_scale(cell.condition, cell.clusters))
    false = np.array([tost(y[:, 0], margin) for y in at_margin], dtype=np.float64)
    note = "the true mean lies at the margin"
    yield error_rate(rejected(false), attainable=ALPHA, note=note)
    none = studies(cell, 1, "none", fewer(cell.runs))
    alike = np.array([tost(y[:, 0], margin) for y in none], dtype=np.float64)
    yield power_rate(rejected(alike), f"no effect, a margin of {EFFECT:g} SD")


def _multiverse(cell: Cell) -> Iterable[Rate]:
    rng = cell.rng("signs")

    def ps(purpose: str, runs: int, effect: float) -> Array:
        drawn = studies(cell, SPECIFICATIONS, purpose, runs, effect)
        return np.array([multiverse(y, rng, draws=DRAWS).p for y in drawn])

    attainable = attainable_size(_floor(cell))
    yield error_rate(rejected(ps("null", cell.runs, 0.0)), attainable=attainable)
    found = ps("planted", fewer(cell.runs), EFFECT)
    yield power_rate(rejected(found), f"{EFFECT:g} SD in all {SPECIFICATIONS} specifications")


ONE_SAMPLE = (
    Procedure("sign_flip", "sign flips of unit means", _sign_flip),
    Procedure(
        f"max_t_{FAMILY}",
        f"sign flips with max-T over {FAMILY} columns",
        partial(_max_t, columns=FAMILY),
        FAMILY_WISE,
    ),
    Procedure(
        f"max_t_{SWEEP}",
        f"sign flips with max-T over {SWEEP} correlated sites",
        partial(_max_t, columns=SWEEP),
        FAMILY_WISE,
        share=0.5,
    ),
    Procedure(f"holm_{FAMILY}", f"Holm over {FAMILY} sign-flip tests", _holm, FAMILY_WISE),
    Procedure(
        "benjamini_hochberg",
        f"Benjamini-Hochberg over {SCREENED} sign-flip tests",
        _screening,
        FALSE_DISCOVERY,
        share=0.5,
    ),
    Procedure("tost", "two one-sided tests against a margin", _tost),
    Procedure(
        "multiverse",
        f"number of {SPECIFICATIONS} specifications that agree, against sign flips",
        _multiverse,
        share=0.25,
    ),
)
"""The tests against zero."""
