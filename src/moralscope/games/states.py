"""Where does play take an agent? The four one-step memories and how often each is met.

A state is what both players did last. An agent whose answer in state s is legal with probability
l(s), and then cooperates with probability c(s), moves through the states as a Markov chain:

    P(s' | s) = P(own' | s) P(opponent' | s)
    P(own' = C | s) = l(s) c(s) + (1 - l(s)) [own previous in s is C]

An illegal answer leaves the agent's own last move as it was, while the opponent, who does not
wait, always moves (arXiv 2410.01639 and its public code). An episode is five rounds and starts
from ``opponents.initial_states``. Sampled play is not done here: these are its exact frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.matrices import PAIRS
from moralscope.games.opponents import Opponent, initial_states


@dataclass(frozen=True, slots=True)
class State:
    """What both players did in the previous round.

    Attributes:
        own_previous: the agent's own last legal move.
        opponent_previous: the opponent's last move.
    """

    own_previous: Move
    opponent_previous: Move

    @property
    def name(self) -> str:
        """``CD``: the agent cooperated, the opponent defected."""
        return self.own_previous + self.opponent_previous


STATES: tuple[State, ...] = tuple(State(*pair) for pair in PAIRS)
"""The four states, CC, CD, DC, DD: the order of every array axis that runs over states."""

_ROUNDING = 1e-5


def transition_matrix(
    p_cooperate: NDArray[np.float64], p_legal: NDArray[np.float64], opponent: Opponent
) -> NDArray[np.float64]:
    """From which state to which does one round lead?

    Args:
        p_cooperate: [4], P(C | legal answer, state), in [0, 1].
        p_legal: [4], P(legal answer | state), in [0, 1].
        opponent: who is met.

    Returns:
        [4, 4], ``P(next state | state)`` with the state in rows; every row sums to 1.

    Raises:
        ConfigError: an array has another shape or holds something that is not a probability.
    """
    cooperates, legal = (
        _probabilities("p_cooperate", p_cooperate),
        _probabilities("p_legal", p_legal),
    )
    stayed_c = np.array([state.own_previous == "C" for state in STATES], dtype=np.float64)
    own_c = legal * cooperates + (1 - legal) * stayed_c
    other_c = np.array([opponent.p_cooperate_after[pair] for pair in PAIRS])
    own = np.stack([own_c, 1 - own_c], axis=1)
    other = np.stack([other_c, 1 - other_c], axis=1)
    return (own[:, :, None] * other[:, None, :]).reshape(len(STATES), len(STATES))


def visitation(
    p_cooperate: NDArray[np.float64],
    p_legal: NDArray[np.float64],
    opponent: Opponent,
    steps: int = 5,
) -> NDArray[np.float64]:
    """How often does an agent decide in each state, over an episode of its own play?

    ``v = (1 / steps) sum_{t < steps} d_t``, with ``d_0`` the opponent's initial states and
    ``d_{t+1} = d_t P``. The state after the last round is not counted: nothing is decided there.

    Args:
        p_cooperate: [4], P(C | legal answer, state), in [0, 1], states CC, CD, DC, DD.
        p_legal: [4], P(legal answer | state), in [0, 1].
        opponent: who is met.
        steps: rounds in an episode, at least 1.

    Returns:
        Frequencies of shape [4]; they sum to 1.

    Raises:
        ConfigError: ``steps`` is below 1, an array has another shape, or a value is not a
            probability.
    """
    if steps < 1:
        raise ConfigError(
            "An episode has no rounds",
            seen=f"steps {steps}",
            allowed="1 or more",
            remedy="use 5, the length of an episode in the source study",
        )
    matrix = transition_matrix(p_cooperate, p_legal, opponent)
    now = initial_states(opponent)
    total = now.copy()
    for _ in range(steps - 1):
        now = now @ matrix
        total += now
    return total / steps


def _probabilities(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    # Sums of float32 probabilities overshoot 1 by some 1e-7. NaN fails the comparison.
    within = (array >= -_ROUNDING) & (array <= 1 + _ROUNDING)
    if array.shape != (len(STATES),) or not bool(np.all(within)):
        raise ConfigError(
            f"{name} does not hold one probability for each state",
            seen=array.tolist(),
            allowed="four numbers from 0 to 1, for the states CC, CD, DC, DD",
            remedy="pass one probability for each of games.STATES, in that order",
        )
    return array.clip(0, 1)
