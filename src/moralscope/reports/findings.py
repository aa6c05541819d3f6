"""What can be said, and what cannot? Claims grouped by verdict, in plain words.

Verdicts are taken as the table ``claims`` gives them; nothing is judged again here. Each claim
gets a small picture of its estimate and interval on a scale shared by claims of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.reports.numbers import p_value, plain


@dataclass(frozen=True)
class VerdictWords:
    """How a verdict is spoken of.

    Attributes:
        verdict: as in the table ``claims``.
        slug: for anchors and style classes.
        symbol: one character, so that colour is never the only sign.
        meaning: one sentence for someone who has never seen a corrected test.
    """

    verdict: str
    slug: str
    symbol: str
    meaning: str


VERDICTS = (
    VerdictWords(
        "supported",
        "supported",
        "\N{CHECK MARK}",
        "The gates passed, and the difference is larger than chance explains after correction "
        "for everything that was looked at with it.",
    ),
    VerdictWords(
        "equivalent",
        "equivalent",
        "=",
        "The difference is shown to be smaller than a margin set beforehand, with a live adapter.",
    ),
    VerdictWords(
        "not distinguishable from noise",
        "noise",
        "~",
        "The gates passed and the test does not reject. This is not evidence of no difference; "
        "each claim names the smallest effect that could have been seen.",
    ),
    VerdictWords(
        "artefact",
        "artefact",
        "\N{MULTIPLICATION SIGN}",
        "A gate failed and explains the finding: it is about the measurement, not the model.",
    ),
    VerdictWords(
        "not identified by this design",
        "unidentified",
        "?",
        "The unit that the claim speaks about was not replicated, so no number in this study "
        "can settle it; each claim says what would.",
    ),
)
OTHER = VerdictWords("other", "other", "\N{BULLET}", "A verdict of another vocabulary.")


@dataclass(frozen=True)
class Bar:
    """An estimate and its interval in a strip 100 units wide; positions are 0 to 100."""

    zero: float
    estimate: float
    low: float | None
    high: float | None
    scale: str


@dataclass(frozen=True)
class Finding:
    """A claim as it is read.

    Attributes:
        id, statement, unit, test, gates, query, registered, verdict, outcome, reason, replicate:
            from the table.
        estimate, low, high, n_units, p, p_adjusted, p_floor, q, n_tests, detectable: numbers,
            null where undefined.
        words: how its verdict is spoken of.
        anchor: its address on the page.
        bar: its small picture; None without an estimate.
    """

    id: str
    statement: str
    estimate: float | None
    low: float | None
    high: float | None
    unit: str
    n_units: int
    test: str
    p: float | None
    p_adjusted: float | None
    p_floor: float | None
    q: float | None
    n_tests: int | None
    detectable: float | None
    gates: str
    registered: bool
    outcome: str | None
    verdict: str
    reason: str | None
    replicate: str | None
    query: str
    words: VerdictWords
    anchor: str
    bar: Bar | None

    @property
    def kind(self) -> str:
        """What sort of claim it is: the first word of its id."""
        return _kind(self.id)

    @property
    def numbers(self) -> str:
        """Estimate and interval in words; empty without an estimate."""
        if self.estimate is None:
            return ""
        centre = plain(self.estimate, self.unit)
        if self.low is None or self.high is None:
            return centre
        return f"{centre} [{plain(self.low)}, {plain(self.high)}]"

    @property
    def test_numbers(self) -> str:
        """Adjusted p against the smallest one attainable; empty where nothing was tested."""
        if self.p_adjusted is None and self.p_floor is None:
            return ""
        return f"adjusted p {p_value(self.p_adjusted)} (floor {p_value(self.p_floor)})"


@dataclass(frozen=True)
class VerdictGroup:
    """All claims of one verdict, those named before the run first."""

    words: VerdictWords
    findings: tuple[Finding, ...]


def group_findings(claims: pl.DataFrame) -> tuple[VerdictGroup, ...]:
    """Claims by verdict, in the order of ``VERDICTS``; every claim is in exactly one group."""
    rows = list(claims.iter_rows(named=True))
    bars = _bars(rows)
    known = {words.verdict: words for words in VERDICTS}
    findings = [
        Finding(**row, words=known.get(row["verdict"], OTHER), anchor=f"claim-{i + 1}", bar=bars[i])
        for i, row in enumerate(rows)
    ]
    findings.sort(key=lambda finding: not finding.registered)
    return tuple(
        VerdictGroup(words, members)
        for words in (*VERDICTS, OTHER)
        if (members := tuple(f for f in findings if f.words == words))
    )


def _bars(rows: Sequence[dict[str, object]]) -> list[Bar | None]:
    """Small pictures; claims with the same unit and the same first word of their id share a scale.

    A change in log-odds and a single head's contribution have the same unit and sizes far apart,
    hence the second condition.
    """
    kinds = [(row["unit"], _kind(str(row["id"]))) for row in rows]
    ends: dict[tuple[object, str], list[float]] = {}
    for kind, row in zip(kinds, rows, strict=True):
        numbers = [row["estimate"], row["low"], row["high"]]
        ends.setdefault(kind, [0.0]).extend(x for x in numbers if isinstance(x, float))
    return [
        _bar(row, min(ends[kind]), max(ends[kind])) for kind, row in zip(kinds, rows, strict=True)
    ]


def _bar(row: dict[str, object], low: float, high: float) -> Bar | None:
    estimate = row["estimate"]
    if not isinstance(estimate, float):
        return None
    span = (high - low) or 1.0

    def place(value: object) -> float | None:
        return round(4 + 92 * (value - low) / span, 2) if isinstance(value, float) else None

    return Bar(
        zero=place(0.0) or 4.0,
        estimate=place(estimate) or 4.0,
        low=place(row["low"]),
        high=place(row["high"]),
        scale=f"scale {plain(low)} to {plain(high)} {row['unit']}",
    )


def _kind(identifier: str) -> str:
    return re.split(r"[^A-Za-z_]", identifier)[0]


def can_say(groups: Sequence[VerdictGroup], at_most: int = 5) -> tuple[Finding, ...]:
    """A few claims that stand, of as many kinds as there are."""
    return _varied(groups, ("supported", "equivalent"), at_most)


def cannot_say(groups: Sequence[VerdictGroup], at_most: int = 5) -> tuple[Finding, ...]:
    """A few claims that do not stand, of as many kinds as there are."""
    return _varied(groups, ("unidentified", "artefact", "noise"), at_most)


def _varied(
    groups: Sequence[VerdictGroup], slugs: tuple[str, ...], at_most: int
) -> tuple[Finding, ...]:
    """The first of each kind, then the second of each, and so on."""
    found = {group.words.slug: group.findings for group in groups}
    listed = [finding for slug in slugs for finding in found.get(slug, ())]
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for place, finding in enumerate(listed):
        seen[finding.kind] = seen.get(finding.kind, -1) + 1
        ranked.append((seen[finding.kind], place))
    return tuple(listed[place] for _, place in sorted(ranked)[:at_most])


_FIRST = ("question", "hypothesis", "cascade", "rewards", "reward", "replicates")
"""Kinds of claims that are about the study's questions, before those about single agents."""


