"""Which agents are compared with which? The study's own list, or what the agents' roles suggest.

Three kinds of pairs. ``named``: what the study asks about. ``base``: a base and an agent that was
made of it, which shows how large the effect of training is (the positive control). ``replicate``:
two agents with the same reward from different seeds, which shows how far apart agents are that
were meant to be the same (the noise floor). Nothing between agents is tested on any other pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, cast

import polars as pl

from moralscope.evidence.designs import base_of, trained_agents

Kind = Literal["named", "base", "replicate"]

BASE, SEEDS = "base", "seeds"
"""What comparisons are called that the package adds: bases with agents, seeds of one reward."""


@dataclass(frozen=True)
class Pair:
    """Two agents that are compared.

    Attributes:
        comparison: its name, shared by pairs that answer one question.
        kind: named, base or replicate.
        first, second: the agents; of kind base, the base is first.
        tested: whether claims are made about this pair by itself. Of rewards with several seeds
            those with the same seed are; all the others are distances that tests over seeds need.
    """

    comparison: str
    kind: Kind
    first: str
    second: str
    tested: bool = True

    @property
    def agents(self) -> tuple[str, str]:
        """Both agents."""
        return self.first, self.second


def compared(tables: Mapping[str, pl.DataFrame]) -> tuple[Pair, ...]:
    """The pairs that between-agent analyses use, in order: named, base, replicate.

    Args:
        tables: result tables; ``comparisons`` is taken as it stands. Without it, ``agents`` gives
            each agent with its base, seeds of one reward as replicates, and all other pairs as
            ``named``, called ``A-B``. Without both there are none.
    """
    if "comparisons" in tables:
        found = [
            Pair(
                row["comparison"],
                cast("Kind", row["kind"]),
                row["agent_a"],
                row["agent_b"],
                row["tested"],
            )
            for row in tables["comparisons"].iter_rows(named=True)
        ]
    elif "agents" in tables:
        found = suggested(tables["agents"])
    else:
        return ()
    order = {"named": 0, "base": 1, "replicate": 2}
    return tuple(sorted(found, key=lambda pair: order[pair.kind]))


def tested_pairs(
    tables: Mapping[str, pl.DataFrame], agents: Sequence[str]
) -> list[tuple[str, str]]:
    """Which two of some agents are compared in a claim of their own, in the agents' order.

    Args:
        tables: result tables. With ``comparisons`` these are its tested pairs, but for those of an
            agent and its base, which are changes; without, every two agents.
        agents: who could be compared.
    """
    every = list(combinations(agents, 2))
    if "comparisons" not in tables:
        return every
    wanted = {frozenset(p.agents) for p in compared(tables) if p.tested and p.kind != "base"}
    return [pair for pair in every if frozenset(pair) in wanted]


def suggested(agents: pl.DataFrame) -> list[Pair]:
    """Pairs that the table ``agents`` suggests, see ``compared``."""
    names = trained_agents(agents)
    rows = {row["agent"]: row for row in agents.iter_rows(named=True)}
    bases = [(base_of(agents, name), name) for name in names]
    found = [Pair(BASE, "base", base, name) for base, name in bases if base is not None]
    for first, second in combinations(names, 2):
        reward, other = rows[first]["reward"], rows[second]["reward"]
        if reward is not None and reward == other:
            found.append(Pair(SEEDS, "replicate", first, second))
        else:
            found.append(Pair(f"{first}-{second}", "named", first, second))
    return found
