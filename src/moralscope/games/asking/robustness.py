"""What does an evaluation ask? Crossed sets of texts, other labels, every family, every game.

``crossed_wordings``        texts x states x orders x assignments, each combination once: what
                            share of a decision is wording, order, label or state?
``robustness_prompts``      one game in every way that the package knows of asking about it
``generalisation_prompts``  one text, every game, with trained and other labels and table orders
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError
from moralscope.games.asking.family_sets import families
from moralscope.games.asking.framing import framings
from moralscope.games.asking.prompts import (
    ASSIGNMENTS,
    LABELS,
    MIRRORED,
    Assignment,
    structured,
    wordings,
)
from moralscope.games.asking.wording import TABLE_ORDERS, TableOrder
from moralscope.games.matrices import GAMES, Game, get_game

LABEL_PAIRS: tuple[tuple[str, str], ...] = (
    ("action3", "action4"),
    ("X", "Y"),
    ("J", "F"),
    ("red", "blue"),
    ("left", "right"),
    ("option1", "option2"),
    ("apple", "banana"),
)
"""Labels that agents were not trained with; the first are those of the published evaluation.

None has A or B in it: the other agent is called A.
"""

UNTRAINED: tuple[str, str] = LABEL_PAIRS[0]
"""The labels of the published evaluation."""


def crossed_wordings(
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    game: Game = GAMES["IPD"],
) -> PromptSet:
    """Eight texts x 4 states x 2 option orders x assignments, each combination exactly once.

    The structured text, whose options stand in the same order in the opening and in the answer
    instruction, and all of ``WORDINGS`` in both orders. In such a design the variance of a decision
    splits into parts of factors and interactions without remainder. Its prompts are also in
    ``structured`` and ``wordings``, under the same names.

    Args:
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        game: whose payoffs are told; a symmetric one.

    Returns:
        64 prompts per assignment.

    Raises:
        PromptError: the labels cannot stand in a prompt, or the game is not symmetric.
        ConfigError: there is no such assignment.
    """
    return one_order(structured(labels, assignments, game=game)) + wordings(
        labels, assignments, game=game, crossed=True
    )


def robustness_prompts(
    labels: tuple[str, str] = LABELS,
    *,
    label_pairs: Iterable[tuple[str, str]] = LABEL_PAIRS,
) -> PromptSet:
    """The prisoner's dilemma in every way of asking: families, wordings, labels, orders, frames.

    Args:
        labels: the labels that agents were trained with.
        label_pairs: other labels for the structured text.

    Returns:
        The structured text with the trained labels in full and with every other table order and
        pair of labels once per option order; wordings crossed, their mirrors; all families; all
        framings. Each question once.

    Raises:
        PromptError: labels cannot stand in a prompt.
    """
    return united(
        structured(labels),
        *(one_order(structured(labels, table_order=order)) for order in TABLE_ORDERS[1:]),
        *(one_order(structured(pair)) for pair in label_pairs),
        crossed_wordings(labels),
        wordings(labels, names=MIRRORED),
        families(labels),
        framings(labels),
    )


def generalisation_prompts(
    games: Iterable[str] = tuple(GAMES),
    label_pairs: Sequence[tuple[str, str]] = (LABELS, UNTRAINED),
    table_orders: Sequence[TableOrder] = TABLE_ORDERS,
) -> PromptSet:
    """The structured text of every game, each with its own payoffs.

    Args:
        games: names or expressions of games.
        label_pairs: the trained labels first; both assignments of every pair are asked.
        table_orders: orders of the payoff table for the trained labels. Other labels are asked in
            the first of them.

    Returns:
        For each game 32 prompts for every table order with the trained labels and for every other
        pair of labels.

    Raises:
        PromptError: labels cannot stand in a prompt, or there is nothing to ask.
        ConfigError: there is no such game or table order, or no labels or table orders are given.
    """
    for what, given in (("label_pairs", label_pairs), ("table_orders", table_orders)):
        if not given:
            raise ConfigError(
                f"Nothing is asked without {what}",
                seen="an empty list",
                allowed="one or more",
                remedy=f"leave out {what} for the usual ones",
            )
    trained, *others = label_pairs

    def asked(game: Game) -> Iterator[PromptSet]:
        for order in table_orders:
            yield structured(trained, table_order=order, game=game)
        for other in others:
            yield structured(other, table_order=table_orders[0], game=game)

    return united(*(prompts for name in games for prompts in asked(get_game(name))))


def united(*sets: Iterable[Prompt]) -> PromptSet:
    """The prompts of several sets in order, each question once: the first prompt that asks it.

    Raises:
        PromptError: there is no prompt, or two different questions share a name.
    """
    asked: dict[object, Prompt] = {}
    for prompts in sets:
        for prompt in prompts:
            asked.setdefault(prompt.decision.question, prompt)
    return PromptSet(tuple(asked.values()))


def one_order(prompts: PromptSet) -> PromptSet:
    """The prompts whose options stand in the same order in opening and answer instruction.

    Raises:
        PromptError: there is none.
    """
    return prompts.where(lambda prompt: prompt.option_order == prompt.answer_order)
