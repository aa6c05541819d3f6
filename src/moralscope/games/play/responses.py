"""How well can a strategy be answered? Best responses, equilibria, exploitability, a price.

Whoever meets a player with one step of memory faces a Markov decision process on four states, with
the mean payoff of a long game as its aim:

    g(pi) = lim_T (1/T) E sum_t u(a_t, b_t),   best response = argmax over pi of g.

Some policy that is deterministic, depends on the state alone, and is the best from every start at
once always exists (Puterman, Markov Decision Processes, 1994, chapter 9), so the best of the 16
deterministic memory-one responses is the best of all: no longer memory gets more (Press and Dyson,
PNAS 109 (2012), 10409-10413, appendix A, show it of any pair of players). The 16 are compared by
their exact payoffs from uniform starting states.

Equilibria are those of the game played once. Those of repeated play are not looked for: by the
folk theorem there are too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from moralscope.games.matrices import MOVES, PAIRS, Game
from moralscope.games.play.chains import Outcome, Strategy, expected_play

_EQUAL = 1e-9
"""Payoffs that differ by less than this share of the largest payoff are equal."""

_FIRST_ROUNDS = 12
"""Rounds by which equal responses are told apart: whole cycles of 1, 2, 3 and 4 rounds."""


@dataclass(frozen=True, slots=True)
class BestResponse:
    """What to play against a strategy.

    Attributes:
        policy: moves after CC, CD, DC, DD, the responder's own last move first (``CDCD``).
        payoff: what the responder gets, points a round in the long run.
        payoff_other: what the strategy gets.
    """

    policy: str
    payoff: float
    payoff_other: float

    @property
    def strategy(self) -> Strategy:
        """The response as a strategy."""
        return _deterministic(self.policy)


def _deterministic(policy: str) -> Strategy:
    cc, cd, dc, dd = (float(move == "C") for move in policy)
    return Strategy(policy, (cc, cd, dc, dd))


def best_response(strategy: Strategy, game: Game) -> BestResponse:
    """What is the most that anyone can get from this strategy in a long game?

    Among responses with equal payoffs the one that leaves the strategy the most is taken, then the
    one that gets the most in the first twelve rounds, then the first in the order of C before D.

    Args:
        strategy: who is met; it has the second seat.
        game: the game as the *responder* sees it.
    """
    scale = _EQUAL * max(1.0, *(abs(x) for cell in game.payoffs.values() for x in cell))
    candidates = [
        (policy, expected_play(_deterministic("".join(policy)), strategy, game))
        for policy in product(MOVES, repeat=len(PAIRS))
    ]
    most = max(found.payoff_first for _, found in candidates)
    equal = [each for each in candidates if each[1].payoff_first >= most - scale]
    most = max(found.payoff_second for _, found in equal)
    equal = [each for each in equal if each[1].payoff_second >= most - scale]

    def at_first(candidate: tuple[tuple[str, ...], Outcome]) -> float:
        response = _deterministic("".join(candidate[0]))
        return expected_play(response, strategy, game, rounds=_FIRST_ROUNDS).payoff_first

    early = [at_first(each) for each in equal]
    policy, found = next(
        each for each, value in zip(equal, early, strict=True) if value >= max(early) - scale
    )
    return BestResponse("".join(policy), found.payoff_first, found.payoff_second)


@dataclass(frozen=True, slots=True)
class Exploitation:
    """How far a strategy can be exploited.

    Attributes:
        response: the best response, in the exploiter's seat.
        copy_payoff: what the strategy itself would get in the exploiter's seat.
        exploitability: ``response.payoff - copy_payoff``, points a round, at least 0.
    """

    response: BestResponse
    copy_payoff: float
    exploitability: float


def exploitability(strategy: Strategy, game: Game) -> Exploitation:
    """How much more than a copy of the strategy can somebody else get from it?

    Args:
        strategy: who is met, in the game's own seat.
        game: the game as the *strategy* sees it. The exploiter plays ``game.mirrored``; a copy in
            that seat has the same four probabilities.
    """
    response = best_response(strategy, game.mirrored)
    copy = expected_play(strategy, strategy, game).payoff_second
    return Exploitation(response, copy, max(0.0, response.payoff - copy))


@dataclass(frozen=True, slots=True)
class Price:
    """What a player gives up for the joint payoff, against one other. Points a round.

    Attributes:
        payoff: what it gets.
        best_payoff: what the best response to the other gets.
        given_up: ``best_payoff - payoff``, at least 0.
        joint: both payoffs together.
        joint_best: both together, with the best response in the player's seat.
        joint_gained: ``joint - joint_best``.
        price: ``given_up / joint_gained``, own points paid for each joint point gained; None where
            nothing is gained.
    """

    payoff: float
    best_payoff: float
    given_up: float
    joint: float
    joint_best: float
    joint_gained: float
    price: float | None


def price_of_morality(strategy: Strategy, other: Strategy, game: Game) -> Price:
    """What does a player pay, and what do both together have of it?

    Args:
        strategy: whose price it is, in the game's own seat.
        other: whom it meets.
        game: the game as ``strategy`` sees it.
    """
    own = expected_play(strategy, other, game)
    best = best_response(other, game)
    joint, joint_best = own.payoff_first + own.payoff_second, best.payoff + best.payoff_other
    given_up, gained = max(0.0, best.payoff - own.payoff_first), joint - joint_best
    price = given_up / gained if gained > _EQUAL * max(1.0, abs(joint_best)) else None
    return Price(own.payoff_first, best.payoff, given_up, joint, joint_best, gained, price)


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """A Nash equilibrium of a game played once.

    Attributes:
        p_first, p_second: probability of C for either player.
        payoff_first, payoff_second: expected points.
    """

    p_first: float
    p_second: float
    payoff_first: float
    payoff_second: float


@dataclass(frozen=True, slots=True)
class Equilibria:
    """The equilibria of a game played once.

    Attributes:
        points: the equilibria, in falling order of ``(p_first, p_second)``; at least one. In a
            degenerate game the extreme ones: any other follows from mixing one player's
            probabilities while the other's stays.
        degenerate: whether some move of a player leaves the other indifferent. Only then can
            there be more equilibria than ``points``, without number.
    """

    points: tuple[Equilibrium, ...]
    degenerate: bool


def equilibria(game: Game) -> Equilibria:
    """Which pairs of mixed moves is nobody better off leaving?

    With q = P(second plays C), the first player's gain from C over D is

        f(q) = q [u(CC) - u(DC)] + (1 - q) [u(CD) - u(DD)],

    and p is a best response iff p = 1 where f > 0, p = 0 where f < 0, and any where f = 0; so for
    the second player with g(p). Extreme equilibria have p and q at 0, at 1, or where the other
    player becomes indifferent. Signs are exact, because they are comparisons of payoffs.
    """
    own = {pair: game.payoffs[pair][0] for pair in PAIRS}
    other = {pair: game.payoffs[pair][1] for pair in PAIRS}
    # The gain from C over D where the other player defects, and where it cooperates.
    f = (own["C", "D"] - own["D", "D"], own["C", "C"] - own["D", "C"])
    g = (other["D", "C"] - other["D", "D"], other["C", "C"] - other["C", "D"])
    points = tuple(
        _equilibrium(game, p, q)
        for p, gain_second in _candidates(g)
        for q, gain_first in _candidates(f)
        if _answers(p, gain_first) and _answers(q, gain_second)
    )
    return Equilibria(points, degenerate=0 in (*f, *g))


def _candidates(gain: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Probabilities of C at which an extreme equilibrium can lie, and the gain that they give."""
    yield 1.0, gain[1]
    if gain[0] < 0 < gain[1] or gain[1] < 0 < gain[0]:
        yield gain[0] / (gain[0] - gain[1]), 0.0
    yield 0.0, gain[0]


def _answers(p: float, gain: float) -> bool:
    """Whether cooperating with probability p is a best response where C gains this over D."""
    return gain == 0 or p == float(gain > 0)


def _equilibrium(game: Game, p: float, q: float) -> Equilibrium:
    weights = (p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q))
    own, other = (
        sum(w * game.payoffs[pair][seat] for w, pair in zip(weights, PAIRS, strict=True))
        for seat in (0, 1)
    )
    return Equilibrium(p, q, own, other)
