"""What differs between two runs? The parts of the answer, and whether there is any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moralscope.core.comparing import TableDifference

APPEARED: Final = "appeared"
VANISHED: Final = "vanished"
VERDICT: Final = "verdict"
NUMBERS: Final = "numbers"
WORDS: Final = "words"
KINDS: Final = (APPEARED, VANISHED, VERDICT, NUMBERS, WORDS)
"""How a claim can differ, the most important first; a claim is listed under the first that fits."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Something that has a name and is said differently; None where a run does not have it."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class ClaimChanged:
    """A claim that is not the same in both runs.

    Attributes:
        id: of the claim.
        kind: one of ``KINDS``.
        statement: in the second run, or where it has none, in the first.
        verdict_first, verdict_second: None where a run does not make the claim.
        estimate_first, estimate_second: in ``unit``.
        unit: of the estimates.
        shift: second estimate minus first; None where one is missing.
        half_widths: size of the shift in halves of the first interval (of the second where the
            first has none, or none with a width); None without either.
        columns: what of the claim differs.
    """

    id: str
    kind: str
    statement: str
    verdict_first: str | None
    verdict_second: str | None
    estimate_first: float | None
    estimate_second: float | None
    unit: str
    shift: float | None
    half_widths: float | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs, compared.

    Attributes:
        first, second: their folders.
        settings: keys of the study file.
        circumstances: versions, machine and model: they may explain a difference, and are none.
        stages: those that one run has and the other has not, or not from the same inputs; their
            keys. They are none either.
        claims: claims that differ.
        claims_equal: how many do not.
        tables: tables in both that differ.
        tables_equal: names of those that do not.
        only_first, only_second: tables that the other run does not have.
    """

    first: str
    second: str
    settings: Sequence[Changed]
    circumstances: Sequence[Changed]
    stages: Sequence[Changed]
    claims: Sequence[ClaimChanged]
    claims_equal: int
    tables: Sequence[TableDifference]
    tables_equal: Sequence[str]
    only_first: Sequence[str]
    only_second: Sequence[str]

    @property
    def equal(self) -> bool:
        """Whether settings, claims and tables are the same."""
        parts = (self.settings, self.claims, self.tables, self.only_first, self.only_second)
        return not any(parts)

    def claims_of(self, kind: str) -> list[ClaimChanged]:
        """The claims that differ in one way."""
        return [claim for claim in self.claims if claim.kind == kind]
