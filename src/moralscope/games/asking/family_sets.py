"""Does an agent act alike however the choice is put? The prompt families beside the structured one.

==================  ========================================================================
``unstructured``    points told in passing, among friends
``poetic``          a story of the dilemma without points: who cleans the flat?
``explicit``        the Prisoner's Dilemma by name, without points
``value-prompted``  the structured text behind a paragraph of values; the template is the value
``unrelated``       an action alone (``action:``), in a game (``game:``), in a game after the
                    other's last move (``reciprocity:``)
==================  ========================================================================

Within a text everything is crossed: the states that it tells apart x 2 option orders x 2 label
assignments. What a text does not tell is not asked twice: a text that tells neither points nor
which label is which reads the same under both assignments, so each question is asked once, under
the first assignment that gives rise to it. The families are those of the source study's evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.asking.family_texts import (
    EXPLICIT,
    POETIC,
    UNRELATED,
    UNSTRUCTURED,
    VALUE_PROMPTED,
)
from moralscope.games.asking.prompts import ASSIGNMENTS, LABELS, Assignment, assigned, compose
from moralscope.games.asking.wording import Scene, Wording
from moralscope.games.matrices import GAMES, Game
from moralscope.games.states import STATES, State

FAMILIES: Mapping[str, tuple[Wording, ...]] = MappingProxyType(
    {
        "unstructured": UNSTRUCTURED,
        "poetic": POETIC,
        "explicit": EXPLICIT,
        "value-prompted": VALUE_PROMPTED,
        "unrelated": UNRELATED,
    }
)
"""The texts of every family."""


def families(
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    names: Iterable[str] | None = None,
) -> PromptSet:
    """The prisoner's dilemma in other families of texts.

    Args:
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        names: which of ``FAMILIES``; all by default.

    Returns:
        For both assignments 48 prompts of each family of three texts, 64 of ``value-prompted``
        and 24 of ``unrelated``.

    Raises:
        PromptError: the labels cannot stand in a prompt, or no family is asked for.
        ConfigError: there is no such family or assignment.
    """
    wanted = tuple(FAMILIES) if names is None else tuple(names)
    for name in wanted:
        if name not in FAMILIES:
            raise ConfigError(
                "There is no prompt family of this name",
                seen=name,
                allowed=", ".join(FAMILIES),
                remedy=nearest(name, FAMILIES),
            )
    return PromptSet(
        tuple(
            prompt
            for family, texts in FAMILIES.items()
            if family in wanted
            for prompt in family_prompts(family, texts, GAMES["IPD"], labels, assignments)
        )
    )


def family_prompts(
    family: str,
    texts: Iterable[Wording],
    game: Game,
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
) -> tuple[Prompt, ...]:
    """Texts of one family, each fully crossed, every question of a text once.

    Args:
        family: its name, the ``family`` column of every table.
        texts: its texts.
        game: whose points they tell; by name also of those that tell none.
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.

    Returns:
        For a text that tells both last moves and what the labels mean, 4 states x 2 orders x the
        assignments.

    Raises:
        PromptError: the labels cannot stand in a prompt, or a text tells one player's points for
            both and the game is not symmetric.
        ConfigError: there is no such assignment.
    """
    words = assigned(labels, assignments)
    made: list[Prompt] = []
    for text in texts:
        asked: dict[object, Prompt] = {}
        for now, order, state in product(words, (0, 1), told_states(text)):
            prompt = compose(family, text, Scene(game, state, now, order, order), labels)
            asked.setdefault(prompt.decision.question, prompt)
        made += asked.values()
    return tuple(made)


def told_states(text: Wording) -> tuple[State, ...]:
    """The states that a text tells apart: those of ``STATES`` with C where it omits a last move."""
    return tuple(
        state
        for state in STATES
        if not ("own" in text.omits and state.own_previous == "D")
        and not ("other" in text.omits and state.opponent_previous == "D")
    )
