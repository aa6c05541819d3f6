"""How were these numbers made? SQL over what agents represent.

Each query has the parts ``evidence_rows`` (with ``unit`` and ``value``) and ``unit_means`` and ends
in one row with the column ``estimate``.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.queries import asked, layered, text

Pair = tuple[str, str]


def stream_distance(pair: Pair, family: str) -> str:
    """Mean distance of two agents' streams over layers, by scenario."""
    return layered(
        "SELECT asked.scenario AS unit, own.prompt AS prompt, own.layer AS layer, "
        "own.distance AS value FROM representation_pairs AS own "
        f"JOIN {asked('representation_pairs', family)} AS asked ON own.prompt = asked.prompt "
        f"WHERE own.agent_a = {text(pair[0])} AND own.agent_b = {text(pair[1])} "
        "AND own.layer >= 0 AND own.distance IS NOT NULL"
    )


def between_and_within(pairs: Sequence[tuple[Pair, bool]], family: str, value: str) -> str:
    """Mean over pairs of different rewards minus mean over pairs of one; each pair is a unit.

    Args:
        pairs: two agents as the table has them, and whether their rewards differ.
        family: the prompt family.
        value: SQL of what is averaged, over the alias ``own``.
    """
    other = " OR ".join(_is(pair) for pair, differ in pairs if differ)
    rows = (
        "SELECT own.agent_a || '|' || own.agent_b AS unit, "
        f"CASE WHEN {other or 'FALSE'} THEN 'between' ELSE 'within' END AS kind, "
        "asked.scenario AS scenario, own.prompt AS prompt, own.layer AS layer, "
        f"{value} AS value FROM representation_pairs AS own "
        f"JOIN {asked('representation_pairs', family)} AS asked ON own.prompt = asked.prompt "
        f"WHERE ({' OR '.join(_is(pair) for pair, _ in pairs)}) "
        f"AND own.layer >= 0 AND {value} IS NOT NULL"
    )
    return layered(
        rows,
        "SELECT unit, kind, AVG(value) AS value FROM (SELECT unit, kind, scenario, "
        "AVG(value) AS value FROM evidence_rows GROUP BY unit, kind, scenario) AS by_scenario "
        "GROUP BY unit, kind",
        "SELECT AVG(CASE WHEN kind = 'between' THEN value END) - "
        "AVG(CASE WHEN kind = 'within' THEN value END) AS estimate FROM unit_means",
    )


def _is(pair: Pair) -> str:
    return f"(own.agent_a = {text(pair[0])} AND own.agent_b = {text(pair[1])})"


def reached_share(search: tuple[str, str, str], layer: int, dimension: int, control: str) -> str:
    """Held-out share that a subspace reaches minus the share that a control does.

    Args:
        search: what differs, the source and the agent.
        layer: after which.
        dimension: of the subspace.
        control: which control is subtracted.
    """
    what, source, agent = (text(part) for part in search)
    rows = (
        "SELECT prompts.scenario AS unit, own.prompt AS prompt, own.control AS control, "
        "own.draw AS draw, own.effect AS effect, own.wanted AS wanted, "
        "own.effect * own.wanted AS value FROM subspace_effects AS own "
        "JOIN prompts ON own.prompt = prompts.prompt "
        f"WHERE own.what = {what} AND own.source = {source} AND own.agent = {agent} "
        f"AND own.layer = {layer} AND own.dimension = {dimension} AND own.split = 'test' "
        f"AND own.control IN ('none', {text(control)})"
    )

    def share(name: str) -> str:
        own = f"CASE WHEN control = {text(name)} THEN"
        return f"SUM({own} value END) / SUM({own} scale END)"

    return layered(
        rows,
        "SELECT unit, control, AVG(value) AS value, AVG(wanted * wanted) AS scale "
        "FROM evidence_rows GROUP BY unit, control",
        f"SELECT {share('none')} - {share(control)} AS estimate FROM unit_means",
    )
