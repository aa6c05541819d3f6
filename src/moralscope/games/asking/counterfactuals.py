"""What if one thing had been otherwise? Pairs of prompts that differ in one thing alone.

Activity that is patched from one prompt into another shows what carries the difference between
them, provided that they differ in one thing and that the rest stands where it stood. A *change* is

=====================  =====================================================================
``opponent_previous``  the opponent's last move is the other one
``own_previous``       the own last move is the other one
``payoffs``            the payoffs of each player's own two actions are exchanged:
                       ``u'(C, x) = u(D, x)`` and ``u'(D, x) = u(C, x)``, so T and R change
                       places, and S and P; in the prisoner's dilemma defecting no longer pays
``labels``             what cooperating and what defecting is called is exchanged
=====================  =====================================================================

What follows from a change changes with it: the points of the last round where a text tells them,
and the answers' forms where labels are exchanged. Everything else stays letter by letter, orders
included. Each change undoes itself. Source of the method: Wang et al., arXiv 2211.00593.

Users' own prompts are paired by ``counterfactual_of`` in their file. How pairs align as tokens is
checked where the tokenizer is, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeGuard, get_args

from moralscope.core.decision import Decision, Move, Prompt, PromptSet
from moralscope.core.errors import ConfigError, PromptError, nearest
from moralscope.games.asking.family_sets import FAMILIES
from moralscope.games.asking.prompts import compose
from moralscope.games.asking.stories import SCENARIOS
from moralscope.games.asking.texts import (
    CLUSTER_WORDINGS,
    IPD_WORDINGS,
    MIRRORED_WORDINGS,
    STRUCTURED,
)
from moralscope.games.asking.wording import TABLE_ORDERS, Scene, TableOrder, Wording
from moralscope.games.matrices import MOVES, PAIRS, Game, get_game
from moralscope.games.states import State

Change = Literal["opponent_previous", "own_previous", "payoffs", "labels"]
CHANGES: tuple[Change, ...] = get_args(Change)
"""What can be changed in the package's own prompts."""

_SWAPPED = "-swapped"

_TEXTS: Mapping[tuple[str, str], tuple[Wording, str | None]] = MappingProxyType(
    {("structured", STRUCTURED.name): (STRUCTURED, None)}
    | {
        ("wordings", wording.name): (wording, None)
        for wording in (*IPD_WORDINGS, *MIRRORED_WORDINGS)
    }
    | {("clusters", wording.name): (wording, None) for wording in CLUSTER_WORDINGS}
    | {
        (name, wording.name): (wording, None)
        for name, texts in FAMILIES.items()
        for wording in texts
    }
    | {
        ("scenarios", wording.name): (wording, story)
        for story, (_, texts) in SCENARIOS.items()
        for wording in texts
    }
)
"""Family and template to the text and, where it tells one, the story."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts that differ in one thing.

    Attributes:
        target: the prompt that is patched.
        source: its counterpart, where activity comes from.
        change: what the source has otherwise: one of ``CHANGES``, or the user's words.
    """

    target: Prompt
    source: Prompt
    change: str


def exchanged(game: Game) -> Game:
    """The game in which the payoffs of each player's own two actions are exchanged.

    ``u_own'(a, b) = u_own(other a, b)`` and ``u_opponent'(a, b) = u_opponent(a, other b)``: a
    symmetric game stays symmetric, with T and R exchanged, and S and P. Named ``IPD-swapped``;
    exchanging twice gives the game itself.
    """
    back = game.name.endswith(_SWAPPED)
    return Game(
        game.name.removesuffix(_SWAPPED) if back else game.name + _SWAPPED,
        game.title.removesuffix(", payoffs swapped") if back else f"{game.title}, payoffs swapped",
        {
            (a, b): (game.payoffs[(_other(a), b)][0], game.payoffs[(a, _other(b))][1])
            for a, b in PAIRS
        },
    )


def game_of(prompt: Prompt) -> Game:
    """The game that a prompt tells, also where its payoffs were exchanged.

    Raises:
        ConfigError: it tells none of the package's games.
    """
    if prompt.game.endswith(_SWAPPED):
        return exchanged(get_game(prompt.game.removesuffix(_SWAPPED)))
    return get_game(prompt.game)


