"""What do two players with one step of memory get from each other? Exactly, without playing.

A state is what both played last, the first player's move first: CC, CD, DC, DD. With p and q the
probabilities that the first and the second cooperate, each read from its own seat, play is the
Markov chain (Press and Dyson, PNAS 109 (2012), 10409-10413)

    M[(a, b), (a', b')] = P(a' | p(a, b)) P(b' | q(b, a)),

and a payoff or a rate of cooperation is a mean over ``d``, the frequencies of what is played:

    d = lim_T (1/T) sum_{t=1..T} d_0 M^t        in the long run (a Cesaro limit)
    d = (1/n)       sum_{t=1..n} d_0 M^t        in n rounds

The start ``d_0`` is what both remember before the first round, uniform over the four states; it is
not played itself. The limit exists for every chain. Where play alternates it is the mean over the
cycle, and where play can get stuck in several ways each counts with its probability.

The limit is computed by elimination of states without subtractions (Grassmann, Taksar and Heyman,
Operations Research 33 (1985), 1107-1116), so it keeps its relative accuracy in chains whose parts
are linked by probabilities as small as 1e-15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import ConfigError
from moralscope.games.matrices import PAIRS, Game
from moralscope.games.opponents import Opponent

Array = NDArray[np.float64]
Four = tuple[float, float, float, float]

_MIRROR = (0, 2, 1, 3)
"""The states as the other player sees them: CD and DC change places."""

_ROUNDING = 1e-9
"""By how much a row of probabilities may miss 1."""

_NEVER = 1e-60
"""A step with less than this probability is none: products of several would underflow."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A player with one step of memory, seen from its own seat.

    Attributes:
        name: how tables call it.
        p_cooperate: P(C) after CC, CD, DC, DD: its own last move, then the other's.

    Raises:
        ConfigError: there are not four values, or one is not a probability.
    """

    name: str
    p_cooperate: Four

    def __post_init__(self) -> None:
        if len(self.p_cooperate) != len(PAIRS) or not all(0 <= p <= 1 for p in self.p_cooperate):
            raise ConfigError(
                f"The strategy {self.name!r} is not four probabilities",
                seen=self.p_cooperate,
                allowed="P(C) after CC, CD, DC and DD, own last move first, each from 0 to 1",
                remedy="give one probability for each state, in that order",
            )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What two players get and do, averaged over rounds.

    Attributes:
        payoff_first, payoff_second: points a round.
        cooperation_first, cooperation_second: share of rounds, in [0, 1].
        states: how often each pair of moves is played, ``[4]``, the first player's move first.
    """

    payoff_first: float
    payoff_second: float
    cooperation_first: float
    cooperation_second: float
    states: Array


def strategy_of(opponent: Opponent) -> Strategy:
    """The same player, seen from its own seat; what it opens with is left out."""
    cc, cd, dc, dd = (opponent.p_cooperate_after[(agent, own)] for own, agent in PAIRS)
    return Strategy(opponent.name, (cc, cd, dc, dd))


def noisy(strategy: Strategy, flip: float) -> Strategy:
    """The strategy with each move turned into the other with probability ``flip``.

    ``p' = (1 - flip) p + flip (1 - p)``. Both players remember the moves that were played, not
    those that were meant.

    Raises:
        ConfigError: ``flip`` is not a probability.
    """
    if not 0 <= flip <= 1:
        raise ConfigError(
            "Noise is not a probability",
            seen=flip,
            allowed="numbers from 0 to 1; at 0.5 every move is a coin toss",
            remedy="give the probability that a move is turned into the other one",
        )
    if flip == 0:
        return strategy
    cc, cd, dc, dd = ((1 - flip) * p + flip * (1 - p) for p in strategy.p_cooperate)
    return Strategy(f"noisy({strategy.name}, {flip:g})", (cc, cd, dc, dd))


def pair_chain(first: Strategy, second: Strategy) -> Array:
    """From what was played to what is played next.

    Returns:
        ``P(next state | state)``, ``[4, 4]``, the state in rows, the first player's move first;
        every row sums to 1.
    """
    own = np.array(first.p_cooperate, dtype=np.float64)
    other = np.array(second.p_cooperate, dtype=np.float64)[list(_MIRROR)]
    return np.stack(
        [own * other, own * (1 - other), (1 - own) * other, (1 - own) * (1 - other)], axis=1
    )


