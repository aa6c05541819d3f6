"""What are agents asked? The prompt sets of the package, from scenes and wordings.

================  ==========================================================================
``structured``    one text of a game: 4 states x 2 option orders x 2 answer orders = 16 prompts
                  per label assignment; the training prompts
``wordings``      seven other texts, 4 states each: is it the move that was learned? Or, by name,
                  their mirrors: is it the order in which the moves are mentioned?
``scenarios``     five situations of the IPD, four texts each
``clusters``      five games x 4 states, two texts, both orders: the set that is tested on
================  ==========================================================================

The label assignment says which label means cooperation: ``same`` as given, or ``swapped``. Where
not every combination of order and assignment is asked, orders are a half fraction whose only
confounding is with the interaction of everything else, so that no single factor is confounded.
``Prompt.labels`` reads cooperate label / defect label; every positive option is to defect.
``Prompt.table_order`` is relative to the wording: ``original`` is the order in which that wording
writes its table, whichever move that puts first. A wording that names the options once has equal
option and answer orders. Games of more than two players are in ``group_prompts``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Literal, get_args

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, PromptError, nearest
from moralscope.games.asking.labels import answer_forms, check_labels
from moralscope.games.asking.stories import SCENARIOS
from moralscope.games.asking.texts import (
    CLUSTER_WORDINGS,
    IPD_WORDINGS,
    MIRRORED_WORDINGS,
    STRUCTURED,
)
from moralscope.games.asking.wording import (
    MIRROR_SUFFIX,
    Scene,
    TableOrder,
    Wording,
    render,
)
from moralscope.games.matrices import GAMES, Game, get_game
from moralscope.games.states import STATES, State

LABELS = ("action1", "action2")
"""The labels that agents are trained with."""

Assignment = Literal["same", "swapped"]
ASSIGNMENTS: tuple[Assignment, ...] = get_args(Assignment)
"""Cooperation is called by the first label, or by the second."""

WORDINGS: tuple[str, ...] = tuple(wording.name for wording in IPD_WORDINGS)
"""The names of the other IPD texts."""

MIRRORED: tuple[str, ...] = tuple(wording.name for wording in MIRRORED_WORDINGS)
"""The names of their mirrors, ``rounds-mirrored`` and so on: the control for order of mention."""

HELD_OUT: tuple[str, ...] = ("rounds", "market", "ledger")
"""Wordings kept out of training by default: prose that speaks of defection first, a story that
speaks of cooperation first, and a table that is laid out unlike the structured one."""

CLUSTER_GAMES: tuple[str, ...] = ("IPD", "ISH", "ICN", "BOS", "ICD")
"""The games that the source study evaluates."""


def structured(
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    table_order: TableOrder = "original",
    game: Game = GAMES["IPD"],
    stem: bool = True,
) -> PromptSet:
    """A game in the structured text: every state, option order and answer order.

    Args:
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        table_order: rows, columns or both of the payoff table exchanged; the text stays.
        game: whose payoffs are told; the IPD by default.
        stem: whether the answer is begun for the agent ("I choose action"), so that only the rest
            of the label is left to say. Without it the whole label is the answer.

    Returns:
        16 prompts per assignment.

    Raises:
        PromptError: the labels cannot stand in a prompt.
        ConfigError: there is no such assignment or table order.
    """
    return PromptSet(
        tuple(
            compose(
                "structured",
                STRUCTURED,
                Scene(game, state, words, orders[0], orders[1], table_order, stem),
                labels,
            )
            for words in assigned(labels, assignments)
            for state in STATES
            for orders in product((0, 1), repeat=2)
        )
    )


def wordings(
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    names: Iterable[str] | None = None,
    game: Game = GAMES["IPD"],
    stem: bool = True,
    *,
    crossed: bool = False,
) -> PromptSet:
    """A game in other words: each wording in the four states, option orders rotated or crossed.

    Args:
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        names: which of ``WORDINGS`` and ``MIRRORED``; all of ``WORDINGS`` by default.
        game: whose payoffs are told; the IPD by default.
        stem: whether the answer is begun for the agent, as for ``structured``.
        crossed: whether to ask in both option orders everywhere.

    Returns:
        4 prompts per wording and assignment, two in either option order, or crossed 8. A mirror
        has the orders of its original, so that its prompts differ from the original's in the
        mirroring alone. The rotated set is part of the crossed one, names included.

    Raises:
        PromptError: the labels cannot stand in a prompt, no wording is asked for, or one of them
            tells one player's points for both and the game is not symmetric.
        ConfigError: there is no such wording or assignment.
    """
    wanted = WORDINGS if names is None else tuple(names)
    for name in wanted:
        if name not in (*WORDINGS, *MIRRORED):
            raise ConfigError(
                "There is no wording of this name",
                seen=name,
                allowed=", ".join((*WORDINGS, *MIRRORED)),
                remedy=nearest(name, (*WORDINGS, *MIRRORED)),
            )
    return PromptSet(
        tuple(
            compose(
                "wordings",
                wording,
                Scene(game, state, words, order, order, stem=stem),
                labels,
            )
            for wording in (*IPD_WORDINGS, *MIRRORED_WORDINGS)
            if wording.name in wanted
            for index in (WORDINGS.index(wording.name.removesuffix(MIRROR_SUFFIX)),)
            for words in assigned(labels, assignments)
            for state in STATES
            for order in ((0, 1) if crossed else (_parity(index, words != labels, state),))
        )
    )


def scenarios(
    labels: tuple[str, str] = LABELS, assignments: Sequence[Assignment] = ASSIGNMENTS
) -> PromptSet:
    """Five situations of the IPD, four texts each, option orders rotated.

    Returns:
        20 prompts per assignment; within a scenario and an assignment, two in either option order.

    Raises:
        PromptError: the labels cannot stand in a prompt.
        ConfigError: there is no such assignment.
    """
    return PromptSet(
        tuple(
            compose(
                "scenarios",
                wording,
                Scene(get_game("IPD"), state, words, order, order),
                labels,
                story=scenario,
            )
            for scenario, (state, texts) in SCENARIOS.items()
            for words in assigned(labels, assignments)
            for index, wording in enumerate(texts)
            for order in ((index + (words != labels)) % 2,)
        )
    )


def clusters(
    labels: tuple[str, str] = LABELS, assignments: Sequence[Assignment] = ASSIGNMENTS
) -> PromptSet:
    """Twenty scenarios, five games x four states, in two texts and both option orders.

    The scenario (``IPD.CC``) is the cluster, and the unit of replication, for inference.

    Returns:
        80 prompts per assignment.

    Raises:
        PromptError: the labels cannot stand in a prompt.
        ConfigError: there is no such assignment.
    """
    return _clusters(labels, tuple(assignments))


@functools.cache
def _clusters(labels: tuple[str, str], assignments: tuple[Assignment, ...]) -> PromptSet:
    """Composed once: every method of a study asks them."""
    return PromptSet(
        tuple(
            compose(
                "clusters",
                wording,
                Scene(get_game(game), state, words, order, order),
                labels,
            )
            for game in CLUSTER_GAMES
            for wording in CLUSTER_WORDINGS
            for words in assigned(labels, assignments)
            for state in STATES
            for order in (0, 1)
        )
    )


def balanced(prompts: PromptSet) -> PromptSet:
    """One prompt for each scenario and template, orders and label assignments rotated.

    Takes the place of a fully crossed set where every prompt is expensive. Which combination of
    option order, answer order and labels a prompt has is rotated over the scenarios, with a shift
    per template and per full turn (a Latin square). Within a template the combinations are asked
    equally often, up to one prompt where their number does not divide the number of scenarios;
    of ``clusters`` it takes 40 of 160 prompts, each combination five times in either text.

    Returns:
        The chosen prompts, in the order of the given set.

    Raises:
        PromptError: a scenario lacks a combination that others have, so nothing can be rotated, or
            has one twice.
    """
    groups: dict[tuple[str, str], dict[tuple[int, int, str], Prompt]] = {}
    for prompt in prompts:
        group = groups.setdefault((prompt.template, prompt.scenario), {})
        combination = (prompt.option_order, prompt.answer_order, prompt.labels)
        if combination in group:
            raise _not_crossed(prompt, f"{group[combination].name} and {prompt.name}")
        group[combination] = prompt
    combinations = sorted({combination for group in groups.values() for combination in group})
    half = len(combinations) // 2
    # Half a turn apart lie combinations that differ in both order and labels.
    turn = combinations[:half] + combinations[half:][::-1]
    templates = list(dict.fromkeys(template for template, _ in groups))
    chosen: set[str] = set()
    for t, template in enumerate(templates):
        own_groups = [group for (name, _), group in groups.items() if name == template]
        for i, group in enumerate(own_groups):
            combination = turn[(i + i // len(turn) + t * half + t // 2) % len(turn)]
            if len(group) != len(turn):
                missing = next(c for c in turn if c not in group)
                raise _not_crossed(next(iter(group.values())), f"no prompt with {missing}")
            chosen.add(group[combination].name)
    return prompts.where(lambda prompt: prompt.name in chosen)


def _not_crossed(prompt: Prompt, seen: str) -> PromptError:
    return PromptError(
        f"Scenario {prompt.scenario!r} in the text {prompt.template!r} is not fully crossed",
        seen=seen,
        allowed="each combination of option order, answer order and labels once, for every "
        "scenario and template",
        remedy="balance a fully crossed set, such as clusters, or use the set as it is",
    )


def assigned(
    labels: tuple[str, str], assignments: Sequence[Assignment]
) -> tuple[tuple[str, str], ...]:
    """The labels as (cooperate, defect) under each assignment.

    Raises:
        PromptError: the labels cannot stand in a prompt.
        ConfigError: there is no such assignment.
    """
    check_labels(labels)
    for assignment in assignments:
        if assignment not in ASSIGNMENTS:
            raise ConfigError(
                "There is no label assignment of this name",
                seen=assignment,
                allowed=", ".join(ASSIGNMENTS),
                remedy=nearest(assignment, ASSIGNMENTS),
            )
    return tuple(labels if a == "same" else (labels[1], labels[0]) for a in assignments)


def _parity(wording: int, swapped: bool, state: State) -> int:
    """The option order of a half fraction: the parity of all other factors."""
    last = state.own_previous, state.opponent_previous
    return (wording + swapped + last.count("D")) % 2


def compose(
    family: str,
    wording: Wording,
    scene: Scene,
    labels: tuple[str, str],
    *,
    story: str | None = None,
) -> Prompt:
    """The prompt of a scene, named after its place in the family and what differs from default.

    Args:
        family: ``structured``, ``wordings``, ``scenarios``, ``clusters``, one of
            ``family_sets.FAMILIES`` or the user's own.
        wording: the text; of a last move that it omits, the prompt has none.
        scene: what it tells.
        labels: what cooperating and what defecting is called under the assignment ``same``.
        story: the situation that the text tells (a key of ``SCENARIOS``), which is then the
            scenario; without one, game and state are.

    Raises:
        PromptError: the labels cannot stand in a prompt, or the text tells one player's points
            for both and the game is not symmetric.
    """
    if wording.symmetric_only and not scene.game.is_symmetric:
        both = (w.name for w in (STRUCTURED, *IPD_WORDINGS) if not w.symmetric_only)
        raise PromptError(
            f"Wording {wording.name!r} tells one player's points for both",
            seen=f"{scene.game.name}, in which the two players' points differ",
            allowed="symmetric games",
            remedy=f"use wordings that tell both players' points: {', '.join(both)}",
        )
    text, spans = render(wording, scene)
    stem, (cooperate, defect) = answer_forms(scene.labels, stem=scene.stem)
    own = None if "own" in wording.omits else scene.state.own_previous
    other = None if "other" in wording.omits else scene.state.opponent_previous
    state = f"{own or '_'}{other or '_'}" if own or other else ""
    option_order = f"o{scene.option_order}"
    place = {
        "structured": (state, option_order, f"a{scene.answer_order}"),
        "wordings": (wording.name, state, option_order),
        "scenarios": (story or "", wording.name, option_order),
        "clusters": (scene.game.name, state, wording.name, option_order),
    }.get(family, (wording.name, *([state] if state else []), option_order))
    return Prompt(
        name=".".join((family, *place, *_special(family, scene, labels))),
        decision=Decision(
            messages=(Message("user", text),),
            stem=stem,
            positive=Option("defect", (defect,)),
            negative=Option("cooperate", (cooperate,)),
            spans=spans,
        ),
        game=scene.game.name,
        scenario=story or ".".join(filter(None, (scene.game.name, state))),
        family=family,
        template=wording.name,
        labels="/".join(scene.labels),
        option_order=scene.option_order,
        answer_order=scene.answer_order,
        table_order=scene.table_order if wording.table else "none",
        own_previous=own,
        opponent_previous=other,
    )


def _special(family: str, scene: Scene, labels: tuple[str, str]) -> Iterator[str]:
    """The end of a prompt's name: the assignment, and what differs from default."""
    yield "same" if scene.labels == labels else "swapped"
    if labels != LABELS:
        yield "-".join(labels)
    if scene.table_order != "original":
        yield scene.table_order
    if scene.game.name != "IPD" and family != "clusters":
        yield scene.game.name
    if not scene.stem:
        yield "nostem"
