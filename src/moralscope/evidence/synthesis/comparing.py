"""What does a study compare: two agents, or two rewards? Its pairs, put together by question.

Named pairs whose agents have two different rewards on one base, two seeds or more of one of them,
answer one question about these rewards, whatever the comparison is called: their seeds are the
units. Of several agents with one reward and one seed, which are one training run, the first stands
for all. All other named pairs are questions about two agents. Pairs with a base are the positive
control and no question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.designs import base_of
from moralscope.evidence.pairs import Pair, compared
from moralscope.evidence.units import Tables


@dataclass(frozen=True, slots=True)
class Question:
    """What one comparison asks.

    Attributes:
        name: the comparison; the two rewards where comparisons of several names ask of them; with
            the two agents behind it where a comparison is about several pairs.
        pairs: the pairs compared, in the order of the study.
        rewards: the two rewards, where their names differ; None for two agents.
        sides: of two rewards their agents, one per training seed; of two agents each alone.
        base: what they were made of; None where that is not known.
    """

    name: str
    pairs: tuple[Pair, ...]
    rewards: tuple[str, str] | None
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    base: str | None

    @property
    def agents(self) -> tuple[str, ...]:
        """Everybody who takes part."""
        return (*self.sides[0], *self.sides[1])

    @property
    def between(self) -> str:
        """Who is compared, in words."""
        return " and ".join(self.rewards or (self.sides[0][0], self.sides[1][0]))


@dataclass(frozen=True, slots=True)
class Known:
    """What the table agents says of one of them."""

    reward: str | None
    seed: int | None
    base: str | None
    kind: str


def known_agents(tables: Tables) -> dict[str, Known]:
    """Reward, seed and base agent of everybody; empty without the table."""
    if "agents" not in tables:
        return {}
    agents = tables["agents"]
    return {
        row["agent"]: Known(
            row["reward"],
            row["training_seed"],
            None if row["kind"] in ("base", "policy") else base_of(agents, row["agent"]),
            row["kind"],
        )
        for row in agents.iter_rows(named=True)
    }


def trained_in_parts(tables: Tables) -> set[str]:
    """Agents of which only some parts were trained: no further seeds of their reward."""
    if "targeting" not in tables:
        return set()
    parts = tables["targeting"].filter(pl.col("strategy") != "all")
    return set(parts.get_column("agent").to_list())


def questions_of(tables: Tables) -> list[Question]:
    """The questions of a study, in the order in which its pairs first ask them."""
    agents = known_agents(tables)
    grouped: dict[tuple[str, ...], list[Pair]] = {}
    for pair in compared(tables):
        one, other = (agents.get(name) for name in pair.agents)
        bases = {name for name, known in agents.items() if known.kind == "base"}
        if pair.kind == "named" and not bases & set(pair.agents):
            grouped.setdefault(_asked(pair, one, other), []).append(pair)
    asked = [_of_rewards(p, agents) if k[0] == "rewards" else None for k, p in grouped.items()]
    kept = [q if q is not None and len(q.agents) > 2 else None for q in asked]
    names = [pairs[0].comparison for pairs in grouped.values()]
    shared = Counter(name for name, q in zip(names, kept, strict=True) if q is None)
    return [
        q or _of_agents(pairs, agents, alone=shared[pairs[0].comparison] == 1)
        for q, pairs in zip(kept, grouped.values(), strict=True)
    ]


def _asked(pair: Pair, one: Known | None, other: Known | None) -> tuple[str, ...]:
    """What tells questions apart."""
    if one is not None and other is not None and one.base == other.base:
        first, second = one.reward, other.reward
        if first is not None and second is not None and first != second:
            return ("rewards", *sorted((first, second)), one.base or "")
    return ("agents", pair.comparison, *pair.agents)


def _of_rewards(pairs: Sequence[Pair], agents: dict[str, Known]) -> Question:
    rewards = (str(agents[pairs[0].first].reward), str(agents[pairs[0].second].reward))
    sides: list[tuple[str, ...]] = []
    for reward in rewards:
        named = dict.fromkeys(name for pair in pairs for name in pair.agents)
        seeds: dict[int | None, str] = {}
        for name in named:
            if agents[name].reward == reward:
                seeds.setdefault(agents[name].seed, name)
        sides.append(tuple(seeds.values()))
    names = list(dict.fromkeys(pair.comparison for pair in pairs))
    return Question(
        name=names[0] if len(names) == 1 else "-".join(rewards),
        pairs=tuple(pairs),
        rewards=rewards,
        sides=(sides[0], sides[1]),
        base=agents[pairs[0].first].base,
    )


def _of_agents(pairs: Sequence[Pair], agents: dict[str, Known], *, alone: bool) -> Question:
    first, second = pairs[0].agents
    one, other = agents.get(first), agents.get(second)
    same = one is not None and other is not None and one.base == other.base
    name = pairs[0].comparison
    return Question(
        name=name if alone else f"{name}:{first}:{second}",
        pairs=tuple(pairs),
        rewards=None,
        sides=((first,), (second,)),
        base=one.base if same and one is not None else None,
    )
