"""How does a chart become a picture? Vega-Lite to SVG, PDF and PNG; no browser, no network.

Drawing is most of what a report costs, so a picture whose specification has not changed is taken
from the folder of the last report: ``rendered.json`` there names the hash of each specification,
of each file made from it, and of the converter that made it. Whatever does not fit is drawn anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import vl_convert
from pydantic import TypeAdapter, ValidationError

from moralscope.core.hashing import sha256_file, sha256_text
from moralscope.reports.figure import Figure
from moralscope.reports.look import styled
from moralscope.reports.pdf import pdf_of

PNG_SCALE = 2.0

INDEX = "rendered.json"
"""Hashes of the pictures in a folder of figures."""

_CONVERTER = version("vl-convert-python")
_RENDERER = f"vl-convert {_CONVERTER}, scale {PNG_SCALE:g}, layout 1"
"""Changes with whatever makes other bytes of the same specification."""

_ENTRIES = TypeAdapter(dict[str, dict[str, str]])
_ENDINGS = ("json", "svg", "png", "pdf")


@dataclass(frozen=True)
class Picture:
    """A figure in its four forms, in memory.

    Attributes:
        spec: the Vega-Lite specification as JSON, data included.
        svg, png, pdf: renderings of it; the PNG has ``PNG_SCALE`` pixels per unit, the PDF is one
            page of the picture's size with its fonts inside.
    """

    spec: str
    svg: str
    png: bytes
    pdf: bytes

    def files(self) -> dict[str, bytes]:
        """What it has on disk, by the ending of its name."""
        texts = {"json": self.spec.encode(), "svg": self.svg.encode()}
        return {**texts, "png": self.png, "pdf": self.pdf}


def render(figure: Figure, earlier: Mapping[str, Picture] | None = None) -> Picture:
    """The specification, SVG, PNG and PDF of a figure.

    The converter may load nothing from outside. Texts become SVG text with generic fallback
    fonts; markup in them is escaped.

    Args:
        figure: what to draw.
        earlier: pictures by the text of their specification, taken as they are.
    """
    spec = styled(figure.chart)
    spec["description"] = f"{figure.title}. {figure.shows}"
    text = json.dumps(spec, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if earlier is not None and text in earlier:
        return earlier[text]
    svg = _renumbered(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    png = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return Picture(text, svg, png, pdf_of(svg))


def earlier_pictures(folder: Path) -> dict[str, Picture]:
    """Pictures of an earlier report that this version would draw just so, by specification.

    Args:
        folder: its figures. A file that is missing, or not the one that was written, is not used.
    """
    try:
        entries = _ENTRIES.validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError):
        return {}
    found: dict[str, Picture] = {}
    for name, hashes in entries.items():
        paths = {ending: folder / f"{name}.{ending}" for ending in _ENDINGS}
        fits = hashes.get("renderer") == sha256_text(_RENDERER)
        if fits and all(p.is_file() and sha256_file(p) == hashes.get(e) for e, p in paths.items()):
            spec = paths["json"].read_text(encoding="utf-8")
            found[spec] = Picture(
                spec,
                paths["svg"].read_text(encoding="utf-8"),
                paths["png"].read_bytes(),
                paths["pdf"].read_bytes(),
            )
    return found


def index_of(files: Mapping[str, Mapping[str, str]]) -> str:
    """The text of ``rendered.json``.

    Args:
        files: per figure the SHA-256 of each of its files, by ending.
    """
    entries = {
        name: {**hashes, "renderer": sha256_text(_RENDERER)} for name, hashes in files.items()
    }
    return json.dumps(entries, indent=1, sort_keys=True) + "\n"


def _renumbered(svg: str) -> str:
    """The same SVG with its gradients and clips counted from 0.

    The converter counts them over the life of the process, which would make a picture depend on
    what was drawn before it.
    """
    ids = dict.fromkeys(re.findall(r' id="((?:gradient_|clip)\d+)"', svg))
    names = {old: f"{old.rstrip('0123456789')}{new}" for new, old in enumerate(ids)}
    return re.sub(
        r'( id="|url\(#)((?:gradient_|clip)\d+)(?=["\)])',
        lambda found: found[1] + names.get(found[2], found[2]),
        svg,
    )
