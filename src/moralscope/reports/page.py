"""How is the report read? One self-contained HTML file, safe to open whatever the models said.

Every text that came from a model, a prompt or a configuration is hostile: the template escapes
all of it, the page runs no scripts and may load nothing (its content security policy admits one
style sheet, by hash, and pictures in ``data:`` addresses, which cannot run anything).
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from moralscope.reports import numbers
from moralscope.reports.content import Content, Drawn
from moralscope.reports.findings import VERDICTS, can_say, cannot_say, headline, verdict_counts
from moralscope.reports.run import Manifest

SHOWN_AT_ONCE = 4
"""Claims of a verdict that are visible before the rest is unfolded."""

FAMILIES_AT_ONCE = 6
"""Families of prompts that an agent's card shows before the rest is unfolded."""

LEVELS = (0.9, 0.5, 0.2, 0.05)
"""Token probabilities from which on a token is shaded less; above the first it is not shaded."""


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


def render_page(content: Content) -> str:
    """The whole page as text; the same content gives the same text."""
    style = _style(content)
    figures = [
        (entry, _embedded(entry.picture.svg) if isinstance(entry, Drawn) else None)
        for entry in content.figures
    ]
    html = _ENVIRONMENT.get_template("report.html.jinja").render(
        content=content,
        run=content.run,
        manifest=content.run.manifest or Manifest(),
        verdicts=VERDICTS,
        counts=verdict_counts(content.groups),
        headline=headline(content.groups),
        can_say=can_say(content.groups),
        cannot_say=cannot_say(content.groups),
        figures=figures,
        drawn=Drawn,
        option_words=content.run.option_words,
        colour_class={card.facts.name: f"agent-{i}" for i, card in enumerate(content.agents)},
        shown_at_once=SHOWN_AT_ONCE,
        families_at_once=FAMILIES_AT_ONCE,
        levels=LEVELS,
        level=_level,
        # Our own file, not data: the one text that is not escaped.
        style=Markup(style),  # noqa: S704
        style_hash=_hash(style),
    )
    # Lone surrogates, which JSON may smuggle in, have no UTF-8 form; show them as escapes.
    return html.encode("utf-8", "backslashreplace").decode()


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


def _embedded(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
