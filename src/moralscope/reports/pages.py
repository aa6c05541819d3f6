"""Which pages has a report, and what stands on each?

The first page answers; behind it stands one page per analysis that the run holds anything of, and
pages for claims, agents' own words, prompts, evidence, methods and data. A page is a list of
parts, and a part is a template. Nothing is computed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from moralscope.reports.content import Content, Drawn
from moralscope.reports.figure import Absent
from moralscope.reports.findings import (
    VERDICTS,
    Finding,
    VerdictGroup,
    VerdictWords,
    ranked_findings,
)
from moralscope.reports.topics import TOPICS, Topic, topic_of_claim, topic_of_figure, topic_of_table

CLAIMS_ON_A_PAGE = 300
"""With its query a claim is a few kilobytes; more of them make another page."""

FOLDER = "report"
"""Where the pages behind the first one lie, inside the run."""

LAST = TOPICS[-1].slug
"""The page of what has no other."""

Part = tuple[VerdictGroup, str, int]
"""Claims of one verdict on one page, the anchor of their section, how many there are in all."""


@dataclass(frozen=True)
class Page:
    """One file.

    Attributes:
        slug: its name in anchors.
        file: its path inside the run.
        label: its name in the navigation.
        about: what one finds there, in a few words.
        heading: its h1.
        parts: names of the templates that it consists of, in order.
        anchors: ids of its sections.
        listed: whether the navigation names it.
        topic: the analysis that it is about, if it is about one.
        figures: those that stand on it.
        findings: claims about its topic, the most important first.
        counts: how many of these have each verdict.
        tables: those of the run that belong to its topic.
        groups: of a page of claims what stands on it; None on others.
    """

    slug: str
    file: str
    label: str
    about: str
    heading: str
    parts: tuple[str, ...]
    anchors: tuple[str, ...] = ()
    listed: bool = True
    topic: Topic | None = None
    figures: tuple[Drawn | Absent, ...] = ()
    findings: tuple[Finding, ...] = ()
    counts: tuple[tuple[VerdictWords, int], ...] = ()
    tables: tuple[str, ...] = ()
    groups: tuple[Part, ...] | None = None

    @property
    def front(self) -> bool:
        """Whether it is the one that is opened first."""
        return "/" not in self.file


def pages_of(content: Content) -> tuple[Page, ...]:
    """The pages of a report, in the order of its navigation."""
    cascade = tuple(f for f in content.figures if _name(f) == "cascade")
    return (
        _front(content, cascade),
        *_claims_pages(content),
        *_topic_pages(content),
        *_own_words(content),
        *_evidence(content),
        _methods(),
        _data(),
    )


def anchors_of(page: Page, content: Content) -> Iterator[str]:
    """Every id on a page that others link to."""
    yield from page.anchors
    for group, anchor, _ in page.groups or ():
        yield anchor
        yield from (finding.anchor for finding in group.findings)
    if page.front:
        yield from (f"said-{group.words.slug}" for group in content.groups)
    if page.slug == "data":
        yield from (f"table-{name}" for name in content.run.names)


def _name(entry: Drawn | Absent) -> str:
    return entry.figure.name if isinstance(entry, Drawn) else entry.name


def _front(content: Content, cascade: tuple[Drawn | Absent, ...]) -> Page:
    judged = content.judged
    parts = ["summary"]
    if content.audit:
        parts += ["gates", "coverage"]
        parts += ["hypotheses"] if judged.hypotheses else []
    parts += ["questions"] if content.questions else []
    parts += ["figures"] if cascade else []
    parts += ["said", "missing", "contents"]
    return Page(
        slug="cascade",
        file="report.html",
        label="Findings",
        about="The answers first.",
        heading="Which claims of these tables stand up?"
        if content.audit
        else "What did fine-tuning change, and which findings stand up?",
        parts=tuple(parts),
        anchors=tuple(parts),
        figures=cascade,
    )


def _claims_pages(content: Content) -> tuple[Page, ...]:
    """Claims by verdict, at most ``CLAIMS_ON_A_PAGE`` a page."""
    pages: list[Page] = []
    for number, parts in enumerate(_split(content.groups, CLAIMS_ON_A_PAGE)):
        suffix = f"-{number + 1}" if number else ""
        pages.append(
            Page(
                slug=f"claims{suffix}",
                file=f"{FOLDER}/claims{suffix}.html",
                label="Claims",
                about="Each with its test, gates and the query that recomputes it.",
                heading="Every claim, with what it rests on",
                parts=("claims",),
                anchors=(f"findings{suffix}",),
                listed=not number,
                groups=parts,
            )
        )
    return tuple(pages)


def _split(groups: Sequence[VerdictGroup], at_most: int) -> list[tuple[Part, ...]]:
    """Groups in order, cut where a page is full; at least one page, be it empty."""
    pages: list[tuple[Part, ...]] = []
    current: list[Part] = []
    room = at_most
    for group in groups:
        start, piece = 0, 1
        while start < len(group.findings):
            members = group.findings[start : start + room]
            anchor = f"verdict-{group.words.slug}{f'-{piece}' if start else ''}"
            part = VerdictGroup(group.words, members)
            current.append((part, anchor, len(group.findings)))
            start, piece, room = start + len(members), piece + 1, room - len(members)
            if not room:
                pages.append(tuple(current))
                current, room = [], at_most
    return [*pages, tuple(current)] if current or not pages else pages


def _topic_pages(content: Content) -> Iterator[Page]:
    findings: dict[str, list[Finding]] = {}
    for finding in ranked_findings(content.groups):
        findings.setdefault(topic_of_claim(finding.id, finding.kind), []).append(finding)
    learned = not content.audit or "learned" in content.run.tables
    own_page: set[str | None] = {*findings, *(topic_of_table(name) for name in content.run.names)}
    if learned:
        own_page.add("behaviour")
    figures = _figures_by_topic(content, own_page)
    for topic in TOPICS:
        tables = tuple(n for n in content.run.names if topic_of_table(n) == topic.slug)
        own = findings.get(topic.slug, [])
        drawn = figures.get(topic.slug, [])
        here = learned and topic.slug == "behaviour"
        if own or drawn or tables or here:
            yield _topic_page(topic, own, drawn, tables, learned=here)


def _figures_by_topic(
    content: Content, own_page: Collection[str | None]
) -> dict[str, list[Drawn | Absent]]:
    """Figures by the slug of their page.

    Figures that could not be drawn make no page by themselves: they are told of on the last one.

    Args:
        content: of the report.
        own_page: topics that have a page without any figure.
    """
    figures: dict[str, list[Drawn | Absent]] = {}
    for entry in content.figures:
        if isinstance(entry, Drawn):
            figure = entry.figure
            place = topic_of_figure(figure.name, figure.tables, figure.topic)
        else:
            place = topic_of_figure(entry.name, (), entry.topic)
        figures.setdefault(place, []).append(entry)
    for place in [slug for slug in figures if slug not in {*own_page, LAST}]:
        if not any(isinstance(entry, Drawn) for entry in figures[place]):
            figures.setdefault(LAST, []).extend(figures.pop(place))
    return figures


def _topic_page(
    topic: Topic,
    findings: Sequence[Finding],
    figures: Sequence[Drawn | Absent],
    tables: tuple[str, ...],
    *,
    learned: bool,
) -> Page:
    counts = Counter(finding.words.slug for finding in findings)
    return Page(
        slug=topic.slug,
        file=f"{FOLDER}/{topic.slug}.html",
        label=topic.title,
        about=topic.question,
        heading=topic.title,
        parts=(
            *(("learned",) if learned else ()),
            *(("figures",) if figures else ()),
            "topic_claims",
        ),
        anchors=(
            f"claims-{topic.slug}",
            *(("learned",) if learned else ()),
            *((f"figures-{topic.slug}",) if figures else ()),
        ),
        topic=topic,
        figures=tuple(figures),
        findings=tuple(findings),
        counts=tuple((w, counts[w.slug]) for w in VERDICTS if counts[w.slug]),
        tables=tables,
    )


def _own_words(content: Content) -> Iterator[Page]:
    said = tuple(
        name
        for name, there in (
            ("answers", content.answers),
            ("conversations", content.conversations),
        )
        if there
    )
    if said:
        yield Page(
            slug="words",
            file=f"{FOLDER}/answers.html",
            label="In its own words",
            about="Sampled answers and conversations, token by token.",
            heading="What the agents say when they are let speak",
            parts=said,
            anchors=said,
        )
    if content.prompts or not content.audit:
        yield Page(
            slug="prompts",
            file=f"{FOLDER}/prompts.html",
            label="Prompts",
            about="Every text as the model read it, with each agent's answer.",
            heading="Prompts and answers, one by one",
            parts=("prompts",),
            anchors=("prompts",),
        )


def _evidence(content: Content) -> Iterator[Page]:
    judged = content.judged
    parts = (
        *(("hypotheses",) if judged.hypotheses and not content.audit else ()),
        *(("gates",) if not content.audit else ()),
        *(("controls",) if judged.controls or judged.design else ()),
    )
    if parts:
        yield Page(
            slug="evidence",
            file=f"{FOLDER}/evidence.html",
            label="Evidence",
            about="Gates, controls, what this design can answer, hypotheses.",
            heading="May anything be concluded?",
            parts=parts,
            anchors=parts,
        )


def _methods() -> Page:
    parts = ("passages", "limitations", "methods", "references")
    return Page(
        slug="methods",
        file=f"{FOLDER}/methods.html",
        label="Methods",
        about="What was done, in words that can go into a paper, and what cannot be said.",
        heading="Methods and limitations",
        parts=parts,
        anchors=parts,
    )


def _data() -> Page:
    parts = ("data", "provenance")
    return Page(
        slug="data",
        file=f"{FOLDER}/data.html",
        label="Data",
        about="Every table with its columns, files to download, provenance.",
        heading="Data and provenance",
        parts=parts,
        anchors=parts,
    )
