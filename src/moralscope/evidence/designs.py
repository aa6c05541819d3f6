"""What can this design answer? The units that exist, and how many a claim would need.

A claim about these checkpoints is replicated over scenarios. A claim about a *reward* is
replicated over training seeds, so with one seed per reward it cannot be tested at all, however
many prompts there are. With S seeds each, permuting the reward labels of two rewards gives no
p below 2/C(2S, S): .10 for three, .029 for four, .008 for five.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.resampling import permutation_floor, sign_flip_floor

MIN_SEEDS = 5
"""Fewest training seeds per reward for a claim about the reward."""


@dataclass(frozen=True, slots=True)
class RewardDesign:
    """The replication of one reward.

    Attributes:
        reward: its name.
        base: the base agent that its agents are compared with.
        agents: per training seed the agents trained with it; agents whose seed is unknown count
            as one seed together, because nothing says that they are independent.
    """

    reward: str
    base: str
    agents: tuple[tuple[str, ...], ...]

    @property
    def seeds(self) -> int:
        """Units of replication for a claim about the reward."""
        return len(self.agents)


def base_of(agents: pl.DataFrame, agent: str) -> str | None:
    """The base agent that a trained agent is compared with; None if the table has none.

    Raises:
        TableError: two base agents share the model, so that "the base" is ambiguous.
    """
    model = agents.filter(pl.col("agent") == agent).get_column("base").to_list()
    bases = agents.filter((pl.col("kind") == "base") & pl.col("base").is_in(model))
    names: list[str] = bases.get_column("agent").to_list()
    if len(names) > 1:
        raise TableError(
            f"Agent {agent!r} has more than one base agent",
            seen=names,
            allowed="one agent of kind base per base model",
            remedy="keep one of them in the agents table",
        )
    return names[0] if names else None


def trained_agents(agents: pl.DataFrame) -> list[str]:
    """Names of the models that are not a base, in the order of the table."""
    return agents.filter(~pl.col("kind").is_in(("base", "policy"))).get_column("agent").to_list()


def derived_agents(tables: Mapping[str, pl.DataFrame]) -> set[str]:
    """States of trainings on their way, and agents of which only some parts were trained.

    They carry the name of a reward, with what they are of it behind; they are neither further seeds
    of that reward nor rewards of their own.
    """
    found: set[str] = set()
    if "checkpoints" in tables:
        found |= set(tables["checkpoints"].get_column("agent").to_list())
    if "targeting" in tables:
        parts = tables["targeting"].filter(pl.col("strategy") != "all")
        found |= set(parts.get_column("agent").to_list())
    return found


def reward_designs(agents: pl.DataFrame) -> list[RewardDesign]:
    """Which rewards were trained, with how many seeds; rewards of different bases stay apart."""
    found: dict[tuple[str, str], dict[int | None, list[str]]] = {}
    named = set(trained_agents(agents))
    trained = agents.filter(pl.col("agent").is_in(named) & pl.col("reward").is_not_null())
    for row in trained.iter_rows(named=True):
        base = base_of(agents, row["agent"])
        if base is not None:
            seeds = found.setdefault((row["reward"], base), {})
            seeds.setdefault(row["training_seed"], []).append(row["agent"])
    return [
        RewardDesign(reward, base, tuple(tuple(names) for names in seeds.values()))
        for (reward, base), seeds in found.items()
    ]


def seeds_to_compare(alpha: float, comparisons: int = 1) -> int:
    """Seeds per reward, 5 or more, that can tell two rewards apart at alpha / comparisons."""
    seeds = MIN_SEEDS
    while permutation_floor(seeds, seeds) >= alpha / comparisons:
        seeds += 1
    return seeds


def units_to_differ_from_zero(alpha: float, comparisons: int = 1) -> int:
    """Units (scenarios or seeds) for which a sign-flip test can reject at alpha / comparisons."""
    units = 1
    while sign_flip_floor(units) >= alpha / comparisons:
        units += 1
    return units
