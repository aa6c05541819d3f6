"""Which parts of the evaluation suite does a study want, and what are agents asked for them?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from moralscope.behaviour.playing.protocol import PAPER_GAMES
from moralscope.core.agents import Frozen
from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError
from moralscope.games import GAMES, OPPONENTS, get_game, get_opponent, structured
from moralscope.games.asking.family_files import read_family
from moralscope.games.asking.framing import framings
from moralscope.games.asking.robustness import (
    UNTRAINED,
    generalisation_prompts,
    one_order,
    robustness_prompts,
    united,
)
from moralscope.games.play.classical import CLASSICAL
from moralscope.games.play.matches import strategy_entrant

Part = Literal[
    "generalisation",
    "regret",
    "contrasts",
    "robustness",
    "play",
    "tournament",
    "similarity",
    "paper",
    "answers",
    "side_effects",
]
PARTS: tuple[Part, ...] = get_args(Part)
PAPER_LABELS = UNTRAINED
"""The labels of the published protocol, in the assignment that it asks."""

_IN_GAMES: frozenset[Part] = frozenset({"generalisation", "regret", "play", "tournament", "paper"})
_IN_WORDS: frozenset[Part] = frozenset({"contrasts", "robustness", "similarity"})


class EvaluationChoice(Frozen):
    """How behaviour is evaluated, beside policies and the control *label, layout, order or move*.

    Attributes:
        parts: of the suite: generalisation (games, labels, table orders), regret, contrasts
            (reciprocity, situations), robustness (to the way of asking, with the variance split),
            play (pairs, exploitability, populations), tournament, similarity, paper (the
            published protocol), answers (sampled, with follow-up questions), side_effects.
        games: whose structured text is asked, each with its own payoffs.
        labels: pairs of labels that agents were not trained with.
        opponents: strategies with one step of memory that agents meet.
        strategies: classical strategies that take part in tournaments, ``axelrod(NAME)`` included;
            twenty of the package's own where none is given.
        noise: probabilities that a move is turned into the other one, for play.
        rounds: of a match.
        families: files of families of the user's own, for robustness.
        repetitions: of matches that are not deterministic.
        answers: sampled for each prompt.
        answer_tokens: the longest sampled answer.
        conversation_tokens: the longest answer to a follow-up question.
        margin: Jensen-Shannon divergence, in nats, below which two agents decide alike.
    """

    parts: tuple[Part, ...] = ()
    games: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(GAMES)
    labels: tuple[tuple[str, str], ...] = (PAPER_LABELS,)
    opponents: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "random",
        "tit-for-tat",
        "always-cooperate",
        "always-defect",
    )
    strategies: tuple[str, ...] = ()
    noise: Annotated[tuple[Annotated[float, Field(ge=0, le=0.5)], ...], Field(min_length=1)] = (
        0.0,
        0.05,
    )
    families: tuple[str, ...] = ()
    rounds: Annotated[int, Field(ge=1)] = 100
    repetitions: Annotated[int, Field(ge=1)] = 10
    answers: Annotated[int, Field(ge=1)] = 4
    answer_tokens: Annotated[int, Field(ge=1)] = 8
    conversation_tokens: Annotated[int, Field(ge=1)] = 100
    margin: Annotated[float, Field(gt=0)] = 0.01

    @model_validator(mode="after")
    def _known(self) -> EvaluationChoice:
        for game in self.games:
            get_game(game)
        for opponent in self.opponents:
            _require_opponent(opponent)
        _require_field(self.strategies)
        if "paper" in self.parts and PAPER_LABELS not in self.labels:
            raise ConfigError(
                "The published protocol needs its own labels",
                seen=self.labels,
                allowed="action3 and action4 among evaluation.labels",
                remedy="add [action3, action4], or leave the part paper out",
            )
        if self.parts == ("paper",) and not self.paper_games:
            raise ConfigError(
                "None of the games is among those of the published protocol",
                seen=", ".join(self.games),
                allowed=", ".join(PAPER_GAMES),
                remedy="name one of them",
            )
        return self

    @property
    def paper_games(self) -> tuple[str, ...]:
        """The games of the published protocol that are among those asked for."""
        names = {get_game(game).name for game in self.games}
        return tuple(game for game in PAPER_GAMES if game in names)

    def wants(self, *parts: Part) -> bool:
        """Whether any of these parts was asked for."""
        return not set(parts).isdisjoint(self.parts)


def _require_opponent(expression: str) -> None:
    """Refuse strategies of tournaments by their name: exact play needs a table of one step."""
    name = expression.strip()
    if name in CLASSICAL and name not in OPPONENTS:
        raise ConfigError(
            "This strategy takes part in tournaments only",
            seen=name,
            allowed=f"opponents with one step of memory: {', '.join(OPPONENTS)}, memory-one, noisy",
            remedy="name it among the strategies",
        )
    get_opponent(expression)


def _require_field(strategies: Sequence[str]) -> None:
    """Refuse now what a tournament would refuse when everything else is done."""
    names = [strategy_entrant(expression).name for expression in strategies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "A strategy is named twice",
            seen=", ".join(twice),
            allowed="each strategy once",
            remedy="leave one of them out",
        )


def answer_prompts(words: tuple[str, str]) -> PromptSet:
    """What answers are sampled to: the structured text, with its answer begun and without."""
    begun = structured(words)
    return one_order(begun) + framings(words, names=("stem:none",))


def conversation_prompts(words: tuple[str, str]) -> PromptSet:
    """What conversations begin with: the four states, as the published study asked."""
    return answer_prompts(words).where(
        lambda p: p.family == "structured" and p.option_order == 0 and p.labels == "/".join(words)
    )


def evaluation_prompts(choice: EvaluationChoice, words: tuple[str, str]) -> tuple[Prompt, ...]:
    """What the parts ask beyond a study's own prompts; nothing without parts.

    Args:
        choice: the parts and their settings.
        words: the labels that agents were trained with.

    Raises:
        PromptError: labels cannot stand in a prompt, or a family's file cannot be used.
        ConfigError: there is no such game.
    """
    sets: list[Iterable[Prompt]] = []
    if set(choice.parts) & _IN_GAMES:
        sets.append(generalisation_prompts(choice.games, (words, *choice.labels)))
    if set(choice.parts) & _IN_WORDS:
        sets.append(robustness_prompts(words))
    if "answers" in choice.parts:
        sets.append(answer_prompts(words))
    sets += [read_family(Path(file), words) for file in choice.families]
    return tuple(united(*sets)) if sets else ()
