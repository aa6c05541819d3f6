"""How far apart were they? SQL over the distances of the table ``cascade``."""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.queries import layered, listed, text


def distances_of_rewards(
    level: str, measure: str, agents: Sequence[str], *, same_seeds: bool
) -> str:
    """Mean distance of agents of different rewards minus that of agents of one reward.

    Args:
        level: of the cascade.
        measure: of the level.
        agents: one per training seed of two rewards.
        same_seeds: whether pairs that began from the same seed count.
    """
    apart = (
        ""
        if same_seeds
        else " AND (a.training_seed IS NULL OR b.training_seed IS NULL "
        "OR a.training_seed <> b.training_seed)"
    )
    rows = (
        "SELECT DISTINCT cascade.agent_a || ' ' || cascade.agent_b AS unit, a.reward AS reward, "
        "b.reward AS other_reward, cascade.distance AS value FROM cascade "
        "JOIN agents AS a ON cascade.agent_a = a.agent "
        "JOIN agents AS b ON cascade.agent_b = b.agent "
        f"WHERE {_those(level, measure)} AND cascade.kind IN ('named', 'replicate') "
        f"AND cascade.agent_a IN ({listed(agents)}) AND cascade.agent_b IN ({listed(agents)})"
        f"{apart}"
    )
    means = (
        "SELECT unit, reward, other_reward, AVG(value) AS value FROM evidence_rows "
        "GROUP BY unit, reward, other_reward"
    )
    last = (
        "SELECT AVG(CASE WHEN reward <> other_reward THEN value END) - "
        "AVG(CASE WHEN reward = other_reward THEN value END) AS estimate FROM unit_means"
    )
    return layered(rows, means, last)


def distance_of_agents(level: str, measure: str, agents: tuple[str, str]) -> str:
    """The distance of two agents."""
    return layered(
        "SELECT DISTINCT cascade.agent_a || ' ' || cascade.agent_b AS unit, "
        "cascade.distance AS value FROM cascade "
        f"WHERE {_those(level, measure)} AND cascade.kind = 'named' "
        f"AND cascade.agent_a = {text(agents[0])} AND cascade.agent_b = {text(agents[1])}"
    )


def _those(level: str, measure: str) -> str:
    return f"cascade.level = {text(level)} AND cascade.measure = {text(measure)}"
