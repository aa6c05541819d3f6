"""What do agents get from each other and from classic strategies? Exactly, with intervals.

An agent with one step of memory is four probabilities of cooperating, once it is said what an
answer that is neither option does: the own last move stays as it was,

    p(s) = P(C | s) + P(neither | s) [own last move in s is C].

So every pair is a Markov chain on four states (``games.play.chains``), and what is told here is
its long-run average from uniform starting states: nothing is sampled. Payoffs are those of the
game for what is played; the penalty that rewards have for illegal answers is not among them, and
``legal`` says how often there was one.

Agents meet each other, copies of themselves, and strategies. The value is that of the mean policy
(``behaviour.presentations``); its interval is over presentations, both players being asked in the
same way where the other is an agent.

In a game that differs between seats (Bach or Stravinsky) the other player has the other seat, and
an agent is met there only if it was asked about the mirrored game (``BOS-mirrored``): what it does
in one seat says nothing about the other. A copy for ``exploitability`` is the same four
probabilities in the other seat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.behaviour.presentations import Presented
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.games.matrices import PAIRS, Game, get_game
from moralscope.games.opponents import OPPONENTS, Opponent
from moralscope.games.play.chains import Strategy, expected_play, strategy_of
from moralscope.games.play.responses import Exploitation, exploitability, price_of_morality

Array = NDArray[np.float64]

CLASSICS: tuple[Opponent, ...] = tuple(
    opponent for name, opponent in OPPONENTS.items() if name != "suspicious-tit-for-tat"
)
"""The strategies that are met unless others are given. Suspicious tit-for-tat differs from
tit-for-tat in its opening alone, which a long game from uniform starting states does not have."""

NOISES = (0.0, 0.05)
"""Probabilities that a move is turned into the other one: as they play, and with a few errors."""

_KEPT = np.array([own == "C" for own, _ in PAIRS], dtype=np.float64)
"""P(C) where the own last move stays."""


def agent_strategy(name: str, answers: Array) -> Strategy:
    """The agent as it plays, an answer that is neither option repeating its own last move.

    Args:
        name: how tables call it.
        answers: probabilities of C, D and neither, ``[4, 3]``, states CC, CD, DC, DD (own last
            move first).
    """
    # Sums of floats may overshoot 1 by one unit in the last place.
    cc, cd, dc, dd = np.clip(answers[:, 0] + answers[:, 2] * _KEPT, 0.0, 1.0).tolist()
    return Strategy(name, (cc, cd, dc, dd))


_ROUNDING = 1e-12
"""Payoffs of one way of asking and another that differ by less than this share are the same."""


@dataclass(frozen=True)
class _Met:
    """Who is met: its mean policy, and its policy under each presentation that both were asked."""

    name: str
    kind: str
    mean: Strategy
    ways: Callable[[str], Strategy | None]


def play_table(
    presented: Iterable[Presented],
    strategies: Sequence[Opponent] = CLASSICS,
    noises: Sequence[float] = NOISES,
) -> pl.DataFrame:
    """What do agents get from everybody, and how often do both cooperate?

    Args:
        presented: the agents' policies, from ``behaviour.presentations.presented``.
        strategies: whom agents meet besides each other. One that has an agent's name is told
            apart by ``(strategy)``.
        noises: probabilities that a move is turned into the other one, for both players.

    Returns:
        A ``play`` table, points a round and probabilities; agents in order of appearance. The
        interval of ``payoff`` is a 95% t interval over presentations, cut to the range of payoffs,
        and null for one presentation or no spread.

    Raises:
        ConfigError: a game is unknown, or a noise is not a probability.
    """
    agents = list(presented)
    classics = named_strategies(strategies, agents)
    rows = (
        _play_row(agent, met, noise)
        for agent in agents
        for met in _everybody(agent, agents, classics)
        for noise in noises
    )
    return from_rows("play", rows)


def named_strategies(
    strategies: Sequence[Opponent], agents: Sequence[Presented]
) -> tuple[Strategy, ...]:
    """Strategies from their own seat, with names that no agent has."""
    taken = {agent.agent for agent in agents}
    own = (strategy_of(strategy) for strategy in strategies)
    return tuple(
        Strategy(f"{each.name} (strategy)", each.p_cooperate) if each.name in taken else each
        for each in own
    )


def _everybody(
    agent: Presented, agents: Sequence[Presented], classics: Sequence[Strategy]
) -> Iterator[_Met]:
    other_seat = get_game(agent.game).mirrored.name
    for other in agents:
        if (other.game, other.labels) == (other_seat, agent.labels):
            yield _met_agent(other)
    for strategy in classics:
        yield _met_strategy(strategy)


def _met_agent(other: Presented) -> _Met:
    ways = {
        name: agent_strategy(other.agent, answers)
        for name, answers in zip(other.presentations, other.answers, strict=True)
    }
    return _Met(other.agent, "agent", agent_strategy(other.agent, other.mean), ways.get)


def _met_strategy(strategy: Strategy) -> _Met:
    return _Met(strategy.name, "strategy", strategy, lambda _: strategy)


def _play_row(agent: Presented, met: _Met, noise: float) -> dict[str, object]:
    game = get_game(agent.game)
    own = agent_strategy(agent.agent, agent.mean)
    found = expected_play(own, met.mean, game, noise=noise)
    pairs = (
        (agent_strategy(agent.agent, answers), met.ways(name))
        for name, answers in zip(agent.presentations, agent.answers, strict=True)
    )
    single = [
        expected_play(first, second, game, noise=noise).payoff_first
        for first, second in pairs
        if second is not None
    ]
    low, high = _interval(single, *_range(game))
    return {
        "agent": agent.agent,
        "other": met.name,
        "other_kind": met.kind,
        "game": agent.game,
        "labels": agent.labels,
        "noise": noise,
        "payoff": found.payoff_first,
        "payoff_other": found.payoff_second,
        "cooperation": found.cooperation_first,
        "cooperation_other": found.cooperation_second,
        # In the long run the state before a move is met as often as the one after it.
        "legal": float(found.states @ (1.0 - agent.mean[:, 2])),
        "low": low,
        "high": high,
        "n_units": len(single),
    }


def _range(game: Game) -> tuple[float, float]:
    own = [cell[0] for cell in game.payoffs.values()]
    return min(own), max(own)


def _interval(
    values: Sequence[float], least: float, most: float
) -> tuple[float | None, float | None]:
    """95% t interval over presentations, cut to where the quantity can lie."""
    found = cluster_t(np.array(values, dtype=np.float64)) if values else None
    if found is None or max(values) - min(values) <= _ROUNDING * max(abs(least), abs(most)):
        return None, None
    return float(np.clip(found[0], least, most)), float(np.clip(found[1], least, most))


def exploitability_table(presented: Iterable[Presented]) -> pl.DataFrame:
    """How much more than a copy of the agent can the best response get from it?

    Args:
        presented: the agents' policies.

    Returns:
        An ``exploitability`` table, points a round in the long run without noise. Its interval is
        a 95% t interval over presentations, each answered by a best response of its own.

    Raises:
        ConfigError: a game is unknown.
    """
    return from_rows("exploitability", (_exploitability_row(agent) for agent in presented))


def _exploitability_row(agent: Presented) -> dict[str, object]:
    game = get_game(agent.game)

    def exploited(answers: Array) -> Exploitation:
        return exploitability(agent_strategy(agent.agent, answers), game)

    found = exploited(agent.mean)
    single = [exploited(answers).exploitability for answers in agent.answers]
    least, most = _range(game.mirrored)
    low, high = _interval(single, 0.0, most - least)
    return {
        "agent": agent.agent,
        "game": agent.game,
        "labels": agent.labels,
        "best_response": found.response.policy,
        "exploiter_payoff": found.response.payoff,
        "agent_payoff": found.response.payoff_other,
        "copy_payoff": found.copy_payoff,
        "exploitability": found.exploitability,
        "low": low,
        "high": high,
        "n_units": len(single),
    }


def price_of_morality_table(
    presented: Iterable[Presented], strategies: Sequence[Opponent] = CLASSICS
) -> pl.DataFrame:
    """How much of its own payoff does an agent give up, and what do both gain by it?

    Args:
        presented: the agents' policies; the mean one is what plays.
        strategies: whom they meet.

    Returns:
        A ``price_of_morality`` table, points a round in the long run without noise. A best
        response gives up nothing; the price is null where nothing is gained together.

    Raises:
        ConfigError: a game is unknown.
    """
    agents = list(presented)
    classics = named_strategies(strategies, agents)
    return from_rows(
        "price_of_morality",
        (_price_row(agent, strategy) for agent in agents for strategy in classics),
    )


def _price_row(agent: Presented, other: Strategy) -> dict[str, object]:
    own = agent_strategy(agent.agent, agent.mean)
    found = price_of_morality(own, other, get_game(agent.game))
    return {
        "agent": agent.agent,
        "other": other.name,
        "game": agent.game,
        "labels": agent.labels,
        "payoff": found.payoff,
        "best_payoff": found.best_payoff,
        "given_up": found.given_up,
        "joint": found.joint,
        "joint_best": found.joint_best,
        "joint_gained": found.joint_gained,
        "price": found.price,
    }
