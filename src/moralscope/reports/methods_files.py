"""What goes into a paper? Methods, limitations and references of a run as files."""

from __future__ import annotations

from moralscope.reports.content import Content
from moralscope.reports.references import Reference, bibliography, cited


def references_of(content: Content) -> tuple[Reference, ...]:
    """The works that the methods of a report cite."""
    return cited(passage.text for passage in content.passages)


def methods_files(content: Content) -> dict[str, str]:
    """``methods.md``, ``limitations.md`` and ``references.bib``, by name.

    Markdown as Pandoc reads it: ``pandoc --citeproc --bibliography references.bib methods.md``.
    """
    methods = ["# Methods", ""]
    for passage in content.passages:
        methods += [f"## {passage.heading}", "", passage.text, ""]
    limits = ["# Limitations", ""]
    limits += [f"- {' '.join(limitation.text.split())}" for limitation in content.limitations]
    if not content.limitations:
        limits.append("None beyond what the claims say themselves.")
    return {
        "methods.md": "\n".join(methods),
        "limitations.md": "\n".join(limits) + "\n",
        "references.bib": bibliography(references_of(content)),
    }
