"""How are generated texts put together? A passage, and counted things."""

from __future__ import annotations

from dataclasses import dataclass

from moralscope.reports.references import Reference, pieces


@dataclass(frozen=True)
class Passage:
    """A few sentences under a heading; ``text`` cites works as ``[@key]``."""

    heading: str
    text: str

    @property
    def pieces(self) -> tuple[tuple[str, tuple[Reference, ...]], ...]:
        """Its words, cut at the citations."""
        return pieces(self.text)


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 seed``, ``2,000 seeds``."""
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"
