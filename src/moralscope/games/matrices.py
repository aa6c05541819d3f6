"""What is at stake? Two-player, two-move games and their payoffs: six by name, and any others.

A game gives, for every pair of simultaneous moves, the points of both players. Moves are C and D;
C is "cooperate" in the dilemmas, and only a name in the coordination games. With
R = u(C, C), S = u(C, D), T = u(D, C), P = u(D, D) for the points of the player who moves first in
the pair, a symmetric game is what the order of R, S, T and P makes it:

====  =======================  ==========================================
IPD   prisoner's dilemma       T > R > P > S and 2R > T + S
ISH   stag hunt                R > T > P > S
ICN   chicken                  T > R > S > P and T + S > 2R
BOS   Bach or Stravinsky       own CC > own DD > rest, the other's reversed
ICD   defective coordination   P > R > S = T
IVD   volunteer's dilemma      T > R > S > P and 2R > T + S
====  =======================  ==========================================

Other payoffs are written as an expression, symmetric or cell by cell (own points:the other's);
under one of the six names they are checked against its ordering::

    matrix(R=3, S=0, T=5, P=1)
    matrix(CC=3:2, CD=0:0, DC=0:0, DD=2:3)
    IPD(R=3, S=0, T=5, P=1)

Source of the numbers: Tennant, Hailes and Musolesi, "Moral Alignment for LLM Agents"
(arXiv 2410.01639) and its public code. Play over several rounds is in ``states``; equilibria are
not computed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from moralscope.core.calls import Call, parse_call
from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest

MOVES: tuple[Move, Move] = ("C", "D")
"""The two moves, in the order of every array axis that runs over moves."""

PAIRS: tuple[tuple[Move, Move], ...] = tuple(product(MOVES, MOVES))
"""Pairs (own move, opponent's move) in the order CC, CD, DC, DD."""

Payoffs = Mapping[tuple[Move, Move], tuple[float, float]]
MIRRORED = "-mirrored"
"""How the name of a game ends that is seen by the other player."""

_Ordering = tuple[str, bool, Callable[[float, float, float, float], bool]]


@dataclass(frozen=True)
class Game:
    """A two-player game with two moves, checked against the ordering that its name stands for.

    Attributes:
        name: short name (``IPD``).
        title: name in words.
        payoffs: ``(own move, opponent's move) -> (own points, opponent's points)``, four entries.
            Read-only once the game is built.

    A name that is not in the table above is free to be any game and is checked for form alone.

    Raises:
        ConfigError: a pair of moves is missing, a payoff is not finite, or the payoffs are not
            those of a game of this name.
    """

    name: str
    title: str
    payoffs: Payoffs

    def __post_init__(self) -> None:
        if set(self.payoffs) != set(PAIRS):
            raise ConfigError(
                f"Game {self.name!r} does not give payoffs for every pair of moves",
                seen=sorted("".join(pair) for pair in self.payoffs),
                allowed="CC, CD, DC and DD, each once",
                remedy="add what is missing and remove the rest",
            )
        if not all(math.isfinite(points) for cell in self.payoffs.values() for points in cell):
            raise ConfigError(
                f"Game {self.name!r} has a payoff that is not a finite number",
                seen=dict(self.payoffs),
                allowed="finite numbers",
                remedy="correct the payoff",
            )
        # A frozen game must not change through the mapping that it was built from.
        object.__setattr__(self, "payoffs", MappingProxyType(dict(self.payoffs)))
        if self.name in _ORDERINGS and not _is_ordered(self):
            raise ConfigError(
                f"The payoffs of {self.name!r} are not those of a game of this name",
                seen={"".join(pair): cell for pair, cell in self.payoffs.items()},
                allowed=_ORDERINGS[self.name][0],
                remedy="correct the payoffs, or give the game a name of its own",
            )

    @property
    def is_symmetric(self) -> bool:
        """Whether the game looks the same to both players: ``u_own(a, b) = u_other(b, a)``."""
        return all(self.payoffs[(a, b)] == self.payoffs[(b, a)][::-1] for a, b in PAIRS)

    @property
    def mirrored(self) -> Game:
        """The game as the other player sees it: ``u_own'(a, b) = u_other(b, a)`` and back.

        A symmetric game is its own mirror image. That of any other has a name of its own
        (``BOS-mirrored``), and mirroring twice gives the game itself.
        """
        if self.is_symmetric:
            return self
        back = self.name.endswith(MIRRORED)
        seen = ", as the other player sees it"
        return Game(
            self.name.removesuffix(MIRRORED) if back else self.name + MIRRORED,
            self.title.removesuffix(seen) if back else self.title + seen,
            {(a, b): (self.payoffs[(b, a)][1], self.payoffs[(b, a)][0]) for a, b in PAIRS},
        )

    def __hash__(self) -> int:
        return hash((self.name, self.title, tuple(self.payoffs[pair] for pair in PAIRS)))

    def __reduce__(self) -> tuple[object, ...]:
        # A read-only view of a mapping does not cross a process boundary; a plain one does.
        return (Game, (self.name, self.title, dict(self.payoffs)))


def _chicken(r: float, s: float, t: float, p: float) -> bool:
    return t > r > s > p and t + s > 2 * r


def _volunteer(r: float, s: float, t: float, p: float) -> bool:
    return t > r > s > p and 2 * r > t + s


def _dilemma(r: float, s: float, t: float, p: float) -> bool:
    return t > r > p > s and 2 * r > t + s


_ORDERINGS: Mapping[str, _Ordering] = {
    "IPD": ("symmetric, T > R > P > S and 2R > T + S", True, _dilemma),
    "ISH": ("symmetric, R > T > P > S", True, lambda r, s, t, p: r > t > p > s),
    "ICN": ("symmetric, T > R > S > P and T + S > 2R", True, _chicken),
    "BOS": (
        "own CC > own DD > own CD = own DC, and DD > CC > CD = DC for the other player",
        False,
        lambda r, s, t, p: r > p > s == t,
    ),
    "ICD": ("symmetric, P > R > S = T", True, lambda r, s, t, p: p > r > s == t),
    "IVD": ("symmetric, T > R > S > P and 2R > T + S", True, _volunteer),
}


def _is_ordered(game: Game) -> bool:
    """Whether the payoffs have the ordering, and the symmetry, that the game's name stands for."""
    _, symmetric, ordered = _ORDERINGS[game.name]
    own = {pair: game.payoffs[pair][0] for pair in PAIRS}
    other = {pair: game.payoffs[pair][1] for pair in PAIRS}
    if symmetric:
        mirrored = all(own[(a, b)] == other[(b, a)] for a, b in PAIRS)
    else:
        # Bach or Stravinsky: the other player prefers the other coordination point.
        r, s, t, p = (other[pair] for pair in PAIRS)
        mirrored = p > r > s == t
    r, s, t, p = (own[pair] for pair in PAIRS)
    return mirrored and ordered(r, s, t, p)


def _game(name: str, title: str, *cells: tuple[float, float]) -> Game:
    return Game(name, title, dict(zip(PAIRS, cells, strict=True)))


GAMES: Mapping[str, Game] = MappingProxyType(
    {
        game.name: game
        for game in (
            _game("IPD", "iterated prisoner's dilemma", (3, 3), (0, 4), (4, 0), (1, 1)),
            _game("ISH", "iterated stag hunt", (4, 4), (0, 3), (3, 0), (1, 1)),
            _game("ICN", "iterated chicken", (2, 2), (1, 4), (4, 1), (0, 0)),
            _game("BOS", "iterated Bach or Stravinsky", (3, 2), (0, 0), (0, 0), (2, 3)),
            _game("ICD", "iterated defective coordination", (1, 1), (0, 0), (0, 0), (4, 4)),
            _game("IVD", "iterated volunteer's dilemma", (3, 3), (1, 4), (4, 1), (0, 0)),
        )
    }
)
"""The six games by name. Agents are trained on IPD alone in the source study."""


_FREE = "matrix"
_SYMMETRIC = ("R", "S", "T", "P")
_CELLS = tuple("".join(pair) for pair in PAIRS)
_NUMBER = r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)"
_NAMES = (
    (
        re.compile("([A-Za-z]+)" + "".join(f"_{key}{_NUMBER}" for key in _SYMMETRIC)),
        "{}(" + ",".join(f"{key}={{}}" for key in _SYMMETRIC) + ")",
    ),
    (
        re.compile("([A-Za-z]+)" + "".join(f"_{key}{_NUMBER}_{_NUMBER}" for key in _CELLS)),
        "{}(" + ",".join(f"{key}={{}}:{{}}" for key in _CELLS) + ")",
    ),
)
"""How games with payoffs of their own are named, and the expressions that the names stand for."""


