"""Do 95% intervals hold the truth in 95% of studies? Coverage, among the intervals defined.

Intervals for means are simulated on unit means whose true mean is 0. Probabilities and divergences
are drawn on the log-odds scale, and their true mean is integrated over the law they come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.random import Generator
from scipy import special

from moralscope.evidence.calibrating.cells import (
    COVERED,
    DRAWS,
    Cell,
    Procedure,
    Rate,
    coverage_rate,
)
from moralscope.evidence.calibrating.generators import to_bfloat16
from moralscope.evidence.calibrating.one_sample import FAMILY, studies
from moralscope.evidence.calibrating.two_groups import groups
from moralscope.evidence.divergences import TOP, divergence_interval
from moralscope.evidence.statistics.bounded import bounded_interval, combined_interval
from moralscope.evidence.statistics.correlations import fisher_interval, pearson
from moralscope.evidence.statistics.intervals import (
    Interval,
    cluster_interval,
    cluster_t,
    share_interval,
    standard_error,
    welch,
    zero_event_bound,
)
from moralscope.evidence.statistics.resampling import Array, max_t

UNEQUAL = 3.0
"""Ratio of the spreads of two groups in the simulation of Welch's interval."""

SHARES = (0.02, 0.1, 0.3)
"""True shares of clusters with an event, in turn."""

_LEANING, _BETWEEN = -1.5, 1.0
_CORRELATION = 0.5


