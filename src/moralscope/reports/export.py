"""How does a chart become a picture? Vega-Lite to SVG and PNG, without a browser or a network."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import vl_convert

from moralscope.reports.figure import Figure
from moralscope.reports.look import styled

PNG_SCALE = 2.0


@dataclass(frozen=True)
class Picture:
    """A figure in its three forms, in memory.

    Attributes:
        spec: the Vega-Lite specification as JSON, data included.
        svg, png: renderings of it; the PNG has ``PNG_SCALE`` pixels per unit.
    """

    spec: str
    svg: str
    png: bytes


def render(figure: Figure) -> Picture:
    """The specification, SVG and PNG of a figure.

    The converter may load nothing from outside. Texts become SVG text with generic fallback
    fonts; markup in them is escaped.
    """
    spec = styled(figure.chart)
    spec["description"] = f"{figure.title}. {figure.shows}"
    svg = _renumbered(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    png = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return Picture(json.dumps(spec, indent=1, sort_keys=True, allow_nan=False) + "\n", svg, png)


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
