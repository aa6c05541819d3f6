"""Which strategies spread? Replicator dynamics and the Moran process, from exact payoffs.

Everybody meets everybody, in either seat alike; ``A[i, j]`` is what i gets from j a round. In a
population without end the shares x of the strategies follow the replicator equation (Taylor and
Jonker, Mathematical Biosciences 40 (1978), 145-156)

    dx_i/dt = x_i ((A x)_i - x . A x),

solved here in the logarithms of the shares, ``u = log x``, ``du_i/dt = (A x)_i - x . A x`` and
``x = softmax(u)``, where shares stay shares: positive, with sum 1, whatever the step, and as
accurate when they are small. What is not there at the start never appears.

In a population of N with one invader of a kind, birth in proportion to ``exp(selection * payoff)``
and death at random (Nowak et al., Nature 428 (2004), 646-650; Traulsen et al., Journal of
Theoretical Biology 246 (2007), 522-529), the invader's kind takes over with probability

    rho = 1 / (1 + sum_{k=1..N-1} prod_{i=1..k} exp(-selection (pi_i - pi'_i))),

    pi_i  = (A_00 (i - 1) + A_01 (N - i)) / (N - 1)        an invader, where there are i of them
    pi'_i = (A_10 i + A_11 (N - i - 1)) / (N - 1)          a resident

summed in logarithms, so that no population or payoff is too large. ``rho`` above 1/N means that
selection favours the invader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import integrate

from moralscope.core.errors import ConfigError
from moralscope.games.matrices import Game
from moralscope.games.play.chains import Strategy, expected_play

Array = NDArray[np.float64]

_RTOL, _ATOL = 1e-9, 1e-10
"""Errors of the logarithms of shares, step by step."""

_MOMENT = 1e-6
"""The solver has to go somewhere, though only time 0 is asked for."""


def payoff_matrix(
    players: Sequence[Strategy],
    game: Game,
    *,
    mirrored: Sequence[Strategy] | None = None,
    noise: float = 0.0,
) -> Array:
    """What does each player get from each other, a round in the long run?

    Args:
        players: in the game's own seat.
        game: payoffs. In a game that differs between seats everybody takes either one half of
            the time.
        mirrored: the same players in the other seat, where they play otherwise there.
        noise: probability that a move is turned into the other one.

    Returns:
        Points ``A[i, j]`` of i against j, ``[players, players]``; the diagonal is met by copies.

    Raises:
        ConfigError: there are not as many players in one seat as in the other, or noise is not a
            probability.
    """
    others = players if mirrored is None else mirrored
    if len(others) != len(players):
        raise ConfigError(
            "Players are not the same in both seats",
            seen=f"{len(players)} and {len(others)}",
            allowed="as many strategies in the other seat, in the same order",
            remedy="give every player's strategy in the mirrored game, or none",
        )
    n = len(players)
    first, second = np.zeros((n, n)), np.zeros((n, n))
    for i, one in enumerate(players):
        for j, other in enumerate(others):
            found = expected_play(one, other, game, noise=noise)
            first[i, j], second[j, i] = found.payoff_first, found.payoff_second
    return (first + second) / 2


def replicator(payoffs: Array, start: Array, times: Array) -> Array:
    """How do shares of a population change over time?

    Args:
        payoffs: ``A[i, j]``, what i gets from j, ``[n, n]``.
        start: shares at time 0, ``[n]``; they sum to 1.
        times: when to look, in units of one over the payoffs, ``[times]``; rising, from 0 on.

    Returns:
        Shares, ``[times, n]``; every row sums to 1, with relative errors of about 1e-8.

    Raises:
        ConfigError: the arrays do not fit together, the start is no distribution, or times do not
            rise.
    """
    _check(payoffs, start, times)
    present = start > 0
    met = payoffs[np.ix_(present, present)]

    def slope(_: float, u: Array) -> Array:
        shares = _softmax(u)
        gain = met @ shares
        return gain - shares @ gain

    solve = cast("Callable[..., Any]", integrate.solve_ivp)  # pyright: ignore[reportUnknownMemberType]
    solved = solve(
        slope,
        (0.0, max(float(times[-1]), _MOMENT)),
        np.log(start[present]),
        method="DOP853",
        t_eval=times,
        rtol=_RTOL,
        atol=_ATOL,
    )
    shares = np.zeros((len(times), len(start)))
    shares[:, present] = _softmax(solved.y.T)
    return shares


def _softmax(u: Array) -> Array:
    shares = np.exp(u - u.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def fixation(payoffs: Array, population: int, selection: float) -> float:
    """How likely is one invader's kind to take over a population?

    Args:
        payoffs: ``[[A_00, A_01], [A_10, A_11]]``, points; 0 is the invader, 1 the resident.
        population: N, 2 or more, the invader included.
        selection: intensity, in one over points, 0 or more; 0 is drift, with ``1 / N``.

    Returns:
        A probability; 0 where it is below the smallest number.

    Raises:
        ConfigError: payoffs are not four finite numbers, the population is below 2, or selection
            is negative.
    """
    proper = payoffs.shape == (2, 2) and bool(np.all(np.isfinite(payoffs)))
    if not proper or population < 2 or not 0 <= selection < np.inf:
        raise ConfigError(
            "There is no such invasion",
            seen=f"payoffs {payoffs.tolist()}, population {population}, selection {selection}",
            allowed="[2, 2] finite payoffs, a population of 2 or more, selection of 0 or more",
            remedy="correct what is out of its range",
        )
    i = np.arange(1, population, dtype=np.float64)
    invader = payoffs[0, 0] * (i - 1) + payoffs[0, 1] * (population - i)
    resident = payoffs[1, 0] * i + payoffs[1, 1] * (population - i - 1)
    steps = np.cumsum(-selection * (invader - resident) / (population - 1))
    return float(np.exp(-np.logaddexp.reduce(np.concatenate([[0.0], steps]))))


def _check(payoffs: Array, start: Array, times: Array) -> None:
    n = len(start)
    proper = (
        payoffs.shape == (n, n)
        and bool(np.all(np.isfinite(payoffs)))
        and bool(np.all(start >= 0))
        and abs(float(start.sum()) - 1) <= 1e-9
        and len(times) > 0
        and float(times[0]) >= 0
        and bool(np.all(np.diff(times) > 0))
    )
    if not proper:
        raise ConfigError(
            "There is no such population",
            seen=f"payoffs {payoffs.shape}, shares {start.tolist()}, {len(times)} times",
            allowed="[n, n] finite payoffs, n shares with sum 1, times that rise from 0 or later",
            remedy="correct what does not fit",
        )
