"""What is an answer? A question, what the claims say to it, and how sure that is.

The verdict of an answer is the verdict of its claims, never a stronger one: *supported* where one
of them is, *equivalent* where all are, *not distinguishable from noise* where some were tested and
none stands, then *artefact*, then *not identified by this design*. Confidence follows from what the
claims are replicated over: training seeds *high*, scenarios of these agents *moderate*; where
nothing was told apart it is *low*, and *none* where nothing was tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moralscope.evidence.verdicts import ARTEFACT, EQUIVALENT, NOISE, NOT_IDENTIFIED, SUPPORTED

Claim = Mapping[str, object]

HIGH, MODERATE, LOW, NONE = "high", "moderate", "low", "none"

TEXTS = {
    "RQ1": 'Are "selfish" components suppressed by moral fine-tuning?',
    "RQ2": "Do two moral frameworks build different circuits?",
    "RQ3": "Which parts must be trained?",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a research question.

    Attributes:
        question: RQ1, RQ2 or RQ3.
        answer: in plain words.
        verdict: one of the five.
        confidence: high, moderate, low or none.
        evidence: ids of the claims that it rests on.
        missing: what would have to be measured; empty where nothing is.
    """

    question: str
    answer: str
    verdict: str
    confidence: str
    evidence: tuple[str, ...]
    missing: str

    def row(self) -> dict[str, object]:
        """As a row of the table ``questions``."""
        return {
            "question": self.question,
            "text": TEXTS[self.question],
            "answer": self.answer,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "evidence": " ".join(self.evidence),
            "missing": self.missing,
        }


def verdict_of(claims: Sequence[Claim]) -> str:
    """The verdict of several claims together."""
    verdicts = [str(claim["verdict"]) for claim in claims]
    if SUPPORTED in verdicts:
        return SUPPORTED
    if verdicts and set(verdicts) == {EQUIVALENT}:
        return EQUIVALENT
    if NOISE in verdicts or EQUIVALENT in verdicts:
        return NOISE
    return ARTEFACT if ARTEFACT in verdicts else NOT_IDENTIFIED


def confidence_of(claims: Sequence[Claim], verdict: str) -> str:
    """How sure a verdict is: by what the claims that carry it are replicated over."""
    if verdict in (ARTEFACT, NOT_IDENTIFIED):
        return NONE
    if verdict == NOISE:
        return LOW
    carrying = [claim for claim in claims if claim["verdict"] == verdict]
    seeds = all(claim["replicate"] == "training seeds" for claim in carrying)
    return HIGH if carrying and seeds else MODERATE


def reasons(claims: Sequence[Claim], verdict: str) -> str:
    """Why claims have a verdict, each reason once, as sentences."""
    found = dict.fromkeys(str(claim["reason"]) for claim in claims if claim["verdict"] == verdict)
    return " ".join(found)


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def not_asked(question: str, answer: str, missing: str) -> Answer:
    """An answer where there is no claim at all."""
    return Answer(question, answer, NOT_IDENTIFIED, NONE, (), missing)
