"""How does a match go, round by round?

Both players move at once, seeing all moves before: a classical strategy by its rule, a strategy of
the Axelrod library as that library plays it, an agent by its probabilities of C, D and neither
after the last round. An answer that is neither repeats the agent's own last move; the record shows
an ``x`` in its place, and points are paid for the move. With noise each move is then turned into
the other one with probability ``flip``, for both players to see and remember.

Strategies open as their literature says. An agent knows nothing but the last round, so it opens out
of a round before the first, drawn uniformly from the four states as everywhere in the package and
shared by two agents. That round is neither played nor paid, and no strategy remembers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.axelrod_players import (
    AXELROD,
    AxelrodPlayer,
    full_name,
    is_stochastic,
    strategy_name,
)
from moralscope.games.matrices import PAIRS, Game
from moralscope.games.play.classical import get_classical

Array = NDArray[np.float64]
Kind = Literal["agent", "native", "axelrod"]
NEITHER = "x"
"""The letter of an answer that is neither option."""

_ROUNDING = 1e-5

Seat = Callable[[str, str, float], str]
"""One player in one match: its own moves, the other's, and a uniform draw from [0, 1) give C, D or
``NEITHER``."""


@dataclass(frozen=True)
class Entrant:
    """Someone who can sit down to a match.

    Attributes:
        name: how tables call it.
        kind: ``agent``; ``native``, a strategy of ``classical``; or ``axelrod``.
        deterministic: whether its moves follow from the other's alone.
        begin: its seat in a new match, given the state before the first round (own move, the
            other's) and a generator for what it draws.
    """

    name: str
    kind: Kind
    deterministic: bool
    begin: Callable[[tuple[Move, Move], np.random.Generator], Seat]


@dataclass(frozen=True, slots=True)
class Match:
    """A match as it went.

    Attributes:
        game: the game, as the first player sees it.
        first, second: who played.
        repetition: which of the matches of this pair, from 0.
        first_answers, second_answers: C, D or x, a letter a round. x: neither option.
        first_moves, second_moves: C or D, a letter a round: what was played and paid, after noise.
        first_score, second_score: points, mean a round.
    """

    game: str
    first: str
    second: str
    repetition: int
    first_answers: str
    second_answers: str
    first_moves: str
    second_moves: str
    first_score: float
    second_score: float

    @property
    def rounds(self) -> int:
        """How many were played."""
        return len(self.first_moves)


def strategy_entrant(expression: str) -> Entrant:
    """A strategy that takes part.

    Args:
        expression: a strategy of ``classical``, a memory-one opponent with settings, or
            ``axelrod(NAME)``.

    Raises:
        ConfigError: there is no such strategy, or a setting is wrong.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    if expression.partition("(")[0].strip().casefold() == AXELROD:
        return _library_entrant(strategy_name(expression))
    strategy = get_classical(expression)

    def seat(own: str, other: str, draw: float) -> str:
        return "C" if draw < strategy.rule(own, other) else "D"

    def begin(before: tuple[Move, Move], rng: np.random.Generator) -> Seat:
        del before, rng  # A rule opens by itself and keeps nothing.
        return seat

    return Entrant(strategy.name, "native", strategy.deterministic, begin)


def _library_entrant(name: str) -> Entrant:
    def begin(before: tuple[Move, Move], rng: np.random.Generator) -> Seat:
        del before  # It opens as it does when nothing was played.
        player = AxelrodPlayer(name, rng)

        def seat(own: str, other: str, draw: float) -> str:
            del draw  # It has a generator of its own.
            if not own:
                return player.previous
            return player.move(cast("Move", other[-1]), cast("Move", own[-1]))

        return seat

    return Entrant(f"{AXELROD}({full_name(name)})", "axelrod", not is_stochastic(name), begin)


def agent_entrant(name: str, answers: Array) -> Entrant:
    """An agent that takes part.

    Args:
        name: how tables call it.
        answers: probabilities of C, D and neither, ``[4, 3]``, states CC, CD, DC, DD (own last
            move first); each row sums to 1.

    Raises:
        ConfigError: the answers are not such probabilities.
    """
    table = {
        own + other: (row[0], row[0] + row[1])
        for (own, other), row in zip(PAIRS, checked_answers(name, answers).tolist(), strict=True)
    }

    def begin(before: tuple[Move, Move], rng: np.random.Generator) -> Seat:
        del rng
        opening = "".join(before)

        def seat(own: str, other: str, draw: float) -> str:
            cooperates, legal = table[own[-1] + other[-1] if own else opening]
            return "C" if draw < cooperates else "D" if draw < legal else NEITHER

        return seat

    # Any other agent opens at random, or repeats a move that was drawn.
    fixed = {*table.values()} in ({(1.0, 1.0)}, {(0.0, 1.0)})
    return Entrant(name, "agent", fixed, begin)


def checked_answers(name: str, answers: Array) -> Array:
    """Answers of an agent, ``[4, 3]``, rounded to rows that sum to 1.

    Raises:
        ConfigError: the shape is another, or a row is not three probabilities that sum to 1.
    """
    array = np.asarray(answers, dtype=np.float64)
    if (
        array.shape != (len(PAIRS), 3)
        # NaN fails the comparison.
        or not np.all(array >= -_ROUNDING)
        or not np.all(np.abs(array.sum(axis=1) - 1) <= _ROUNDING)
    ):
        raise ConfigError(
            f"The answers of {name!r} are not probabilities",
            seen=f"shape {array.shape}: {array.tolist()}",
            allowed="P(C), P(D) and P(neither) after CC, CD, DC and DD, each row with sum 1",
            remedy="give three probabilities for each state, own last move first",
        )
    array = array.clip(0, 1)
    # A sum that misses 1 by a rounding must not become an answer that is neither.
    return array / array.sum(axis=1, keepdims=True)


def play_match(
    first: Entrant,
    second: Entrant,
    game: Game,
    rng: np.random.Generator,
    *,
    rounds: int,
    noise: float = 0.0,
    repetition: int = 0,
) -> Match:
    """One match.

    Args:
        first: who sits where the game is told from.
        second: who sits opposite.
        game: what is at stake each round.
        rng: of everything that is drawn in this match.
        rounds: at least 1.
        noise: probability that a move is turned into the other one, for each move by itself.
        repetition: kept in the result.

    Raises:
        ConfigError: rounds or noise are out of range.
    """
    _check(rounds, noise)
    before = PAIRS[int(rng.integers(len(PAIRS)))]
    seats = first.begin(before, rng), second.begin((before[1], before[0]), rng)
    a, b = "", ""
    told_a, told_b = "", ""
    points = [0.0, 0.0]
    for draw in rng.random((rounds, 4)).tolist():
        answers = seats[0](a, b, draw[0]), seats[1](b, a, draw[1])
        move_a = _played(answers[0], a[-1:] or before[0], draw[2] < noise)
        move_b = _played(answers[1], b[-1:] or before[1], draw[3] < noise)
        paid = game.payoffs[(move_a, move_b)]
        points[0] += paid[0]
        points[1] += paid[1]
        a, b = a + move_a, b + move_b
        told_a, told_b = told_a + answers[0], told_b + answers[1]
    return Match(
        game.name, first.name, second.name, repetition, told_a, told_b, a, b,
        points[0] / rounds, points[1] / rounds,
    )  # fmt: skip


def _played(answer: str, previous: str, turned: bool) -> Move:
    """The move that an answer comes to."""
    move = previous if answer == NEITHER else answer
    return "C" if (move == "C") != turned else "D"


def _check(rounds: int, noise: float) -> None:
    if rounds < 1:
        raise ConfigError(
            "A match has no rounds",
            seen=f"rounds {rounds}",
            allowed="1 or more",
            remedy="use 200, the length of Axelrod's first tournament",
        )
    if not 0 <= noise <= 1:
        raise ConfigError(
            "Noise is not a probability",
            seen=noise,
            allowed="numbers from 0 to 1; at 0.5 every move is a coin toss",
            remedy="give the probability that a move is turned into the other one",
        )
