"""How are many estimates with intervals shown at once? Dots in panels, and dots in a grid.

Both take one row per dot: value, low, high (null where there is no interval), agent and what
places it. In panels the agents stand below each other in their colours; in a grid each agent has
a column of its own and rows come in blocks under a heading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups
from moralscope.reports.arrange import below, beside, in_row
from moralscope.reports.figure import Rows
from moralscope.reports.look import BASE_COLOUR

LETTER = 6.4
"""Room for a letter of a row's label, in pixels."""

PAGE = 860
"""Room for a chart with its labels between the edges of the page, in pixels."""

PROBABILITY = (0.0, 0.5, 1.0)
"""Ticks of a narrow panel of probabilities."""

_COLUMNS = 7
"""Agents beside each other in a grid; more stand in further tiers."""

_SHAPES = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True, slots=True)
class Measure:
    """What is shown along the axis.

    Attributes:
        title: it, with its unit.
        domain: ends of the scale of all panels; None gives each panel one of its own.
        reference: where a dashed line stands, if anywhere.
        ticks: where ticks stand, if not where they usually do.
    """

    title: str
    domain: tuple[float, float] | None
    reference: float | None
    ticks: tuple[float, ...] | None = None

    def x(self, column: str, part: pl.DataFrame, *, bare: bool = False) -> alt.X:
        """The encoding of a column; bare: without labels, ticks and title."""
        ends = self.domain or domain_of(part)
        if self.ticks is None:
            axis = alt.Axis(tickCount=5, labels=not bare, ticks=not bare)
        else:
            axis = alt.Axis(
                values=list(self.ticks), format=".2~f", labels=not bare, ticks=not bare
            )  # fmt: skip
        scale = alt.Scale(domain=list(ends), nice=False)
        return alt.X(f"{column}:Q", title="" if bare else self.title, scale=scale, axis=axis)


def label_room(labels: Sequence[str], most: float = 260.0) -> float:
    """Room for the longest of these labels, in pixels."""
    return min(most, 12.0 + LETTER * max((len(label) for label in labels), default=0))


def domain_of(frame: pl.DataFrame, *, zero: bool = True) -> tuple[float, float]:
    """Where the values and intervals of a frame lie, 0 among them if asked, with a margin."""
    found = [
        float(value)
        for name in ("value", "low", "high")
        for value in frame.get_column(name).drop_nulls().to_list()
    ] + [0.0] * zero
    low, high = min(found), max(found)
    margin = 0.03 * ((high - low) or 1.0)
    return (low - margin if low < 0 else low), high + margin


def interval_panels(
    frame: pl.DataFrame,
    groups: AgentGroups,
    panel_order: Sequence[str],
    measure: Measure,
    columns: int = 3,
) -> alt.VConcatChart:
    """Dots with intervals: a panel per value of ``panel``, a line per ``row`` and agent.

    Args:
        frame: columns panel, row, agent, value, low, high; rows in the order to be drawn in.
        groups: who is drawn, for order and colour.
        panel_order: values of ``panel`` in their order.
        measure: the axis.
        columns: panels beside each other.
    """
    across = min(columns, len(panel_order))
    parts = {panel: frame.filter(pl.col("panel") == panel) for panel in panel_order}
    rows = {
        panel: part.get_column("row").unique(maintain_order=True).to_list()
        for panel, part in parts.items()
    }
    lines = [panel_order[i : i + across] for i in range(0, len(panel_order), across)]
    # A panel beside one of the same rows needs no labels of its own.
    bare = {
        panel: place > 0 and rows[panel] == rows[line[place - 1]]
        for line in lines
        for place, panel in enumerate(line)
    }
    room = label_room([row for panel in panel_order for row in rows[panel]])
    labelled = max(sum(not bare[panel] for panel in line) for line in lines)
    width = min(520, int((PAGE - labelled * room - 22 * across) / across))
    charts = [
        beside(
            [
                _panel(parts[panel], groups, measure, labels=not bare[panel]).properties(
                    title=panel, width=width
                )
                for panel in line
            ],
            spacing=18,
        )
        for line in lines
    ]
    return below(charts, spacing=16)


