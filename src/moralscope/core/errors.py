"""What went wrong, and what to do about it: one exception base for the whole package.

Every error that a user can cause says four things: what was wrong, the value seen, what is
allowed, and what to do next. They are separate fields, so that the command line can lay them
out and tests can match them; ``str(error)`` joins them into one readable line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MoralscopeError(Exception):
    """Base of every error raised on purpose.

    Args:
        problem: what was wrong, as a sentence without its full stop.
        seen: the offending value.
        allowed: what would have been accepted.
        remedy: what the reader should do next.
    """

    def __init__(self, problem: str, *, seen: object, allowed: str, remedy: str) -> None:
        self.problem = problem
        self.seen = seen
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(f"{problem}. Seen: {seen}. Allowed: {allowed}. Next: {remedy}.")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only fields need their own recipe to cross a process boundary.
        fields = {"seen": self.seen, "allowed": self.allowed, "remedy": self.remedy}
        return (_rebuild, (type(self), self.problem, fields))


def _rebuild(
    kind: type[MoralscopeError], problem: str, fields: dict[str, object]
) -> MoralscopeError:
    return kind(
        problem,
        seen=fields["seen"],
        allowed=str(fields["allowed"]),
        remedy=str(fields["remedy"]),
    )


class ConfigError(MoralscopeError, ValueError):
    """A study, agent or audit file says something that it cannot mean."""


class PromptError(MoralscopeError, ValueError):
    """A prompt or its options cannot be scored as asked."""


class SiteError(MoralscopeError, ValueError):
    """A site name does not parse or does not exist in the model."""


class ModelError(MoralscopeError):
    """A model cannot be found, trusted or understood."""


class AgentError(MoralscopeError):
    """An adapter or checkpoint is not what it claims to be."""


class TableError(MoralscopeError, ValueError):
    """A table does not follow its schema."""


class EvidenceError(MoralscopeError, ValueError):
    """The evidence does not carry what was asked of it."""


class OutputError(MoralscopeError, OSError):
    """A result cannot be written."""


class ResourceError(MoralscopeError, MemoryError):
    """The work does not fit into the memory that it may use."""


class DependencyError(MoralscopeError, ImportError):
    """An optional dependency is needed and not installed."""


_LISTED = 24
"""How many right names a remedy lists."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The remedy for a misspelt name: the nearest right one, or the whole list.

    >>> nearest("agnets", ["agents", "prompts"])
    "did you mean 'agents'"
    """
    known = sorted(choices)
    folded = {each.casefold(): each for each in reversed(known)}
    written = name.casefold()
    close = difflib.get_close_matches(written, folded, n=3, cutoff=0.5)
    if not close:
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        return f"use one of {', '.join(known[:_LISTED])}{more}"
    # Two letters that changed places are likelier than another letter.
    best = next((each for each in close if sorted(each) == sorted(written)), close[0])
    return f"did you mean {folded[best]!r}"
