"""Which rewards do installed packages bring? Entry points of the group ``moralscope.rewards``.

A package offers a reward by one line of its metadata; the object behind it is a function of one
``Round``, or a ``Reward``:

    [project.entry-points."moralscope.rewards"]
    envy = "my_package:envy"

Names are read from metadata alone; a package is imported only when its reward is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from moralscope.core.errors import ConfigError

GROUP = "moralscope.rewards"

_UNLOADABLE = (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError)
"""What a module that cannot be imported, or that lacks the object, raises."""


def entry_names() -> tuple[str, ...]:
    """The rewards that installed packages offer, sorted."""
    return tuple(sorted(entry_points(group=GROUP).names))


def load_entry(name: str) -> object:
    """The object behind an entry point, imported now.

    Raises:
        ConfigError: two packages offer different rewards of this name, or it cannot be imported.
    """
    found = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if len(found) > 1:
        raise ConfigError(
            f"Several packages offer a reward {name!r}",
            seen=", ".join(sorted(_origin(entry) for entry in found.values())),
            allowed="one package for each name",
            remedy="uninstall all but one of them",
        )
    entry = next(iter(found.values()))
    try:
        return cast("object", entry.load())
    except _UNLOADABLE as error:
        raise ConfigError(
            f"The reward {name!r} of an installed package cannot be loaded",
            seen=f"{_origin(entry)}: {type(error).__name__}: {error}",
            allowed="an entry point that can be imported",
            remedy="correct or reinstall the package that offers it",
        ) from error


def check_entry(name: str, loaded: object) -> Callable[..., object]:
    """The function of one round that was loaded.

    Raises:
        ConfigError: it is not a function, or it cannot be called with one round alone.
    """
    if callable(loaded) and not inspect.isclass(loaded):
        try:
            inspect.signature(loaded).bind("round")
        except (TypeError, ValueError) as error:  # ValueError: no signature to read
            seen = str(error)
        else:
            return loaded
    else:
        seen = repr(loaded)
    raise ConfigError(
        f"The reward {name!r} of an installed package is not a function of one round",
        seen=seen,
        allowed="a function (Round) -> float, or a Reward",
        remedy="correct the package that offers it",
    )


def _origin(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist is not None else "unknown package"
    return f"{package} ({entry.value})"
