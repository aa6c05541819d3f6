"""How were these numbers made? SQL over where agents look, and what masking it does.

Each query has the parts ``evidence_rows`` (with ``unit`` and ``value``) and ``unit_means`` and ends
in one row with the column ``estimate``, see ``findings.queries``.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from moralscope.evidence.findings.queries import asked, layered, text
from moralscope.evidence.statistics.shares import LEAST


def _log_odds(mass: str) -> str:
    """Log-odds of a share, clipped as ``statistics.shares`` does."""
    kept = (
        f"CASE WHEN {mass} < {LEAST!r} THEN {LEAST!r} WHEN {mass} > {1.0 - LEAST!r} "
        f"THEN {1.0 - LEAST!r} ELSE {mass} END"
    )
    return f"(LN({kept}) - LN(1.0 - {kept}))"


def looking_difference(
    agents: tuple[str, str], category: str, family: str, head: tuple[int, int] | None = None
) -> str:
    """Log-odds of a category's mass in the first agent minus the second, of all heads or one.

    Args:
        agents: first and second.
        category: what is looked at.
        family: of prompts.
        head: layer and head; None for the mean over all.
    """
    here = f"category = {text(category)}"
    if head is not None:
        here += f" AND layer = {head[0]} AND head = {head[1]}"
    first, second = (
        f"(SELECT prompt, layer, head, mass FROM attention WHERE agent = {text(agent)} AND {here})"
        for agent in agents
    )
    return layered(
        "SELECT asked.scenario AS unit, x.prompt AS prompt, x.layer AS layer, x.head AS head, "
        "x.mass AS mass, y.mass AS subtracted, "
        f"{_log_odds('x.mass')} - {_log_odds('y.mass')} AS value FROM {first} AS x "
        f"JOIN {second} AS y ON x.prompt = y.prompt AND x.layer = y.layer AND x.head = y.head "
        f"JOIN {asked('attention', family)} AS asked ON x.prompt = asked.prompt"
    )


def mask_excess(agent: str, category: str, layers: str, family: str) -> str:
    """How much further masking a category moves the decision than masking random tokens."""
    return layered(
        f"SELECT unit, prompt, size, random_size, size - random_size AS value FROM "
        f"{_masked(agent, category, layers, family)}"
    )


def mask_excess_difference(agents: tuple[str, str], category: str, layers: str, family: str) -> str:
    """The same of the first agent minus the second."""
    first, second = (_masked(agent, category, layers, family) for agent in agents)
    return layered(
        "SELECT x.unit AS unit, x.prompt AS prompt, x.size AS size, x.random_size AS random_size, "
        "y.size AS other_size, y.random_size AS other_random_size, "
        "(x.size - x.random_size) - (y.size - y.random_size) AS value "
        f"FROM {first} AS x JOIN {second} AS y ON x.prompt = y.prompt"
    )


def _masked(agent: str, category: str, layers: str, family: str) -> str:
    """``unit, prompt, size, random_size``: of each prompt, random tokens averaged over draws."""
    here = (
        f"agent = {text(agent)} AND category = {text(category)} AND how = 'mask' "
        f"AND layers = {text(layers)}"
    )
    return (
        "(SELECT asked.scenario AS unit, own.prompt AS prompt, own.size AS size, "
        "drawn.size AS random_size FROM "
        f"(SELECT prompt, ABS(effect) AS size FROM attention_edits WHERE {here} AND draw = -1) "
        "AS own JOIN (SELECT prompt, AVG(ABS(effect)) AS size FROM attention_edits "
        f"WHERE {here} AND draw >= 0 GROUP BY prompt) AS drawn ON own.prompt = drawn.prompt "
        f"JOIN {asked('attention_edits', family)} AS asked ON own.prompt = asked.prompt)"
    )