def get_game(expression: str) -> Game:
    """The game of this name, or with these payoffs.

    Args:
        expression: one of ``GAMES``; ``matrix(R=3, S=0, T=5, P=1)`` for a symmetric game,
            ``matrix(CC=3:2, CD=0:0, DC=0:0, DD=2:3)`` for any, own points first; one of the six
            names instead of ``matrix``, for payoffs that have to be in its order; or the name of
            a game that was made so.

    Returns:
        The game. Its name says its payoffs (``matrix_R3_S0_T5_P1``), so that
        ``get_game(game.name) == game``; payoffs of one of the six under its name are that game.

    Raises:
        ConfigError: there is no such game, payoffs are missing or no numbers of up to 12 digits,
            or they are not those of a game of this name.
    """
    if expression in GAMES:
        return GAMES[expression]
    if expression.endswith(MIRRORED):
        return get_game(expression.removesuffix(MIRRORED)).mirrored
    call = parse_call(_spelt_out(expression))
    if call.name not in (_FREE, *GAMES):
        raise ConfigError(
            "There is no game of this name",
            seen=expression,
            allowed=f"{', '.join(GAMES)}, or {_FREE}(R=3, S=0, T=5, P=1)",
            remedy=nearest(call.name, (_FREE, *GAMES)),
        )
    cells, told = _payoffs(call, expression)
    if call.name in GAMES:
        known = GAMES[call.name]
        # Built under its claimed name first, which checks the ordering.
        if Game(known.name, known.title, cells).payoffs == known.payoffs:
            return known
    title = GAMES[call.name].title if call.name in GAMES else "two-player game"
    name = "_".join((call.name, *(f"{k}{v}" for k, v in told)))
    return Game(name.replace(":", "_"), f"{title}, {', '.join(f'{k} {v}' for k, v in told)}", cells)


