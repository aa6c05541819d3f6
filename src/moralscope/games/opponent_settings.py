"""Which numbers does an opponent take, and which was it given? Checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moralscope.core.calls import Call
from moralscope.core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Setting:
    """One number that an opponent takes.

    Attributes:
        name: its key, which is also the keyword of the function that makes the table.
        usual: its value where none is given; with None it has to be given, unless ``optional``.
        least, most: its range; a probability unless set.
        optional: it may be left out without there being a usual value.
    """

    name: str
    usual: float | None = None
    least: float = 0.0
    most: float = 1.0
    optional: bool = False

    @property
    def needed(self) -> bool:
        """Whether the opponent cannot be named without it."""
        return self.usual is None and not self.optional


def given_settings(call: Call, name: str, allowed: Sequence[Setting]) -> dict[str, float | Call]:
    """What does a call say for each setting? Of any kind and value, by name.

    Args:
        call: the opponent as written.
        name: the opponent's name in regular writing, for the error.
        allowed: its settings in the order of places.

    Raises:
        ConfigError: there are too many, one is unknown, or one is there twice.
    """
    names = [setting.name for setting in allowed]
    if len(call.arguments) > len(allowed):
        raise ConfigError(
            f"The opponent {name!r} has too many settings",
            seen=f"{len(call.arguments)} in {call}",
            allowed=", ".join(names) or "no settings at all",
            remedy="remove what is too much",
        )
    found: dict[str, float | Call] = dict(zip(names, call.arguments, strict=False))
    for key, value in call.named:
        if key not in names:
            raise ConfigError(
                f"The opponent {name!r} has no such setting",
                seen=f"{key} in {call}",
                allowed=", ".join(names) or "no settings at all",
                remedy=nearest(key, names) if names else f"write {name} alone",
            )
        if key in found:
            raise ConfigError(
                f"The opponent {name!r} is given the same setting twice",
                seen=f"{key} in {call}",
                allowed="each setting once",
                remedy="remove one of the two",
            )
        found[key] = value
    return found


def numbers(
    call: Call, name: str, given: Mapping[str, float | Call], allowed: Sequence[Setting]
) -> dict[str, float]:
    """The settings as numbers in their ranges, the usual ones where none is given.

    Raises:
        ConfigError: one is missing, no number, or out of its range.
    """
    found: dict[str, float] = {}
    for setting in allowed:
        value = given.get(setting.name, setting.usual)
        if value is None and setting.optional:
            continue
        if value is None:
            raise ConfigError(
                f"The opponent {name!r} lacks a setting",
                seen=str(call),
                allowed=f"{name}(...) with {', '.join(s.name for s in allowed if s.needed)}",
                remedy=f"add {setting.name}",
            )
        if isinstance(value, Call) or not setting.least <= value <= setting.most:
            raise ConfigError(
                f"The setting {setting.name!r} of the opponent {name!r} cannot be used",
                seen=f"{setting.name}={value if isinstance(value, Call) else plain(value)}",
                allowed=f"numbers from {setting.least:g} to {setting.most:g}",
                remedy="correct the value",
            )
        found[setting.name] = value + 0.0  # -0 is 0
    return found


def plain(value: float) -> str:
    """A number as short as it can be written without becoming another."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
