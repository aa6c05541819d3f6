"""What is an agent trained for? Strategic and moral rewards of one round.

A reward is a function of the round that was played: the game, both moves, and the opponent's
previous move. Source: Tennant, Hailes and Musolesi, arXiv 2410.01639, with the penalties of its
training runs (3 for betraying a cooperator, 6 for an illegal answer). The deontological reward
is the penalty alone; the hybrid reward is own payoff plus that penalty.

An answer that is no move at all earns ``ILLEGAL_PENALTY`` under every reward, instead of the
value; whoever scores answers applies it, since these functions only see moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.matrices import MOVES, PAIRS, Game, payoff
from moralscope.games.opponents import Opponent

ILLEGAL_PENALTY = -6.0
"""Points for an answer that is neither of the two moves, under every reward."""

BETRAYAL_PENALTY = -3.0
"""Points for defecting against an opponent whose previous move was to cooperate."""

RewardFunction = Callable[[Game, Move, Move, Move], float]


@dataclass(frozen=True)
class Reward:
    """A named reward.

    Attributes:
        name: how tables call it.
        value: ``(game, own, opponent, opponent_previous) -> points`` of one round.
    """

    name: str
    value: RewardFunction


def game_reward(game: Game, own: Move, opponent: Move, opponent_previous: Move) -> float:  # noqa: ARG001
    """Own payoff: ``u_own(own, opponent)``; in the IPD from 0 to 4 points."""
    return payoff(game, own, opponent)[0]


def deontological_reward(game: Game, own: Move, opponent: Move, opponent_previous: Move) -> float:  # noqa: ARG001
    """The norm "do not betray a cooperator" and nothing else.

    ``-3`` if the agent defects although the opponent's *previous* move was C, else ``0``, in any
    game: the points at stake do not matter, and neither does the opponent's simultaneous move.
    """
    return BETRAYAL_PENALTY if own == "D" and opponent_previous == "C" else 0.0


def utilitarian_reward(game: Game, own: Move, opponent: Move, opponent_previous: Move) -> float:  # noqa: ARG001
    """Joint payoff: ``u_own + u_other``; in the IPD from 2 (both defect) to 6 points."""
    return sum(payoff(game, own, opponent))


def hybrid_reward(game: Game, own: Move, opponent: Move, opponent_previous: Move) -> float:
    """Own payoff with the norm: the game reward plus the deontological one.

    In the IPD from -2 (mutual defection after the opponent cooperated) to 4 points.
    """
    return game_reward(game, own, opponent, opponent_previous) + deontological_reward(
        game, own, opponent, opponent_previous
    )


REWARDS: Mapping[str, Reward] = MappingProxyType(
    {
        name: Reward(name, value)
        for name, value in (
            ("game", game_reward),
            ("deontological", deontological_reward),
            ("utilitarian", utilitarian_reward),
            ("hybrid", hybrid_reward),
        )
    }
)
"""The rewards by name."""


def get_reward(name: str) -> Reward:
    """The reward of this name.

    Raises:
        ConfigError: there is no such reward.
    """
    if name not in REWARDS:
        raise ConfigError(
            "There is no reward of this name",
            seen=name,
            allowed=", ".join(REWARDS),
            remedy=nearest(name, REWARDS),
        )
    return REWARDS[name]


def expected_rewards(reward: Reward, game: Game, opponent: Opponent) -> NDArray[np.float64]:
    """What does each move earn in each state, on average over the opponent's move?

    ``r(s, a) = q(s) value(a, C) + (1 - q(s)) value(a, D)``, where ``q(s)`` is the probability
    that the opponent cooperates after state s. The expectation is exact: moves are simultaneous,
    so the opponent's move depends on the state alone.

    Returns:
        Points of shape [4, 2]: states CC, CD, DC, DD (own previous, opponent's previous) by own
        move C, D.
    """
    table = np.empty((len(PAIRS), len(MOVES)))
    for row, (own_previous, opponent_previous) in enumerate(PAIRS):
        q = opponent.p_cooperate_after[(own_previous, opponent_previous)]
        for column, own in enumerate(MOVES):
            against_c, against_d = (
                reward.value(game, own, move, opponent_previous) for move in MOVES
            )
            table[row, column] = q * against_c + (1 - q) * against_d
    return table
