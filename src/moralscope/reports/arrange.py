"""How do charts stand together? Beside, below, or one panel per group.

Altair's own methods for this are typed with unknown data frames; these three are typed with what
the report uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import altair as alt

_Plot = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart


def beside(charts: Sequence[_Plot], spacing: int) -> alt.HConcatChart:
    """Charts in a row that share their legends of colours and dashes."""
    row = alt.hconcat(*charts, spacing=spacing)
    return row.resolve_scale(  # pyright: ignore[reportUnknownMemberType]
        color="shared", strokeDash="shared"
    )


def below(charts: Sequence[_Plot], spacing: int) -> alt.VConcatChart:
    """Charts in a column that share their legends of colours and dashes."""
    column = alt.vconcat(*charts, spacing=spacing)
    return column.resolve_scale(  # pyright: ignore[reportUnknownMemberType]
        color="shared", strokeDash="shared"
    )


def grid(chart: _Plot, column: alt.Column, row: alt.Row, spacing: int) -> alt.FacetChart:
    """One panel per pair of values, all with the same scales."""
    return _facet(chart, column=column, row=row, spacing=spacing)


def panels(chart: _Plot, facet: alt.Facet, columns: int, spacing: int) -> alt.FacetChart:
    """One panel per value, wrapped after ``columns``, all with the same scales."""
    return _facet(chart, facet=facet, columns=columns, spacing=spacing)


def in_row(chart: _Plot, column: alt.Column, spacing: int) -> alt.FacetChart:
    """One panel per value, all in one row, all with the same scales."""
    return _facet(chart, column=column, spacing=spacing)


def _facet(chart: _Plot, **arguments: object) -> alt.FacetChart:
    facet = cast("Callable[..., alt.FacetChart]", chart.facet)  # pyright: ignore[reportUnknownMemberType]
    return facet(**arguments)
