"""What did each agent answer when it was let speak, and how often was that legal?

Sampled answers, counted: by prompt family and by how they are read (strictly: exactly an option,
read to the length of the longest one; tolerantly: the first option that is named), beside what
the log-odds state and the gate *metric agreement*, which compares the two; and what was said
most often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from moralscope.evidence.gates.agreement import GATE, subject_of
from moralscope.reports.prompts import unseen_characters
from moralscope.reports.run import Run

PARSERS = ("strict", "tolerant")
MOST_FREQUENT = 12
"""Texts that are shown of each agent."""

_KINDS = ("positive", "negative", "illegal")


@dataclass(frozen=True)
class Agreement:
    """A row of ``metric_agreement``, and what its gate says of it.

    Attributes:
        expected, observed: P(positive | legal) by the log-odds, and its share among legal answers.
        low, high: 95% interval of observed minus expected over prompts.
        legal_expected: legal mass by the scorer.
        p: of the exact test that answers are drawn as scored.
        judged: whether there is such a gate; ``passed`` is null where it is not available.
    """

    expected: float | None
    observed: float | None
    low: float | None
    high: float | None
    legal_expected: float
    p: float | None
    judged: bool
    passed: bool | None


@dataclass(frozen=True)
class Reading:
    """Answers to one family of prompts, read in one way.

    Attributes:
        family: of the prompts; empty where the run does not tell it.
        parser: strict or tolerant.
        prompts, answers: how many.
        positive, negative, illegal: how many answers were read as that.
        agreement: with the log-odds; None where they were not compared.
    """

    family: str
    parser: str
    prompts: int
    answers: int
    positive: int
    negative: int
    illegal: int
    agreement: Agreement | None

    @property
    def legal(self) -> float:
        """Share of answers that were legal, in [0, 1]."""
        return 1 - self.illegal / self.answers


@dataclass(frozen=True)
class Said:
    """What was answered ``count`` times, and how it was read.

    Answers that begin as a legal one are counted together: ``text`` is the option, and
    ``continued`` says whether more words follow it. Other answers are told in full.
    """

    text: str
    continued: bool
    count: int
    strict: str
    tolerant: str
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class AgentAnswers:
    """One agent's sampled answers.

    Attributes:
        agent: who.
        answers, prompts: how many, to how many prompts.
        finished: share of answers that the agent ended by itself, in [0, 1].
        readings: by family, strict before tolerant.
        said: the most frequent texts.
        other_texts, other_answers: how many more such rows, and answers that they make up.
    """

    agent: str
    answers: int
    prompts: int
    finished: float
    readings: tuple[Reading, ...]
    said: tuple[Said, ...]
    other_texts: int
    other_answers: int


def agent_answers(run: Run) -> tuple[AgentAnswers, ...]:
    """Sampled answers by agent, in the order of the study; none without the table ``answers``."""
    table = run.tables.get("answers")
    if table is None:
        return ()
    rows = _with_prompt(table, run.tables.get("prompts"))
    rank = {agent.name: i for i, agent in enumerate(run.agents)}
    by_agent = [(str(agent), own) for (agent,), own in rows.group_by("agent", maintain_order=True)]
    by_agent.sort(key=lambda entry: rank.get(entry[0], len(rank)))
    return tuple(_of_agent(run, agent, own) for agent, own in by_agent)


def _with_prompt(table: pl.DataFrame, prompts: pl.DataFrame | None) -> pl.DataFrame:
    """Answers with their family, and with what was said: the option, or all of an answer."""
    if prompts is None:
        return table.with_columns(family=pl.lit(""), said="answer", continued=False)
    options = prompts.select("prompt", "family", "positive", "negative")
    joined = table.join(options, on="prompt", how="left", maintain_order="left")
    answer = pl.col("answer").str.strip_chars()
    option = pl.coalesce(
        *(pl.when(pl.col("strict") == kind).then(pl.col(kind).str.strip_chars())
          for kind in _KINDS[:2])
    )  # fmt: skip
    begins = answer.str.starts_with(option).fill_null(value=False)
    return joined.with_columns(
        pl.col("family").fill_null(""),
        said=pl.when(begins).then(option).otherwise("answer"),
        continued=begins & (answer != option),
    )


def _of_agent(run: Run, agent: str, rows: pl.DataFrame) -> AgentAnswers:
    texts = (
        rows.group_by("said", "continued", *PARSERS, maintain_order=True)
        .agg(count=pl.len())
        .sort("count", descending=True, maintain_order=True)
    )
    rest = texts.slice(MOST_FREQUENT)
    return AgentAnswers(
        agent=agent,
        answers=rows.height,
        prompts=rows.get_column("prompt").n_unique(),
        finished=float(rows.select(pl.col("finished").mean()).item()),
        readings=tuple(
            _reading(run, agent, str(family), parser, own)
            for (family,), own in rows.group_by("family", maintain_order=True)
            for parser in PARSERS
        ),
        said=tuple(
            Said(text, continued, count, strict, tolerant, unseen_characters(text))
            for text, continued, strict, tolerant, count in texts.head(MOST_FREQUENT).iter_rows()
        ),
        other_texts=rest.height,
        other_answers=int(rest.get_column("count").sum()),
    )


def _reading(run: Run, agent: str, family: str, parser: str, rows: pl.DataFrame) -> Reading:
    read = rows.get_column(parser)
    positive, negative, illegal = (int((read == kind).sum()) for kind in _KINDS)
    return Reading(
        family=family,
        parser=parser,
        prompts=rows.get_column("prompt").n_unique(),
        answers=rows.height,
        positive=positive,
        negative=negative,
        illegal=illegal,
        agreement=_agreement(run, agent, family, parser),
    )


def _agreement(run: Run, agent: str, family: str, parser: str) -> Agreement | None:
    row = _only(run.tables.get("metric_agreement"), agent=agent, family=family, parser=parser)
    if row is None:
        return None
    gates = run.tables.get("gates")
    gate = _only(gates, gate=GATE, subject=subject_of(agent, family, parser))
    return Agreement(
        expected=row["expected"],
        observed=row["observed"],
        low=row["low"],
        high=row["high"],
        legal_expected=row["legal_expected"],
        p=row["p"],
        judged=gate is not None,
        passed=None if gate is None else gate["passed"],
    )


def _only(table: pl.DataFrame | None, **key: str) -> dict[str, Any] | None:
    """The row with this key, or None."""
    if table is None:
        return None
    rows = table.filter(**key)
    return None if rows.is_empty() else rows.row(0, named=True)
