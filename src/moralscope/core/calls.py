"""What does a name with settings mean? ``noisy(tit-for-tat, 0.1)`` read as a call.

Rewards, opponents and games are named in study files by short expressions. A call is a name,
followed or not by arguments in parentheses, divided by commas; an argument is a number, a call, or
either with ``key=`` before it. A name is any text without ``( ) , =``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moralscope.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Call:
    """A name with settings.

    Attributes:
        name: what is called.
        arguments: settings by place.
        named: settings by name, in the order written.
    """

    name: str
    arguments: tuple[float | Call, ...] = ()
    named: tuple[tuple[str, float | Call], ...] = ()

    def __str__(self) -> str:
        said = [_text(value) for value in self.arguments]
        said += [f"{key}={_text(value)}" for key, value in self.named]
        return f"{self.name}({', '.join(said)})" if said else self.name


def _text(value: float | Call) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def parse_call(text: str) -> Call:
    """Read one call.

    >>> parse_call("noisy(tit-for-tat, flip=0.1)")
    Call(name='noisy', arguments=(Call(name='tit-for-tat', arguments=(), named=()),), \
named=(('flip', 0.1),))

    Raises:
        ConfigError: parentheses do not match, a name is missing, or something follows the call.
    """
    name, bracket, rest = text.strip().partition("(")
    name = name.strip()
    if not name or any(sign in name for sign in "),="):
        raise _unreadable(text)
    if not bracket:
        return Call(name)
    if not rest.endswith(")"):
        raise _unreadable(text)
    arguments: list[float | Call] = []
    named: list[tuple[str, float | Call]] = []
    inside = rest[:-1]
    for part in split_outside(inside, ",") if inside.strip() else []:
        key, equals, value = part.partition("=")
        if equals and "(" not in key:
            named.append((key.strip(), _argument(value, text)))
        elif named:
            raise _unreadable(text)
        else:
            arguments.append(_argument(part, text))
    return Call(name, tuple(arguments), tuple(named))


def _argument(part: str, whole: str) -> float | Call:
    if not part.strip():
        raise _unreadable(whole)
    try:
        number = float(part)
    except ValueError:
        return parse_call(part)
    return number if math.isfinite(number) else parse_call(part)


def split_outside(text: str, divider: str) -> list[str]:
    """The parts of a text between dividers that stand outside all parentheses.

    Raises:
        ConfigError: parentheses do not match.
    """
    parts: list[str] = []
    depth = start = 0
    for at, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            raise _unreadable(text)
        if depth == 0 and text.startswith(divider, at) and at >= start:
            parts.append(text[start:at])
            start = at + len(divider)
    if depth:
        raise _unreadable(text)
    return [*parts, text[start:]]


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        "This is not a name with settings",
        seen=repr(text),
        allowed="name, or name(value, key=value), parentheses matched",
        remedy="write it like noisy(tit-for-tat, 0.1)",
    )