def _panel(
    part: pl.DataFrame, groups: AgentGroups, measure: Measure, *, labels: bool
) -> alt.LayerChart | alt.FacetChart:
    rows = part.get_column("row").unique(maintain_order=True).to_list()
    step = max(6, min(9, 60 // max(len(groups.names), 1)))
    # One row has nothing to be told apart by lines.
    axis = alt.Axis(
        ticks=False, domain=False, grid=len(rows) > 1, labels=labels, labelLimit=260
    )  # fmt: skip
    base = alt.Chart(part).encode(
        y=alt.Y(
            "row:N",
            sort=rows,
            title=None,
            axis=axis,
            scale=alt.Scale(paddingInner=0, paddingOuter=0),
        ),
        yOffset=alt.YOffset(
            "agent:N", sort=groups.names, scale=alt.Scale(paddingOuter=0.9, paddingInner=0)
        ),
        color=groups.colour,
    )
    layers = [
        *_reference(measure, part),
        base.mark_rule(strokeWidth=1.6, opacity=0.75).encode(
            x=measure.x("low", part), x2="high:Q"
        ),
        base.mark_point(filled=True, size=34, opacity=1).encode(x=measure.x("value", part)),
    ]  # fmt: skip
    return alt.layer(*layers).properties(height=alt.Step(step, **{"for": "offset"}))


def interval_grid(
    blocks: Sequence[Rows],
    groups: AgentGroups,
    measure: Measure,
    shapes: tuple[str, Sequence[str]] | None = None,
) -> alt.VConcatChart:
    """Dots with intervals: a column per agent, rows in blocks under headings.

    Args:
        blocks: columns row, agent, value, low, high, and ``kind`` where ``shapes`` are given.
        groups: who is drawn, for order and colour.
        measure: the axis, the same for all.
        shapes: what the column ``kind`` is, and its values, each a shape and a line of its own.
    """
    room = label_room([row for block in blocks for row in block.frame.get_column("row").to_list()])
    tiers = -(-len(groups.names) // _COLUMNS)
    across = -(-len(groups.names) // tiers)
    width = max(70, int((PAGE - room) / across) - 14)
    charts: list[alt.FacetChart] = []
    for tier in range(tiers):
        names = groups.names[tier * across : (tier + 1) * across]
        for block in blocks:
            part = block.frame.filter(pl.col("agent").is_in(names))
            bare = block is not blocks[-1]
            chart = _grid_block(part, groups, measure, shapes, room, bare=bare)
            head = alt.Header(labels=block is blocks[0], labelLimit=width + 10)
            column = alt.Column("agent:N", sort=names, title=None, header=head)
            row = in_row(chart.properties(width=width), column, spacing=12)
            charts.append(row.properties(title=block.heading))
    return below(charts, spacing=10)


def _grid_block(
    part: pl.DataFrame,
    groups: AgentGroups,
    measure: Measure,
    shapes: tuple[str, Sequence[str]] | None,
    room: float,
    *,
    bare: bool,
) -> alt.LayerChart | alt.FacetChart:
    order = part.get_column("row").unique(maintain_order=True).to_list()
    axis = alt.Axis(
        ticks=False, domain=False, grid=True, labelLimit=260, minExtent=room, labelPadding=6
    )
    base = alt.Chart().encode(
        y=alt.Y("row:N", sort=order, title=None, axis=axis),
        color=alt.Color("agent:N", scale=groups.scale, legend=None),
    )
    if shapes is not None:
        base = base.encode(yOffset=alt.YOffset("kind:N", sort=list(shapes[1])))
    points = base.mark_point(filled=True, size=26, opacity=1).encode(
        x=measure.x("value", part, bare=bare)
    )
    if shapes is not None:
        scale = alt.Scale(domain=list(shapes[1]), range=list(_SHAPES))
        points = points.encode(shape=alt.Shape("kind:N", title=shapes[0], scale=scale))
    layers = [
        *_reference(measure, part, bare=bare),
        base.mark_rule(strokeWidth=1.6, opacity=0.75).encode(
            x=measure.x("low", part, bare=bare), x2="high:Q"
        ),
        points,
    ]
    step = alt.Step(13) if shapes is None else alt.Step(7, **{"for": "offset"})
    return alt.layer(*layers, data=part).properties(height=step)


def _reference(measure: Measure, part: pl.DataFrame, *, bare: bool = False) -> list[alt.Chart]:
    if measure.reference is None:
        return []
    rule = alt.Chart(pl.DataFrame({"reference": [measure.reference]}))
    return [
        rule.mark_rule(color=BASE_COLOUR, strokeDash=[4, 3]).encode(
            x=measure.x("reference", part, bare=bare)
        )
    ]
