"""What does the report say? Everything a reader meets, assembled once from the run.

The page and its machine-readable twin are both made from ``Content``, so that they cannot say
different things.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl

from moralscope.core.progress import Progress, ProgressEvent
from moralscope.reports.answers import AgentAnswers, agent_answers
from moralscope.reports.conversations import AgentConversations, agent_conversations
from moralscope.reports.export import Picture, earlier_pictures, render
from moralscope.reports.exports import Exported
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figures import makers_of
from moralscope.reports.findings import VerdictGroup, group_findings
from moralscope.reports.judged import Gate, Judged, judged
from moralscope.reports.limits import Limitation, limitations_of
from moralscope.reports.look import agent_colours
from moralscope.reports.passages import Passage, passages_of
from moralscope.reports.prompts import PromptFamily, prompt_families
from moralscope.reports.questions import Answered, answered
from moralscope.reports.run import AgentFacts, FailedStage, Run

DRAWN_AT_ONCE = 2
"""Pictures that are rendered side by side; the converter itself lays out one at a time."""

_READ = ("agents", "prompts", "decisions", "claims", "gates", "learned")


@dataclass(frozen=True)
class AgentCard:
    """An agent, what it learned, and how it answers on average.

    Attributes:
        facts: who it is.
        colour: hexadecimal.
        learned, sentence: the finding of the controls; empty where there is none.
        answers: per prompt family its mean P(positive given legal), null where no answer of the
            family is legal, and mean legal mass.
    """

    facts: AgentFacts
    colour: str
    learned: str
    sentence: str
    answers: tuple[tuple[str, float | None, float], ...]


@dataclass(frozen=True)
class Drawn:
    """A figure and its renderings."""

    figure: Figure
    picture: Picture


@dataclass(frozen=True)
class Content:
    """The report.

    Attributes:
        run: what it was made from.
        groups: claims by verdict.
        agents: cards, in the order of the study.
        figures: drawn or absent, in the order of the page.
        gates: failed first, then unavailable, then passed.
        judged: named hypotheses, controls, the design, and what an audit covered.
        audit: whether these are tables from elsewhere, so that gates come first and only figures
            that can be drawn are mentioned.
        answers: sampled ones by agent; empty where none were drawn.
        conversations: by agent; empty where none were held.
        prompts: by family, in the order of the table.
        missing: sentences about what the run lacks.
        failed: stages that did not finish, with the reason.
        questions: the study's research questions, answered.
        passages: the methods of this run in words, each with its sources.
        limitations: what cannot be said, and why.
        exports: the files that the tables are exported to; None where they are not.
    """

    run: Run
    groups: tuple[VerdictGroup, ...]
    agents: tuple[AgentCard, ...]
    figures: tuple[Drawn | Absent, ...]
    gates: tuple[Gate, ...]
    judged: Judged
    audit: bool
    answers: tuple[AgentAnswers, ...]
    conversations: tuple[AgentConversations, ...]
    prompts: tuple[PromptFamily, ...]
    missing: tuple[str, ...]
    failed: tuple[FailedStage, ...]
    questions: tuple[Answered, ...]
    passages: tuple[Passage, ...]
    limitations: tuple[Limitation, ...]
    exports: Exported | None = None


def assemble(run: Run, progress: Progress) -> Content:
    """Everything the report says; draws the figures, reporting each to ``progress``."""
    colours = agent_colours(
        [agent.name for agent in run.agents],
        frozenset(agent.name for agent in run.agents if agent.kind == "base"),
        {agent.name: agent.reward for agent in run.agents},
        frozenset(agent.name for agent in run.agents if agent.kind == "policy"),
    )
    audit = "coverage" in run.tables
    figures = _drawn(run, colours, progress)
    claims = run.tables.get("claims")
    groups = () if claims is None else group_findings(claims)
    gates, others = _gates(run.tables.get("gates")), judged(run, groups)
    failed = run.manifest.failed if run.manifest else ()
    return Content(
        run=run,
        groups=groups,
        agents=_cards(run, colours),
        figures=tuple(f for f in figures if isinstance(f, Drawn) or not audit),
        gates=gates,
        judged=others,
        audit=audit,
        answers=agent_answers(run),
        conversations=agent_conversations(run),
        prompts=prompt_families(run),
        missing=_missing(run, audit=audit),
        failed=failed,
        questions=answered(run, groups),
        passages=passages_of(run),
        limitations=limitations_of(run, groups, gates, others.design, failed),
    )


def _drawn(run: Run, colours: dict[str, str], progress: Progress) -> list[Drawn | Absent]:
    """Every figure of the run, drawn two at a time; unchanged ones are taken from its folder."""
    makers = makers_of(run)
    earlier = earlier_pictures(run.path / "figures")
    figures: list[Drawn | Absent] = []
    with ThreadPoolExecutor(DRAWN_AT_ONCE) as pool:
        made = (make(run, colours) for make in makers)
        waiting = [
            (figure, pool.submit(render, figure, earlier) if isinstance(figure, Figure) else None)
            for figure in made
        ]
        for done, (figure, picture) in enumerate(waiting):
            progress(ProgressEvent("report", done, len(makers) + 1, figure.name))
            if isinstance(figure, Absent):
                figures.append(figure)
            elif picture is not None:
                figures.append(Drawn(figure, picture.result()))
    return figures


def _missing(run: Run, *, audit: bool) -> tuple[str, ...]:
    """What the run lacks; what an audit lacks is in its coverage."""
    read = ("claims", "gates") if audit else _READ
    missing = [reason for name in read if (reason := run.lacks(name))]
    if run.manifest is None:
        missing.append("The file manifest.json is not in this run.")
    if run.config is None:
        missing.append(f"The file {run.config_name} is not in this run.")
    missing += [
        f"The table {name} has {rows:,} rows: it was judged, and is not drawn here."
        for name, rows in run.unread.items()
    ]
    return tuple(missing)


def _cards(run: Run, colours: dict[str, str]) -> tuple[AgentCard, ...]:
    learned = run.tables.get("learned")
    words = {} if learned is None else {row[0]: (row[1], row[2]) for row in learned.iter_rows()}
    answers = _mean_answers(run)
    return tuple(
        AgentCard(
            facts=facts,
            colour=colours[facts.name],
            learned=words.get(facts.name, ("", ""))[0],
            sentence=words.get(facts.name, ("", ""))[1],
            answers=tuple(answers.get(facts.name, [])),
        )
        for facts in run.agents
    )


def _mean_answers(run: Run) -> dict[str, list[tuple[str, float | None, float]]]:
    """Per agent: family, mean P(positive given legal), mean legal mass.

    Prompts with a rearranged payoff table are a control and stand apart from their family.
    """
    if run.lacks("prompts", "decisions"):
        return {}
    rearranged = ~pl.col("table_order").is_in(("original", "none"))
    families = run.tables["prompts"].select(
        "prompt",
        pl.when(rearranged)
        .then(pl.col("family") + ", table rearranged")
        .otherwise("family")
        .alias("family"),
    )
    means = (
        run.tables["decisions"]
        .join(families, on="prompt", maintain_order="right")
        .group_by("agent", "family", maintain_order=True)
        .agg(pl.col("p_positive_given_legal").mean(), pl.col("legal_mass").mean())
    )
    found: dict[str, list[tuple[str, float | None, float]]] = {}
    for agent, family, given, mass in means.iter_rows():
        found.setdefault(agent, []).append((family, given, mass))
    return found


def _gates(table: pl.DataFrame | None) -> tuple[Gate, ...]:
    if table is None:
        return ()
    gates = [Gate(**row) for row in table.iter_rows(named=True)]
    order = {False: 0, None: 1, True: 2}
    return tuple(sorted(gates, key=lambda gate: order[gate.passed]))