def ranked_findings(groups: Sequence[VerdictGroup]) -> tuple[Finding, ...]:
    """All claims, the most important first.

    Verdicts in their order; within one those named beforehand, then those about the study's
    questions, then the first of each kind, the second of each kind, and so on.
    """
    return tuple(f for group in ranked_groups(groups) for f in group.findings)


def ranked_groups(groups: Sequence[VerdictGroup]) -> tuple[VerdictGroup, ...]:
    """The same groups, each with its most important claims first."""
    return tuple(VerdictGroup(group.words, _ranked(group.findings)) for group in groups)


def _ranked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    seen: dict[str, int] = {}
    keys: list[tuple[bool, int, int, int]] = []
    for place, finding in enumerate(findings):
        seen[finding.kind] = seen.get(finding.kind, -1) + 1
        rank = _FIRST.index(finding.kind) if finding.kind in _FIRST else len(_FIRST)
        keys.append((not finding.registered, rank, seen[finding.kind], place))
    return tuple(findings[key[-1]] for key in sorted(keys))


def verdict_counts(groups: Sequence[VerdictGroup]) -> dict[str, int]:
    """How many claims have each verdict, every verdict of the vocabulary named."""
    counts = {words.verdict: 0 for words in VERDICTS}
    for group in groups:
        for finding in group.findings:
            counts[finding.verdict] = counts.get(finding.verdict, 0) + 1
    return counts


def headline(groups: Sequence[VerdictGroup]) -> str:
    """One sentence over all claims."""
    counts = verdict_counts(groups)
    total = sum(counts.values())
    if total == 0:
        return "This run makes no claims."
    stands = counts["supported"] + counts["equivalent"]
    parts = [
        f"{counts['not distinguishable from noise']} cannot be told from noise",
        f"{counts['artefact']} {_verb(counts['artefact'], 'is an artefact', 'are artefacts')}",
        f"{counts['not identified by this design']} cannot be settled by this design",
    ]
    other = total - sum(counts[words.verdict] for words in VERDICTS)
    if other:
        parts.append(f"{other} {_verb(other, 'has another verdict', 'have other verdicts')}")
    claims = _verb(total, "claim", "claims")
    return (
        f"Of {total} {claims}, {stands} {_verb(stands, 'stands', 'stand')} up to the checks "
        f"({counts['supported']} supported, {counts['equivalent']} equivalent); "
        f"{', '.join(parts[:-1])} and {parts[-1]}."
    )


def _verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