def holds(interval: Interval | None, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where it is undefined."""
    return None if interval is None else interval[0] <= truth <= interval[1]


def _of_mean(cell: Cell, interval: Callable[[Array, Generator], Interval | None]) -> Iterable[Rate]:
    rng = cell.rng("resamples")
    drawn = studies(cell, 1, "null", cell.runs)
    yield coverage_rate([holds(interval(y[:, 0], rng), 0.0) for y in drawn])


def _cluster_t(cell: Cell) -> Iterable[Rate]:
    return _of_mean(cell, lambda y, _: cluster_t(y))


def _cluster_interval(cell: Cell) -> Iterable[Rate]:
    return _of_mean(cell, lambda y, rng: cluster_interval(y, rng, draws=2 * DRAWS + 1))


def _simultaneous(cell: Cell) -> Iterable[Rate]:
    """Whether all intervals of a family hold at once, their half-width from the max-T null."""
    rng = cell.rng("signs")
    covered: list[bool | None] = []
    for y in studies(cell, FAMILY, "null", cell.runs):
        half = max_t(y, rng, DRAWS).critical_t(0.05)
        inside = all(abs(float(c.mean())) <= half * standard_error(c) for c in y.T)
        covered.append(inside if math.isfinite(half) else None)
    yield coverage_rate(covered, f"all {FAMILY} at once")


def _welch(cell: Cell) -> Iterable[Rate]:
    drawn = groups(cell, 1, "null", cell.runs, spread=UNEQUAL)
    covered = [holds(welch(first[:, 0], second[:, 0]), 0.0) for first, second in drawn]
    yield coverage_rate(covered, f"one group spread {UNEQUAL:g} times as far")


def probabilities(cell: Cell, runs: int, purpose: str, terms: int = 1) -> tuple[Array, Array]:
    """Unit means of probabilities (runs, G, terms), and the true mean of each term.

    Log-odds are normal between units; *clustered* averages three prompts of a unit; *rounded*
    stores probabilities as bfloat16, whose steps near 0.2 are 1/1024. The terms of a unit share
    half of their variance, and lean further up one after another.
    """
    rng = cell.rng(purpose)
    shape = (runs, cell.clusters)
    level = _LEANING + 1.5 * np.arange(terms)
    common, own = rng.normal(size=(*shape, 1)), rng.normal(size=(*shape, terms))
    x = level + _BETWEEN * (common + own) / math.sqrt(2.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    within = 1.0 if cell.condition == "clustered" else 0.0
    spread = math.hypot(_BETWEEN, within)
    truth = special.expit(level[:, None] + spread * nodes) @ weights
    if within:
        prompts = x[..., None] + rng.normal(size=(*x.shape, 3))
        return special.expit(prompts).mean(axis=-1), truth
    p = special.expit(x)
    return (to_bfloat16(p) if cell.condition == "rounded" else p), truth


def _bounded(cell: Cell) -> Iterable[Rate]:
    p, truth = probabilities(cell, cell.runs, "probabilities")
    yield coverage_rate([holds(bounded_interval(y), float(truth[0])) for y in p[..., 0]])


def _combined(cell: Cell) -> Iterable[Rate]:
    p, truth = probabilities(cell, cell.runs, "probabilities", terms=2)
    weight = np.array([-1.0, 1.0])
    difference = float(truth @ weight)
    yield coverage_rate([holds(combined_interval([y], [weight]), difference) for y in p])


def _divergence(cell: Cell) -> Iterable[Rate]:
    p, truth = probabilities(cell, cell.runs, "divergences")
    values = TOP * p[..., 0]
    yield coverage_rate([holds(divergence_interval(y), TOP * float(truth[0])) for y in values])


def _share(cell: Cell, *, bound_only: bool) -> Iterable[Rate]:
    """Shares of clusters with an event; each true share simulated as often as the others."""
    rng = cell.rng("events")
    covered: list[bool | None] = []
    for truth in SHARES:
        for events in rng.binomial(cell.clusters, truth, size=cell.runs // len(SHARES)).tolist():
            if bound_only:
                covered.append(events > 0 or truth <= zero_event_bound(cell.clusters))
            else:
                covered.append(holds(share_interval(events, cell.clusters), truth))
    yield coverage_rate(covered, f"true shares {', '.join(str(s) for s in SHARES)} in turn")


def _fisher(cell: Cell) -> Iterable[Rate]:
    covered: list[bool | None] = []
    mix = np.array([[1.0, _CORRELATION], [0.0, math.sqrt(1.0 - _CORRELATION**2)]])
    for y in cell.rng("correlated").normal(size=(cell.runs, cell.clusters, 2)) @ mix:
        r = pearson(y[:, 0], y[:, 1])
        covered.append(None if r is None else holds(fisher_interval(r, cell.clusters), 0.5))
    yield coverage_rate(covered, f"a correlation of {_CORRELATION:g}")


def _reaching(condition: str, clusters: int) -> str | None:
    del condition
    if clusters < 6:
        return "five clusters reach no p below .05, so no interval of finite width exists"
    return None


def no_tails(condition: str, clusters: int) -> str | None:
    """Quantities in a finite range: where nothing has heavy tails."""
    del clusters
    if condition == "heavy_tailed":
        return "values between 0 and a largest one have a variance, whatever their law"
    return None


def _counts_only(condition: str, clusters: int) -> str | None:
    del clusters
    if condition in ("heavy_tailed", "rounded"):
        return "a count of clusters has no tails and is never rounded"
    return None


def no_normal(condition: str, clusters: int) -> str | None:
    """Fisher's z: where its assumptions fail by construction."""
    if condition == "clustered":
        return "takes prompts for independent; within clusters the label swap takes its place"
    if condition == "heavy_tailed":
        return "takes values for normal; elsewhere the label swap takes its place"
    if condition == "rounded":
        return "values of a few steps are degenerate, and refused by the resolution gate"
    del clusters
    return None


INTERVALS = (
    Procedure("cluster_t", "Student's interval, cluster means", _cluster_t, COVERED, share=5.0),
    Procedure(
        "cluster_interval",
        "Student's interval, from 20 clusters on widened by bootstrap-t",
        _cluster_interval,
        COVERED,
        share=2.0,
    ),
    Procedure(
        f"simultaneous_{FAMILY}",
        f"intervals of {FAMILY} columns at once, from max-T",
        _simultaneous,
        COVERED,
        _reaching,
    ),
    Procedure("welch", "Welch's interval, two rewards", _welch, COVERED, share=5.0),
    Procedure("bounded_interval", "mean of probabilities", _bounded, COVERED, no_tails, 2.5),
    Procedure("combined_interval", "sum of mean probabilities", _combined, COVERED, no_tails, 2.0),
    Procedure("divergence_interval", "mean divergence", _divergence, COVERED, no_tails, 2.5),
    Procedure(
        "share_interval",
        "Clopper-Pearson, shares of clusters",
        partial(_share, bound_only=False),
        COVERED,
        _counts_only,
        5.0,
    ),
    Procedure(
        "zero_event_bound",
        "upper bound of a share of which no cluster showed anything",
        partial(_share, bound_only=True),
        COVERED,
        _counts_only,
        5.0,
    ),
    Procedure(
        "fisher_interval",
        "a correlation, from Fisher's z",
        _fisher,
        COVERED,
        no_normal,
        5.0,
        screening=True,
    ),
)
"""The intervals."""
