"""Whom does the agent meet? Opponents with one step of memory, by name or expression.

An opponent is a table: the probability that it cooperates now, given the agent's own last move
and the opponent's own last move. Moves are simultaneous, so nothing else can matter to a
memory-one player (Press and Dyson, PNAS 2012). The tables and their sources are in ``memory_one``:

    tit-for-tat   always-cooperate   always-defect   random   grim   win-stay-lose-shift
    suspicious-tit-for-tat           generous-tit-for-tat(forgiveness=2/3 unless given)
    zd-extortion(chi=2 unless given) memory-one(p_cc, p_cd, p_dc, p_dd, opening=)
    noisy(OPPONENT, flip)

Other expressions stand for opponents that are no such table: ``axelrod(NAME)``, whose players are
in ``players``, and ``learner`` and ``agent(FOLDER)``, which are models and belong to training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moralscope.core.calls import Call, parse_call
from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest
from moralscope.games import memory_one
from moralscope.games.axelrod_players import AXELROD, strategy_name
from moralscope.games.matrices import PAIRS
from moralscope.games.opponent_settings import Setting, given_settings, numbers, plain

Kind = Literal["memory-one", "axelrod", "learner", "agent"]


@dataclass(frozen=True)
class Opponent:
    """A memory-one opponent.

    Attributes:
        name: how tables call it.
        p_cooperate_after: ``(own_previous, opponent_previous) -> P(opponent plays C)``, where
            *own* is the agent who faces it. Read-only once built.
        opening: P(its move before the first round was C), in [0, 1]; None where nothing is known
            of it, see ``p_cooperated_before``.

    Raises:
        ConfigError: a state is missing or a value is not a probability.
    """

    name: str
    p_cooperate_after: Mapping[tuple[Move, Move], float]
    opening: float | None = None

    def __post_init__(self) -> None:
        if set(self.p_cooperate_after) != set(PAIRS):
            raise ConfigError(
                f"Opponent {self.name!r} does not say what it plays after every state",
                seen=sorted("".join(pair) for pair in self.p_cooperate_after),
                allowed="CC, CD, DC and DD (agent's last move, opponent's last move), each once",
                remedy="add what is missing and remove the rest",
            )
        given = [*self.p_cooperate_after.values()]
        given += [] if self.opening is None else [self.opening]
        wrong = [p for p in given if not 0 <= p <= 1]
        if wrong:
            raise ConfigError(
                f"Opponent {self.name!r} cooperates with something that is not a probability",
                seen=wrong[0],
                allowed="numbers from 0 to 1",
                remedy="correct the value",
            )
        table = MappingProxyType(dict(self.p_cooperate_after))
        object.__setattr__(self, "p_cooperate_after", table)

    def __hash__(self) -> int:
        table = tuple(self.p_cooperate_after[pair] for pair in PAIRS)
        return hash((self.name, table, self.opening))

    def __reduce__(self) -> tuple[object, ...]:
        # A read-only view of a mapping does not cross a process boundary; a plain one does.
        return (Opponent, (self.name, dict(self.p_cooperate_after), self.opening))

    @property
    def p_cooperated_before(self) -> float:
        """P(the opponent's move before the first round was C), in [0, 1].

        It is ``opening`` where that is given. An opponent that plays the same whatever happened
        has played so before; of any other nothing is known, and the move is uniform.
        """
        if self.opening is not None:
            return self.opening
        values = set(self.p_cooperate_after.values())
        return values.pop() if len(values) == 1 else 0.5


@dataclass(frozen=True, slots=True)
class _Rule:
    """A family of opponents: its settings, and the table and the opening that follow from them."""

    table: Callable[..., memory_one.Four]
    settings: tuple[Setting, ...] = ()
    opening: float | None = None


def _always(*table: float) -> Callable[[], memory_one.Four]:
    return partial(_given, *table)


def _given(p_cc: float, p_cd: float, p_dc: float, p_dd: float) -> memory_one.Four:
    return (p_cc, p_cd, p_dc, p_dd)


_OPENING = Setting("opening", optional=True)
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        # Its move before the first round is uniform in the source study (arXiv 2410.01639).
        "tit-for-tat": _Rule(_always(*memory_one.TIT_FOR_TAT)),
        "always-cooperate": _Rule(_always(1, 1, 1, 1)),
        "always-defect": _Rule(_always(0, 0, 0, 0)),
        "random": _Rule(_always(0.5, 0.5, 0.5, 0.5)),
        # The literature has these open with cooperation, and the next with defection.
        "grim": _Rule(_always(*memory_one.GRIM), opening=1.0),
        "win-stay-lose-shift": _Rule(_always(*memory_one.WIN_STAY_LOSE_SHIFT), opening=1.0),
        "generous-tit-for-tat": _Rule(
            memory_one.generous_tit_for_tat,
            (Setting("forgiveness", memory_one.GENEROSITY),),
            opening=1.0,
        ),
        "suspicious-tit-for-tat": _Rule(_always(*memory_one.TIT_FOR_TAT), opening=0.0),
        "zd-extortion": _Rule(
            memory_one.extortion, (Setting("chi", 2.0, 1.0, 1000.0),), opening=1.0
        ),
        "memory-one": _Rule(
            _given, (*(Setting(f"p_{a}") for a in ("cc", "cd", "dc", "dd")), _OPENING)
        ),
    }
)
_NOISY = "noisy"
_MODELS: tuple[Kind, ...] = ("learner", "agent")
_NAMES = (*_RULES, _NOISY, AXELROD, *_MODELS)


def get_opponent(expression: str) -> Opponent:
    """The memory-one opponent that an expression stands for.

    >>> get_opponent("noisy(Tit For Tat, flip=0.10)").name
    'noisy(tit-for-tat, 0.1)'

    Args:
        expression: a name with or without settings in parentheses, by place or by name. Capitals,
            spaces and underscores in names do not matter.

    Returns:
        The opponent. Its name is the expression in regular writing, and stands for it again.

    Raises:
        ConfigError: the name or a setting is unknown, a setting is missing, twice there or out of
            its range, or the opponent is not memory-one.
    """
    if _kind(expression) == AXELROD:
        raise _not_memory_one(expression)
    return _built(parse_call(expression))


def opponent_kind(expression: str) -> Kind:
    """What does it take to play this opponent? Checks the expression and imports nothing.

    Returns:
        ``memory-one``: a table, from ``get_opponent``; ``axelrod``: a player, from
        ``players.make_player`` (whether the library has the strategy shows there); ``learner`` or
        ``agent``: another model.

    Raises:
        ConfigError: the name is unknown, a memory-one opponent cannot be built, a strategy is not
            named, or a learner has settings.
    """
    kind = _kind(expression)
    if kind == "memory-one":
        get_opponent(expression)
    elif kind == "axelrod":
        strategy_name(expression)
    elif kind == "learner" and "(" in expression:
        raise ConfigError(
            "A learner takes no settings",
            seen=expression,
            allowed="learner",
            remedy="write learner alone; what it is trained for is opponent_reward",
        )
    return kind


def _kind(expression: str) -> Kind:
    name = _regular(expression.partition("(")[0])
    if name == AXELROD:
        return "axelrod"
    if name in _MODELS:
        return "learner" if name == "learner" else "agent"
    if name not in _NAMES:
        raise _unknown(expression)
    return "memory-one"


def _regular(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _built(call: Call) -> Opponent:
    name = _regular(call.name)
    if name == _NOISY:
        return _noisy(call)
    if name not in _RULES:
        raise _not_memory_one(str(call)) if name in _NAMES else _unknown(str(call))
    rule = _RULES[name]
    values = numbers(call, name, given_settings(call, name, rule.settings), rule.settings)
    opening = values.pop("opening", rule.opening)
    table = rule.table(**values)
    said = [
        plain(values[s.name])
        for s in rule.settings
        if s.name in values and values[s.name] != s.usual
    ]
    if opening != rule.opening and opening is not None:
        said.append(f"opening={plain(opening)}")
    return _opponent(f"{name}({', '.join(said)})" if said else name, table, opening)


def _noisy(call: Call) -> Opponent:
    allowed = (Setting("opponent"), Setting("flip"))
    given = given_settings(call, _NOISY, allowed)
    inner = given.pop("opponent", None)
    if not isinstance(inner, Call):
        raise ConfigError(
            "The opponent 'noisy' does not say who is",
            seen=str(call),
            allowed="noisy(OPPONENT, flip), where OPPONENT is memory-one",
            remedy="write it like noisy(tit-for-tat, 0.1)",
        )
    met = _built(inner)
    flip = numbers(call, _NOISY, given, allowed[1:])["flip"]
    cc, cd, dc, dd = (met.p_cooperate_after[pair] for pair in PAIRS)
    opening = met.opening
    if opening is not None:
        opening = (1 - flip) * opening + flip * (1 - opening)
    table = memory_one.trembling((cc, cd, dc, dd), flip)
    return _opponent(f"{_NOISY}({met.name}, {plain(flip)})", table, opening)


def _opponent(name: str, table: memory_one.Four, opening: float | None) -> Opponent:
    return Opponent(name, dict(zip(PAIRS, map(float, table), strict=True)), opening)


def _unknown(expression: str) -> ConfigError:
    name = expression.partition("(")[0].strip()
    return ConfigError(
        "There is no opponent of this name",
        seen=name,
        allowed=", ".join(_NAMES),
        remedy=nearest(_regular(name), _NAMES),
    )


def _not_memory_one(expression: str) -> ConfigError:
    return ConfigError(
        "This opponent is not memory-one: it is no table of four probabilities",
        seen=expression,
        allowed=", ".join((*_RULES, _NOISY)),
        remedy="choose one of these",
    )


OPPONENTS: Mapping[str, Opponent] = MappingProxyType(
    {
        name: get_opponent(name)
        for name, rule in _RULES.items()
        if not any(setting.needed for setting in rule.settings)
    }
)
"""The opponents that need no settings, by name."""


def initial_states(opponent: Opponent) -> NDArray[np.float64]:
    """How likely is each state before the first round?

    The agent's own last move is uniform and independent of the opponent's, which is C with
    probability ``p_cooperated_before``.

    Returns:
        Probabilities of shape [4] in the order CC, CD, DC, DD (own, opponent); they sum to 1.
    """
    p = opponent.p_cooperated_before
    return np.outer([0.5, 0.5], [p, 1 - p]).ravel()
