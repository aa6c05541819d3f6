"""What was verified, and how did it come out? One check, and all of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FILES: Final = "files"
WHOLE: Final = "completeness"
NUMBERS: Final = "numbers"
CLAIMS: Final = "claims"
PARTS: Final = (FILES, WHOLE, NUMBERS, CLAIMS)
"""What is verified, in this order."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified.

    Attributes:
        part: one of ``PARTS``.
        subject: the file, inside the run, that it is about.
        what: what must hold, as a phrase.
        passed: whether it does; None where it could not be verified or does not apply.
        found: what was found where it does not hold, or why it could not be verified.
    """

    part: str
    subject: str
    what: str
    passed: bool | None
    found: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """How a run was verified.

    Attributes:
        run: the run folder, as it was given.
        seal: of its manifest; None where it has none.
        checks: everything that was looked at.
    """

    run: str
    seal: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not any(check.passed is False for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def open(self) -> tuple[Check, ...]:
        """What could not be verified."""
        return tuple(check for check in self.checks if check.passed is None)


def table_file(name: str) -> str:
    """Where in a run a table lies."""
    return f"tables/{name}.parquet"


def holds(part: str, subject: str, what: str, passed: bool | None, found: str) -> Iterator[Check]:
    """One check, its finding left out where it holds."""
    yield Check(part, subject, what, passed, "" if passed else found)
