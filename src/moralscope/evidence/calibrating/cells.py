"""When is an error rate good enough? Conditions, nominal levels, and what a simulation must show.

A cell is one test under one condition with one number of units. Over R simulated studies a rate of
``a`` has the Monte-Carlo error ``sqrt(a (1 - a) / R)``, so

    error rates:  measured <= a + 3 sqrt(a (1 - a) / R),      a = 0.05
    coverage:     measured >= c - 3 sqrt(c (1 - c) / R),      c = 0.95

A test with few units cannot reach every level: with a floor f its p is a multiple of f, which must
lie below ``a`` to reject, so that the largest size that it can have is ``f (ceil(a / f) - 1)``.
That attainable size and the power for a planted effect stand beside each error rate, so that a test
that never rejects is seen for what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from moralscope.core.streams import stream
from moralscope.evidence.statistics.resampling import Array

ALPHA = 0.05
COVERAGE = 0.95
DRAWS = 499
"""Sampled sign patterns or labellings in a simulated study; a p is then a multiple of 1/500."""

CLUSTERS = (5, 10, 20, 40)
"""Units of replication in a simulated study; of each group, where two groups are compared."""

CONDITIONS: Mapping[str, str] = {
    "independent": "units drawn independently from one normal law",
    "clustered": "one to six prompts a unit that share its effect, columns that share a factor",
    "heavy_tailed": "units drawn from Student's t with 2 degrees of freedom, which has no variance",
    "rounded": "values near 10 stored as bfloat16, one subtracted from the other: many ties",
}

TYPE_I, FAMILY_WISE, FALSE_DISCOVERY = "type_I", "family_wise", "false_discovery"
COVERED, POWER = "coverage", "power"

_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition in which a test is simulated.

    Attributes:
        test: name of the test.
        condition: one of ``CONDITIONS``.
        clusters: units of replication in each study.
        runs: simulated studies.
        seed: of everything drawn.
        round: 0, or 1 where a miss is looked at again with studies of its own.
    """

    test: str
    condition: str
    clusters: int
    runs: int
    seed: int
    round: int = 0

    def rng(self, *purpose: str) -> np.random.Generator:
        """The stream of one purpose (``power``) in this cell, whatever else is simulated."""
        place = (self.test, self.condition, self.clusters, self.round)
        return stream(self.seed, "calibrate", *place, *purpose)


@dataclass(frozen=True, slots=True)
class Rate:
    """What a simulation of one cell found.

    Attributes:
        quantity: ``type_I``, ``family_wise``, ``false_discovery``, ``coverage`` or ``power``.
        value: the share; None where no study gave one.
        runs: studies that it rests on.
        nominal: what it should be; None for power.
        attainable: largest size that the design allows at the nominal level.
        note: what was planted, what is particular.
    """

    quantity: str
    value: float | None
    runs: int
    nominal: float | None = None
    attainable: float | None = None
    note: str = ""

    @property
    def limit(self) -> float | None:
        """Largest error rate, or smallest coverage, within three Monte-Carlo errors."""
        if self.nominal is None or self.runs == 0:
            return None
        error = 3.0 * monte_carlo_error(self.nominal, self.runs)
        return self.nominal - error if self.quantity == COVERED else self.nominal + error

    @property
    def passed(self) -> bool | None:
        """Whether the rate keeps its limit; None where there is no rate or no limit."""
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.quantity == COVERED else self.value <= self.limit


Excluded = Callable[[str, int], str | None]
"""(condition, clusters) to the reason why a test does not apply there; None where it does."""


def everywhere(condition: str, clusters: int) -> str | None:
    """The exclusions of a test that applies under all conditions: none."""
    del condition, clusters
    return None


@dataclass(frozen=True)
class Procedure:
    """A test in use, and how its error rates are simulated.

    Attributes:
        name: as in the ``calibration`` table.
        meaning: what it tests, in a phrase.
        simulate: runs the studies of one cell.
        quantity: its error rate, or ``coverage``: what is missing where it does not apply.
        excluded: why it does not apply to a condition.
        share: studies per cell, as a multiple of those asked for: fewer where one is costly, more
            where one is cheap.
        screening: whether it only ranks what a better test must confirm.
    """

    name: str
    meaning: str
    simulate: Callable[[Cell], Iterable[Rate]]
    quantity: str = TYPE_I
    excluded: Excluded = field(default=everywhere)
    share: float = 1.0
    screening: bool = False


def monte_carlo_error(rate: float, runs: int) -> float:
    """Standard error of a share ``rate`` over independent runs."""
    return math.sqrt(rate * (1.0 - rate) / runs)


def attainable_size(floor: float, alpha: float = ALPHA) -> float:
    """Largest multiple of the floor below ``alpha``: the size of a test whose p moves in steps."""
    return floor * max(0, math.ceil(alpha / floor * (1.0 - _TIE)) - 1)


def rejected(p: Array | float, alpha: float = ALPHA) -> Array:
    """Where a p lies below the level, as the ledger asks: 1.0 for yes."""
    return np.asarray(np.asarray(p) < alpha, dtype=np.float64)


def error_rate(
    rejections: Array, *, attainable: float | None, quantity: str = TYPE_I, note: str = ""
) -> Rate:
    """The rate of false rejections, one entry a study, beside what the design allows."""
    return Rate(quantity, share(rejections), len(rejections), ALPHA, attainable, note)


def power_rate(rejections: Array, note: str) -> Rate:
    """The rate of true rejections, one entry a study."""
    return Rate(POWER, share(rejections), len(rejections), note=note)


def coverage_rate(covered: list[bool | None], note: str = "") -> Rate:
    """The rate of intervals that hold the truth, among those that are defined."""
    defined = np.array([each for each in covered if each is not None], dtype=np.float64)
    without = len(covered) - len(defined)
    said = f"{note}; {without} of {len(covered)} undefined" if without else note
    return Rate(COVERED, share(defined), len(defined), COVERAGE, None, said.removeprefix("; "))


def share(entries: Array) -> float | None:
    """Mean of the entries; None where there is none."""
    return float(np.mean(entries)) if len(entries) else None


def fewer(runs: int, divisor: int = 4) -> int:
    """Studies for power, which no bar judges: a part of those for error rates, at least 20."""
    return min(runs, max(20, runs // divisor))
