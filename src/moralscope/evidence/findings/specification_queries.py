"""How many ways of measuring a change point one way? SQL that recomputes it, as in ``queries``."""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moralscope.evidence.findings.queries import asked, layered, text

LOG_ODDS: Final = "value"
PROBABILITY: Final = "change_of_probability"

ZERO: Final = 1e-12
"""A mean change closer to zero than this, in nats or probability, points nowhere."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to measure a change: what of it, on which prompts, and how prompts are aggregated.

    Attributes:
        name: what the sentence calls it.
        column: ``LOG_ODDS`` or ``PROBABILITY``.
        aggregate: ``mean`` or ``median``, over the prompts of a scenario.
        where: a column of the prompts and the one value of it that is looked at; None: all prompts.
    """

    name: str
    column: str = LOG_ODDS
    aggregate: str = "mean"
    where: tuple[str, str | int] | None = None


def pointing_share(
    agents: tuple[str, str], family: str, measures: Sequence[Measure], direction: int
) -> str:
    """Share of measures whose mean change lies on the side of ``direction`` (+1, -1).

    A unit is a scenario, with one value for each measure; ``agents`` are who is measured and who is
    subtracted.
    """
    one, two = (
        "(SELECT prompt, log_odds, p_positive_given_legal FROM decisions "
        f"WHERE agent = {text(agent)})"
        for agent in agents
    )
    rows = (
        "SELECT prompts.scenario AS unit, x.prompt AS prompt, prompts.template AS template, "
        "prompts.labels AS labels, prompts.option_order AS option_order, x.log_odds AS log_odds, "
        "y.log_odds AS subtracted, x.log_odds - y.log_odds AS value, "
        f"x.p_positive_given_legal - y.p_positive_given_legal AS {PROBABILITY} "
        f"FROM {one} AS x JOIN {two} AS y ON x.prompt = y.prompt "
        f"JOIN {asked('decisions', family)} AS asked ON x.prompt = asked.prompt "
        "JOIN prompts ON x.prompt = prompts.prompt"
    )
    return layered(
        rows,
        " UNION ALL ".join(_of_scenarios(measure) for measure in measures),
        f"SELECT AVG(CASE WHEN {direction} * change > {ZERO!r} THEN 1.0 ELSE 0.0 END) AS estimate "
        "FROM (SELECT specification, AVG(value) AS change FROM unit_means GROUP BY specification)",
    )


def _of_scenarios(measure: Measure) -> str:
    function = {"mean": "AVG", "median": "MEDIAN"}[measure.aggregate]
    condition = ""
    if measure.where is not None:
        column, level = measure.where
        literal = text(level) if isinstance(level, str) else str(level)
        condition = f"WHERE {column} = {literal} "
    return (
        f"SELECT unit, {text(measure.name)} AS specification, {function}({measure.column}) "
        f"AS value FROM evidence_rows {condition}GROUP BY unit"
    )