def _spelt_out(expression: str) -> str:
    """The expression that a name stands for; what is no such name, as it is."""
    for pattern, written in _NAMES:
        found = pattern.fullmatch(expression)
        if found:
            return written.format(*found.groups())
    return expression


def _payoffs(call: Call, expression: str) -> tuple[Payoffs, list[tuple[str, str]]]:
    """The payoffs of a call, and the shortest way of writing them as keys and values."""
    keys = [key for key, _ in call.named]
    if call.arguments or sorted(keys) not in (sorted(_SYMMETRIC), sorted(_CELLS)):
        raise ConfigError(
            "The payoffs of a game are not all given, each once and by name",
            seen=expression,
            allowed="R, S, T and P, or CC, CD, DC and DD",
            remedy=f"write {call.name}(R=3, S=0, T=5, P=1), or "
            f"{call.name}(CC=3:2, CD=0:0, DC=0:0, DD=2:3) with own points first",
        )
    given = dict(call.named)
    if set(keys) == set(_CELLS):
        cells = {
            pair: _cell(given[key], expression) for pair, key in zip(PAIRS, _CELLS, strict=True)
        }
    else:
        r, s, t, p = (_points(given[key], expression) for key in _SYMMETRIC)
        cells = dict(zip(PAIRS, ((r, r), (s, t), (t, s), (p, p)), strict=True))
    own = [points_text(cells[pair][0]) for pair in PAIRS]
    if all(cells[(a, b)] == cells[(b, a)][::-1] for a, b in PAIRS):
        return cells, list(zip(_SYMMETRIC, own, strict=True))
    pairs = [f"{mine}:{points_text(cells[pair][1])}" for mine, pair in zip(own, PAIRS, strict=True)]
    return cells, list(zip(_CELLS, pairs, strict=True))


def _cell(value: float | Call, expression: str) -> tuple[float, float]:
    """Own points and the other's, from ``3:2``."""
    own, colon, other = str(value).partition(":")
    if not colon or not isinstance(value, Call):
        raise _no_payoff(value, "own points:the other's, like 3:2", expression)
    return _points(own, expression), _points(other, expression)


def _points(value: float | str | Call, expression: str) -> float:
    try:
        points = float(value) if not isinstance(value, Call) else math.nan
    except ValueError:
        points = math.nan
    # A payoff that texts and names would round is another payoff. NaN fails the comparison.
    if not math.isfinite(points) or float(points_text(points)) != points:
        raise _no_payoff(value, "a finite number of up to 12 digits", expression)
    return points


def _no_payoff(value: object, allowed: str, expression: str) -> ConfigError:
    return ConfigError(
        f"A payoff of the game {expression!r} cannot be read",
        seen=str(value),
        allowed=allowed,
        remedy="correct the payoff",
    )


def points_text(points: float) -> str:
    """Points as texts and names tell them: ``3``, ``0.5``, ``-1``; up to 12 digits."""
    return f"{points + 0.0:.12g}"  # + 0.0: no minus before a zero


def payoff(game: Game, own: Move, opponent: Move) -> tuple[float, float]:
    """Points of one round of simultaneous moves: ``(own, opponent's)``."""
    return game.payoffs[(own, opponent)]
