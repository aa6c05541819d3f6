"""How far apart are agents by one measure, and what would scenarios left out have said?

A measure gives each pair of agents a distance, 0 or more. Most are root mean squares,

    d_ij = sqrt(mean over scenarios g of s_g),
    s_g  = mean over columns k of (y_i[g, k] - y_j[g, k])^2,

and all are kept with the distances that would have been found without each scenario, so that
whatever is made of them (a ratio of differences of distances) has a jackknife interval over
scenarios (Efron and Tibshirani 1993, chapter 11):

    theta +- t_{G-1} sqrt((G - 1) / G * sum_g (theta_(g) - mean theta_(.))^2)

A bootstrap of distances is biased upwards, as resampling adds noise that a distance counts; leaving
one scenario out hardly does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.intervals import Interval, t_quantile
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, inference_family, on_family

__all__ = ["Apart", "Distances", "apart", "jackknife", "placed_rows"]

NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Apart:
    """How far two agents lie apart.

    Attributes:
        whole: the distance, 0 or more.
        without: (G,) the same without each scenario; empty where scenarios are no units of it.
    """

    whole: float
    without: Array


@dataclass(frozen=True, eq=False)
class Distances:
    """What one measure says of pairs of agents.

    Attributes:
        level: behaviour, attribution and so on.
        measure: what the distance is made of.
        unit: its unit.
        replicate: what the units of a single distance are.
        n: how many there are.
        pairs: distances by pair of names, in both orders.
        alone: how far the base lies from each agent, where that follows without measuring it.
    """

    level: str
    measure: str
    unit: str
    replicate: str
    n: int
    pairs: Mapping[tuple[str, str], Apart]
    alone: Mapping[str, Apart]

    def between(self, first: str, second: str) -> Apart | None:
        """The distance of two agents; None where it was not measured."""
        return self.pairs.get((first, second)) or self.pairs.get((second, first))

    def from_base(self, base: str, agent: str) -> Apart | None:
        """How far an agent lies from its base; None where that was not measured."""
        return self.between(base, agent) or self.alone.get(agent)


def apart(squares: Array) -> Apart:
    """The root mean square of (G,) mean squares per scenario, whole and without each of them."""
    total, count = float(squares.sum()), len(squares)
    if count < 2:
        return Apart(math.sqrt(total / count), NONE)
    # A scenario that holds nearly all of the sum leaves rounding behind, of either sign.
    rest = np.maximum(total - squares, 0.0)
    return Apart(math.sqrt(total / count), np.sqrt(rest / (count - 1)))


def of_profiles(
    values: Mapping[str, Array], pairs: Iterable[tuple[str, str]], at: Array | None = None
) -> dict[tuple[str, str], Apart]:
    """Distances of agents from what was measured of each.

    Args:
        values: per agent (G, K), or (N,) with ``at``.
        pairs: whom to compare; those who were not measured are passed over.
        at: (N,) the scenario of each value, from 0, where scenarios differ in their columns.
    """
    found: dict[tuple[str, str], Apart] = {}
    for first, second in pairs:
        if first in values and second in values:
            squares = (values[first] - values[second]) ** 2
            found[first, second] = apart(_by_scenario(squares, at))
    return found


def _by_scenario(squares: Array, at: Array | None) -> Array:
    if at is None:
        return squares.reshape(len(squares), -1).mean(axis=1)
    index = at.astype(np.int64)
    return np.bincount(index, squares) / np.bincount(index)


def jackknife(whole: float, without: Array, level: float = 0.95) -> Interval | None:
    """Interval for what was computed from all units and without each; None below two units.

    Args:
        whole: the statistic.
        without: (G,) the statistic without each unit.
        level: coverage.
    """
    count = len(without)
    if count < 2 or not np.isfinite(without).all():
        return None
    error = jackknife_error(without)
    half = t_quantile(0.5 + level / 2.0, count - 1) * error
    return whole - half, whole + half


def jackknife_error(without: Array) -> float:
    """Standard error of a statistic that is known without each of G units."""
    count = len(without)
    return math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))


def placed_rows(tables: Tables, table: str) -> tuple[pl.DataFrame, str] | None:
    """The rows of a table on the family that claims are made on, with ``scenario``; and the family.

    None where the table, or the prompts, or any prompt that both know, is missing.
    """
    if table not in tables or "prompts" not in tables or tables[table].is_empty():
        return None
    family = inference_family(tables["prompts"], tables[table].get_column("prompt"))
    if family is None:
        return None
    return on_family(tables[table], tables["prompts"], family), family


def refuse_other_places(agents: Sequence[str], what: str, alone: Sequence[object]) -> None:
    """Refuse agents that were not measured at the same places.

    Raises:
        TableError: ``alone`` is not empty: places that one of two agents has and the other lacks.
    """
    if alone:
        raise TableError(
            f"Agents {agents[0]!r} and {agents[1]!r} were not measured on the same {what}",
            seen=f"{len(alone)} of one alone, such as {alone[0]!r}",
            allowed=f"the same {what} for all agents that are compared",
            remedy="measure all of them alike; distances over different places say nothing",
        )
