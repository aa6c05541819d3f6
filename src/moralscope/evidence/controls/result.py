"""What is said of one control? A row of the table ``control_results``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from moralscope.evidence.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Result:
    """A control on a subject.

    Attributes:
        control: its name, such as ``shuffled``.
        subject: what it stands beside.
        kind: ``negative``: nothing may be found; ``positive``: it must be found.
        measured: what was found; None where the control is not available.
        interval: 95%, of what was found.
        expected: what it is compared with.
        unit: of the three.
        n: draws or prompts that it rests on.
        passed: None where it is not available.
        sentence: what was done, what came out, what it means.
    """

    control: str
    subject: str
    kind: Literal["negative", "positive"]
    measured: float | None
    interval: Interval | None
    expected: float | None
    unit: str
    n: int
    passed: bool | None
    sentence: str

    def row(self) -> dict[str, object]:
        """As a row of ``control_results``."""
        values = asdict(self)
        low, high = values.pop("interval") or (None, None)
        return {**values, "low": low, "high": high}


def absent(
    control: str, subject: str, kind: Literal["negative", "positive"], unit: str, reason: str
) -> Result:
    """A control that is not available, and what would make it so."""
    said = f"Not available: {reason}"
    return Result(control, subject, kind, None, None, None, unit, 0, None, said)
