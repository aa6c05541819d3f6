"""What is a figure? A chart, what it shows, and what it does not show.

Every figure is a function of the run's tables that returns a ``Figure``, or an ``Absent`` that
says which table is missing. Charts hold aggregated numbers, never raw rows, so that anyone can
read them off the Vega-Lite specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.arrange import below

_WIDE_LETTER = 7.2
"""Width of a letter of an axis label in the widest of the fonts a reader may have, in pixels."""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: file name without its ending.
        title: its heading.
        shows, does_not_show: one sentence or two each, the figures in them computed.
        chart: the Altair chart.
        tables: the tables whose rows it aggregates.
        topic: slug of the page that it stands on (``reports.topics``); empty where its name or
            its first table says it.
    """

    name: str
    title: str
    shows: str
    does_not_show: str
    chart: alt.TopLevelMixin
    tables: tuple[str, ...]
    topic: str = ""


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn, and why."""

    name: str
    title: str
    reason: str
    topic: str = ""


@dataclass(frozen=True)
class Rows:
    """A block of rows of an interval chart: a heading and a table of values.

    ``frame`` has the columns row, agent, value, low, high; the interval may be null.
    """

    heading: str
    frame: pl.DataFrame


def interval_rows(
    blocks: Sequence[Rows],
    *,
    agents: Sequence[str],
    colour: alt.Color,
    x_title: str,
    domain: tuple[float, float],
    reference: float | None,
    width: int = 620,
    axis: alt.Axis | None = None,
) -> alt.VConcatChart:
    """Point estimates with intervals, one line per row and agent, blocks below each other.

    All blocks share ``domain``; ``reference`` draws a vertical line (a null value).
    """
    longest = max(len(row) for block in blocks for row in block.frame.get_column("row").to_list())
    label_room = min(320.0, _WIDE_LETTER * longest)
    charts = [
        _interval_block(
            block,
            agents=[a for a in agents if a in set(block.frame.get_column("agent").to_list())],
            colour=colour,
            x_title=x_title if block is blocks[-1] else "",
            domain=domain,
            reference=reference,
            width=width,
            axis=axis or alt.Axis(tickCount=9),
            label_room=label_room,
        )
        for block in blocks
    ]
    return below(charts, spacing=18)


def _interval_block(
    block: Rows,
    *,
    agents: Sequence[str],
    colour: alt.Color,
    x_title: str,
    domain: tuple[float, float],
    reference: float | None,
    width: int,
    axis: alt.Axis,
    label_room: float,
) -> alt.LayerChart | alt.FacetChart:
    row_order = block.frame.get_column("row").unique(maintain_order=True).to_list()
    step = max(8, min(13, 52 // max(len(agents), 1)))
    base = alt.Chart(block.frame).encode(
        y=alt.Y(
            "row:N",
            sort=row_order,
            title=None,
            axis=alt.Axis(
                ticks=False,
                domain=False,
                grid=len(row_order) > 1,
                labelLimit=320,
                minExtent=label_room,
            ),
            scale=alt.Scale(paddingInner=0, paddingOuter=0),
        ),
        yOffset=alt.YOffset(
            "agent:N", sort=list(agents), scale=alt.Scale(paddingOuter=0.9, paddingInner=0)
        ),
        color=colour,
    )
    x_scale = alt.Scale(domain=list(domain), nice=False)
    layers: list[alt.Chart] = []
    if reference is not None:
        layers.append(
            alt.Chart(pl.DataFrame({"reference": [reference]}))
            .mark_rule(color="#7b8794", strokeDash=[4, 3])
            .encode(x=alt.X("reference:Q", scale=x_scale, title=x_title, axis=axis))
        )
    layers.append(
        base.mark_rule(strokeWidth=2, opacity=0.75).encode(
            x=alt.X("low:Q", scale=x_scale, title=x_title, axis=axis), x2="high:Q"
        )
    )
    layers.append(
        base.mark_point(filled=True, size=52, opacity=1).encode(
            x=alt.X("value:Q", scale=x_scale, title=x_title, axis=axis)
        )
    )
    return alt.layer(*layers).properties(
        width=width, height=alt.Step(step, **{"for": "offset"}), title=block.heading
    )


def listing(items: Sequence[str], at_most: int = 12) -> str:
    """Names in prose: ``a, b and c``; long lists end in how many more there are."""
    shown = list(items[:at_most])
    if len(items) > at_most:
        return f"{', '.join(shown)} and {len(items) - at_most} more"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
