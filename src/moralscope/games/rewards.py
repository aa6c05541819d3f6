"""What is an agent trained for? Strategic and moral rewards of one round, named by expressions.

A reward maps a ``Round`` to points. An expression is a weighted sum of terms,

    r(round) = sum_k c_k term_k(round),

written as ``game``, ``deontological(norm=any)`` or ``0.5*game + 0.5*utilitarian - 0.1*spite``:
terms are divided by `` + `` and `` - `` (the spaces are needed, since names have hyphens), each
with or without a number and ``*`` before it. Built-in terms, with their equations, ranges and
sources, are in ``reward_terms``; installed packages bring others (``reward_entries``).

``game then deontological`` is no reward but two, one for each phase of a training.

An answer that is no move at all earns ``ILLEGAL_PENALTY`` under every reward, instead of the
value; whoever scores answers applies it, since rewards only see moves. Source of both penalties:
the training runs of Tennant, Hailes and Musolesi, arXiv 2410.01639.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moralscope.core.calls import Call, parse_call, split_outside
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.matrices import MOVES, PAIRS, Game
from moralscope.games.opponents import Opponent
from moralscope.games.reward_entries import check_entry, entry_names, load_entry
from moralscope.games.reward_terms import BETRAYAL_PENALTY, TERMS, Setting
from moralscope.games.rounds import Round, pair_round

__all__ = [
    "BETRAYAL_PENALTY",
    "ILLEGAL_PENALTY",
    "REWARDS",
    "Reward",
    "expected_rewards",
    "get_reward",
    "reward_phases",
]

ILLEGAL_PENALTY = -6.0
"""Points for an answer that is neither of the two moves, under every reward."""

RewardFunction = Callable[[Round], float]


@dataclass(frozen=True)
class Reward:
    """A named reward.

    Attributes:
        name: how tables call it; ``get_reward(name)`` is the same reward.
        value: points of one round.
    """

    name: str
    value: RewardFunction


@dataclass(frozen=True, slots=True)
class _Part:
    """One term of a sum, as written and as a function."""

    coefficient: float
    text: str
    value: Callable[[Round], object]


def get_reward(expression: str) -> Reward:
    """The reward that an expression stands for.

    Args:
        expression: a built-in name, the name of an entry point, either with settings, or a
            weighted sum of these. Built-in names win over entry points.

    Returns:
        The reward. Its name is the expression with regular spaces and numbers, its value refuses
        to return what is not a finite number.

    Raises:
        ConfigError: the sum lacks a term, a coefficient is not a finite number, a name or a
            setting is unknown, a setting is out of its range, an entry point is broken, or the
            expression has several phases.
    """
    if len(_phases(expression)) > 1:
        raise ConfigError(
            "Several phases of training are not one reward",
            seen=expression,
            allowed="a sum of terms without 'then'",
            remedy="give it to a training's reward key, or ask for one of its phases",
        )
    return _summed([_part(sign, term) for sign, term in _signed_terms(expression)])


def reward_phases(expression: str) -> tuple[str, ...]:
    """What is trained on, one after the other?

    >>> reward_phases("game then 0.5*game + deontological( norm = any )")
    ('game', '0.5*game + deontological(norm=any)')

    Returns:
        The name of each phase's reward; one for a reward without phases.

    Raises:
        ConfigError: a phase is not a reward.
    """
    return tuple(get_reward(phase).name for phase in _phases(expression))


def _phases(expression: str) -> list[str]:
    return [phase.strip() for phase in split_outside(_spaced(expression), " then ")]


def _spaced(expression: str) -> str:
    """Every space doubled, so that each divider has its own, at line breaks and ends too."""
    return f" {'  '.join(expression.split())} "


def _signed_terms(expression: str) -> list[tuple[float, str]]:
    found: list[tuple[float, str]] = []
    for added in split_outside(_spaced(expression), " + "):
        first, *subtracted = split_outside(added, " - ")
        found.append((1.0, first.strip()))
        found.extend((-1.0, term.strip()) for term in subtracted)
    if not all(term for _, term in found):
        raise ConfigError(
            "A reward lacks a term",
            seen=repr(" ".join(expression.split())),
            allowed="one or more terms, such as game - 0.5*spite",
            remedy="add the term, or write -1* before a first term to subtract it",
        )
    return found


def _part(sign: float, term: str) -> _Part:
    *before, text = split_outside(term, "*")
    coefficient = 1.0
    if before:
        try:
            coefficient = float("*".join(before))
        except ValueError:
            coefficient = math.nan
    if not math.isfinite(coefficient):
        raise ConfigError(
            "The coefficient of a reward's term is not a number",
            seen=repr(term),
            allowed="one finite number, * and the term, such as 0.5*game",
            remedy="correct what stands before *, with spaces around + and -",
        )
    call = parse_call(text)
    return _Part(sign * coefficient, str(call), _term(call))


def _term(call: Call) -> Callable[[Round], object]:
    term = TERMS.get(call.name)
    if term is None:
        return _entry(call)
    return partial(term.value, **_settings(call, term.settings))


def _entry(call: Call) -> Callable[[Round], object]:
    known = (*TERMS, *(name for name in entry_names() if name not in TERMS))
    if call.name not in known:
        raise ConfigError(
            "There is no reward of this name",
            seen=call.name,
            allowed=", ".join(known) + ", and sums of them",
            remedy="put spaces around +" if "+" in call.name else nearest(call.name, known),
        )
    loaded = load_entry(call.name)
    function = loaded.value if isinstance(loaded, Reward) else check_entry(call.name, loaded)
    _settings(call, ())
    return function


def _settings(call: Call, allowed: Sequence[Setting]) -> dict[str, float | str]:
    """The settings of a call by name, each of its kind and in its range."""
    if len(call.arguments) > len(allowed):
        raise _no_setting(call, call.arguments[len(allowed)], allowed)
    given = [*zip((s.name for s in allowed), call.arguments, strict=False), *call.named]
    known = {setting.name: setting for setting in allowed}
    found: dict[str, float | str] = {}
    for name, value in given:
        if name not in known:
            raise _no_setting(call, name, allowed)
        if name in found:
            raise ConfigError(
                f"The reward {call.name!r} is given the same setting twice",
                seen=f"{name} in {call}",
                allowed="each setting once",
                remedy="remove one of the two",
            )
        found[name] = _setting(call, known[name], value)
    return found


def _no_setting(call: Call, seen: object, allowed: Sequence[Setting]) -> ConfigError:
    names = [setting.name for setting in allowed]
    return ConfigError(
        f"The reward {call.name!r} has no such setting",
        seen=f"{seen} in {call}",
        allowed=", ".join(names) or "no settings at all",
        remedy=nearest(str(seen), names) if names else f"write {call.name} alone",
    )


def _setting(call: Call, setting: Setting, value: float | Call) -> float | str:
    if setting.choices:
        good, allowed = str(value) in setting.choices, ", ".join(setting.choices)
        remedy = nearest(str(value), setting.choices)
    else:
        least = setting.minimum
        good = isinstance(value, float) and (least is None or value >= least)
        allowed = "a finite number" + ("" if least is None else f", {least:g} or more")
        remedy = "correct the value"
    if not good:
        raise ConfigError(
            f"The setting {setting.name!r} of the reward {call.name!r} cannot be used",
            seen=f"{setting.name}={value}",
            allowed=allowed,
            remedy=remedy,
        )
    return value if isinstance(value, float) else str(value)


def _summed(parts: Sequence[_Part]) -> Reward:
    name = ""
    for part in parts:
        sign, size = "", part.coefficient
        if name:
            sign, size = (" - " if size < 0 else " + "), abs(size)
        name += sign + ("" if size == 1 else f"{size:.12g}*") + part.text
    return Reward(name, partial(_value, name, tuple(parts)))


def _value(name: str, parts: Sequence[_Part], seen: Round) -> float:
    total = 0.0
    for part in parts:
        worth = part.value(seen)
        total += part.coefficient * float(worth) if isinstance(worth, Real) else math.nan
    if not math.isfinite(total):
        raise ConfigError(
            f"The reward {name!r} is not a finite number in some round",
            seen=", ".join(f"{part.text} gives {part.value(seen)!r}" for part in parts),
            allowed="finite numbers",
            remedy="correct the reward, or the points of the game",
        )
    return total


REWARDS: Mapping[str, Reward] = MappingProxyType({name: get_reward(name) for name in TERMS})
"""The built-in rewards by name, with default settings."""


def expected_rewards(reward: Reward, game: Game, opponent: Opponent) -> NDArray[np.float64]:
    """What does each move earn in each state, on average over the opponent's move?

    ``r(s, a) = q(s) value(a, C) + (1 - q(s)) value(a, D)``, where ``q(s)`` is the probability
    that the opponent cooperates after state s. The expectation is exact: moves are simultaneous,
    so the opponent's move depends on the state alone.

    Returns:
        Points of shape [4, 2]: states CC, CD, DC, DD (own previous, opponent's previous) by own
        move C, D.
    """
    table = np.empty((len(PAIRS), len(MOVES)))
    for row, state in enumerate(PAIRS):
        q = opponent.p_cooperate_after[state]
        for column, own in enumerate(MOVES):
            against_c, against_d = (
                reward.value(pair_round(game, (own, other), state)) for other in MOVES
            )
            table[row, column] = q * against_c + (1 - q) * against_d
    return table
