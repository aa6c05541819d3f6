"""Whom does the agent meet? Opponents with one step of memory.

An opponent is a table: the probability that it cooperates now, given the agent's own last move
and the opponent's own last move. Moves are simultaneous, so nothing else can matter to a
memory-one player (Press and Dyson, PNAS 2012). The four here are those of the source study
(arXiv 2410.01639): tit-for-tat repeats the agent's last move.

Opponents that learn, or that remember more than one round, are not expressible here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.matrices import PAIRS


@dataclass(frozen=True)
class Opponent:
    """A memory-one opponent.

    Attributes:
        name: how tables call it.
        p_cooperate_after: ``(own_previous, opponent_previous) -> P(opponent plays C)``, where
            *own* is the agent who faces it. Read-only once built.

    Raises:
        ConfigError: a state is missing or a value is not a probability.
    """

    name: str
    p_cooperate_after: Mapping[tuple[Move, Move], float]

    def __post_init__(self) -> None:
        if set(self.p_cooperate_after) != set(PAIRS):
            raise ConfigError(
                f"Opponent {self.name!r} does not say what it plays after every state",
                seen=sorted("".join(pair) for pair in self.p_cooperate_after),
                allowed="CC, CD, DC and DD (agent's last move, opponent's last move), each once",
                remedy="add what is missing and remove the rest",
            )
        wrong = [p for p in self.p_cooperate_after.values() if not 0 <= p <= 1]
        if wrong:
            raise ConfigError(
                f"Opponent {self.name!r} cooperates with something that is not a probability",
                seen=wrong[0],
                allowed="numbers from 0 to 1",
                remedy="correct the value",
            )
        table = MappingProxyType(dict(self.p_cooperate_after))
        object.__setattr__(self, "p_cooperate_after", table)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.p_cooperate_after[pair] for pair in PAIRS)))

    def __reduce__(self) -> tuple[object, ...]:
        # A read-only view of a mapping does not cross a process boundary; a plain one does.
        return (Opponent, (self.name, dict(self.p_cooperate_after)))

    @property
    def p_cooperated_before(self) -> float:
        """P(the opponent's move before the first round was C), in [0, 1].

        An opponent that plays the same whatever happened has played so before; of any other
        nothing is known, and the move is uniform.
        """
        values = set(self.p_cooperate_after.values())
        return values.pop() if len(values) == 1 else 0.5


def _opponent(name: str, *p_cooperate: float) -> Opponent:
    return Opponent(name, dict(zip(PAIRS, p_cooperate, strict=True)))


OPPONENTS: Mapping[str, Opponent] = MappingProxyType(
    {
        opponent.name: opponent
        for opponent in (
            _opponent("tit-for-tat", 1.0, 1.0, 0.0, 0.0),
            _opponent("always-cooperate", 1.0, 1.0, 1.0, 1.0),
            _opponent("always-defect", 0.0, 0.0, 0.0, 0.0),
            _opponent("random", 0.5, 0.5, 0.5, 0.5),
        )
    }
)
"""The opponents by name."""


def get_opponent(name: str) -> Opponent:
    """The opponent of this name.

    Raises:
        ConfigError: there is no such opponent.
    """
    if name not in OPPONENTS:
        raise ConfigError(
            "There is no opponent of this name",
            seen=name,
            allowed=", ".join(OPPONENTS),
            remedy=nearest(name, OPPONENTS),
        )
    return OPPONENTS[name]


def initial_states(opponent: Opponent) -> NDArray[np.float64]:
    """How likely is each state before the first round?

    The agent's own last move is uniform and independent of the opponent's, which is C with
    probability ``p_cooperated_before``.

    Returns:
        Probabilities of shape [4] in the order CC, CD, DC, DD (own, opponent); they sum to 1.
    """
    p = opponent.p_cooperated_before
    return np.outer([0.5, 0.5], [p, 1 - p]).ravel()
