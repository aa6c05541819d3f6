"""How was a contrast or a divergence made? SQL that recomputes it, as in ``queries``."""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.contrasts import Contrast, Design
from moralscope.evidence.findings.queries import asked, layered, listed, text

_OF_STATE = "prompts.own_previous || prompts.opponent_previous"
_TEXTS = (
    "SELECT unit, cell, AVG(value) AS value FROM (SELECT unit, cell, labels, AVG(value) AS value "
    "FROM evidence_rows GROUP BY unit, cell, labels) GROUP BY unit, cell"
)


def contrast_value(design: Design, contrast: Contrast, agent: str, other: str | None = None) -> str:
    """A contrast of one agent, or of one agent minus another's.

    Where every text is asked in all cells, its unit mean is the contrast within it; where cells are
    told by different texts, a unit is a text of a cell with a weight, and the estimate is the
    weighted sum of the means of cells.
    """
    used = {
        name: weight
        for name, weight in zip(contrast.cells, contrast.weights, strict=True)
        if weight != 0.0
    }
    cases = " ".join(f"WHEN {text(name)} THEN {weight!r}" for name, weight in used.items())
    weight = f"CASE cell {cases} END"
    rows = f"{_rows(design, agent, other)} AND {_cell(design)} IN ({listed(list(used))})"
    if design.paired:
        return layered(
            rows,
            f"SELECT unit, SUM({weight} * value) AS value FROM ({_TEXTS}) GROUP BY unit",
        )
    return layered(
        rows,
        _TEXTS,
        f"SELECT SUM({weight} * value) AS estimate FROM "
        "(SELECT cell, AVG(value) AS value FROM unit_means GROUP BY cell)",
    )


def undefined_contrast(design: Design, agent: str, other: str | None = None) -> str:
    """The prompts without a legal answer, which leave a contrast undefined."""
    gaps = ["x.p_positive_given_legal IS NULL"]
    if other is not None:
        gaps.append("y.p_positive_given_legal IS NULL")
    return layered(f"{_rows(design, agent, other)} AND ({' OR '.join(gaps)})")


def _cell(design: Design) -> str:
    return f"({_OF_STATE})" if design.paired else "prompts.scenario"


def _rows(design: Design, agent: str, other: str | None) -> str:
    """Probabilities of cooperating, prompt by prompt, with cell, text and label assignment."""
    value = "1.0 - x.p_positive_given_legal AS value"
    join, of_other = "", ""
    if other is not None:
        value = (
            "1.0 - x.p_positive_given_legal AS p_cooperate, "
            "1.0 - y.p_positive_given_legal AS subtracted, "
            "y.p_positive_given_legal - x.p_positive_given_legal AS value"
        )
        join = "JOIN decisions AS y ON x.prompt = y.prompt "
        of_other = f"AND y.agent = {text(other)} "
    where = design.where
    if design.unit == "wordings":
        # A text that lacks a state is no unit, which no condition on single prompts can say.
        units: list[str] = design.prompts.get_column("unit").unique(maintain_order=True).to_list()
        where += f" AND prompts.template IN ({listed(units)})"
    return (
        f"SELECT prompts.template AS unit, {_cell(design)} AS cell, prompts.labels AS labels, "
        f"x.prompt AS prompt, {value} FROM decisions AS x {join}"
        "JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(agent)} {of_other}AND {where}"
    )


def divergence(first: str, second: str, family: str) -> str:
    """Mean Jensen-Shannon divergence of two agents."""
    return layered(
        f"SELECT asked.scenario AS unit, x.prompt AS prompt, {_divergence()} AS value "
        f"{_pairs(family)} WHERE x.agent = {text(first)} AND y.agent = {text(second)}"
    )


def largest_divergence(agents: Sequence[str], family: str) -> str:
    """The largest mean divergence of any two of these agents."""
    named = listed(agents)
    return layered(
        "SELECT asked.scenario AS unit, x.agent AS agent, y.agent AS other, x.prompt AS prompt, "
        f"{_divergence()} AS value {_pairs(family)} "
        f"WHERE x.agent IN ({named}) AND y.agent IN ({named}) AND x.agent < y.agent",
        "SELECT unit, agent, other, AVG(value) AS value FROM evidence_rows "
        "GROUP BY unit, agent, other",
        "SELECT MAX(value) AS estimate FROM "
        "(SELECT AVG(value) AS value FROM unit_means GROUP BY agent, other)",
    )


def _pairs(family: str) -> str:
    return (
        "FROM decisions AS x JOIN decisions AS y ON x.prompt = y.prompt "
        f"JOIN {asked('decisions', family)} AS asked ON x.prompt = asked.prompt"
    )


def _divergence() -> str:
    """Per prompt sum (p log(p / m) + q log(q / m)) / 2, 0 log 0 being 0."""
    options = [("x.p_positive", "y.p_positive"), ("x.p_negative", "y.p_negative")]
    options.append(("(1.0 - x.p_positive - x.p_negative)", "(1.0 - y.p_positive - y.p_negative)"))
    terms = [
        f"CASE WHEN {p} > 0.0 THEN {p} * LN(2.0 * {p} / ({a} + {b})) ELSE 0.0 END"
        for a, b in options
        for p in (a, b)
    ]
    return f"({' + '.join(terms)}) / 2.0"
