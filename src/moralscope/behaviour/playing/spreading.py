"""Would agents prevail among classic strategies? Their shares over time, and who invades whom.

Agents and strategies make up one population in which everybody plays everybody
(``games.play.populations``), by the exact long-run payoffs of their mean policies. One population
for every game, pair of labels and level of noise: without noise much hangs on how play happens to
begin, since two players who punish each other never stop.

In a game that differs between seats everybody takes either seat half of the time, so only agents
that were asked about both seats (``BOS`` and ``BOS-mirrored``) are in its population; a strategy
plays the same in either. A game in which no agent can take part is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.behaviour.playing.pairs import CLASSICS, NOISES, agent_strategy, named_strategies
from moralscope.behaviour.presentations import Presented
from moralscope.core.tables import from_rows
from moralscope.games.matrices import get_game
from moralscope.games.opponents import Opponent
from moralscope.games.play.chains import Strategy
from moralscope.games.play.populations import fixation, payoff_matrix, replicator

Array = NDArray[np.float64]

TIMES: tuple[float, ...] = tuple(float(t) for t in range(0, 101, 2))
"""When shares are told, in units of one over a point."""

POPULATION, SELECTION = 100, 0.1
"""Players of the Moran process, and the intensity of selection in one over points."""


@dataclass(frozen=True, eq=False)
class _Population:
    """Who plays whom for what: one game, one pair of labels, one level of noise."""

    game: str
    labels: str
    noise: float
    players: tuple[str, ...]
    payoffs: Array

    @property
    def place(self) -> dict[str, object]:
        return {"game": self.game, "labels": self.labels, "noise": self.noise}


def dynamics_table(
    presented: Iterable[Presented],
    strategies: Sequence[Opponent] = CLASSICS,
    noises: Sequence[float] = NOISES,
    times: Sequence[float] = TIMES,
) -> pl.DataFrame:
    """How do the shares of agents and strategies develop, from equal shares on?

    Args:
        presented: the agents' policies.
        strategies: who else is in the population.
        noises: probabilities that a move is turned into the other one.
        times: when shares are told, rising from 0 or later, in units of one over a point.

    Returns:
        A ``dynamics`` table of the replicator equation; shares sum to 1 at every time.

    Raises:
        ConfigError: a game is unknown, a noise is not a probability, or times do not rise.
    """
    rows: list[dict[str, object]] = []
    for population in _populations(presented, strategies, noises):
        n = len(population.players)
        shares = replicator(population.payoffs, np.full(n, 1 / n), np.array(times, dtype=float))
        rows += [
            {**population.place, "process": "replicator", "player": p, "time": t, "share": share}
            for t, at_once in zip(times, shares.tolist(), strict=True)
            for p, share in zip(population.players, at_once, strict=True)
        ]
    return from_rows("dynamics", rows)


def fixation_table(
    presented: Iterable[Presented],
    strategies: Sequence[Opponent] = CLASSICS,
    noises: Sequence[float] = NOISES,
    *,
    population: int = POPULATION,
    selection: float = SELECTION,
) -> pl.DataFrame:
    """How likely does one player of a kind take over a population of another?

    Args:
        presented: the agents' policies.
        strategies: who else invades and is invaded.
        noises: probabilities that a move is turned into the other one.
        population: players, the invader included, 2 or more.
        selection: intensity, in one over points, 0 or more.

    Returns:
        A ``fixation`` table: every ordered pair of different players.

    Raises:
        ConfigError: a game is unknown, a noise is not a probability, the population is below 2,
            or selection is negative.
    """
    rows: list[dict[str, object]] = []
    for found in _populations(presented, strategies, noises):
        for i, invader in enumerate(found.players):
            for j, resident in enumerate(found.players):
                if i != j:
                    met = found.payoffs[np.ix_([i, j], [i, j])]
                    rows.append(
                        {
                            **found.place,
                            "invader": invader,
                            "resident": resident,
                            "population": population,
                            "selection": selection,
                            "fixation": fixation(met, population, selection),
                            "neutral": 1 / population,
                        }
                    )
    return from_rows("fixation", rows)


def _populations(
    presented: Iterable[Presented], strategies: Sequence[Opponent], noises: Sequence[float]
) -> Iterator[_Population]:
    agents = list(presented)
    classics = named_strategies(strategies, agents)
    done: set[tuple[str, str]] = set()
    for place in ((agent.game, agent.labels) for agent in agents):
        game = get_game(place[0])
        # The two seats of a game are one population, told under the seat that came first.
        if place in done or (game.mirrored.name, place[1]) in done:
            continue
        done.add(place)
        first = _policies(agents, *place)
        second = _policies(agents, game.mirrored.name, place[1])
        both = [name for name in first if name in second]
        if not both:
            continue
        own = [*(first[name] for name in both), *classics]
        other = [*(second[name] for name in both), *classics]
        for noise in noises:
            payoffs = payoff_matrix(own, game, mirrored=other, noise=noise)
            yield _Population(*place, noise, tuple(player.name for player in own), payoffs)


def _policies(agents: Sequence[Presented], game: str, labels: str) -> dict[str, Strategy]:
    return {
        each.agent: agent_strategy(each.agent, each.mean)
        for each in agents
        if (each.game, each.labels) == (game, labels)
    }