def counterpart(prompt: Prompt, change: Change) -> Prompt:
    """The prompt with one thing changed.

    Args:
        prompt: one of the package's own, or a counterpart of one.
        change: what to change.

    Returns:
        The same text with the change; its counterpart under the same change is ``prompt``.

    Raises:
        ConfigError: there is no such change.
        PromptError: the prompt does not have what is to be changed, is not one of the package's
            own, or tells a story that the change would contradict, or nothing that it would change.
    """
    if not _is_change(change):
        raise _no_such_change(change, CHANGES)
    if prompt.others_cooperated is not None:
        raise PromptError(
            f"Prompt {prompt.name!r} is about more than two players",
            seen=f"game {prompt.game!r}, others_cooperated {prompt.others_cooperated}",
            allowed="prompts of games of two players, or pairs of one's own",
            remedy=f"write it into a prompt file, with counterfactual_of: {prompt.name}",
        )
    if change in ("opponent_previous", "own_previous") and getattr(prompt, change) is None:
        raise PromptError(
            f"Prompt {prompt.name!r} has no {change} that could be changed",
            seen=f"{change} is not told",
            allowed="prompts that tell what both players did last",
            remedy=f"choose another change than {change}, or prompts with a memory",
        )
    family, wording, scene, labels, story = _origin(prompt)
    if story is not None and change != "labels":
        raise PromptError(
            f"Changing {change} would contradict the story of prompt {prompt.name!r}",
            seen=f"text {prompt.template!r} of the situation {story!r}",
            allowed="texts that are written for every state, or the change labels",
            remedy="use prompts of the families structured, wordings or clusters",
        )
    made = compose(family, wording, _changed(scene, change), labels, story=story)
    if made.decision.messages == prompt.decision.messages:
        raise PromptError(
            f"Changing {change} would leave the text of prompt {prompt.name!r} as it is",
            seen=f"family {prompt.family!r}, template {prompt.template!r}",
            allowed=f"texts that depend on {change}",
            remedy="use prompts of the families structured, wordings or clusters",
        )
    return made


def counterfactual_pairs(prompts: PromptSet, change: str) -> tuple[Pair, ...]:
    """Every prompt of a set with its counterpart, which is taken from the set where it is there.

    Pairs that the user declared with this change come as they were declared; prompts that take
    part in none are paired with the prompt of the set that asks the counterpart's text, or else
    with a new one.

    Args:
        prompts: the targets.
        change: one of ``CHANGES``, or a change that the user's prompts name.

    Returns:
        Pairs in the order of their targets, or of the sources where one has several.

    Raises:
        ConfigError: neither the package nor the set knows the change.
        PromptError: a prompt has no counterpart under this change, or a declared one is not in
            the set.
    """
    declared = declared_pairs(prompts, change)
    if not _is_change(change):
        if not declared:
            own = {prompt.change for prompt in prompts if prompt.change is not None}
            raise _no_such_change(change, [*CHANGES, *sorted(own.difference(CHANGES))])
        return declared
    paired = {prompt.name for pair in declared for prompt in (pair.target, pair.source)}
    there = {_asked(prompt.decision): prompt for prompt in prompts}
    pairs = list(declared)
    for prompt in prompts:
        if prompt.name not in paired:
            made = counterpart(prompt, change)
            pairs.append(Pair(prompt, there.get(_asked(made.decision), made), change))
    place = {prompt.name: index for index, prompt in enumerate(prompts)}
    return tuple(sorted(pairs, key=lambda pair: place[pair.target.name]))


def declared_pairs(prompts: PromptSet, change: str | None = None) -> tuple[Pair, ...]:
    """The pairs that a user's prompts declare by ``counterfactual_of``.

    Args:
        prompts: targets and sources.
        change: only pairs of this change; all by default.

    Returns:
        Pairs in the order of the sources; a source that does not say what was changed has the
        change ``own``.

    Raises:
        PromptError: a target is not in the set.
    """
    named = {prompt.name: prompt for prompt in prompts}
    pairs: list[Pair] = []
    for source in prompts:
        of = source.counterfactual_of
        what = source.change or "own"
        if of is None or change not in (None, what):
            continue
        if of not in named:
            raise PromptError(
                f"Prompt {source.name!r} is the counterfactual of a prompt that is not there",
                seen=f"counterfactual_of {of!r}",
                allowed="the name of another prompt of the same set",
                remedy=nearest(of, named),
            )
        pairs.append(Pair(named[of], source, what))
    return tuple(pairs)


