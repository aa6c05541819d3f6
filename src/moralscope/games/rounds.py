"""What happened in one round? Everything that a reward may look at.

A round is one simultaneous move of every player, seen from the agent's seat, with the moves of the
round before. A two-player game has one other; a public-goods game several. Points are those of the
game, before any reward is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.matrices import Game, payoff


@dataclass(frozen=True, slots=True)
class Round:
    """One round, seen from the agent's seat.

    Attributes:
        own: the agent's move.
        others: moves of all others in the same round, one or more.
        own_previous: the agent's move of the round before.
        others_previous: the others' moves of the round before, in the order of ``others``.
        own_points: what the game gives the agent for this round.
        others_points: what it gives the others, in the order of ``others``.

    Raises:
        ConfigError: there is nobody else, or the three tuples differ in length.
    """

    own: Move
    others: tuple[Move, ...]
    own_previous: Move
    others_previous: tuple[Move, ...]
    own_points: float
    others_points: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = (len(self.others), len(self.others_previous), len(self.others_points))
        if len(set(sizes)) > 1 or not self.others:
            raise ConfigError(
                "A round does not say the same of everybody else",
                seen=f"{sizes[0]} moves, {sizes[1]} previous moves, {sizes[2]} points",
                allowed="a move, a previous move and points of each of one or more others",
                remedy="add what is missing",
            )


def pair_round(game: Game, now: tuple[Move, Move], before: tuple[Move, Move]) -> Round:
    """One round of a two-player game.

    Args:
        game: gives the points.
        now: the moves of this round, (own, other's).
        before: the moves of the round before, in the same order.
    """
    own_points, other_points = payoff(game, *now)
    return Round(now[0], (now[1],), before[0], (before[1],), own_points, (other_points,))
