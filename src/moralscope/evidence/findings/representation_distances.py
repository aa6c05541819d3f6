"""How far apart are the streams of two agents, scenario by scenario?

From ``representation_pairs``, mean over prompts and the layers after the embedding, of

    d = |h_A - h_B| / |h_base|        and of        1 - cos(h_A - h_base, h_B - h_base).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import inference_family, on_family

TABLE = "representation_pairs"

AgentPair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Apart:
    """How far agents lie apart.

    Attributes:
        family: the prompt family.
        distances, changes: by pair as the table has it, ``(G,)`` means of ``d`` and of
            ``1 - cos`` by scenario; a pair without changes has none of the latter.
    """

    family: str
    distances: Mapping[AgentPair, Array]
    changes: Mapping[AgentPair, Array]

    def stored(self, agents: AgentPair) -> AgentPair | None:
        """The pair in the order in which the table has it."""
        ways = (agents, (agents[1], agents[0]))
        return next((way for way in ways if way in self.distances), None)


def apart_of(setting: Setting) -> Apart | None:
    """How far the agents of ``representation_pairs`` lie apart; None off the known prompts.

    Raises:
        TableError: pairs were compared on different prompts.
    """
    table, prompts = setting.tables[TABLE], setting.tables["prompts"]
    family = inference_family(prompts, table.get_column("prompt"))
    if family is None:
        return None
    rows = on_family(table.filter(pl.col("layer") >= 0), prompts, family)
    _refuse_other_prompts(rows)
    found = {name: _by_pair(rows.with_columns(value=value)) for name, value in (
        ("distance", pl.col("distance")), ("change", 1.0 - pl.col("change_cosine")),
    )}  # fmt: skip
    return Apart(family, found["distance"], found["change"])


def _by_pair(rows: pl.DataFrame) -> dict[AgentPair, Array]:
    """Means by scenario, scenarios in one order."""
    means = (
        rows.drop_nulls("value")
        .group_by("agent_a", "agent_b", "scenario")
        .agg(pl.col("value").mean())
        .sort("agent_a", "agent_b", "scenario")
    )
    return {
        (str(a), str(b)): own.get_column("value").to_numpy()
        for (a, b), own in means.group_by("agent_a", "agent_b", maintain_order=True)
    }


def _refuse_other_prompts(rows: pl.DataFrame) -> None:
    """Refuse pairs that were compared on different prompts: scenarios would mean other things."""
    asked = rows.select("agent_a", "agent_b", "prompt").unique()
    every = asked.get_column("prompt").n_unique()
    counts = asked.group_by("agent_a", "agent_b").len().sort("len", "agent_a", "agent_b")
    a, b, fewest = counts.row(0)
    if fewest < every:
        raise TableError(
            f"The streams of {a} and {b} were not compared on the prompts of other pairs",
            seen=f"{fewest} of {every} prompts",
            allowed="the same prompts for every pair of agents",
            remedy="compare all agents on the same prompts",
        )
