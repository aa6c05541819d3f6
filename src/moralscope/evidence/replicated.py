"""Which agents can show whether rewards matter more than training seeds, and by which measure?

Agents of one base, of two rewards or more, that were measured alike: by their decisions, by what
their sites contribute to the answer, by the size of what their sites write. Distances between them
are compared between rewards and within them (``statistics.replicates``). Agents of two rewards that
were trained from one seed share their first adapter and the order of their batches, so they lie
closer whatever they were trained for; such pairs do not count. The measures of all bases are one
family, so that with k of them the smallest p has to lie below alpha / k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.designs import RewardDesign, derived_agents, reward_designs
from moralscope.evidence.statistics.replicates import MIN_SEEDS, replicate_floor
from moralscope.evidence.units import Tables, inference_family, on_family

BEHAVIOUR: Final = "behaviour"

MEASURES: Final = {BEHAVIOUR: "decisions", "attribution": "attribution", "norms": "norms"}
"""What agents are compared by, and the table that it stands in."""


@dataclass(frozen=True, slots=True)
class Replicated:
    """Agents of one base that one measure can compare.

    Attributes:
        measure: one of ``MEASURES``.
        family: the prompt family that claims are made on.
        base: what they were trained from.
        designs: two rewards or more, with those of their agents that were measured.
        left_out: agents with a reward that were not measured, or whose log-odds are undefined.
    """

    measure: str
    family: str
    base: str
    designs: tuple[RewardDesign, ...]
    left_out: tuple[str, ...]

    @property
    def agents(self) -> list[str]:
        """Everybody who was measured."""
        return [name for design in self.designs for names in design.agents for name in names]

    @property
    def seeds(self) -> list[int]:
        """Training seeds of each reward."""
        return [design.seeds for design in self.designs]


def replicated(tables: Tables) -> list[Replicated]:
    """Every measure of every base that has rows on two rewards or more, in order of ``MEASURES``.

    States of trainings and agents trained in parts are no rewards and left out.

    Args:
        tables: checked tables, any of them.

    Raises:
        TableError: the base of an agent is ambiguous.
    """
    if "agents" not in tables or "prompts" not in tables:
        return []
    whole = ~pl.col("agent").is_in(derived_agents(tables))
    designs = reward_designs(tables["agents"].filter(whole))
    found: list[Replicated] = []
    for measure, table in MEASURES.items():
        if len(designs) < 2 or table not in tables:
            continue
        family = inference_family(tables["prompts"], tables[table].get_column("prompt"))
        if family is None:
            continue
        present = _measured(tables, table, family)
        for base in dict.fromkeys(design.base for design in designs):
            own = [design for design in designs if design.base == base]
            kept = [part for design in own if (part := _those(design, present)).agents]
            if len(kept) > 1:
                found.append(Replicated(measure, family, base, tuple(kept), _others(own, present)))
    return found


def other_starts(agents: pl.DataFrame, asked: Replicated) -> NDArray[np.bool_]:
    """(S, S) which training runs did not begin from one seed, reward by reward.

    Args:
        agents: the table, with ``agent`` and ``training_seed``.
        asked: whose runs.
    """
    known = dict(agents.select("agent", "training_seed").iter_rows())
    seeds = [known[names[0]] for design in asked.designs for names in design.agents]
    return np.array([[a is None or a != b for b in seeds] for a in seeds])


def shared_starts(counted: NDArray[np.bool_]) -> str:
    """How many pairs do not count, as a sentence with a space before it; empty where all do."""
    runs = len(counted)
    left = int((~counted).sum() - runs + np.diagonal(counted).sum()) // 2
    if not left:
        return ""
    return (
        f" {left} of {runs * (runs - 1) // 2} pairs began from the same seed and are left out: "
        "they lie closer whatever they were trained for."
    )


def seeds_to_replicate(rewards: int, level: float) -> int:
    """Seeds of each of so many rewards, 4 or more, whose relabelling can give a p below a level."""
    seeds = MIN_SEEDS
    while replicate_floor([seeds] * rewards) >= level:
        seeds += 1
    return seeds


def _measured(tables: Tables, table: str, family: str) -> set[str]:
    """Agents with rows on the prompts that claims are made on, all of them defined."""
    rows = on_family(tables[table], tables["prompts"], family)
    named = set(rows.get_column("agent").to_list())
    if table != "decisions":
        return named
    return named - set(rows.filter(pl.col("log_odds").is_null()).get_column("agent").to_list())


def _those(design: RewardDesign, present: set[str]) -> RewardDesign:
    """The design with the agents that are present."""
    kept = (tuple(name for name in names if name in present) for names in design.agents)
    return replace(design, agents=tuple(names for names in kept if names))


def _others(designs: Sequence[RewardDesign], present: set[str]) -> tuple[str, ...]:
    named = (name for design in designs for names in design.agents for name in names)
    return tuple(name for name in named if name not in present)
