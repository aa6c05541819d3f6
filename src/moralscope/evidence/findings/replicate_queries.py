"""How far do agents lie apart? SQL that recomputes distances between and within rewards.

    unit_means   unit (a reward and its seed), reward, seed, scenario, ..., value
    distances    the root mean square difference of two units over what they share

and the estimate is the mean distance of units of different rewards minus that of one reward.
Units of two rewards that were trained from one seed are left out.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.inner_queries import InnerSource
from moralscope.evidence.findings.queries import asked, listed

PAIRS = (
    "x.unit < y.unit AND (x.reward = y.reward OR x.seed IS NULL OR y.seed IS NULL "
    "OR x.seed <> y.seed)"
)
"""Which two units x and y are compared."""

_SEED = "agents.reward || ' ' || COALESCE(CAST(agents.training_seed AS VARCHAR), 'unknown')"


def decided_rows(agents: Sequence[str], family: str) -> str:
    """``unit, reward, seed, agent, scenario, prompt, value``: log-odds of trained agents."""
    return (
        f"SELECT {_SEED} AS unit, agents.reward AS reward, agents.training_seed AS seed, "
        "decisions.agent AS agent, "
        "asked.scenario AS scenario, decisions.prompt AS prompt, decisions.log_odds AS value "
        f"FROM decisions JOIN {asked('decisions', family)} AS asked "
        "ON decisions.prompt = asked.prompt JOIN agents ON decisions.agent = agents.agent "
        f"WHERE decisions.agent IN ({listed(agents)})"
    )


def inner_rows(source: InnerSource, agents: Sequence[str], sites: Sequence[str]) -> str:
    """``unit, reward, seed, agent, scenario, prompt, site, value`` of what sites computed."""
    return (
        f"SELECT {_SEED} AS unit, agents.reward AS reward, agents.training_seed AS seed, "
        "own.agent AS agent, "
        "own.unit AS scenario, own.prompt AS prompt, own.site AS site, own.value AS value "
        f"FROM ({source.rows(agents, sites)}) AS own JOIN agents ON own.agent = agents.agent"
    )


def distance_difference(rows: str, places: Sequence[str]) -> str:
    """Mean distance between rewards minus that within them; null where one of them has no pair.

    Args:
        rows: one of the above.
        places: columns that agents are compared over: ``scenario``, and ``site`` where there are
            sites.
    """
    at = ", ".join(places)
    same = " AND ".join(f"x.{place} = y.{place}" for place in places)
    return (
        f"WITH evidence_rows AS ({rows}), "
        f"unit_means AS (SELECT unit, reward, seed, {at}, AVG(value) AS value FROM "
        f"(SELECT unit, reward, seed, agent, {at}, AVG(value) AS value FROM evidence_rows "
        f"GROUP BY unit, reward, seed, agent, {at}) AS of_agents "
        f"GROUP BY unit, reward, seed, {at}), "
        "distances AS (SELECT x.unit AS unit, y.unit AS other, x.reward AS reward, "
        "y.reward AS other_reward, SQRT(AVG((x.value - y.value) * (x.value - y.value))) AS value "
        f"FROM unit_means AS x JOIN unit_means AS y ON {same} WHERE {PAIRS} "
        "GROUP BY x.unit, y.unit, x.reward, y.reward) "
        "SELECT AVG(CASE WHEN reward <> other_reward THEN value END) - "
        "AVG(CASE WHEN reward = other_reward THEN value END) AS estimate FROM distances"
    )
