"""How was a contrast or a divergence made? SQL that recomputes it, as in ``queries``."""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.contrasts import Contrast, Design
from moralscope.evidence.findings.queries import text

_OF_STATE = "prompts.own_previous || prompts.opponent_previous"


def contrast_value(design: Design, contrast: Contrast, agent: str, other: str | None = None) -> str:
    """A contrast of one agent, or of one agent minus another's."""
    value = "AVG(1.0 - x.p_positive_given_legal)"
    join, of_other = "", ""
    if other is not None:
        value = "AVG(y.p_positive_given_legal - x.p_positive_given_legal)"
        join = "JOIN decisions AS y ON x.prompt = y.prompt "
        of_other = f"AND y.agent = {text(other)} "
    cell = _OF_STATE if design.paired else "prompts.scenario"
    cases = " ".join(
        f"WHEN {text(name)} THEN {weight!r}"
        for name, weight in zip(contrast.cells, contrast.weights, strict=True)
        if weight != 0.0
    )
    return (
        f"SELECT SUM(CASE cell {cases} ELSE 0.0 END * m) AS estimate FROM ("
        "SELECT cell, AVG(m) AS m FROM (SELECT cell, place, AVG(m) AS m FROM ("
        f"SELECT {cell} AS cell, prompts.template AS place, prompts.labels AS labels, {value} AS m "
        f"FROM decisions AS x {join}JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(agent)} {of_other}AND {design.where} "
        f"GROUP BY {cell}, prompts.template, prompts.labels) "
        "GROUP BY cell, place) GROUP BY cell)"
    )


def divergence(first: str, second: str, family: str) -> str:
    """Mean Jensen-Shannon divergence of two agents."""
    return (
        "SELECT AVG(m) AS estimate FROM ("
        f"SELECT prompts.scenario, {_divergence()} AS m {_pairs()} "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} "
        f"AND prompts.family = {text(family)} GROUP BY prompts.scenario)"
    )


def largest_divergence(agents: Sequence[str], family: str) -> str:
    """The largest mean divergence of any two of these agents."""
    named = ", ".join(text(name) for name in agents)
    return (
        "SELECT MAX(d) AS estimate FROM (SELECT AVG(m) AS d FROM ("
        f"SELECT x.agent AS a, y.agent AS b, prompts.scenario, {_divergence()} AS m {_pairs()} "
        f"WHERE x.agent IN ({named}) AND y.agent IN ({named}) AND x.agent < y.agent "
        f"AND prompts.family = {text(family)} GROUP BY x.agent, y.agent, prompts.scenario) "
        "GROUP BY a, b)"
    )


def _pairs() -> str:
    return (
        "FROM decisions AS x JOIN decisions AS y ON x.prompt = y.prompt "
        "JOIN prompts ON x.prompt = prompts.prompt"
    )


def _divergence() -> str:
    """The average over prompts of sum (p log(p / m) + q log(q / m)) / 2, 0 log 0 being 0."""
    options = [("x.p_positive", "y.p_positive"), ("x.p_negative", "y.p_negative")]
    options.append(("(1.0 - x.p_positive - x.p_negative)", "(1.0 - y.p_positive - y.p_negative)"))
    terms = [
        f"CASE WHEN {p} > 0.0 THEN {p} * LN(2.0 * {p} / ({a} + {b})) ELSE 0.0 END"
        for a, b in options
        for p in (a, b)
    ]
    return f"AVG({' + '.join(terms)}) / 2.0"
