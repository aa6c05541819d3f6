"""How is a comparison read? One self-contained page, and its twin for machines.

Like the report the page runs no scripts and loads nothing; every text on it is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from moralscope.core.files import write_json, write_text
from moralscope.reports.differing.difference import KINDS, Difference

PAGE, TWIN = "difference.html", "difference.json"
SHOWN = 300
"""Rows of each part that the page shows; the twin has all of them."""

HEADINGS = {
    "appeared": "Claims that appeared",
    "vanished": "Claims that vanished",
    "verdict": "Claims with another verdict",
    "numbers": "Claims with other numbers and the same verdict",
    "words": "Claims with other words and the same numbers",
}

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("moralscope.reports"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_difference(difference: Difference, out: Path) -> Path:
    """Write ``difference.json`` and ``difference.html``; returns the page's path.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_json(out / TWIN, twin(difference))
    write_text(out / PAGE, render(difference))
    return out / PAGE


def twin(difference: Difference) -> dict[str, object]:
    """Everything that differs, as a JSON value."""
    return {"equal": difference.equal, **asdict(difference)}


def render(difference: Difference) -> str:
    """The page as text; the same difference gives the same text."""
    style = files("moralscope.reports").joinpath("templates/differing.css").read_text("utf-8")
    html = _ENVIRONMENT.get_template("differing.html.jinja").render(
        found=difference,
        kinds=[(HEADINGS[kind], difference.claims_of(kind)) for kind in KINDS],
        shown=SHOWN,
        # Our own file, not data: the one text that is not escaped.
        style=Markup(style),  # noqa: S704
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
    # Lone surrogates, which JSON may smuggle in, have no UTF-8 form; show them as escapes.
    return html.encode("utf-8", "backslashreplace").decode()
