"""How were these numbers made? SQL over the tables of weight updates.

Each query has the parts ``evidence_rows`` and ``unit_means``, see ``queries``.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.queries import layered, listed, sweep_of, text

_PLACE = "'L' || CAST(layer AS VARCHAR) || '.' || module"


def relative_norm(agent: str) -> str:
    """Norm of an agent's whole update over that of the base's weights."""
    return layered(
        f"SELECT COALESCE({_PLACE}, module) AS unit, norm, base_norm, norm * norm AS value, "
        f"base_norm * base_norm AS base FROM update_norms WHERE agent = {text(agent)}",
        "SELECT unit, SUM(value) AS value, SUM(base) AS base FROM evidence_rows GROUP BY unit",
        "SELECT SQRT(SUM(value)) / SQRT(SUM(base)) AS estimate FROM unit_means",
    )


def beyond_controls(agent: str, axis: str, side: str) -> str:
    """Share of an agent's update along the axis minus that along axes of random tokens, mean."""
    at = f"agent = {text(agent)} AND axis = {text(axis)} AND side = {text(side)}"
    return layered(
        "SELECT CAST(update_controls.draw AS VARCHAR) AS unit, own.share AS share, "
        "update_controls.share AS control, own.share - update_controls.share AS value "
        "FROM update_controls CROSS JOIN (SELECT SUM(norm * norm * share) / SUM(norm * norm) "
        f"AS share FROM update_directions WHERE {at} AND share IS NOT NULL) AS own "
        f"WHERE {at}"
    )


def beyond_random(pairs: Sequence[tuple[str, str]], side: str, k: int) -> str:
    """Overlap of leading subspaces minus that of random ones, mean over linear layers."""
    return layered(
        f"SELECT {_PLACE} AS unit, agent_a, agent_b, overlap, expected, "
        f"overlap - expected AS value FROM update_overlap WHERE side = {text(side)} "
        f"AND k = {k} AND agent_a || ' ' || agent_b IN ({_listed(pairs)})"
    )


_DIFFERENCE = (
    "SELECT AVG(CASE WHEN reward <> other_reward THEN value END) - "
    "AVG(CASE WHEN reward = other_reward THEN value END) AS estimate FROM unit_means"
)


def outputs_apart(pairs: Sequence[tuple[str, str]], k: int) -> str:
    """One minus the mean overlap of what updates write: between rewards minus within one."""
    return layered(
        f"{_REWARDED} 1.0 - overlap AS value FROM update_overlap {_JOINED} "
        f"WHERE side = 'outputs' AND k = {k} AND {_PAIR} IN ({_listed(pairs)})",
        "SELECT unit, reward, other_reward, AVG(value) AS value FROM evidence_rows "
        "GROUP BY unit, reward, other_reward",
        _DIFFERENCE,
    )


_PAIR = "agent_a || ' ' || agent_b"
_REWARDED = f"SELECT {_PAIR} AS unit, a.reward AS reward, b.reward AS other_reward, layer, module,"
_JOINED = "JOIN agents AS a ON agent_a = a.agent JOIN agents AS b ON agent_b = b.agent"


def layers_together(sweeps: Sequence[tuple[str, tuple[str, str, str, str]]]) -> str:
    """Spearman's correlation over layers of update norms with effects of patches, mean of agents.

    Args:
        sweeps: each agent, and the sweep (source, target, positions, write) that it was patched in.
    """
    swept = " UNION ALL ".join(
        f"SELECT {text(agent)} AS agent, layer, site, AVG(effect) AS effect FROM patching "
        f"WHERE {sweep_of(*sweep)} AND kind IN ('head', 'mlp') GROUP BY layer, site"
        for agent, sweep in sweeps
    )
    agents = listed([agent for agent, _ in sweeps])
    ranks = (
        "CAST(SUM(CASE WHEN y.{0} < x.{0} THEN 1.0 WHEN y.{0} = x.{0} THEN 0.5 ELSE 0.0 END) "
        "AS DOUBLE) AS {0}"
    )
    return (
        "WITH evidence_rows AS (SELECT CAST(norms.layer AS VARCHAR) AS unit, norms.agent AS agent, "
        "norms.value AS value, effects.value AS effect FROM "
        "(SELECT agent, layer, SQRT(SUM(norm * norm)) AS value FROM update_norms "
        f"WHERE agent IN ({agents}) AND rank IS NOT NULL GROUP BY agent, layer) AS norms "
        f"JOIN (SELECT agent, layer, SUM(ABS(effect)) AS value FROM ({swept}) AS sites "
        "GROUP BY agent, layer) AS effects "
        "ON norms.agent = effects.agent AND norms.layer = effects.layer), "
        "unit_means AS (SELECT unit, agent, AVG(value) AS value, AVG(effect) AS effect "
        "FROM evidence_rows GROUP BY unit, agent), "
        f"ranks AS (SELECT x.agent AS agent, x.unit AS unit, {ranks.format('value')}, "
        f"{ranks.format('effect')} FROM unit_means AS x JOIN unit_means AS y "
        "ON x.agent = y.agent GROUP BY x.agent, x.unit) "
        "SELECT AVG(rho) AS estimate FROM (SELECT agent, CORR(value, effect) AS rho FROM ranks "
        "GROUP BY agent) AS of_agents"
    )


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return listed([f"{a} {b}" for a, b in pairs])