def long_run(transition: Array, start: Array) -> Array:
    """How often is each state met in the long run, ``lim_T (1/T) sum_t start transition^t``?

    States that are left for good hand their weight on to those that play goes to, and every set
    of states that is never left again has its own stationary distribution. Steps with less than
    1e-60 are taken for impossible.

    Args:
        transition: ``P(next state | state)``, ``[n, n]``; chains may be periodic or fall apart.
        start: distribution over states, ``[n]``.

    Returns:
        Frequencies ``pi``, ``[n]``, with ``pi transition = pi``; they sum to 1.

    Raises:
        ConfigError: the arrays do not fit together, or are not probabilities that sum to 1.
    """
    _check(transition, start)
    chain, weight = np.where(transition < _NEVER, 0.0, transition), start.astype(np.float64)
    reachable = _reachable(chain)
    if reachable.all():  # the usual case: every state leads to every other
        return _stationary(chain)
    # A state is recurrent if all that it leads to leads back to it.
    recurrent = (~reachable | reachable.T).all(axis=1)
    for k in np.flatnonzero(~recurrent):
        into = _eliminate(chain, int(k))
        weight += weight[k] * into
        weight[k] = 0.0
    found = np.zeros_like(weight)
    for k in np.flatnonzero(recurrent):
        members = np.flatnonzero(reachable[k])
        if members[0] == k:  # each set once, at its first state
            found[members] = weight[members].sum() * _stationary(chain[np.ix_(members, members)])
    return found / found.sum()


def _reachable(chain: Array) -> NDArray[np.bool_]:
    """Whether a state can be followed by another, sooner or later (or is the same)."""
    reachable = (chain > 0) | np.eye(len(chain), dtype=np.bool_)
    for _ in range(max(1, math.ceil(math.log2(len(chain))))):
        reachable = reachable @ reachable
    return reachable


def _eliminate(chain: Array, k: int) -> Array:
    """Cut a state out of a chain in place, leading through it; returns where it is left to."""
    out = chain[k].copy()
    out[k] = 0.0
    out /= out.sum()
    chain[:] += np.outer(chain[:, k], out)
    chain[:, k] = 0.0
    chain[k] = 0.0
    return out


def _stationary(chain: Array) -> Array:
    """The stationary distribution of a chain in which every state leads to every other."""
    work: list[list[float]] = chain.tolist()  # faster than arrays for a handful of states
    n = len(work)
    entering = [[0.0] * n for _ in range(n)]  # [k][i]: weight of k for one of i, where i < k
    for k in range(n - 1, 0, -1):
        out = sum(work[k][:k])
        for i in range(k):
            entering[k][i] = work[i][k] / out
            for j in range(k):
                work[i][j] += entering[k][i] * work[k][j]
    weights = [1.0]
    for k in range(1, n):
        weights.append(sum(w * e for w, e in zip(weights, entering[k], strict=False)))
    weight = np.array(weights)
    return weight / weight.sum()


def _check(transition: Array, start: Array) -> None:
    n = len(start)
    fits = transition.shape == (n, n) and start.shape == (n,) and n > 0
    rows = np.vstack([transition, start]) if fits else np.empty((0, 0))
    # NaN fails the comparisons.
    proper = bool(np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=1) - 1) <= _ROUNDING))
    if not fits or not proper:
        raise ConfigError(
            "This is not a Markov chain with a start",
            seen=f"transition {transition.shape}, start {start.shape}"
            if not fits
            else f"sums from {rows.sum(axis=1).min()} to {rows.sum(axis=1).max()}",
            allowed="[n, n] and [n], rows of probabilities that sum to 1",
            remedy="take the transition from pair_chain and a start over the same states",
        )


def expected_play(
    first: Strategy,
    second: Strategy,
    game: Game,
    *,
    noise: float = 0.0,
    rounds: int | None = None,
) -> Outcome:
    """What do two players get and do on average?

    Args:
        first: the player in the game's own seat.
        second: the player in the other seat; it plays ``game.mirrored``, and its moves have the
            same names.
        game: payoffs, those of the first player first.
        noise: probability that a move is turned into the other one, for both.
        rounds: mean over this many rounds; in the long run where it is None.

    Raises:
        ConfigError: noise is not a probability, or rounds are below 1.
    """
    if rounds is not None and rounds < 1:
        raise ConfigError(
            "Nothing is played",
            seen=f"rounds {rounds}",
            allowed="1 or more, or None for the long run",
            remedy="give the number of rounds",
        )
    chain = pair_chain(noisy(first, noise), noisy(second, noise))
    start = np.full(len(PAIRS), 1 / len(PAIRS))
    return _outcome(long_run(chain, start) if rounds is None else _mean(chain, start, rounds), game)


def _mean(chain: Array, start: Array, rounds: int) -> Array:
    now, total = start, np.zeros_like(start)
    for _ in range(rounds):
        now = now @ chain
        total += now
    return total / rounds


def _outcome(states: Array, game: Game) -> Outcome:
    points = states @ np.array([game.payoffs[pair] for pair in PAIRS], dtype=np.float64)
    return Outcome(
        payoff_first=float(points[0]),
        payoff_second=float(points[1]),
        cooperation_first=float(states[0] + states[1]),
        cooperation_second=float(states[0] + states[2]),
        states=states,
    )
