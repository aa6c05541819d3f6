"""How is the report read? One HTML file per question, each safe to open whatever the models said.

``report.html`` answers first; the files in ``report/`` show why. Each is self-contained. Every
text that came from a model, a prompt or a configuration is hostile: the templates escape all of
it, the pages run no scripts and may load nothing (their content security policy admits one style
sheet, by hash, and pictures in ``data:`` addresses, which cannot run anything).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from moralscope.core.tables import schema_of
from moralscope.reports import numbers
from moralscope.reports.content import Content, Drawn
from moralscope.reports.export import Picture
from moralscope.reports.figure import Absent
from moralscope.reports.findings import (
    VERDICTS,
    can_say,
    cannot_say,
    headline,
    ranked_groups,
    verdict_counts,
)
from moralscope.reports.methods_files import references_of
from moralscope.reports.pages import Page, anchors_of, pages_of
from moralscope.reports.run import Manifest

SHOWN_AT_ONCE = 4
"""Claims of a verdict that are visible before the rest is unfolded."""

SHOWN_ON_TOPIC = 8
"""The same on the page of an analysis."""

FOLDED_AT_MOST = 60
"""Claims of a list that are on a page at all, unfolded, except on the page of claims."""

FAMILIES_AT_ONCE = 6
"""Families of prompts that an agent's card shows before the rest is unfolded."""

LEVELS = (0.9, 0.5, 0.2, 0.05)
"""Token probabilities from which on a token is shaded less; above the first it is not shaded."""

MOST_SVG = 600_000
"""Bytes beyond which a picture's PNG stands on the page where it is smaller: pages stay small."""

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("moralscope.reports"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    plain=numbers.plain,
    signed=numbers.signed,
    probability=numbers.probability,
    p_value=numbers.p_value,
    duration=numbers.duration,
    address=lambda text: quote(str(text), safe=""),
)


def render_pages(content: Content) -> dict[str, str]:
    """Every page as text, by its path inside the run; the same content gives the same text."""
    pages = pages_of(content)
    homes = {anchor: page.file for page in pages for anchor in anchors_of(page, content)}
    shared = _shared(content, pages)
    return {page.file: _rendered(page, homes, shared) for page in pages}


def _rendered(page: Page, homes: Mapping[str, str], shared: Mapping[str, object]) -> str:
    """One page.

    Args:
        page: which.
        homes: on which page each anchor is.
        shared: what all pages are made from.
    """
    up = "../" if "/" in page.file else ""

    def to(anchor: str) -> str:
        home = homes.get(anchor, page.file)
        return f"#{anchor}" if home == page.file else f"{up}{home}#{anchor}"

    def href(other: Page) -> str:
        return f"{up}{other.file}"

    figures = [
        (entry, _embedded(entry.picture) if isinstance(entry, Drawn) else None)
        for entry in page.figures
    ]
    html = _ENVIRONMENT.get_template("page.html.jinja").render(
        **shared, page=page, page_figures=figures, up=up, to=to, href=href
    )
    # Lone surrogates, which JSON may smuggle in, have no UTF-8 form; show them as escapes.
    return html.encode("utf-8", "backslashreplace").decode()


def _shared(content: Content, pages: tuple[Page, ...]) -> dict[str, object]:
    style = _style(content)
    manifest = content.run.manifest or Manifest()
    positive, negative = content.run.option_words
    return {
        "content": content,
        "run": content.run,
        "manifest": manifest,
        "name": manifest.study or manifest.audit,
        "pages": pages,
        "claims_pages": [page for page in pages if page.groups is not None],
        "absent": [entry for entry in content.figures if isinstance(entry, Absent)],
        "references": references_of(content),
        "anchor_of": {f.id: f.anchor for group in content.groups for f in group.findings},
        "schemas": {name: schema_of(name) for name in content.run.names},
        "verdicts": VERDICTS,
        "counts": verdict_counts(content.groups),
        "headline": headline(content.groups),
        "can_say": can_say(content.groups),
        "cannot_say": cannot_say(content.groups),
        "ranked": ranked_groups(content.groups),
        "positive": positive,
        "negative": negative,
        "colour_class": {c.facts.name: f"agent-{i}" for i, c in enumerate(content.agents)},
        "shown_at_once": SHOWN_AT_ONCE,
        "shown_on_topic": SHOWN_ON_TOPIC,
        "folded_at_most": FOLDED_AT_MOST,
        "families_at_once": FAMILIES_AT_ONCE,
        "levels": LEVELS,
        "level": _level,
        # Our own file, not data: the one text that is not escaped.
        "style": Markup(style),  # noqa: S704
        "style_hash": _hash(style),
    }


def _level(probability: float) -> int:
    """How strongly a token is shaded: 0 for none, to the number of ``LEVELS``."""
    return sum(probability < bound for bound in LEVELS)


def _style(content: Content) -> str:
    """The package's style sheet and one colour rule per agent."""
    sheet = (files("moralscope.reports") / "templates" / "report.css").read_text("utf-8")
    rules = [f".agent-{i}{{--agent:{card.colour}}}\n" for i, card in enumerate(content.agents)]
    return f"\n{sheet}{''.join(rules)}"


def _hash(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _embedded(picture: Picture) -> str:
    if MOST_SVG < len(picture.svg) > len(picture.png):
        return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg.encode()).decode()}"
