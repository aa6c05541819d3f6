"""Which prompts does a reader see in full, and what was answered to them?

Small runs are shown whole. In large ones each family of prompts shows a few, of as many wordings,
games, labels and orders as it has, so that they stay within ``CHARACTERS``; the rest is counted
and lies in the tables ``prompts`` and ``decisions``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import escape

from moralscope.reports.fitting import fair_shares
from moralscope.reports.run import Run

CHARACTERS = 1_200_000
"""Of the page that prompts and the answers to them may take."""

_ENTRY, _ANSWER = 900, 290
"""Characters around a prompt, and of an agent's answer to it."""


@dataclass(frozen=True)
class Answer:
    """What an agent answers to a prompt.

    ``log_odds`` is null for scripted policies, and like ``p_positive_given_legal`` where nothing
    legal has any mass.
    """

    agent: str
    p_positive: float
    p_negative: float
    legal_mass: float
    p_positive_given_legal: float | None
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
class PromptFamily:
    """A family of prompts.

    Attributes:
        name: the family.
        total: how many prompts it has.
        entries: those that are shown, in the order of the table.
    """

    name: str
    total: int
    entries: tuple[PromptEntry, ...]

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.entries)


def prompt_families(run: Run, characters: int = CHARACTERS) -> tuple[PromptFamily, ...]:
    """The families of a run in the order of its table, with the prompts that are shown.

    Args:
        run: without the table ``prompts`` there are none.
        characters: of the page that prompts may take; one of each family is shown in any case.
    """
    table = run.tables.get("prompts")
    if table is None:
        return ()
    names = [agent.name for agent in run.agents]
    families = table.with_row_index("row").partition_by("family", maintain_order=True)
    queues = [_varied(family) for family in families]
    answered = _ANSWER * len(names) + _ENTRY
    costs = [
        [len(escape(text)) + answered for text in queue.get_column("text")] for queue in queues
    ]
    chosen = [
        queue.head(count).sort("row")
        for queue, count in zip(queues, fair_shares(costs, characters), strict=True)
    ]
    shown = {name for rows in chosen for name in rows.get_column("prompt")}
    answers = _answers(run.tables.get("decisions"), shown, names)
    return tuple(
        PromptFamily(
            name=rows.get_column("family")[0],
            total=family.height,
            entries=tuple(_entry(row, answers) for row in rows.iter_rows(named=True)),
        )
        for family, rows in zip(families, chosen, strict=True)
    )


def _varied(family: pl.DataFrame) -> pl.DataFrame:
    """The prompts of a family in an order that shows early what there is.

    First one of each wording, then of each wording in each game, under each pair of labels and
    in each order of its table; then one of each such way of asking, a second of each, and so on.
    """
    met = [
        pl.int_range(pl.len()).over("template", *further)
        for further in ((), ("game",), ("labels",), ("table_order",))
    ]
    late = pl.int_range(pl.len()).over("template", "game", "labels", "table_order") + len(met)
    turn = pl.coalesce(*(pl.when(count == 0).then(rank) for rank, count in enumerate(met)), late)
    # Wordings alternate within a turn, for the page may end in the middle of one.
    place = pl.int_range(pl.len()).over("turn", "template")
    return family.with_columns(turn=turn).with_columns(place=place).sort("turn", "place", "row")


def _entry(row: Mapping[str, str], answers: Mapping[str, Sequence[Answer]]) -> PromptEntry:
    return PromptEntry(
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
        answers=tuple(answers.get(row["prompt"], ())),
    )


def _answers(
    table: pl.DataFrame | None, shown: set[str], agents: Sequence[str]
) -> dict[str, list[Answer]]:
    """By prompt, agents in the order of the study."""
    found: dict[str, list[Answer]] = {}
    if table is None:
        return found
    rank = {name: i for i, name in enumerate(agents)}
    rows = table.filter(pl.col("prompt").is_in(sorted(shown)))
    for row in rows.select("prompt", *Answer.__dataclass_fields__).iter_rows(named=True):
        found.setdefault(row.pop("prompt"), []).append(Answer(**row))
    for listed in found.values():
        listed.sort(key=lambda answer: rank.get(answer.agent, len(rank)))
    return found


def unseen_characters(text: str) -> tuple[str, ...]:
    """Names of control and direction characters in a text, in order of appearance.

    A text may hold marks that reorder what is displayed; the page isolates it and says so.
    """
    kinds = ("Cc", "Cf", "Co", "Cs")
    found = dict.fromkeys(c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds)
    return tuple(f"U+{ord(c):04X} {unicodedata.name(c, 'control')}" for c in found)
