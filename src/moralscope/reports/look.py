"""How do colours carry meaning? One palette for every figure and for the page.

Two codes, kept apart. *Who*: each agent has one colour everywhere, the base model in grey and
trained agents in the Okabe-Ito colours, which readers with any common colour vision tell apart.
*Which way*: signs run from purple (towards the negative option, cooperate) through near white to
orange (towards the positive option, defect), the same in every heat map.

Does not choose what is drawn; figures do that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

BASE_COLOUR = "#6b7280"
AGENT_COLOURS = (
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#7a5195",
    "#b8860b",
    "#8c2d04",
)
"""Trained agents, in order. Yellow is left out: it vanishes on white."""

DIVERGING = ("#542788", "#998ec3", "#d8daeb", "#f7f7f7", "#fee0b6", "#f1a340", "#b35806")
"""From the negative option (purple) to the positive one (orange); safe for colour blindness."""

FONT = "Roboto, Arial, Helvetica, Liberation Sans, sans-serif"
"""Roboto comes with the exporter, so layout is the same on every machine; the rest are what a
reader's browser has. Nothing is fetched."""

INK = "#1f2933"
FAINT = "#52606d"
GRID = "#e4e7eb"


def agent_colours(
    names: Sequence[str],
    bases: frozenset[str],
    rewards: Mapping[str, str | None],
    policies: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """One colour per agent.

    Args:
        names: agents in the order of the study.
        bases: those that are base models; they are grey.
        rewards: what each agent was trained with, where known. When there are more trained
            agents than colours and every one has a reward, agents of one reward share a colour.
        policies: those that are scripted; their colours follow those of the trained agents.

    Returns:
        Hexadecimal colours by name. Without rewards to group by, colours repeat after the eighth
        agent; panels and labels still tell such agents apart.
    """
    trained = [name for name in names if name not in bases | policies]
    grouped = len(trained) > len(AGENT_COLOURS) and all(rewards.get(name) for name in trained)
    keys = {name: (rewards.get(name) or name) if grouped else name for name in trained}
    keys |= {name: name for name in names if name in policies}
    order = {key: rank for rank, key in enumerate(dict.fromkeys(keys.values()))}
    colours = {name: BASE_COLOUR for name in names if name in bases}
    for name in keys:
        colours[name] = AGENT_COLOURS[order[keys[name]] % len(AGENT_COLOURS)]
    return {name: colours[name] for name in names}


def agent_colour(colours: Mapping[str, str], shown: Sequence[str]) -> alt.Color:
    """The colour encoding of the column ``agent``, for the agents that a figure shows."""
    domain = [name for name in colours if name in set(shown)]
    scale = alt.Scale(domain=domain, range=[colours[name] for name in domain])
    return alt.Color("agent:N", scale=scale, title="Agent")


def signed_colour(field: str, cap: float, title: str) -> alt.Color:
    """A diverging colour encoding, symmetric about 0 and saturating at ``cap``."""
    steps = len(DIVERGING) - 1
    domain = [cap * (2 * i / steps - 1) for i in range(steps + 1)]
    scale = alt.Scale(domain=domain, range=list(DIVERGING), clamp=True)
    legend = alt.Legend(
        title=title,
        orient="top",
        direction="horizontal",
        gradientLength=260,
        gradientThickness=10,
        titleLimit=600,
        values=[-cap, 0.0, cap],
        labelExpr="datum.value == 0 ? '0' : format(datum.value, '+.2~g')",
    )
    return alt.Color(f"{field}:Q", scale=scale, legend=legend)


_CONFIG: dict[str, object] = {
    "aria": False,
    "font": FONT,
    "view": {"stroke": None, "continuousWidth": 280, "continuousHeight": 200},
    "axis": {
        "labelColor": FAINT,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "gridColor": GRID,
        "domainColor": "#9aa5b1",
        "tickColor": "#9aa5b1",
        "titlePadding": 8,
        "labelLimit": 260,
    },
    "legend": {
        "orient": "top",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleColor": FAINT,
        "labelColor": INK,
        "labelLimit": 240,
        "symbolStrokeWidth": 2.5,
        "symbolOpacity": 1,
        "columns": 6,
        "columnPadding": 26,
    },
    "header": {
        "labelFontSize": 12,
        "labelFontWeight": "bold",
        "labelColor": INK,
        "titleFontWeight": "normal",
        "titleColor": FAINT,
        "labelLimit": 520,
    },
    "title": {
        "fontSize": 13,
        "fontWeight": "bold",
        "color": INK,
        "anchor": "start",
        "frame": "group",
        "offset": 8,
    },
    "line": {"strokeWidth": 2},
}


def styled(chart: alt.TopLevelMixin) -> dict[str, object]:
    """The Vega-Lite specification of a chart in the style of the report, a JSON value.

    The same chart gives the same specification, byte for byte.
    """
    # Data are aggregated already; Altair's limit on rows guards against charting raw tables.
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, object] = chart.to_dict()
    spec["background"] = "white"
    spec["padding"] = {"left": 8, "right": 28, "top": 8, "bottom": 8}
    spec["config"] = _CONFIG
    return spec
