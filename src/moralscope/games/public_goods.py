"""What is at stake among more than two? The linear public-goods game.

Each of N players has an endowment e and either contributes all of it (C) or keeps it (D). What is
contributed is multiplied by m and shared equally by all, contributors or not. With K contributors,
the player among them included if it contributes,

    points = e [own move is D] + m e K / N

Contributing costs e and returns m e / N, whatever the others do. So for 1 < m < N keeping pays each
player and contributing pays all of them together: a social dilemma, with N = 2 a prisoner's
dilemma. At m <= 1 nobody gains by contributions, at m >= N contributing costs nobody anything;
such games can be played, and ``is_dilemma`` tells.

Source: Ledyard, "Public goods: a survey of experimental research" (Handbook of Experimental
Economics, 1995), section 2.A. Punishment, partial contributions and thresholds are not here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from moralscope.core.calls import parse_call
from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.matrices import MOVES, points_text

NAME = "public-goods"
"""How an expression of a public-goods game begins."""

MOST_PLAYERS = 10

_SETTINGS = {"players": 4.0, "endowment": 4.0, "multiplier": 2.0}
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_OWN_NAME = re.compile(rf"PGG([0-9]+)x{_NUMBER}(?:_e{_NUMBER})?")


@dataclass(frozen=True, slots=True)
class GroupState:
    """What the members of a group did in the previous round, seen by one of them.

    Attributes:
        own_previous: the agent's own last legal move.
        cooperators: how many of the others contributed, from 0 to N - 1.
    """

    own_previous: Move
    cooperators: int

    @property
    def name(self) -> str:
        """``C2``: the agent contributed, and two of the others did."""
        return f"{self.own_previous}{self.cooperators}"


@dataclass(frozen=True, slots=True)
class PublicGoods:
    """A linear public-goods game.

    Attributes:
        players: N, from 2 to 10.
        endowment: e, points that each player has in a round, above 0.
        multiplier: m, what contributions are multiplied by, above 0.

    Raises:
        ConfigError: a value is not in its range.
    """

    players: int = 4
    endowment: float = 4.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        if not 2 <= self.players <= MOST_PLAYERS:
            raise ConfigError(
                "A public-goods game has a number of players that it cannot have",
                seen=self.players,
                allowed=f"whole numbers from 2 to {MOST_PLAYERS}",
                remedy="choose another number of players",
            )
        for what, value in (("endowment", self.endowment), ("multiplier", self.multiplier)):
            # A setting that names and texts would round is another setting.
            if not (math.isfinite(value) and value > 0 and float(points_text(value)) == value):
                raise ConfigError(
                    f"The {what} of a public-goods game is not a positive number",
                    seen=value,
                    allowed="finite numbers above 0, of up to 12 digits",
                    remedy=f"choose another {what}",
                )

    @property
    def name(self) -> str:
        """``PGG4x2``: four players, contributions doubled; ``PGG4x2_e10``: an endowment not 4."""
        own = "" if self.endowment == _SETTINGS["endowment"] else f"_e{points_text(self.endowment)}"
        return f"PGG{self.players}x{points_text(self.multiplier)}{own}"

    @property
    def title(self) -> str:
        """The name in words."""
        return (
            f"public-goods game, {self.players} players, endowment {points_text(self.endowment)}, "
            f"multiplier {points_text(self.multiplier)}"
        )

    @property
    def is_dilemma(self) -> bool:
        """Whether keeping pays each player and contributing pays all together: 1 < m < N."""
        return 1 < self.multiplier < self.players

    @property
    def states(self) -> tuple[GroupState, ...]:
        """The 2 N states C0 .. C(N-1), D0 .. D(N-1), in the order of array axes over states."""
        return tuple(GroupState(own, k) for own in MOVES for k in range(self.players))

    def points(self, own: Move, cooperators: int) -> float:
        """Own points of one round: ``e [own is D] + m e (cooperators + [own is C]) / N``.

        Args:
            own: the player's own move.
            cooperators: how many of the others contribute, from 0 to N - 1.

        Raises:
            ConfigError: there are not so many others.
        """
        if not 0 <= cooperators < self.players:
            raise ConfigError(
                f"There are not so many others in {self.name}",
                seen=f"{cooperators} of the others contribute",
                allowed=f"0 to {self.players - 1}",
                remedy="count the contributors without the player itself",
            )
        share = self.multiplier * self.endowment * (cooperators + (own == "C")) / self.players
        return share + (self.endowment if own == "D" else 0.0)

    def others_points(self, own: Move, others: tuple[Move, ...]) -> tuple[float, ...]:
        """The points of each of the others, in their order.

        Args:
            own: the player's own move.
            others: the move of each of the N - 1 others.

        Raises:
            ConfigError: there are more or fewer others.
        """
        if len(others) != self.players - 1:
            raise ConfigError(
                f"Not every other player of {self.name} has a move",
                seen=f"{len(others)} moves of others",
                allowed=f"{self.players - 1}, one for each",
                remedy="give the move of every other player",
            )
        contributors = (own, *others).count("C")
        return tuple(self.points(move, contributors - (move == "C")) for move in others)


def is_public_goods(expression: str) -> bool:
    """Whether an expression names a public-goods game, and not a game of two players."""
    begins = expression.strip().partition("(")[0].strip()
    return begins == NAME or _OWN_NAME.fullmatch(begins) is not None


def get_public_goods(expression: str) -> PublicGoods:
    """The public-goods game of an expression.

    Args:
        expression: ``public-goods(players=4, endowment=4, multiplier=2)``, where what is left out
            is as written here, or the name of a game that was made so (``PGG4x2``).

    Returns:
        The game; ``get_public_goods(game.name) == game``.

    Raises:
        ConfigError: it is no public-goods game, a setting is not known or is out of its range.
    """
    found = _OWN_NAME.fullmatch(expression.strip())
    if found:
        players, multiplier, endowment = found.groups()
        expression = f"{NAME}(players={players}, multiplier={multiplier}" + (
            f", endowment={endowment})" if endowment else ")"
        )
    call = parse_call(expression)
    if call.name != NAME:
        raise ConfigError(
            "There is no public-goods game of this name",
            seen=expression,
            allowed=f"{NAME}(players=4, endowment=4, multiplier=2)",
            remedy=f"begin with {NAME}, or ask for a game of two players",
        )
    settings = dict(_SETTINGS)
    names = [key for key, _ in call.named]
    for key, value in call.named:
        if key not in settings:
            raise ConfigError(
                "A public-goods game has no setting of this name",
                seen=key,
                allowed=", ".join(settings),
                remedy=nearest(key, settings),
            )
        if not isinstance(value, float) or (key == "players" and not value.is_integer()):
            raise _unreadable(f"{key}={value}")
        settings[key] = value
    if call.arguments or len(set(names)) < len(names):
        raise _unreadable(expression)
    return PublicGoods(int(settings["players"]), settings["endowment"], settings["multiplier"])


def _unreadable(seen: str) -> ConfigError:
    return ConfigError(
        "The settings of a public-goods game cannot be read",
        seen=seen,
        allowed="players (a whole number), endowment and multiplier, by name and each once",
        remedy=f"write {NAME}(players=4, endowment=4, multiplier=2)",
    )
