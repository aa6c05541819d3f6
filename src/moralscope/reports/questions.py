"""What was the study asked, and what does it answer? The table ``questions``, for readers.

Answers are taken as the table gives them; each stands beside the claims that it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moralscope.reports.findings import OTHER, VERDICTS, Finding, VerdictGroup, VerdictWords
from moralscope.reports.run import Run


@dataclass(frozen=True)
class Answered:
    """A research question.

    Attributes:
        question: its short name, such as RQ1.
        text, answer: both in plain words.
        words: how its verdict is spoken of.
        verdict, confidence: as in the table.
        evidence: the claims that it rests on.
        unknown: ids of claims that it names and that are not in this run.
        missing: what would be needed to answer it, or to answer it better; may be empty.
    """

    question: str
    text: str
    answer: str
    words: VerdictWords
    verdict: str
    confidence: str
    evidence: tuple[Finding, ...]
    unknown: tuple[str, ...]
    missing: str


def answered(run: Run, groups: Sequence[VerdictGroup]) -> tuple[Answered, ...]:
    """The research questions of a run, in the order of their table; none without it."""
    table = run.tables.get("questions")
    if table is None:
        return ()
    claims = {finding.id: finding for group in groups for finding in group.findings}
    words = {known.verdict: known for known in VERDICTS}
    found: list[Answered] = []
    for row in table.iter_rows(named=True):
        named = str(row["evidence"] or "").split()
        found.append(
            Answered(
                question=row["question"],
                text=row["text"],
                answer=row["answer"],
                words=words.get(row["verdict"], OTHER),
                verdict=row["verdict"],
                confidence=str(row["confidence"] or ""),
                evidence=tuple(claims[name] for name in named if name in claims),
                unknown=tuple(name for name in named if name not in claims),
                missing=str(row["missing"] or ""),
            )
        )
    return tuple(found)
