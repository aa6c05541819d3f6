"""What do the classic strategies with one step of memory do? Four probabilities each.

A memory-one strategy is P(it cooperates now) after each pair of last moves. Every tuple here is in
the order of ``matrices.PAIRS``, from the seat of the agent who *faces* the strategy: the agent's
last move, then the strategy's own. (The literature writes a strategy's own move first; the two
middle numbers change places.) Values that depend on payoffs take those of the package's prisoner's
dilemma, T = 4, R = 3, P = 1, S = 0, whatever game is played.

Sources: Nowak and Sigmund, Nature 364 (1993), 56-58 (win-stay-lose-shift); Nowak and Sigmund,
Nature 355 (1992), 250-253 (generous tit-for-tat); Press and Dyson, PNAS 109 (2012), 10409-10413
(extortion).
"""

from __future__ import annotations

Four = tuple[float, float, float, float]
"""P(C) after CC, CD, DC, DD: the agent's last move, then the strategy's own."""

_T, _R, _P, _S = 4.0, 3.0, 1.0, 0.0

TIT_FOR_TAT: Four = (1.0, 1.0, 0.0, 0.0)
"""Repeats the agent's last move."""

GRIM: Four = (1.0, 0.0, 0.0, 0.0)
"""Cooperates after mutual cooperation only. Its own last move remembers whether anybody defected:
having opened with cooperation, it never cooperates again after the agent's first defection."""

WIN_STAY_LOSE_SHIFT: Four = (1.0, 0.0, 0.0, 1.0)
"""Repeats its own last move after R or T points, changes it after P or S."""

GENEROSITY = min(1 - (_T - _R) / (_R - _S), (_R - _P) / (_T - _P))
"""The forgiveness of generous tit-for-tat, in [0, 1]: the most at which nobody gains by defecting
against it, ``min(1 - (T - R)/(R - S), (R - P)/(T - P))``. With T, R, P, S = 4, 3, 1, 0 that is
``min(1 - 1/3, 2/3) = 2/3``; the often-quoted 1/3 belongs to 5, 3, 1, 0."""


def generous_tit_for_tat(forgiveness: float) -> Four:
    """Tit-for-tat that answers a defection with cooperation with this probability, in [0, 1]."""
    return (1.0, 1.0, forgiveness, forgiveness)


def extortion(chi: float) -> Four:
    """How does a player make sure to gain ``chi`` times as much over P as the other does?

    With the extortioner's own move first, Press and Dyson's equation 12 for T, R, P, S = 4, 3, 1, 0
    is

        p_CC = 1 - 2 phi (chi - 1)    p_CD = 1 - phi (1 + 3 chi)    p_DC = phi (3 + chi)    p_DD = 0

    for any ``0 < phi <= 1 / (1 + 3 chi)``; phi is the middle of that range, as in their example.
    Whatever the agent plays, mean points per round of a long game then obey

        s_extortioner - P = chi (s_agent - P).

    Args:
        chi: 1 or more; 1 is fair and leaves equal points to both.
    """
    phi = 1 / (2 * (_P - _S + chi * (_T - _P)))
    p_cc = 1 - phi * (chi - 1) * (_R - _P)
    p_cd = 1 - phi * ((_P - _S) + chi * (_T - _P))
    p_dc = phi * ((_T - _P) + chi * (_P - _S))
    return (p_cc, p_dc, p_cd, 0.0)


def trembling(p: Four, flip: float) -> Four:
    """The same strategy with each move turned into the other with probability ``flip``.

    ``p' = (1 - flip) p + flip (1 - p)``. It reads the moves that were played, not those meant.
    """
    cc, cd, dc, dd = ((1 - flip) * q + flip * (1 - q) for q in p)
    return (cc, cd, dc, dd)
