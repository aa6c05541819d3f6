"""Do tests of wiring keep their level? Label swaps, Fisher z for screening, and hubs.

Two agents are measured at the same sites on two prompts in each cluster, and their correlations
between sites are the same. The z tests take prompts for independent and values for normal: they
are simulated where that holds, and only rank what the label swap must confirm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from moralscope.evidence.calibrating.cells import (
    ALPHA,
    FALSE_DISCOVERY,
    FAMILY_WISE,
    TYPE_I,
    Cell,
    Procedure,
    Rate,
    attainable_size,
    error_rate,
    fewer,
    power_rate,
    rejected,
)
from moralscope.evidence.calibrating.generators import two_agents
from moralscope.evidence.calibrating.intervals import no_normal
from moralscope.evidence.statistics.correlations import (
    dependent_correlations,
    independent_correlations,
    pearson,
)
from moralscope.evidence.statistics.multiplicity import benjamini_hochberg
from moralscope.evidence.statistics.networks import LabelSwap, hub_degree, label_swap
from moralscope.evidence.statistics.resampling import EXACT_UNITS, Array, sign_flip_floor

SITES = 8
"""Sites whose correlations are compared."""

SWAPS = 199
"""Sampled label swaps in a simulated study."""

CHANGED = 3.0
"""Planted: loading of a factor that half of the sites share in one agent only."""

PAIRS, REAL = 40, 8
"""Correlations that are screened, and how many of them differ."""

_PLAIN, _PLANTED = 0.3, 0.9
_EDGES_PER_SITE = 1.0


def swaps(cell: Cell, purpose: str, runs: int, changed: float) -> Iterable[LabelSwap]:
    """The label-swap test of one study after another."""
    rng = cell.rng(purpose)
    for _ in range(runs):
        first, second, clusters = two_agents(
            cell.condition, cell.clusters, SITES, rng, changed=changed
        )
        yield label_swap(first, second, clusters, rng, draws=SWAPS)


def _attainable(cell: Cell) -> float:
    exact = cell.clusters <= EXACT_UNITS
    return attainable_size(sign_flip_floor(cell.clusters, 0 if exact else SWAPS))


def _count(found: LabelSwap) -> float:
    return 1.0 if found.p_count is None else found.p_count


def _smallest(found: LabelSwap) -> float:
    of_pairs = found.p_adjusted[np.triu_indices(SITES, 1)]
    return float(np.nanmin(of_pairs)) if np.isfinite(of_pairs).any() else 1.0


def _largest_hub(found: LabelSwap) -> float:
    return 1.0 if found.hub is None else found.hub.p


def _label_swap(cell: Cell, p: Callable[[LabelSwap], float], quantity: str) -> Iterable[Rate]:
    """Error rate and power of one of the tests of a label swap."""
    false = np.array([p(found) for found in swaps(cell, "null", cell.runs, 0.0)])
    yield error_rate(rejected(false), attainable=_attainable(cell), quantity=quantity)
    planted = np.array([p(found) for found in swaps(cell, "planted", fewer(cell.runs), CHANGED)])
    yield power_rate(rejected(planted), f"a factor of half of the {SITES} sites in one agent")


def normal_pair(cell: Cell, rng: np.random.Generator, r: float, shape: tuple[int, ...]) -> Array:
    """Columns (*shape, n, 2) that correlate with ``r``, one row per prompt; n is ``clusters``."""
    mix = np.array([[1.0, r], [0.0, math.sqrt(1.0 - r * r)]])
    return rng.normal(size=(*shape, cell.clusters, 2)) @ mix


def independent_p(first: Array, second: Array) -> float:
    """P of the test for different prompts, from two columns of each; 1 where undefined."""
    r1, r2 = (pearson(each[:, 0], each[:, 1]) for each in (first, second))
    if r1 is None or r2 is None or max(abs(r1), abs(r2)) > 0.999:
        return 1.0
    return independent_correlations(r1, len(first), r2, len(second)).p


def dependent_p(first: Array, second: Array) -> float:
    """P of the test for the same prompts, from two columns of each; 1 where undefined."""
    for each in (first, second):
        if abs(pearson(each[:, 0], each[:, 1]) or 0.0) > 0.999:
            return 1.0
    return dependent_correlations(first[:, 0], first[:, 1], second[:, 0], second[:, 1]).p


def _z_test(cell: Cell, test: Callable[[Array, Array], float], shared: float) -> Iterable[Rate]:
    """Error rate and power of a z test of two correlations, both 0.3 or one 0.9."""

    def ps(purpose: str, runs: int, other: float) -> Array:
        rng = cell.rng(purpose)
        common = normal_pair(cell, rng, 0.0, (runs,))
        first = _mixed(normal_pair(cell, rng, _PLAIN, (runs,)), common, shared)
        second = _mixed(normal_pair(cell, rng, other, (runs,)), common, shared)
        return np.array([test(a, b) for a, b in zip(first, second, strict=True)])

    yield error_rate(rejected(ps("null", cell.runs, _PLAIN)), attainable=ALPHA)
    planted = ps("planted", fewer(cell.runs), _PLANTED)
    yield power_rate(rejected(planted), f"correlations of {_PLAIN:g} and {_PLANTED:g}")


def _mixed(own: Array, common: Array, shared: float) -> Array:
    return math.sqrt(1.0 - shared) * own + math.sqrt(shared) * common


def _independent_z(cell: Cell) -> Iterable[Rate]:
    return _z_test(cell, independent_p, 0.0)


def _dependent_z(cell: Cell) -> Iterable[Rate]:
    return _z_test(cell, dependent_p, 0.3)


def _screened_z(cell: Cell) -> Iterable[Rate]:
    """False share of the pairs that a screening by z reports."""
    rng = cell.rng("planted")
    false: list[float] = []
    found: list[float] = []
    for _ in range(cell.runs):
        p: list[float] = []
        for pair in range(PAIRS):
            other = _PLANTED if pair < REAL else _PLAIN
            first, second = (normal_pair(cell, rng, r, ()) for r in (_PLAIN, other))
            p.append(independent_p(first, second))
        kept = rejected(benjamini_hochberg(np.array(p)))
        false.append(float(kept[REAL:].sum()) / max(1.0, float(kept.sum())))
        found.append(float(kept[:REAL].mean()))
    note = f"{REAL} of {PAIRS} pairs differ: {_PLAIN:g} and {_PLANTED:g}"
    reached = ALPHA * (1.0 - REAL / PAIRS)
    yield error_rate(np.array(false), attainable=reached, quantity=FALSE_DISCOVERY, note=note)
    yield power_rate(np.array(found), f"{note}; share of them found")


def _hub(cell: Cell) -> Iterable[Rate]:
    """Random networks of ``clusters`` sites, with as many edges as sites; then one with a hub."""
    rng = cell.rng("edges")

    def ps(runs: int, hub: bool) -> list[tuple[float, float]]:
        found = (hub_degree(network(cell.clusters, rng, hub=hub), rng, SWAPS) for _ in range(runs))
        return [(each.p, each.floor) for each in found]

    drawn = np.array(ps(cell.runs, hub=False))
    note = "sites, not clusters; as many edges as sites"
    yield error_rate(rejected(drawn[:, 0]), attainable=None, note=note)
    planted = np.array(ps(fewer(cell.runs), hub=True))
    yield power_rate(rejected(planted[:, 0]), "half of the edges meet at one site")


def network(sites: int, rng: np.random.Generator, *, hub: bool) -> Array:
    """A random symmetric network with as many edges as sites, half of them at one site if asked."""
    rows, columns = np.triu_indices(sites, 1)
    count = round(_EDGES_PER_SITE * sites)
    chosen = rng.permutation(len(rows))
    if hub:
        at_first = np.flatnonzero(rows == 0)
        star = rng.permutation(at_first)[: (count + 1) // 2]
        chosen = np.concatenate([star, chosen[~np.isin(chosen, star)]])
    edges = np.zeros((sites, sites))
    edges[rows[chosen[:count]], columns[chosen[:count]]] = 1.0
    return edges + edges.T


def _networks_only(condition: str, clusters: int) -> str | None:
    del clusters
    if condition == "independent":
        return None
    return "the null is about where edges lie, not how they were found; label swaps decide that"


CORRELATIONS = (
    Procedure(
        "label_swap_count",
        "number of changed pairs, label swaps",
        partial(_label_swap, p=_count, quantity=TYPE_I),
        share=0.2,
    ),
    Procedure(
        "label_swap_max_t",
        "changed pairs, label swaps with max-T",
        partial(_label_swap, p=_smallest, quantity=FAMILY_WISE),
        FAMILY_WISE,
        share=0.2,
    ),
    Procedure(
        "label_swap_hub",
        "largest number of changed pairs of a site, label swaps",
        partial(_label_swap, p=_largest_hub, quantity=TYPE_I),
        share=0.2,
    ),
    Procedure(
        "independent_z",
        "two correlations, different prompts",
        _independent_z,
        excluded=no_normal,
        share=5.0,
        screening=True,
    ),
    Procedure(
        "dependent_z",
        "two correlations, the same prompts",
        _dependent_z,
        excluded=no_normal,
        share=5.0,
        screening=True,
    ),
    Procedure(
        "benjamini_hochberg_z",
        f"Benjamini-Hochberg over {PAIRS} z tests",
        _screened_z,
        FALSE_DISCOVERY,
        no_normal,
        0.5,
        screening=True,
    ),
    Procedure("hub_degree", "largest degree, random networks", _hub, excluded=_networks_only),
)
"""Tests of wiring."""
