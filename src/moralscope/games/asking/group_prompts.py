"""What are agents asked in a public-goods game? Its states in a structured text and three others.

The family is ``public-goods``, the scenario game and state (``PGG4x2.C2``: the agent contributed
last, and two of the others did). C is to contribute and D, the positive option, to keep.
``Prompt.others_cooperated`` is the number of others who contributed; ``opponent_previous`` is None,
because no single one of them is the opponent. In the structured text the option order and the
answer order are crossed; in the others, which name the options once, the option order is the
parity of everything else, so that no single factor goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.asking.group_texts import GROUP_STRUCTURED, GROUP_WORDINGS
from moralscope.games.asking.group_wording import GroupScene, GroupWording, render_group
from moralscope.games.asking.labels import answer_forms
from moralscope.games.asking.prompts import ASSIGNMENTS, LABELS, Assignment, assigned
from moralscope.games.asking.wording import TableOrder
from moralscope.games.public_goods import GroupState, PublicGoods

FAMILY = "public-goods"
"""The family of these prompts."""

GROUP_TEXTS: tuple[str, ...] = tuple(wording.name for wording in GROUP_WORDINGS)
"""The names of the texts, ``structured`` first."""


def public_goods_prompts(
    game: PublicGoods,
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    names: Iterable[str] | None = None,
    *,
    table_orders: Sequence[TableOrder] = ("original",),
    stem: bool = True,
) -> PromptSet:
    """A public-goods game in words: every state, in each text.

    Args:
        game: the game.
        labels: what contributing and what keeping is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        names: which of ``GROUP_TEXTS``; all by default.
        table_orders: orders of the rows and columns of the structured text's table; texts without
            a table are asked once.
        stem: whether the answer is begun for the agent ("I choose action").

    Returns:
        With N players, for each assignment: 8 N prompts per table order in the structured text
        (2 N states, both option orders, both answer orders), 2 N in each other text.

    Raises:
        PromptError: the labels cannot stand in a prompt, no text is asked for, or a table order
            is asked for twice.
        ConfigError: there is no such text, table order or assignment.
    """
    wanted = GROUP_TEXTS if names is None else tuple(names)
    for name in wanted:
        if name not in GROUP_TEXTS:
            raise ConfigError(
                "There is no text of this name for a public-goods game",
                seen=name,
                allowed=", ".join(GROUP_TEXTS),
                remedy=nearest(name, GROUP_TEXTS),
            )
    return PromptSet(
        tuple(
            _compose(wording, scene, labels)
            for index, wording in enumerate(GROUP_WORDINGS)
            if wording.name in wanted
            for words in assigned(labels, assignments)
            for state in game.states
            for order, answer, table in _orders(index, words != labels, state, table_orders)
            for scene in (GroupScene(game, state, words, order, answer, table, stem),)
        )
    )


def _orders(
    text: int, swapped: bool, state: GroupState, tables: Sequence[TableOrder]
) -> Iterator[tuple[int, int, TableOrder]]:
    """Option, answer and table orders of a state's prompts in a text."""
    if GROUP_WORDINGS[text].table:
        for table, option, answer in product(tables, (0, 1), (0, 1)):
            yield option, answer, table
    else:
        parity = (text + swapped + state.cooperators + (state.own_previous == "D")) % 2
        yield parity, parity, "original"


def _compose(wording: GroupWording, scene: GroupScene, labels: tuple[str, str]) -> Prompt:
    """The prompt of a scene, named after its place in the family and what differs from default."""
    text, spans = render_group(wording, scene)
    stem, (contribute, keep) = answer_forms(scene.labels, stem=scene.stem)
    scenario = f"{scene.game.name}.{scene.state.name}"
    orders = [f"o{scene.option_order}"]
    if wording is GROUP_STRUCTURED:
        orders.append(f"a{scene.answer_order}")
    unusual = [] if labels == LABELS else ["-".join(labels)]
    if scene.table_order != "original":
        unusual.append(scene.table_order)
    if not scene.stem:
        unusual.append("nostem")
    assignment = "same" if scene.labels == labels else "swapped"
    return Prompt(
        name=".".join((FAMILY, scenario, wording.name, *orders, assignment, *unusual)),
        decision=Decision(
            messages=(Message("user", text),),
            stem=stem,
            positive=Option("defect", (keep,)),
            negative=Option("cooperate", (contribute,)),
            spans=spans,
        ),
        game=scene.game.name,
        scenario=scenario,
        family=FAMILY,
        template=wording.name,
        labels="/".join(scene.labels),
        option_order=scene.option_order,
        answer_order=scene.answer_order,
        table_order=scene.table_order if wording.table else "none",
        own_previous=scene.state.own_previous,
        others_cooperated=scene.state.cooperators,
    )
