"""What does the report say, for machines? ``report.json``, the twin of the page."""

from __future__ import annotations

from dataclasses import asdict

from moralscope.reports.content import Content, Drawn
from moralscope.reports.conversations import transcript
from moralscope.reports.findings import can_say, cannot_say, headline, verdict_counts
from moralscope.reports.methods_files import references_of
from moralscope.reports.pages import pages_of

CLAIM_FIELDS = (
    "id", "statement", "estimate", "low", "high", "unit", "n_units", "test", "p", "p_adjusted",
    "p_floor", "q", "n_tests", "detectable", "gates", "registered", "outcome", "verdict", "reason",
    "replicate", "query",
)  # fmt: skip


def _claim_rows(content: Content) -> list[dict[str, object]]:
    """The claims in the order of the page, with the columns of their table."""
    return [
        {field: getattr(finding, field) for field in CLAIM_FIELDS}
        for group in content.groups
        for finding in group.findings
    ]


def _hypothesis_rows(content: Content) -> list[dict[str, object]]:
    """Each hypothesis with what became of it."""
    return [
        {
            "id": named.id,
            "statement": named.statement,
            "quantity": named.quantity,
            "registered": named.registered,
            "basis": named.basis,
            "published": named.published,
            "claim": None if named.finding is None else named.finding.id,
            "outcome": None if named.finding is None else named.finding.outcome,
            "verdict": None if named.finding is None else named.finding.verdict,
            "reason": None if named.finding is None else named.finding.reason,
        }
        for named in content.judged.hypotheses
    ]


def _figures(content: Content) -> dict[str, object]:
    """Figures that were drawn, and those that were not with the reason."""
    return {
        "figures": [
            {
                "name": drawn.figure.name,
                "title": drawn.figure.title,
                "shows": drawn.figure.shows,
                "does_not_show": drawn.figure.does_not_show,
                "tables": list(drawn.figure.tables),
                "files": [
                    f"figures/{drawn.figure.name}.{e}" for e in ("json", "svg", "png", "pdf")
                ],
            }
            for drawn in content.figures
            if isinstance(drawn, Drawn)
        ],
        "absent_figures": [
            {"name": absent.name, "title": absent.title, "reason": absent.reason}
            for absent in content.figures
            if not isinstance(absent, Drawn)
        ],
    }


def _answers(content: Content) -> dict[str, object]:
    """Research questions, methods, limitations, and what did not finish."""
    return {
        "failed": [stage.model_dump() for stage in content.failed],
        "questions": [
            {
                "question": asked.question,
                "text": asked.text,
                "answer": asked.answer,
                "verdict": asked.verdict,
                "confidence": asked.confidence,
                "evidence": [*(f.id for f in asked.evidence), *asked.unknown],
                "missing": asked.missing,
            }
            for asked in content.questions
        ],
        "methods": [{"heading": p.heading, "text": p.text} for p in content.passages],
        "limitations": [asdict(limitation) for limitation in content.limitations],
        "references": [reference.key for reference in references_of(content)],
        "pages": {page.file: page.label for page in pages_of(content)},
    }


def twin(content: Content) -> dict[str, object]:
    """Everything a person reads on the page, as a JSON value."""
    manifest = content.run.manifest
    return {
        "study": manifest.study or manifest.audit if manifest else "",
        "moralscope": manifest.moralscope if manifest else "",
        "manifest_sha256": content.run.manifest_sha256,
        "headline": headline(content.groups),
        "can_say": [finding.id for finding in can_say(content.groups)],
        "cannot_say": [finding.id for finding in cannot_say(content.groups)],
        "verdicts": verdict_counts(content.groups),
        "claims": _claim_rows(content),
        "agents": [
            {
                **asdict(card.facts),
                "learned": card.learned,
                "sentence": card.sentence,
                "answers": [
                    {"family": family, "p_positive_given_legal": given, "legal_mass": mass}
                    for family, given, mass in card.answers
                ],
            }
            for card in content.agents
        ],
        **_figures(content),
        "gates": [asdict(gate) for gate in content.gates],
        "audit": content.audit,
        "hypotheses": _hypothesis_rows(content),
        "controls": [asdict(control) for control in content.judged.controls],
        "design": [asdict(row) for row in content.judged.design],
        "coverage": [asdict(row) for row in content.judged.coverage],
        "answers": [asdict(said) for said in content.answers],
        "conversations": [
            {
                "agent": held.agent,
                "total": held.total,
                "shown": [transcript(conversation) for conversation in held.shown],
            }
            for held in content.conversations
        ],
        "prompts": {family.name: family.total for family in content.prompts},
        "prompts_shown": {
            family.name: [entry.name for entry in family.entries] for family in content.prompts
        },
        "tables": {
            **{name: frame.height for name, frame in sorted(content.run.tables.items())},
            **content.run.unread,
        },
        "missing": list(content.missing),
        **_answers(content),
    }
