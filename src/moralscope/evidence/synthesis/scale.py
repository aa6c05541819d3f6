"""How far is that, between another seed and fine-tuning itself? One scale for every level.

    relative = (distance - floor) / (control - floor)

*floor* is what two agents lie apart that were meant to be the same: the median over pairs with the
same reward and other training seeds; of the rewards that are compared where they have such pairs,
else of all rewards on that base. Where no reward has two seeds, at the level of behaviour only, it
is the distance of the base from itself under another number format, which says that numbers are no
accident of rounding but nothing of seeds. *control* is how far the base lies from the agents that
are compared (mean): what fine-tuning does at all. So 0 is "no further apart than another seed" and
1 "as far apart as fine-tuning moves an agent".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from moralscope.evidence.pairs import Pair, compared
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.comparing import Known, known_agents, trained_in_parts
from moralscope.evidence.synthesis.distances import (
    NONE,
    Apart,
    Distances,
    apart,
    jackknife,
    placed_rows,
)
from moralscope.evidence.synthesis.levels import LEVELS, all_distances
from moralscope.evidence.units import Tables

SEEDS, NUMERICAL = "seeds", "numerical"


@dataclass(frozen=True, eq=False)
class Study:
    """What is compared, and by what.

    Attributes:
        tables: result tables.
        pairs: everybody who is compared with somebody.
        known: who they are.
        measured: distances by all measures that the tables allow.
    """

    tables: Tables
    pairs: tuple[Pair, ...]
    known: dict[str, Known]
    measured: tuple[Distances, ...]


def study_of(tables: Tables, levels: Collection[str] = tuple(LEVELS)) -> Study:
    """All distances of all pairs that a study compares; none where nothing is compared.

    Args:
        tables: checked result tables.
        levels: those to measure.
    """
    parts = trained_in_parts(tables)
    pairs = tuple(
        pair
        for pair in compared(tables)
        if pair.kind != "replicate" or not parts & set(pair.agents)
    )
    wanted = list(dict.fromkeys(pair.agents for pair in pairs))
    found = tuple(all_distances(tables, wanted, levels)) if wanted else ()
    return Study(tables, pairs, known_agents(tables), found)


@dataclass(frozen=True, eq=False)
class Scale:
    """The two ends of the scale, for one measure and one set of agents.

    Attributes:
        floor: distance of two seeds, or of the base from itself; None: not measured.
        kind: ``seeds`` or ``numerical``; None without a floor.
        highest: the largest distance of two seeds; None without them.
        control: distance of the base from the agents; None: not measured.
    """

    floor: Apart | None
    kind: str | None
    highest: float | None
    control: Apart | None

    @property
    def ordered(self) -> bool:
        """Whether the scale has two ends, one above the other."""
        if self.floor is None or self.control is None:
            return False
        return self.control.whole > self.floor.whole

    def relative(self, distance: float) -> float | None:
        """Where a distance lies; None without two ends."""
        if not self.ordered or self.floor is None or self.control is None:
            return None
        return (distance - self.floor.whole) / (self.control.whole - self.floor.whole)

    def interval(self, found: Apart) -> Interval | None:
        """Jackknife interval of a relative distance over scenarios; both ends vary with it."""
        whole = self.relative(found.whole)
        if whole is None or self.floor is None or self.control is None or not len(found.without):
            return None
        floor, control = (
            end.without if len(end.without) == len(found.without) else end.whole
            for end in (self.floor, self.control)
        )
        range_of = control - floor
        if not np.all(np.asarray(range_of) > 0.0):
            return None
        return jackknife(whole, (found.without - floor) / range_of)


def scale_for(study: Study, measured: Distances, agents: Sequence[str]) -> Scale:
    """The scale of one measure for agents that are compared.

    Args:
        study: its tables and pairs.
        measured: the distances.
        agents: everybody who is compared.
    """
    known = study.known
    seeds = seed_pairs(study, measured, agents)
    bases = {known[name].base for name in agents if name in known}
    controls = [
        found
        for name in agents
        if name in known
        and (base := known[name].base) is not None
        and (found := measured.from_base(base, name)) is not None
    ]
    floor = _middle(seeds, "median") if seeds else None
    kind = SEEDS if seeds else None
    if floor is None and measured.level == "behaviour":
        floor = numerical_floor(study.tables, bases)
        kind = NUMERICAL if floor is not None else None
    return Scale(
        floor=floor,
        kind=kind,
        highest=max((found.whole for found in seeds), default=None),
        control=_middle(controls, "mean") if controls else None,
    )


def seed_pairs(study: Study, measured: Distances, agents: Sequence[str]) -> list[Apart]:
    """Distances of pairs of seeds: of the agents' own rewards, else of all on their base."""
    known = study.known
    pairs = [p for p in study.pairs if p.kind == "replicate" and _seeds(p, known)]
    rewards = {known[name].reward for name in agents if name in known}
    bases = {known[name].base for name in agents if name in known}
    on_base = [p for p in pairs if known[p.first].base in bases]
    for own in ([p for p in on_base if known[p.first].reward in rewards], on_base):
        found = [one for pair in own if (one := measured.between(*pair.agents)) is not None]
        if found:
            return found
    return []


def _seeds(pair: Pair, known: dict[str, Known]) -> bool:
    """Whether a pair is two training runs: agents of one seed are one run."""
    if not all(name in known for name in pair.agents):
        return False
    one, other = known[pair.first], known[pair.second]
    return one.base == other.base and one.seed != other.seed


def _middle(found: Sequence[Apart], how: Literal["median", "mean"]) -> Apart:
    """Median or mean over pairs, whole and without each scenario."""
    middle = np.median if how == "median" else np.mean
    lengths = {len(one.without) for one in found}
    without: Array = NONE
    if len(lengths) == 1 and lengths != {0}:
        without = np.asarray(middle(np.array([one.without for one in found]), axis=0))
    return Apart(float(middle([one.whole for one in found])), without)


def numerical_floor(tables: Tables, bases: set[str | None]) -> Apart | None:
    """Distance of the base from itself under another number format; None: not measured."""
    placed = placed_rows(tables, "replicas")
    if placed is None:
        return None
    rows = placed[0].filter(
        (pl.col("change") == "dtype") & pl.col("agent").is_in([b for b in bases if b is not None])
    )
    rows = rows.drop_nulls(["log_odds", "reference_log_odds"])
    if rows.is_empty():
        return None
    moved = (pl.col("log_odds") - pl.col("reference_log_odds")).mean()
    squares: Array = (
        rows.group_by("scenario", maintain_order=True)
        .agg(moved.alias("moved"))
        .get_column("moved")
        .to_numpy()
        ** 2
    )
    return Apart(apart(squares).whole, NONE)
