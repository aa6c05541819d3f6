"""Which prompts was an agent trained on, so that others can serve as its controls?

A control for *label, layout, order or move* changes one thing about the prompts of training and
nothing else, so those prompts must be described. An agent that came from elsewhere does not say
what it was trained on. A stated reference then stands in its place, the structured text under
both label assignments, and everything that is said of the agent says so too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.core.decision import Prompt
from moralscope.core.errors import ConfigError, TableError
from moralscope.core.tables import conform, from_rows

REFERENCE_FAMILY = "structured"
"""The family whose text stands in for a training that is not known."""

REFERENCE_GAME = "IPD"
"""The game of that text."""

_EXAMINED = ("adapter", "checkpoint")


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """Which prompts an agent was trained on.

    Attributes:
        families: prompt families.
        templates: wordings.
        labels: label assignments, ``cooperate label/defect label``.
        table_orders: orders of the payoff table; ``none`` for wordings without one.
        games: games.
        known: false where these are not the prompts of training but a reference in their place.
    """

    families: tuple[str, ...]
    templates: tuple[str, ...]
    labels: tuple[str, ...]
    table_orders: tuple[str, ...] = ("original",)
    games: tuple[str, ...] = ("IPD",)
    known: bool = True

    def __post_init__(self) -> None:
        for field in ("families", "templates", "labels", "table_orders", "games"):
            if not getattr(self, field):
                raise ConfigError(
                    f"An agent's training names no {field}",
                    seen="()",
                    allowed=f"the {field} of the prompts it was trained on, one or more",
                    remedy="build it with trained_on(prompts)",
                )
        for assignment in self.labels:
            swap_labels(assignment)


def trained_on(prompts: Iterable[Prompt]) -> TrainedOn:
    """The description of a training set, read off its prompts.

    Raises:
        ConfigError: there are no prompts, or labels that are not two words.
    """
    listed = list(prompts)
    return TrainedOn(
        families=_distinct(p.family for p in listed),
        templates=_distinct(p.template for p in listed),
        labels=_distinct(p.labels for p in listed),
        table_orders=_distinct(p.table_order for p in listed),
        games=_distinct(p.game for p in listed),
    )


def reference_training(prompts: pl.DataFrame) -> TrainedOn:
    """What stands in for a training that is not known: the structured text, as it is written.

    Args:
        prompts: a ``prompts`` table. Of several pairs of labels the first one that the structured
            text is asked with is taken, under both assignments.

    Raises:
        TableError: the table breaks its schema, or holds no structured text of the game.
        ConfigError: its labels are not two words.
    """
    structured = conform("prompts", prompts).filter(
        pl.col("family") == REFERENCE_FAMILY,
        pl.col("game") == REFERENCE_GAME,
        pl.col("table_order") == "original",
    )
    if structured.is_empty():
        raise TableError(
            "There is nothing to stand in for a training that is not known",
            seen=f"no prompt of the family {REFERENCE_FAMILY} in the game {REFERENCE_GAME}",
            allowed="the structured text with its payoff table as it is written",
            remedy="evaluate the agents on the structured prompts, or say what they were trained "
            "on",
        )
    first = str(structured.get_column("labels")[0])
    return TrainedOn(
        families=(REFERENCE_FAMILY,),
        templates=_distinct(structured.get_column("template").to_list()),
        labels=_distinct((first, swap_labels(first))),
        games=(REFERENCE_GAME,),
        known=False,
    )


def with_unknown(
    agents: pl.DataFrame, prompts: pl.DataFrame, trained: Mapping[str, TrainedOn]
) -> dict[str, TrainedOn]:
    """The trainings of all agents that have one, a reference where it is not known.

    Args:
        agents: an ``agents`` table. A base and scripted policies have no training and are left
            out: there is nothing that they learned.
        prompts: a ``prompts`` table.
        trained: what is known.

    Returns:
        One entry per adapter and checkpoint, in the order of ``agents``.

    Raises:
        TableError: a table breaks its schema, or there is no structured text to stand in.
        ConfigError: its labels are not two words.
    """
    examined = conform("agents", agents).filter(pl.col("kind").is_in(_EXAMINED))
    names: list[str] = examined.get_column("agent").to_list()
    if all(name in trained for name in names):
        return {name: trained[name] for name in names}
    reference = reference_training(prompts)
    return {name: trained.get(name, reference) for name in names}


def trained_on_table(trained: Mapping[str, TrainedOn]) -> pl.DataFrame:
    """The table ``trained_on``: what each agent's controls are compared with."""
    return from_rows(
        "trained_on",
        (
            {
                "agent": agent,
                "known": what.known,
                "families": ",".join(what.families),
                "templates": ",".join(what.templates),
                "labels": ",".join(what.labels),
                "table_orders": ",".join(what.table_orders),
                "games": ",".join(what.games),
            }
            for agent, what in trained.items()
        ),
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def swap_labels(assignment: str) -> str:
    """The other assignment of the same two labels; its own inverse.

    >>> swap_labels("action1/action2")
    'action2/action1'

    Raises:
        ConfigError: the text is not two words with a slash between them.
    """
    parts = assignment.split("/")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(
            "This is not an assignment of two labels",
            seen=repr(assignment),
            allowed="the cooperate label and the defect label with one slash between them, such "
            "as action1/action2",
            remedy="write the two labels in that order",
        )
    return f"{parts[1]}/{parts[0]}"
