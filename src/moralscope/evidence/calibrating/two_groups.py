"""Do comparisons of two rewards keep their level? Labels permuted over training seeds.

Units are training seeds, as many in each group as the cell says. The seed-replicate null compares
distances between the profiles of agents over sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import comb

import numpy as np
from numpy.random import Generator

from moralscope.evidence.calibrating.cells import (
    DRAWS,
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
from moralscope.evidence.calibrating.generators import two_groups
from moralscope.evidence.calibrating.one_sample import EFFECT, FAMILY
from moralscope.evidence.statistics.exchanging import exchange_max_t
from moralscope.evidence.statistics.replicates import seed_replicate
from moralscope.evidence.statistics.resampling import (
    EXACT_LABELLINGS,
    Array,
    permutation_floor,
    permute_labels,
)

SITES = 8
"""Entries of the profile whose distances the seed-replicate null compares."""

Groups = tuple[Array, Array]
_AT_ONCE = 200


def groups(
    cell: Cell,
    columns: int,
    purpose: str,
    runs: int,
    effect: Array | float = 0.0,
    *,
    spread: float = 1.0,
) -> Iterator[Groups]:
    """Two groups of seeds, (S, K) each, one pair a study; see ``generators.two_groups``."""
    rng = cell.rng(purpose)
    for start in range(0, runs, _AT_ONCE):
        shape = (min(_AT_ONCE, runs - start), cell.clusters, columns)
        yield from zip(*two_groups(cell.condition, shape, rng, effect, spread), strict=True)


def _attainable(cell: Cell) -> float:
    seeds = cell.clusters
    floor = permutation_floor(seeds, seeds)
    exact = comb(2 * seeds, seeds) <= EXACT_LABELLINGS
    return attainable_size(floor if exact else max(floor, 1.0 / (DRAWS + 1)))


def _permute_labels(cell: Cell) -> Iterable[Rate]:
    def p(pair: Groups, rng: Generator) -> float:
        return permute_labels(pair[0][:, 0], pair[1][:, 0], rng, DRAWS)[0]

    return _rates(cell, 1, p, "two groups that differ by {effect:g} SD")


def _exchange_max_t(cell: Cell) -> Iterable[Rate]:
    effect = np.zeros(FAMILY)
    effect[0] = EFFECT
    rng = cell.rng("labels")

    def p_adjusted(pair: Groups) -> Array:
        return exchange_max_t(pair[0], pair[1], rng, DRAWS).p_adjusted

    nothing = groups(cell, FAMILY, "null", cell.runs)
    false = np.array([rejected(p_adjusted(pair)).max() for pair in nothing])
    yield error_rate(false, attainable=_attainable(cell), quantity=FAMILY_WISE)
    planted = groups(cell, FAMILY, "planted", fewer(cell.runs), effect)
    found = np.array([rejected(p_adjusted(pair))[0] for pair in planted])
    yield power_rate(found, f"a difference of {EFFECT:g} SD in one of {FAMILY} columns")


def _seed_replicate(cell: Cell) -> Iterable[Rate]:
    def p(pair: Groups, rng: Generator) -> float:
        profiles = np.vstack(pair)
        names = ["first"] * cell.clusters + ["second"] * cell.clusters
        return seed_replicate(distances(profiles), names, rng, DRAWS).p

    return _rates(cell, SITES, p, f"profiles of {SITES} sites that differ by {{effect:g}} SD each")


def _rates(
    cell: Cell, columns: int, test: Callable[[Groups, Generator], float], planted: str
) -> Iterable[Rate]:
    """Error rate and power of a test that gives one p a study."""
    rng = cell.rng("labels")
    false = np.array([test(pair, rng) for pair in groups(cell, columns, "null", cell.runs)])
    yield error_rate(rejected(false), attainable=_attainable(cell))
    with_effect = groups(cell, columns, "planted", fewer(cell.runs), EFFECT)
    found = np.array([test(pair, rng) for pair in with_effect])
    yield power_rate(rejected(found), planted.format(effect=EFFECT))


def distances(profiles: Array) -> Array:
    """Euclidean distance between every two rows."""
    return np.sqrt(((profiles[:, None, :] - profiles[None, :, :]) ** 2).sum(axis=-1))


TWO_GROUPS = (
    Procedure("permute_labels", "reward labels permuted over seeds", _permute_labels),
    Procedure(
        f"exchange_max_t_{FAMILY}",
        f"reward labels permuted over seeds, max-T over {FAMILY} columns",
        _exchange_max_t,
        FAMILY_WISE,
        share=0.5,
    ),
    Procedure(
        "seed_replicate",
        "distances between rewards against distances between seeds",
        _seed_replicate,
        share=0.125,
    ),
)
"""The tests of two rewards."""
