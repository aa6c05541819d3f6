"""What does an opponent do in this game? Players that move, and what they do on average.

A player sits in one game. It knows its own move before the first round, is told round by round
what the agent played last, and answers with its move; moves are simultaneous. Players made from the
same expression and generator state make the same moves against the same agent.

An opponent with a longer memory has no table of four probabilities of its own. Against one given
agent it still has an average response to each state,

    q(s) = P(it plays C | the agent's last move and its own last move are s),

which ``response_table`` estimates by play. The response belongs to that agent: another one
brings other histories into the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.axelrod_players import AXELROD, AxelrodPlayer, full_name, strategy_name
from moralscope.games.matrices import PAIRS
from moralscope.games.opponents import OPPONENTS, Opponent, get_opponent, opponent_kind
from moralscope.games.states import transition_matrix


class Player(Protocol):
    """The opponent in one game."""

    @property
    def previous(self) -> Move:
        """Its move before the first round."""
        ...

    def move(self, agent_previous: Move) -> Move:
        """Its move of this round.

        Args:
            agent_previous: what the agent played in the round before; in the first round the
                agent's move before it. The player remembers its own moves itself.
        """
        ...


class MemoryOnePlayer:
    """A memory-one opponent in one game, which draws its moves one by one.

    Attributes:
        previous: its move before the first round, C with probability ``p_cooperated_before``.
    """

    def __init__(self, opponent: Opponent, rng: np.random.Generator) -> None:
        self._p = opponent.p_cooperate_after
        self._rng = rng
        self.previous: Move = self._draw(opponent.p_cooperated_before)
        self._last: Move = self.previous

    def move(self, agent_previous: Move) -> Move:
        """Its move of this round, given what the agent played in the round before."""
        self._last = self._draw(self._p[(agent_previous, self._last)])
        return self._last

    def _draw(self, p: float) -> Move:
        # A uniform draw lies in [0, 1): below 1 always, below 0 never.
        return "C" if self._rng.random() < p else "D"


def make_player(expression: str, rng: np.random.Generator) -> Player:
    """A player for one game.

    Args:
        expression: a memory-one opponent, see ``opponents``, or ``axelrod(NAME)``.
        rng: where its moves are drawn from, or the seed of its own generator.

    Raises:
        ConfigError: there is no such opponent, or it is a model.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    kind = opponent_kind(expression)
    if kind == "memory-one":
        return MemoryOnePlayer(get_opponent(expression), rng)
    if kind == "axelrod":
        return AxelrodPlayer(strategy_name(expression), rng)
    raise ConfigError(
        "This opponent is a model, which does not play without one",
        seen=expression,
        allowed="memory-one opponents and axelrod(NAME)",
        remedy="choose one of these, or train against it",
    )


@dataclass(frozen=True)
class Response:
    """How an opponent responded to one agent.

    Attributes:
        opponent: the memory-one opponent that does on average what it did: the observed shares
            of cooperation in each state, .5 in a state that play never met, and the observed
            share of openings with C.
        visits: decisions that were made in each state, [4], states CC, CD, DC, DD.
    """

    opponent: Opponent
    visits: NDArray[np.int64]

    @property
    def visitation(self) -> NDArray[np.float64]:
        """Share of the decisions in each state, [4]; sums to 1."""
        return self.visits / self.visits.sum()


def response_table(
    expression: str,
    p_cooperate: NDArray[np.float64],
    p_legal: NDArray[np.float64],
    *,
    rounds: int,
    games: int,
    rng: np.random.Generator,
) -> Response:
    """How does an opponent respond to this very agent, on average?

    Plays ``games`` games of ``rounds`` rounds, each with a new player. The agent's move before the
    first round is uniform. An illegal answer leaves its last move as it was. With n visits of a
    state, the standard error of its share of cooperation is about ``sqrt(q (1 - q) / n)``.

    Args:
        expression: a memory-one opponent or ``axelrod(NAME)``.
        p_cooperate: [4], the agent's P(C | legal answer, state), states CC, CD, DC, DD (own, the
            opponent's).
        p_legal: [4], its P(legal answer | state).
        rounds: of a game, at least 1.
        games: at least 1.
        rng: of everything that is drawn.

    Raises:
        ConfigError: there is no such opponent or it is a model, rounds or games are below 1, or
            the policy does not hold four probabilities.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    for what, number in (("rounds", rounds), ("games", games)):
        if number < 1:
            raise ConfigError(
                "A response cannot be estimated without play",
                seen=f"{what} {number}",
                allowed="1 or more",
                remedy=f"play more {what}",
            )
    # The chance of both next states in which the agent has played C; whom it meets cannot matter.
    agent = transition_matrix(p_cooperate, p_legal, OPPONENTS["random"])[:, :2].sum(axis=1)
    p_own = dict(zip(PAIRS, agent.tolist(), strict=True))
    visits = dict.fromkeys(PAIRS, 0)
    cooperated = dict.fromkeys(PAIRS, 0)
    openings = 0
    for _ in range(games):
        player = make_player(expression, rng)
        openings += player.previous == "C"
        state: tuple[Move, Move] = ("C" if rng.random() < 0.5 else "D", player.previous)
        for _ in range(rounds):
            own: Move = "C" if rng.random() < p_own[state] else "D"
            answer = player.move(state[0])
            visits[state] += 1
            cooperated[state] += answer == "C"
            state = (own, answer)
    table = {s: cooperated[s] / n if n else 0.5 for s, n in visits.items()}
    opponent = Opponent(_name(expression), table, openings / games)
    return Response(opponent, np.array([visits[pair] for pair in PAIRS]))


def _name(expression: str) -> str:
    if opponent_kind(expression) == "axelrod":
        return f"{AXELROD}({full_name(strategy_name(expression))})"
    return get_opponent(expression).name
