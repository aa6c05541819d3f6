"""Which pairs of agents does a study compare? Its named comparisons, spelt out over seeds.

A comparison names two agents, or two entries with several seeds. All pairs of their members are
compared; those with the same seed (of unequal numbers of seeds, in turn) are also judged one by
one. Each agent is compared with the base, and with the other seeds of its own reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from moralscope.core.errors import ConfigError, nearest
from moralscope.evidence.pairs import BASE, SEEDS, Pair
from moralscope.studies.choices.agents import AgentEntry

Agents = Mapping[str, AgentEntry]


def members(name: str, agents: Agents) -> tuple[str, ...]:
    """The agents that a comparison's name stands for: one, or all seeds of an entry."""
    if name in agents:
        return (name,)
    return tuple(agent for agent, entry in agents.items() if entry.group == name)


def check_comparisons(comparisons: Mapping[str, tuple[str, str]], agents: Agents) -> None:
    """Refuse comparisons of what the study does not have.

    Raises:
        ConfigError: a side is no agent and no entry with seeds, both sides are one, or a name is
            one of those that the package gives itself.
    """
    groups = dict.fromkeys(e.group for e in agents.values() if e.group is not None)
    known = [*agents, *groups]
    for name, sides in comparisons.items():
        if name in (BASE, SEEDS):
            raise ConfigError(
                "A comparison cannot have this name",
                seen=name,
                allowed=f"any but {BASE} and {SEEDS}, which every study has",
                remedy="rename the comparison",
            )
        for side in sides:
            if side not in known:
                raise ConfigError(
                    f"The comparison {name!r} names an agent that the study does not have",
                    seen=side,
                    allowed=", ".join(known),
                    remedy=nearest(side, known),
                )
            if any(agents[agent].policy is not None for agent in members(side, agents)):
                raise ConfigError(
                    f"The comparison {name!r} names a scripted policy, which has nothing inside",
                    seen=side,
                    allowed="agents with weights",
                    remedy="name another agent",
                )
        if set(members(sides[0], agents)) & set(members(sides[1], agents)):
            raise ConfigError(
                f"The comparison {name!r} compares an agent with itself",
                seen=" and ".join(sides),
                allowed="two different agents, or entries",
                remedy="name two",
            )


def compared_pairs(
    comparisons: Mapping[str, tuple[str, str]],
    agents: Agents,
    rewards: Mapping[str, str | None],
    base: str,
) -> tuple[Pair, ...]:
    """All pairs that a study compares.

    Args:
        comparisons: as the study names them; with none, every two agents are a comparison.
        agents: those with weights, by name.
        rewards: what each was trained for.
        base: the base agent.
    """
    others = [name for name in agents if name != base]
    alike = [
        (a, b)
        for a, b in combinations(others, 2)
        if rewards[a] is not None and rewards[a] == rewards[b]
    ]
    wanted = dict(comparisons) or {
        f"{a}-{b}": (a, b) for a, b in combinations(others, 2) if (a, b) not in alike
    }
    found = [
        pair
        for name, (first, second) in wanted.items()
        for pair in _between(name, members(first, agents), members(second, agents), agents)
    ]
    found += [Pair(BASE, "base", base, name) for name in others]
    position = {name: index for index, name in enumerate(others)}
    return (
        *found,
        *(Pair(SEEDS, "replicate", a, b, _next(a, b, alike, position)) for a, b in alike),
    )


def _between(name: str, first: Sequence[str], second: Sequence[str], agents: Agents) -> list[Pair]:
    """All pairs of two groups; those are judged by themselves that have the same seed."""
    seeds = [{agents[agent].seed: agent for agent in side} for side in (first, second)]
    shared = [seed for seed in seeds[0] if seed in seeds[1]]
    judged = {(seeds[0][seed], seeds[1][seed]) for seed in shared}
    if not judged:
        judged = set(zip(first, second, strict=False))
    return [Pair(name, "named", a, b, (a, b) in judged) for a in first for b in second]


def _next(a: str, b: str, alike: Sequence[tuple[str, str]], position: Mapping[str, int]) -> bool:
    """Whether b is the next of a's own seeds: a chain through them, each judged once."""
    return b == min((y for x, y in alike if x == a), key=lambda name: position[name])
