"""How does a chart become a picture? Vega-Lite to SVG, PDF and PNG; no browser, no network."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import vl_convert

from moralscope.reports.figure import Figure
from moralscope.reports.look import styled
from moralscope.reports.pdf import pdf_of

PNG_SCALE = 2.0


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


def render(figure: Figure) -> Picture:
    """The specification, SVG, PNG and PDF of a figure.

    The converter may load nothing from outside. Texts become SVG text with generic fallback
    fonts; markup in them is escaped.
    """
    spec = styled(figure.chart)
    spec["description"] = f"{figure.title}. {figure.shows}"
    svg = _renumbered(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    png = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    text = json.dumps(spec, indent=1, sort_keys=True, allow_nan=False) + "\n"
    return Picture(text, svg, png, pdf_of(svg))


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
