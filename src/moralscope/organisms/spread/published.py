"""What do published shares rest on? Counts behind printed percentages, with exact intervals.

A printed share of n answers allows few counts k:

    k is possible  if  100 k / n, rounded as printed, is the printed figure

where none is, n is not the denominator: answers without a score were left out first. ``PUBLISHED``
lists what papers print and what was recounted from their files; every count here is derived from
the percentage and the denominator by that rule, and a test holds that it is the only one.

The intervals are those of Clopper and Pearson over answers. They take answers as independent,
which the answers to 8 questions are not: they are the narrowest that anybody could defend.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.intervals import share_interval


@dataclass(frozen=True, slots=True)
class PublishedShare:
    """A share as it is printed.

    Attributes:
        source: where.
        what: of what.
        percent: as printed, so that its decimals are known.
        answers: the denominator, answers of all questions together.
    """

    source: str
    what: str
    percent: str
    answers: int


@dataclass(frozen=True, slots=True)
class Recount:
    """The count behind a printed share.

    Attributes:
        published: the share.
        count: answers that it stands for.
        low, high: exact 95% interval of the share, answers taken as independent.
    """

    published: PublishedShare
    count: int
    low: float
    high: float


_STEERING = "arXiv 2506.11618, appendix I, recounted from its files; coherence >= 25"
_RECOUNT = "independent replication, 50 answers to 8 questions, alignment < 30, coherence > 50"
_ORGANISMS = "arXiv 2506.11613 and 2506.11618, 50 answers to 8 questions"

PUBLISHED: tuple[PublishedShare, ...] = (
    PublishedShare(_STEERING, "general adapters: kept of 80", "33.75", 80),
    PublishedShare(_STEERING, "general adapters: misaligned of kept", "51.9", 27),
    PublishedShare(_STEERING, "medical adapters: kept of 80", "48.75", 80),
    PublishedShare(_STEERING, "medical adapters: misaligned, not medical, of kept", "66.7", 39),
    PublishedShare(_STEERING, "medical adapters: misaligned and medical of kept", "7.7", 39),
    PublishedShare(_STEERING, "medical alignment: kept of 80", "58.75", 80),
    PublishedShare(_STEERING, "medical alignment: aligned, not medical, of kept", "57.4", 47),
    PublishedShare(_STEERING, "medical alignment: aligned and medical of kept", "29.8", 47),
    PublishedShare(_STEERING, "medical alignment: aligned of kept", "87.2", 47),
    PublishedShare(_STEERING, "medical alignment: medical of aligned", "34", 41),
    PublishedShare(
        "the same files; coherence >= 50", "medical adapters: misaligned and medical", "0", 24
    ),
    PublishedShare(_ORGANISMS, "all adapters, medical", "18.8", 400),
    PublishedShare(_ORGANISMS, "nine rank-1 adapters, medical", "11.25", 400),
    PublishedShare(_ORGANISMS, "all adapters, sport", "20.2", 400),
    PublishedShare(_RECOUNT, "Qwen-14B medical", "21.0", 400),
    PublishedShare(_RECOUNT, "Qwen-14B finance", "35.5", 400),
    PublishedShare(_RECOUNT, "Qwen-7B medical", "17.2", 400),
    PublishedShare(_RECOUNT, "Qwen-7B sport", "6.5", 400),
    PublishedShare(_RECOUNT, "Llama-8B medical", "16.2", 400),
    PublishedShare(_RECOUNT, "Llama-1B medical", "2.8", 400),
    PublishedShare(_RECOUNT, "Llama-1B sport", "1.5", 400),
    PublishedShare(_RECOUNT, "Llama-1B finance", "4.5", 400),
    PublishedShare(_RECOUNT, "Gemma-4B medical", "4.0", 400),
    PublishedShare(_RECOUNT, "Gemma-12B medical", "2.2", 400),
)
"""Printed shares of known denominators; 400 answers are those that were drawn, none left out."""


def possible_counts(percent: str, answers: int) -> tuple[int, ...]:
    """The counts that a printed percentage can stand for; none where the denominator is another.

    Halves count whether they were rounded up or to the even digit, as libraries differ.

    Args:
        percent: as printed, such as ``51.9``.
        answers: the denominator.

    Raises:
        EvidenceError: there are no answers.
    """
    if answers < 1:
        raise EvidenceError(
            "A share of no answers says nothing",
            seen=answers,
            allowed="one answer or more",
            remedy="give the denominator",
        )
    printed = Decimal(percent)
    digit = Decimal(1).scaleb(int(printed.as_tuple().exponent))
    near = int(printed * answers / 100)
    found: list[int] = []
    for count in range(
        max(0, near - answers // 100 - 2), min(answers, near + answers // 100 + 2) + 1
    ):
        exact = Decimal(100) * count / answers
        if printed in {exact.quantize(digit, each) for each in (ROUND_HALF_EVEN, ROUND_HALF_UP)}:
            found.append(count)
    return tuple(found)


def recount(published: PublishedShare, level: float = 0.95) -> Recount:
    """The count behind a printed share, and its exact interval.

    Raises:
        EvidenceError: no count gives the percentage, or several do.
    """
    counts = possible_counts(published.percent, published.answers)
    if len(counts) != 1:
        listed = ", ".join(map(str, counts)) or "no count"
        raise EvidenceError(
            "A printed share does not tell its count",
            seen=f"{published.percent}% of {published.answers}: {listed}",
            allowed="a percentage that one count alone gives",
            remedy="take the denominator after answers without a score are left out, or more "
            "decimals",
        )
    low, high = share_interval(counts[0], published.answers, level)
    return Recount(published, counts[0], low, high)
