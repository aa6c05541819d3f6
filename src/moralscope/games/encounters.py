"""What is a repeated game, seen from one seat? A small decision process, solved exactly.

An agent with one step of memory is in a state s (what everyone did last), answers C, D or neither,
and moves on while the others move at the same time. Against others who remember one step too, this
is a finite Markov decision process with known numbers, so nothing about it has to be sampled:

    r(s, a)       = sum_o P(o | s) u(a, o)          a legal;  -6 for an answer that is neither
    P(s' | s, a)  = [own' = a] P(others' = o | s)   neither: the own last move stays
    d_0           = the others' start;  d_{t+1} = d_t P_pi
    Q_t(s, a)     = r(s, a) + gamma sum_s' P(s' | s, a) sum_a' pi(a' | s') Q_{t+1}(s', a')

The policy gradient theorem (Sutton et al. 2000) then gives the gradient of the expected return as
``sum_t sum_s d_t(s) sum_a grad pi(a | s) Q_t(s, a)`` where gamma is 1. With gamma below 1 the same
sum is taken, as is usual: later rounds count less for a decision, but decisions in later rounds
count as much as those in the first. Moves are simultaneous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games.matrices import MOVES, Game
from moralscope.games.opponents import Opponent, initial_states
from moralscope.games.public_goods import GroupState, PublicGoods
from moralscope.games.rewards import ILLEGAL_PENALTY, Reward
from moralscope.games.rounds import Round, pair_round
from moralscope.games.states import STATES, State

Array = NDArray[np.float64]
AnyState = TypeVar("AnyState", State, GroupState)
Joint = Sequence[tuple[float, tuple[Move, ...]]]
"""Probabilities and what all the others play."""

ANSWERS = ("C", "D", "neither")
"""The order of every array axis that runs over answers."""


@dataclass(frozen=True)
class Encounter:
    """A repeated game against given others.

    Attributes:
        rewards: points of each answer in each state, ``[states, 3]``.
        transition: ``P(next state | state, answer)``, ``[states, 3, states]``.
        initial: distribution over states before the first round, ``[states]``.
    """

    rewards: Array
    transition: Array
    initial: Array

    def __post_init__(self) -> None:
        n = len(self.initial)
        shapes = (self.rewards.shape, self.transition.shape)
        if shapes != ((n, 3), (n, 3, n)):
            raise ConfigError(
                "The parts of an encounter do not fit together",
                seen=f"rewards {shapes[0]}, transition {shapes[1]}, initial ({n},)",
                allowed="[states, 3], [states, 3, states] and [states]",
                remedy="build it with meet or meet_group",
            )


def meet(game: Game, reward: Reward, opponent: Opponent) -> Encounter:
    """A two-player game against a memory-one opponent; states as in ``games.STATES``."""

    def others(state: State) -> Joint:
        q = opponent.p_cooperate_after[(state.own_previous, state.opponent_previous)]
        return ((q, ("C",)), (1 - q, ("D",)))

    def earned(state: State, own: Move, now: tuple[Move, ...]) -> float:
        return reward.value(round_of(game, state, own, now))

    def after(own: Move, now: tuple[Move, ...]) -> int:
        return STATES.index(State(own, now[0]))

    return _encounter(STATES, others, after, initial_states(opponent), earned)


def meet_group(game: PublicGoods, reward: Reward, p_others: Array) -> Encounter:
    """A public-goods game; states as in ``game.states``.

    Args:
        game: the game.
        reward: what is earned.
        p_others: what each of the others contributes with, by the state *it* is in, ``[states]``.
            Pass the agent's own policy and they are copies of it.
    """
    index = {state: i for i, state in enumerate(game.states)}

    def others(state: GroupState) -> Joint:
        # Each of the others sees the agent and the rest: one contributor fewer if it was one.
        seen = state.cooperators + (state.own_previous == "C")
        k, rest = state.cooperators, game.players - 1 - state.cooperators
        p_kept = p_others[index[GroupState("C", seen - 1)]] if k else 0.0
        p_new = p_others[index[GroupState("D", seen)]] if rest else 0.0
        return [
            (_binomial(i, k, p_kept) * _binomial(j, rest, p_new), (*_first(i, k), *_first(j, rest)))
            for i, j in product(range(k + 1), range(rest + 1))
        ]

    def earned(state: GroupState, own: Move, now: tuple[Move, ...]) -> float:
        return reward.value(round_of(game, state, own, now))

    def after(own: Move, now: tuple[Move, ...]) -> int:
        return index[GroupState(own, now.count("C"))]

    start = np.zeros(len(game.states))
    for state, i in index.items():
        start[i] = 0.5 * _binomial(state.cooperators, game.players - 1, 0.5)
    return _encounter(game.states, others, after, start, earned)


def round_of(
    game: Game | PublicGoods, state: State | GroupState, own: Move, others: tuple[Move, ...]
) -> Round:
    """One round as a reward sees it.

    Args:
        game: the game; public goods go with a ``GroupState``, others with a ``State``.
        state: what was last played. Of a group only the number of contributors is known: they
            come first.
        own: the agent's move.
        others: what the others play, in the order of the state.

    Raises:
        ConfigError: the state is not one of this game's.
    """
    if isinstance(game, PublicGoods) and isinstance(state, GroupState):
        before = _first(state.cooperators, game.players - 1)
        points = game.points(own, others.count("C")), game.others_points(own, others)
        return Round(own, others, state.own_previous, before, *points)
    if isinstance(game, Game) and isinstance(state, State):
        last = (state.own_previous, state.opponent_previous)
        return pair_round(game, (own, others[0]), last)
    raise ConfigError(
        "The state is not one of this game's",
        seen=f"{type(state).__name__} in {type(game).__name__}",
        allowed="a State in a two-player game, a GroupState in public goods",
        remedy="take the state from the game's own states",
    )


def _first(contributors: int, players: int) -> tuple[Move, ...]:
    """Moves of some players, those who contribute first."""
    return tuple("C" if i < contributors else "D" for i in range(players))


def _binomial(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def _encounter(
    states: Sequence[AnyState],
    others: Callable[[AnyState], Joint],
    after: Callable[[Move, tuple[Move, ...]], int],
    initial: Array,
    earned: Callable[[AnyState, Move, tuple[Move, ...]], float],
) -> Encounter:
    n = len(states)
    rewards = np.full((n, 3), ILLEGAL_PENALTY)
    transition = np.zeros((n, 3, n))
    for s, state in enumerate(states):
        joint = others(state)
        for a, own in enumerate(MOVES):
            rewards[s, a] = sum(p * earned(state, own, now) for p, now in joint)
            for p, now in joint:
                transition[s, a, after(own, now)] += p
        transition[s, 2] = transition[s, MOVES.index(state.own_previous)]
    return Encounter(rewards, transition, initial)


def visits(encounter: Encounter, policy: Array, rounds: int) -> Array:
    """How likely is each state in each round, ``d_t(s)``?

    Args:
        encounter: the game.
        policy: probabilities of the three answers in each state, ``[states, 3]``.
        rounds: rounds of a game, at least 1.

    Returns:
        ``[rounds, states]``; every row sums to 1.
    """
    step = np.einsum("sa,sat->st", policy, encounter.transition)
    found = [encounter.initial]
    for _ in range(rounds - 1):
        found.append(found[-1] @ step)
    return np.stack(found)


def answer_values(encounter: Encounter, policy: Array, rounds: int, discount: float) -> Array:
    """What is an answer worth with the rounds that are left, ``Q_t(s, a)``?

    Returns:
        Points, ``[rounds, states, 3]``: the discounted sum over this and all later rounds.
    """
    found = [encounter.rewards]
    for _ in range(rounds - 1):
        value = (policy * found[-1]).sum(1)
        found.append(encounter.rewards + discount * encounter.transition @ value)
    return np.stack(found[::-1])


def decision_values(
    encounter: Encounter,
    policy: Array,
    *,
    weighting: Literal["uniform", "visitation"],
    horizon: Literal["bandit", "reward-to-go"],
    rounds: int,
    discount: float,
) -> tuple[Array, Array]:
    """How much does each state count, and what is each answer worth there?

    With ``w_t(s)`` equal for all states (``uniform``) or ``d_t(s)`` (``visitation``), and
    ``G_t`` the round's own reward (``bandit``) or ``Q_t`` (``reward-to-go``),

        weight(s) = mean_t w_t(s),   value(s, a) = sum_t w_t(s) G_t(s, a) / sum_t w_t(s),

    so ``sum_s weight(s) sum_a grad pi(a | s) value(s, a)`` is, with
    ``visitation``, ``reward-to-go`` and discount 1, the gradient of the expected points a round;
    the other settings leave out what a decision does to later states, or to how often they occur.

    Returns:
        ``[states]``, summing to 1, and points ``[states, 3]``.
    """
    n = len(encounter.initial)
    if weighting == "uniform":
        when = np.full((rounds, n), 1 / n)
    else:
        when = visits(encounter, policy, rounds)
    if horizon == "bandit":
        return when.mean(0), encounter.rewards
    worth = answer_values(encounter, policy, rounds, discount)
    total = when.sum(0)
    # A state that play never meets has weight 0; its values are those of equal weights.
    share = np.where(total > 0, when, 1 / rounds) / np.where(total > 0, total, 1.0)
    return when.mean(0), np.einsum("ts,tsa->sa", share, worth)
