"""At which levels can agents be compared? From what they do to what their weights are.

Each level turns tables into distances of pairs of agents, one or more measures; claims rest on the
first measure that the tables allow. A level without its table has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from moralscope.evidence.synthesis.distances import Distances
from moralscope.evidence.synthesis.patching import patching
from moralscope.evidence.synthesis.profiles import Pairs, attention, attribution, behaviour
from moralscope.evidence.synthesis.representations import representations
from moralscope.evidence.synthesis.weights import weights
from moralscope.evidence.synthesis.wiring import wiring
from moralscope.evidence.units import Tables

LEVELS: Mapping[str, Callable[[Tables, Pairs], Iterator[Distances]]] = {
    "behaviour": behaviour,
    "attribution": attribution,
    "patching": patching,
    "attention": attention,
    "wiring": wiring,
    "weights": weights,
    "representations": representations,
}
"""Levels in the order of the cascade: from the outside in."""

TABLES: Mapping[str, str] = {
    "behaviour": "decisions",
    "attribution": "attribution",
    "patching": "patching",
    "attention": "attention",
    "wiring": "norms",
    "weights": "update_distances",
    "representations": "representation_pairs",
}
"""The table that a level needs most."""


def all_distances(
    tables: Tables, pairs: Pairs, levels: Collection[str] = tuple(LEVELS)
) -> list[Distances]:
    """Every measure of every level, or of some of them, that the tables allow, in order."""
    wanted = (measure for level, measure in LEVELS.items() if level in levels)
    return [found for measure in wanted for found in measure(tables, pairs)]
