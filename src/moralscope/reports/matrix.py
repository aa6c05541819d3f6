"""How is a value for every pair shown? Heat maps with the figures in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.dots import PAGE, label_room
from moralscope.reports.look import DIVERGING, INK

SEQUENTIAL = ("#f7fbff", "#d6e5f4", "#a6cbe5", "#64a9d3", "#2f7fbc", "#08519c", "#08306b")
"""From little to much, in blues: read by lightness alone."""

_LEAST_CELL, _MOST_CELL = 20, 46
_TEXT_CELL = 27
"""Cells narrower than this, in pixels, have no figures in them."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Colours of a heat map.

    Attributes:
        title: what is shown, with its unit.
        low, high: ends of the scale.
        diverging: purple (high) to orange (low), as for cooperation; else blues.
    """

    title: str
    low: float
    high: float
    diverging: bool = False

    @property
    def span(self) -> float:
        """From end to end, above 0."""
        return (self.high - self.low) or 1.0


def heat_panels(
    frame: pl.DataFrame,
    scale: Scale,
    panel_order: Sequence[str],
    x_order: Sequence[str],
    y_order: Sequence[str],
    *,
    titles: tuple[str, str] = ("", ""),
) -> alt.FacetChart:
    """A heat map per panel.

    Args:
        frame: columns panel, x, y, value, cell (figure in the cell), note (small figure below it,
            empty for none).
        scale: its colours.
        panel_order: values of ``panel`` in their order.
        x_order: values of ``x``, across.
        y_order: values of ``y``, down.
        titles: what stands across and down.
    """
    room = label_room(y_order) + 26
    columns = min(2, len(panel_order))
    while columns > 1 and (PAGE / columns - room) / len(x_order) < _TEXT_CELL:
        columns -= 1
    cell = max(_LEAST_CELL, min(_MOST_CELL, int((PAGE / columns - room) / len(x_order))))
    dark = (alt.datum.value - scale.low) / scale.span
    pale = (dark > 0.85) | (dark < 0.15) if scale.diverging else dark > 0.55
    ink = alt.condition(pale, alt.value("white"), alt.value(INK))
    turned = max(len(name) for name in x_order) * 5.5 > cell
    base = alt.Chart().encode(
        x=alt.X(
            "x:N",
            sort=list(x_order),
            title=titles[0],
            axis=alt.Axis(
                labelAngle=-45 if turned else 0, ticks=False, domain=False, labelLimit=150
            ),
        ),
        y=alt.Y(
            "y:N", sort=list(y_order), title=titles[1], axis=alt.Axis(ticks=False, domain=False)
        ),
    )
    layers: list[alt.Chart] = [
        base.mark_rect(stroke="white", strokeWidth=1).encode(color=_colour(scale))
    ]
    if cell >= _TEXT_CELL:
        noted = frame.get_column("note").str.len_chars().max() not in (0, None)
        layers.append(
            base.mark_text(fontSize=10, dy=-4 if noted else 0).encode(text="cell:N", color=ink)
        )
        if noted:
            layers.append(
                base.mark_text(fontSize=7.5, dy=7, opacity=0.85).encode(text="note:N", color=ink)
            )
    chart = alt.layer(*layers, data=frame).properties(
        width=cell * len(x_order), height=max(24, min(cell, 30)) * len(y_order)
    )
    facet = alt.Facet("panel:N", sort=list(panel_order), title=None)
    return panels(chart, facet, columns=columns, spacing=18)


def _colour(scale: Scale) -> alt.Color:
    """The colour of a cell, with its legend."""
    colours = list(reversed(DIVERGING)) if scale.diverging else list(SEQUENTIAL)
    steps = [scale.low + scale.span * i / (len(colours) - 1) for i in range(len(colours))]
    return alt.Color(
        "value:Q",
        scale=alt.Scale(domain=steps, range=colours, clamp=True),
        legend=alt.Legend(
            title=scale.title,
            orient="top",
            direction="horizontal",
            gradientLength=260,
            gradientThickness=10,
            titleLimit=600,
            values=[scale.low, scale.low + scale.span / 2, scale.high],
            format=".3~g",
        ),
    )


def half_width(digits: int = 2) -> pl.Expr:
    """Half the interval of a row as a small figure; empty where there is none."""
    half = (pl.col("high") - pl.col("low")) / 2
    text = half.map_elements(lambda x: f"\N{PLUS-MINUS SIGN}{x:.{digits}f}", pl.String)
    return text.fill_null("")
