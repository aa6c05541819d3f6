"""What does the report say? Everything a reader meets, assembled once from the run.

The page and its machine-readable twin are both made from ``Content``, so that they cannot say
different things.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.progress import Progress, ProgressEvent
from moralscope.reports.export import Picture, render
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figures import makers_of
from moralscope.reports.findings import VerdictGroup, group_findings
from moralscope.reports.look import agent_colours
from moralscope.reports.run import AgentFacts, Run

_READ = ("agents", "prompts", "decisions", "claims", "gates", "learned")


@dataclass(frozen=True)
class AgentCard:
    """An agent, what it learned, and how it answers on average.

    Attributes:
        facts: who it is.
        colour: hexadecimal.
        learned, sentence: the finding of the controls; empty where there is none.
        answers: per prompt family its mean P(positive given legal) and mean legal mass.
    """

    facts: AgentFacts
    colour: str
    learned: str
    sentence: str
    answers: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Drawn:
    """A figure and its renderings."""

    figure: Figure
    picture: Picture


@dataclass(frozen=True)
class Gate:
    """A row of the table ``gates``; ``passed`` is null where the gate is not available."""

    gate: str
    subject: str
    measured: float | None
    threshold: float | None
    passed: bool | None
    advice: str


@dataclass(frozen=True)
class Answer:
    """What an agent answers to a prompt; ``log_odds`` is null for scripted policies."""

    agent: str
    p_positive: float
    p_negative: float
    legal_mass: float
    p_positive_given_legal: float
    log_odds: float | None


@dataclass(frozen=True)
class PromptEntry:
    """A prompt, verbatim, and every agent's answer.

    ``unseen`` names characters in the text that cannot be seen but change how it reads.
    """

    name: str
    game: str
    scenario: str
    family: str
    template: str
    labels: str
    text: str
    positive: str
    negative: str
    unseen: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Content:
    """The report.

    Attributes:
        run: what it was made from.
        groups: claims by verdict.
        agents: cards, in the order of the study.
        figures: drawn or absent, in the order of the page.
        gates: failed first, then unavailable, then passed.
        prompts: by family, in the order of the table.
        missing: sentences about what the run lacks.
    """

    run: Run
    groups: tuple[VerdictGroup, ...]
    agents: tuple[AgentCard, ...]
    figures: tuple[Drawn | Absent, ...]
    gates: tuple[Gate, ...]
    prompts: tuple[tuple[str, tuple[PromptEntry, ...]], ...]
    missing: tuple[str, ...]


def assemble(run: Run, progress: Progress) -> Content:
    """Everything the report says; draws the figures, reporting each to ``progress``."""
    colours = agent_colours(
        [agent.name for agent in run.agents],
        frozenset(agent.name for agent in run.agents if agent.kind == "base"),
        {agent.name: agent.reward for agent in run.agents},
    )
    figures: list[Drawn | Absent] = []
    makers = makers_of(run)
    for done, make in enumerate(makers):
        progress(ProgressEvent("report", done, len(makers) + 1, make.__name__))
        made = make(run, colours)
        figures.append(made if isinstance(made, Absent) else Drawn(made, render(made)))
    claims = run.tables.get("claims")
    missing = [reason for name in _READ if (reason := run.lacks(name))]
    if run.manifest is None:
        missing.append("The file manifest.json is not in this run.")
    if run.config is None:
        missing.append("The file study.yaml is not in this run.")
    return Content(
        run=run,
        groups=() if claims is None else group_findings(claims),
        agents=_cards(run, colours),
        figures=tuple(figures),
        gates=_gates(run.tables.get("gates")),
        prompts=_prompts(run),
        missing=tuple(missing),
    )


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


def _mean_answers(run: Run) -> dict[str, list[tuple[str, float, float]]]:
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
    found: dict[str, list[tuple[str, float, float]]] = {}
    for agent, family, given, mass in means.iter_rows():
        found.setdefault(agent, []).append((family, given, mass))
    return found


def _gates(table: pl.DataFrame | None) -> tuple[Gate, ...]:
    if table is None:
        return ()
    gates = [Gate(**row) for row in table.iter_rows(named=True)]
    order = {False: 0, None: 1, True: 2}
    return tuple(sorted(gates, key=lambda gate: order[gate.passed]))


def _prompts(run: Run) -> tuple[tuple[str, tuple[PromptEntry, ...]], ...]:
    table = run.tables.get("prompts")
    if table is None:
        return ()
    answers = _answers(run.tables.get("decisions"), [agent.name for agent in run.agents])
    families: dict[str, list[PromptEntry]] = {}
    for row in table.iter_rows(named=True):
        entry = PromptEntry(
            name=row["prompt"],
            game=row["game"],
            scenario=row["scenario"],
            family=row["family"],
            template=row["template"],
            labels=row["labels"],
            text=row["text"],
            positive=row["positive"],
            negative=row["negative"],
            unseen=unseen_characters(row["text"]),
            answers=tuple(answers.get(row["prompt"], [])),
        )
        families.setdefault(entry.family, []).append(entry)
    return tuple((family, tuple(entries)) for family, entries in families.items())


def _answers(table: pl.DataFrame | None, agents: Sequence[str]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    if table is None:
        return found
    rank = {name: i for i, name in enumerate(agents)}
    columns = table.select("prompt", *Answer.__dataclass_fields__)
    for row in columns.iter_rows(named=True):
        found.setdefault(row.pop("prompt"), []).append(Answer(**row))
    for listed in found.values():
        listed.sort(key=lambda answer: rank.get(answer.agent, len(rank)))
    return found


def unseen_characters(text: str) -> tuple[str, ...]:
    """Names of control and direction characters in a text, in order of appearance.

    A prompt may hold marks that reorder what is displayed; the page isolates it and says so.
    """
    kinds = ("Cc", "Cf", "Co", "Cs")
    found = dict.fromkeys(c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds)
    return tuple(f"U+{ord(c):04X} {unicodedata.name(c, 'control')}" for c in found)
