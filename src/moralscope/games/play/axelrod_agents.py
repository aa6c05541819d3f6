"""How does an agent take part in what the Axelrod library offers? As one of its players.

``as_axelrod_player`` gives an object that sits in an ``axelrod.Match``, ``Tournament`` or
``MoranProcess`` beside the library's own strategies. It draws its moves from the agent's
probabilities after the last round. An answer that is neither option repeats its last move. It
opens out of a round before the first that it draws uniformly from the four states. The library
seeds its draws like those of any other player with chance.

The class is made when the first player is asked for, since the library is optional and slow to
import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moralscope.games import axelrod_players
from moralscope.games.matrices import PAIRS
from moralscope.games.play.matches import agent_entrant, checked_answers

Rows = tuple[tuple[float, float, float], ...]


def as_axelrod_player(name: str, answers: NDArray[np.float64] | Sequence[Sequence[float]]) -> Any:
    """The agent as a player of the Axelrod library.

    >>> import axelrod
    >>> player = as_axelrod_player("kind", [[1, 0, 0]] * 4)
    >>> axelrod.Match((player, axelrod.Defector()), turns=2).play()
    [(C, D), (C, D)]

    Args:
        name: how the library's tables call it.
        answers: probabilities of C, D and neither, ``[4, 3]``, states CC, CD, DC, DD (own last
            move first); each row sums to 1.

    Returns:
        An ``axelrod.Player``.

    Raises:
        ConfigError: the answers are not such probabilities.
        DependencyError: the library is not installed.
    """
    array = checked_answers(name, np.asarray(answers, dtype=np.float64))
    rows = tuple(tuple(row) for row in array.tolist())
    return _player_class()(name, rows)


@cache
def _player_class() -> Any:
    library = axelrod_players.library()

    class AgentPlayer(library.Player):
        """An agent with one step of memory; the library clones it from its two settings."""

        name: str = "Agent"
        classifier: Any
        history: Any
        _random: Any

        def __init__(self, agent: str, answers: Rows) -> None:
            library.Player.__init__(self)
            self.name = agent
            self._table = dict(zip(PAIRS, answers, strict=True))
            self._draws = not agent_entrant(agent, np.array(answers)).deterministic
            self.classifier = {
                "memory_depth": 1,
                "stochastic": self._draws,
                "long_run_time": False,
                "inspects_source": False,
                "manipulates_source": False,
                "manipulates_state": False,
            }

        def __repr__(self) -> str:
            return self.name

        def strategy(self, opponent: Any) -> Any:
            """Its move of this round."""
            # The library gives no generator to a player without chance, who plays one move only.
            draws = self._random if self._draws else np.random.default_rng(0)
            if self.history:
                own, other = self.history[-1].name, opponent.history[-1].name
            else:
                own, other = PAIRS[int(draws.random() * len(PAIRS))]
            cooperates, defects, _ = self._table[(own, other)]
            draw = draws.random()
            move = "C" if draw < cooperates else "D" if draw < cooperates + defects else own
            return getattr(library.Action, str(move))

    return AgentPlayer
