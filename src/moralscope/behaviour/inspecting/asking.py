"""What is a hosted model asked? The package's prompt sets, without a word put in its mouth.

An interface takes chat messages and gives back a whole answer, so the answer cannot be begun for
the model, and its chat template cannot be left out. Each prompt therefore asks for the whole label,

    stem "I choose action", forms ("1",)    becomes    stem "", forms ("action1",)

with the text unchanged, letter for letter. Prompts that differed in their stem alone are one and
the same question then and are asked once; prompts without a chat template are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType

from moralscope.core.decision import Decision, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.games import (
    GAMES,
    LABEL_PAIRS,
    LABELS,
    UNTRAINED,
    clusters,
    families,
    framings,
    generalisation_prompts,
    get_game,
    get_public_goods,
    public_goods_prompts,
    read_prompts,
    robustness_prompts,
    scenarios,
    structured,
    united,
    wordings,
)

Pair = tuple[str, str]
Games = Sequence[str]
Builder = Callable[[Games, Sequence[Pair]], Iterable[Prompt]]
"""From names of games and pairs of labels, either empty for the usual ones, to prompts."""

FILE_ENDINGS = (".yaml", ".yml", ".jsonl")


def _in_games(build: Callable[[str, Pair], PromptSet], usual: str) -> Builder:
    """A set that is asked game by game."""

    def built(games: Games, pairs: Sequence[Pair]) -> Iterable[Prompt]:
        asked = product(games or (usual,), pairs or (LABELS,))
        return united(*(build(game, pair) for game, pair in asked))

    return built


def _of_own_games(build: Callable[[Sequence[Pair]], PromptSet]) -> Builder:
    """A set that has games of its own, of which some can be asked for."""

    def built(games: Games, pairs: Sequence[Pair]) -> Iterable[Prompt]:
        prompts = build(pairs or (LABELS,))
        known = tuple(dict.fromkeys(prompt.game for prompt in prompts))
        for game in games:
            if game not in known:
                raise ConfigError(
                    "This prompt set does not ask about the game",
                    seen=game,
                    allowed=", ".join(known),
                    remedy="leave out the games, or ask the prompts structured about any game",
                )
        return prompts.where(lambda prompt: not games or prompt.game in games)

    return built


def _each(build: Callable[[Pair], PromptSet]) -> Builder:
    return _of_own_games(lambda pairs: united(*(build(pair) for pair in pairs)))


PROMPT_SETS: Mapping[str, Builder] = MappingProxyType(
    {
        "structured": _in_games(lambda g, pair: structured(pair, game=get_game(g)), "IPD"),
        "wordings": _in_games(lambda g, pair: wordings(pair, game=get_game(g)), "IPD"),
        "scenarios": _each(scenarios),
        "clusters": _each(clusters),
        "families": _each(families),
        "framings": _in_games(lambda g, pair: framings(pair, game=get_game(g)), "IPD"),
        "robustness": _of_own_games(
            lambda pairs: robustness_prompts(pairs[0], label_pairs=pairs[1:] or LABEL_PAIRS)
        ),
        "generalisation": lambda games, pairs: generalisation_prompts(
            games or tuple(GAMES), pairs or (LABELS, UNTRAINED)
        ),
        "public-goods": _in_games(
            lambda g, pair: public_goods_prompts(get_public_goods(g), pair), "PGG4x2"
        ),
    }
)
"""The prompt sets that can be asked for by name."""


def asked_prompts(
    name: str, games: str | Sequence[str] | None, labels: str | Sequence[str] | None
) -> PromptSet:
    """The prompts of a task.

    Args:
        name: one of ``PROMPT_SETS``, or a file of prompts of the user's own.
        games: one game or several; None for the set's own.
        labels: pairs of labels, each written ``action1/action2``; None for the set's own. Every
            pair is asked under both assignments.

    Raises:
        ConfigError: there is no such set or game, or a pair is not one.
        PromptError: the labels cannot stand in a prompt, or nothing is left to ask.
    """
    wanted = _listed(games)
    pairs = tuple(_pair(text) for text in _listed(labels))
    if name.endswith(FILE_ENDINGS):
        if wanted or pairs:
            raise ConfigError(
                "A file of prompts has games and labels of its own",
                seen=", ".join((*wanted, *("/".join(pair) for pair in pairs))),
                allowed="games and labels with the package's own prompt sets",
                remedy="leave out games and labels",
            )
        return prompts_without_stem(read_prompts(Path(name)))
    if name not in PROMPT_SETS:
        raise ConfigError(
            "There is no prompt set of this name",
            seen=name,
            allowed=f"{', '.join(PROMPT_SETS)}, or a file ending in {', '.join(FILE_ENDINGS)}",
            remedy=nearest(name, PROMPT_SETS),
        )
    return prompts_without_stem(PROMPT_SETS[name](wanted, pairs))


def prompts_without_stem(prompts: Iterable[Prompt]) -> PromptSet:
    """The questions of these prompts as an interface can ask them, each once.

    Returns:
        Every prompt without its stem, the whole labels its options; one that had a stem has
        ``nostem`` at the end of its name. Prompts without a chat template are left out.

    Raises:
        PromptError: nothing is left to ask.
    """
    return united(_without_stem(prompt) for prompt in prompts if prompt.decision.chat_template)


def _without_stem(prompt: Prompt) -> Prompt:
    told = prompt.decision
    if not told.stem:
        return prompt
    asked = replace(
        told, stem="", positive=_whole(told, told.positive), negative=_whole(told, told.negative)
    )
    return replace(prompt, name=f"{prompt.name}.nostem", decision=asked)


def _whole(told: Decision, option: Option) -> Option:
    """An option whose forms are what the answer says of it, stem included."""
    spans = (span for span in told.spans if span.category == "labels")
    words = {told.messages[span.message].content[span.start : span.end] for span in spans}
    forms = (_label(told.stem, form, words) for form in option.forms)
    return Option(option.name, tuple(dict.fromkeys(forms)))


def _label(stem: str, form: str, words: Iterable[str]) -> str:
    """The label of the text in which stem and form end; the word that they end in without one."""
    begun = re.findall(r"\w*$", stem)[0] if re.match(r"\w", form) else ""
    ending = (word for word in words if (stem + form).endswith(word))
    return max(ending, key=len, default=(begun + form).strip())


def _listed(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _pair(text: str) -> Pair:
    words = text.split("/")
    if len(words) != 2:
        raise ConfigError(
            "A pair of labels is not written as one",
            seen=text,
            allowed="two labels with a slash between them",
            remedy="write it like action1/action2",
        )
    return words[0], words[1]
