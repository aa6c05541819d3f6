"""What is a gate? What was measured, what it was compared with, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gate:
    """One row of the gates table.

    Attributes:
        gate: its name.
        subject: agent, table or sweep that was checked.
        measured: the figure, in the unit that the advice names; None where there is none.
        threshold: what it was compared with; None where nothing is compared.
        passed: None means not available, which is never the same as passed.
        advice: what was found, and what to do.
    """

    gate: str
    subject: str
    measured: float | None
    threshold: float | None
    passed: bool | None
    advice: str

    def row(self) -> dict[str, object]:
        """As a mapping of column to value."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def not_available(gate: str, subject: str, threshold: float | None, reason: str) -> Gate:
    """A gate that could not be judged, and what it would need."""
    return Gate(gate, subject, None, threshold, None, f"Not available: {reason}")
