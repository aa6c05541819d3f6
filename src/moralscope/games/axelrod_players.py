"""How does a strategy of the Axelrod library play against the agent? One object, step by step.

Axelrod (https://axelrod.readthedocs.io, Knight et al., JORS 4 (2016), e35) has over 240 strategies
of the iterated prisoner's dilemma, with memories of any length. ``axelrod(Tit For 2 Tats)`` names
one by its name or its class, whatever its case and punctuation. It plays with its own default
settings, does not know when the game ends, and is told the points of the package's prisoner's
dilemma, T = 4, R = 3, P = 1, S = 0, whatever the game is. A few, such as GTFT, read the library's
own (5, 3, 1, 0) when they are made and keep to them.

A strategy opens as it does when nothing was played. That is its move before the first round, next
to the agent's uniform one, and the two begin the history that it remembers.

The library is optional and slow to import (it brings torch, pandas and matplotlib), so it is
imported when the first of its strategies is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, DependencyError

AXELROD = "axelrod"
"""How the expression of a strategy of the library begins."""


def strategy_name(expression: str) -> str:
    """What is asked for in ``axelrod(NAME)``? The name as written, which may hold any sign.

    Raises:
        ConfigError: there is no name, or its parentheses are not closed.
    """
    _, bracket, rest = expression.strip().partition("(")
    name = rest[:-1].strip()
    if not bracket or not rest.endswith(")") or not name:
        raise ConfigError(
            "A strategy of the Axelrod library is not named",
            seen=repr(expression),
            allowed="axelrod(NAME) with the name of one strategy",
            remedy="write it like axelrod(Tit For 2 Tats)",
        )
    return name


def full_name(name: str) -> str:
    """What does the library call this strategy? Imports the library.

    Raises:
        ConfigError: it has no such strategy.
        DependencyError: it is not installed.
    """
    return str(_strategy(name).name)


def memory_depth(name: str) -> float:
    """How many of the last rounds does this strategy look at? Infinity for the whole game.

    Raises:
        ConfigError: the library has no such strategy.
        DependencyError: it is not installed.
    """
    return float(_strategy(name)().classifier["memory_depth"])


def is_stochastic(name: str) -> bool:
    """Whether this strategy draws any of its moves.

    Raises:
        ConfigError: the library has no such strategy.
        DependencyError: it is not installed.
    """
    return bool(_strategy(name)().classifier["stochastic"])


class AxelrodPlayer:
    """A strategy of the Axelrod library in one game against the agent.

    Args:
        name: of the strategy or of its class.
        rng: gives the strategy its seed, one draw.

    Attributes:
        previous: its opening move, which it played before the first round.

    Raises:
        ConfigError: there is no such strategy.
        DependencyError: the library is not installed.
    """

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        strategy = _strategy(name)
        axelrod = library()
        self._strategy: Any = strategy()
        points = axelrod.Game(r=3, s=0, t=4, p=1)
        # Length -1 is the library's word for a game whose end nobody knows.
        self._strategy.set_match_attributes(length=-1, game=points, noise=0)
        self._strategy.set_seed(int(rng.integers(2**32)))
        # Strategies look at the other player's history: a stand-in keeps the agent's moves.
        self._agent: Any = axelrod.MockPlayer()
        self._last: Any = self._strategy.strategy(self._agent)
        self.previous: Move = _move(self._last)

    def move(self, agent_previous: Move, own_previous: Move | None = None) -> Move:
        """Its move of this round, given what the agent played in the round before.

        Args:
            agent_previous: an agent that played nothing legal is taken to have repeated its last
                legal move.
            own_previous: what its own move became where noise may have turned it; None for the
                move that it made.
        """
        theirs = getattr(library().Action, agent_previous)
        if own_previous is not None:
            self._last = getattr(library().Action, own_previous)
        self._strategy.update_history(self._last, theirs)
        self._agent.update_history(theirs, self._last)
        self._last = self._strategy.strategy(self._agent)
        return _move(self._last)


def _move(action: Any) -> Move:
    return "C" if action.name == "C" else "D"


def library() -> Any:
    """The library itself, imported when it is first asked for.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module("axelrod")
    except ModuleNotFoundError as cause:
        raise DependencyError(
            "The Axelrod library is not installed",
            seen=f"no module named {cause.name!r}",
            allowed="axelrod, for the opponents that it names",
            remedy='run: pip install "moralscope[axelrod]"',
        ) from cause


def _strategy(name: str) -> Any:
    known = _strategies()
    found = known.get(_key(name))
    if found is not None:
        return found
    close = difflib.get_close_matches(_key(name), known, n=1, cutoff=0.5)
    raise ConfigError(
        "The Axelrod library has no strategy of this name",
        seen=name,
        allowed="the name of one of its strategies or of their classes",
        remedy=f"did you mean {known[close[0]].name!r}"
        if close
        else "choose one from https://axelrod.readthedocs.io",
    )


@cache
def _strategies() -> Mapping[str, Any]:
    # All that keep the rules: none that reads or changes the other player's program.
    classes = library().strategies
    by_class = {_key(each.__name__): each for each in classes}
    return by_class | {_key(each.name): each for each in classes}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
