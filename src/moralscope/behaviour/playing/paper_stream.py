"""Which random numbers did the published evaluation draw? Initial states and opponent moves.

``numpy.random.SeedSequence(100).spawn(6)`` gives six children, each the seed of a ``default_rng``:

    [0] action symbols   [1] optimiser's seed   [2] initial states
    [3], [4] orders in which options are named  [5] moves of the opponent

Every game starts again from seed 100. An episode begins with the agent's own previous move, then
the opponent's, each ``rng[2].choice([0, 1], 1)`` with 0 for C. In each of its five rounds a Random
opponent plays ``rng[5].choice([C, D], 1)``, whatever the agent does. So the ten episodes are the
same for every agent and every game (arXiv 2410.01639 and its public code). Streams [0] and [1]
played no part, [3] and [4] are averaged over instead: a decision that is drawn under an order
drawn at random has the mean of the probabilities under the orders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.matrices import MOVES

MASTER_SEED = 100
"""From which every game of the published evaluation starts."""

EPISODES, ROUNDS = 10, 5
"""Of a game: episodes, and rounds an episode."""

_STREAMS, _INITIAL, _OPPONENT = 6, 2, 5


@dataclass(frozen=True, slots=True)
class Episode:
    """What the random numbers settle of one episode.

    Attributes:
        own_previous: the agent's move before the first round.
        opponent_previous: the opponent's move before the first round.
        opponent: the opponent's moves, one a round.
    """

    own_previous: Move
    opponent_previous: Move
    opponent: tuple[Move, ...]


def paper_stream(
    seed: int = MASTER_SEED, episodes: int = EPISODES, rounds: int = ROUNDS
) -> tuple[Episode, ...]:
    """The episodes of the published evaluation, to the last draw.

    Args:
        seed: the master seed, 0 or more; 100 in the published evaluation.
        episodes: how many, at least 1.
        rounds: of an episode, at least 1.

    Raises:
        ConfigError: the seed is negative, or there is nothing to play.
    """
    if seed < 0 or min(episodes, rounds) < 1:
        raise ConfigError(
            "The published evaluation cannot be replayed with these numbers",
            seen=f"seed {seed}, {episodes} episodes of {rounds} rounds",
            allowed="a seed of 0 or more, 1 episode or more of 1 round or more",
            remedy=f"use seed {MASTER_SEED}, {EPISODES} episodes and {ROUNDS} rounds for the "
            "published ones",
        )
    children = np.random.SeedSequence(seed).spawn(_STREAMS)
    initial = np.random.default_rng(children[_INITIAL])
    opponent = np.random.default_rng(children[_OPPONENT])
    # An episode's draws of one stream follow those of the episode before; streams do not mix.
    return tuple(
        Episode(_draw(initial), _draw(initial), tuple(_draw(opponent) for _ in range(rounds)))
        for _ in range(episodes)
    )


def _draw(rng: np.random.Generator) -> Move:
    return MOVES[int(rng.choice([0, 1], 1)[0])]