def with_sources(prompts: PromptSet, pairs: Iterable[Pair]) -> PromptSet:
    """The set, followed by the sources of pairs that are not in it, each once.

    Raises:
        PromptError: a source has the name of another prompt of the set.
    """
    there = set(prompts)
    new = dict.fromkeys(pair.source for pair in pairs if pair.source not in there)
    return prompts + PromptSet(tuple(new)) if new else prompts


def pair_indices(prompts: Sequence[Prompt], pairs: Iterable[Pair]) -> tuple[tuple[int, int], ...]:
    """Where targets and sources stand among prompts: (target, source) of each pair.

    Raises:
        PromptError: a prompt of a pair is not among them.
    """
    place = {prompt.name: index for index, prompt in enumerate(prompts)}
    chosen = tuple(pairs)
    for pair in chosen:
        for prompt in (pair.target, pair.source):
            if prompt.name not in place:
                raise PromptError(
                    "A prompt of a counterfactual pair is not among the prompts",
                    seen=prompt.name,
                    allowed="pairs of prompts that are there",
                    remedy="add the sources with with_sources",
                )
    return tuple((place[pair.target.name], place[pair.source.name]) for pair in chosen)


def _origin(
    prompt: Prompt,
) -> tuple[str, Wording, Scene, tuple[str, str], str | None]:
    """What ``compose`` made a prompt from: family, wording, scene, labels and story.

    Nothing is guessed: the prompt that is composed from them has to be the prompt, in every field.
    """
    bare = replace(prompt, counterfactual_of=None, change=None)
    text = _TEXTS.get((prompt.family, prompt.template))
    known = _tells_a_game(prompt) and {prompt.option_order, prompt.answer_order} <= {0, 1}
    if text is not None and known:
        wording, story = text
        # Of a last move that the text omits the scene may say anything.
        state = State(prompt.own_previous or "C", prompt.opponent_previous or "C")
        order: TableOrder = "original"
        if _is_table_order(prompt.table_order):
            order = prompt.table_order
        words = _labels_of(prompt.decision)
        scene = Scene(
            game_of(prompt), state, words,
            prompt.option_order, prompt.answer_order, order, bool(prompt.decision.stem),
        )  # fmt: skip
        for labels in (words, (words[1], words[0])):
            # Words that cannot be labels are refused there: such a prompt is not the package's.
            with suppress(PromptError):
                if compose(prompt.family, wording, scene, labels, story=story) == bare:
                    return prompt.family, wording, scene, labels, story
    raise PromptError(
        f"The counterpart of prompt {prompt.name!r} cannot be made: its text is not one of the "
        "package's own",
        seen=f"family {prompt.family!r}, template {prompt.template!r}",
        allowed="prompts as the package makes them, or pairs of one's own",
        remedy=f"write the counterpart into the prompt file, with counterfactual_of: {prompt.name}",
    )


def _tells_a_game(prompt: Prompt) -> bool:
    try:
        game_of(prompt)
    except ConfigError:
        return False
    return True


def _is_change(name: str) -> TypeGuard[Change]:
    return name in CHANGES


def _is_table_order(name: str) -> TypeGuard[TableOrder]:
    return name in TABLE_ORDERS


def _changed(scene: Scene, change: Change) -> Scene:
    own, opponent = scene.state.own_previous, scene.state.opponent_previous
    match change:
        case "opponent_previous":
            return replace(scene, state=State(own, _other(opponent)))
        case "own_previous":
            return replace(scene, state=State(_other(own), opponent))
        case "payoffs":
            return replace(scene, game=exchanged(scene.game))
        case "labels":
            return replace(scene, labels=(scene.labels[1], scene.labels[0]))


def _other(move: Move) -> Move:
    return MOVES[1] if move == MOVES[0] else MOVES[0]


def _labels_of(decision: Decision) -> tuple[str, str]:
    """What cooperating and defecting is called, from what the answer would be."""
    options = decision.negative, decision.positive
    cooperate, defect = (
        (decision.stem + option.forms[0]).removeprefix("I choose ") for option in options
    )
    return cooperate, defect


def _asked(decision: Decision) -> object:
    """What makes two prompts ask the same, names and spans aside."""
    return decision.messages, decision.stem, decision.positive.forms, decision.negative.forms


def _no_such_change(change: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        "There is no change of this name",
        seen=change,
        allowed=", ".join(known),
        remedy=nearest(change, known),
    )
