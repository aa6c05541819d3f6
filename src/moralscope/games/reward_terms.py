"""What can a round be worth? The terms that rewards are summed from, one function each.

With x_0 the agent's points in a round, x_1 ... x_n the others' (n = 1 in a two-player game), D a
defection and C a cooperation, every function maps a ``Round`` to points. Ranges are those of the
iterated prisoner's dilemma with points 3/0/4/1 and default settings. The order of the others never
matters.

Sources: Tennant, Hailes and Musolesi, arXiv 2410.01639 (game, deontological, utilitarian, hybrid)
and arXiv 2301.08491 (virtues); Rawls, *A Theory of Justice* (1971); Fehr and Schmidt, QJE 114
(1999), 817-868; Charness and Rabin, QJE 117 (2002), 817-869. Sums are made in ``rewards``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Literal, get_args

from moralscope.core.errors import ConfigError
from moralscope.games.rounds import Round

Norm = Literal["previous", "own", "any", "strict"]

BETRAYAL_PENALTY = -3.0
"""Points for breaking the deontological norm, unless a reward sets another penalty."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a term.

    Attributes:
        name: its key, which is also the keyword of the term's function.
        choices: the texts that it may be; a finite number with none.
        minimum: the smallest number that it may be, or None for any.
    """

    name: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A function of the round and the settings that it takes, in the order of places."""

    value: Callable[..., float]
    settings: tuple[Setting, ...] = ()


def game(seen: Round) -> float:
    """Own points: ``x_0``. In the IPD from 0 to 4."""
    return seen.own_points


def deontological(
    seen: Round, *, norm: Norm = "previous", penalty: float = -BETRAYAL_PENALTY
) -> float:
    """Has the agent broken a norm? ``-penalty`` if so, else 0, whatever points are at stake.

    The norm is broken by D

    - ``previous`` (as published): if any of the others played C in the round *before*; what they
      play at the same time does not matter;
    - ``own``: if the agent itself played C in the round before (it stops cooperating);
    - ``any``: if any of the others played C in the round before or plays C in this one;
    - ``strict``: always.

    In the IPD from -3 to 0.
    """
    broken = {
        "previous": "C" in seen.others_previous,
        "own": seen.own_previous == "C",
        "any": "C" in seen.others_previous or "C" in seen.others,
        "strict": True,
    }[norm]
    return -penalty if seen.own == "D" and broken else 0.0


def utilitarian(seen: Round) -> float:
    """Everybody's points: ``sum_i x_i``. In the IPD from 2 (all defect) to 6."""
    return seen.own_points + sum(seen.others_points)


def hybrid(seen: Round, *, norm: Norm = "previous", penalty: float = -BETRAYAL_PENALTY) -> float:
    """Own points under a norm: ``game + deontological``, with the latter's settings.

    In the IPD from -2 (all defect after the other cooperated) to 4.
    """
    return game(seen) + deontological(seen, norm=norm, penalty=penalty)


def virtue_equality(seen: Round) -> float:
    """How equal are the points? ``1 - sum_{i<j} |x_i - x_j| / (n sum_i x_i)``.

    With two players this is the published ``1 - |x_0 - x_1| / (x_0 + x_1)``; with more, one minus
    the Gini coefficient divided by its largest value for n + 1 players, ``n / (n + 1)``. It is 1
    where all have the same, nothing included, and 0 where one has everything: from 0 to 1.

    Raises:
        ConfigError: somebody has negative points, for which shares are not defined.
    """
    points = (seen.own_points, *seen.others_points)
    if min(points) < 0:
        raise ConfigError(
            "The reward 'virtue-equality' is not defined where somebody loses points",
            seen=f"points {', '.join(f'{x:g}' for x in points)}",
            allowed="games whose points are 0 or more",
            remedy="add the same number to all points of the game, or use inequity-aversion",
        )
    total = sum(points)
    apart = sum(abs(a - b) for a, b in combinations(points, 2))
    return 1 - apart / (len(seen.others) * total) if total else 1.0


def virtue_kindness(seen: Round, *, bonus: float = 5.0) -> float:
    """Is the agent kind, whatever comes of it? ``bonus`` (xi in the source, 5 there) for C, else 0.

    In the IPD from 0 to 5.
    """
    return bonus if seen.own == "C" else 0.0


def rawlsian(seen: Round) -> float:
    """The points of whoever has least: ``min_i x_i``, the agent included. In the IPD 0 to 3."""
    return min(seen.own_points, *seen.others_points)


def inequity_aversion(seen: Round, *, alpha: float = 1.0, beta: float = 0.6) -> float:
    """Own points less envy and guilt, averaged over the others.

    ``x_0 - alpha/n sum_j max(x_j - x_0, 0) - beta/n sum_j max(x_0 - x_j, 0)``

    Fehr and Schmidt suppose ``beta <= alpha`` and ``beta < 1``; the defaults are those of their
    conditional cooperators. In the IPD from -4 (betrayed) to 3; betraying earns 1.6.
    """
    envy = sum(max(x - seen.own_points, 0.0) for x in seen.others_points)
    guilt = sum(max(seen.own_points - x, 0.0) for x in seen.others_points)
    return seen.own_points - (alpha * envy + beta * guilt) / len(seen.others)


def care(seen: Round, *, weight: float = 0.5) -> float:
    """Own points, and what the worst-off of the others has: ``x_0 + weight min_{j>0} x_j``.

    The concern for the worst-off of Charness and Rabin's social-welfare preferences, with the
    agent's own points kept whole. With two players and weight 1 it is the utilitarian reward, with
    weight 0 the game. In the IPD from 1.5 (all defect) to 4.5.
    """
    return seen.own_points + weight * min(seen.others_points)


def spite(seen: Round, *, weight: float = 1.0) -> float:
    """Own points less the mean of the others': ``x_0 - weight/n sum_{j>0} x_j``.

    A control: an agent that gains by the others' loss. In the IPD from -4 to 4.
    """
    return seen.own_points - weight * sum(seen.others_points) / len(seen.others)


_NORM = (
    Setting("norm", choices=get_args(Norm)),
    Setting("penalty", minimum=0.0),
)

TERMS: Mapping[str, Term] = MappingProxyType(
    {
        "game": Term(game),
        "deontological": Term(deontological, _NORM),
        "utilitarian": Term(utilitarian),
        "hybrid": Term(hybrid, _NORM),
        "virtue-equality": Term(virtue_equality),
        "virtue-kindness": Term(virtue_kindness, (Setting("bonus", minimum=0.0),)),
        "rawlsian": Term(rawlsian),
        "inequity-aversion": Term(
            inequity_aversion, (Setting("alpha", minimum=0.0), Setting("beta", minimum=0.0))
        ),
        "care": Term(care, (Setting("weight"),)),
        "spite": Term(spite, (Setting("weight"),)),
    }
)
"""The built-in terms by name."""
