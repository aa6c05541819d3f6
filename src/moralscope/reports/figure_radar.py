"""What does an agent's memory-one policy look like? Its four probabilities as one shape.

Four axes from the centre (never cooperates) to the rim (always does): after CC upwards, after CD
to the right, after DC to the left and after DD downwards, the agent's own last move first. Tit for
tat, which cooperates after CC and DC, is the upper left quarter; always cooperate is the whole
diamond, always defect the point in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import numpy as np
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, over_seeds
from moralscope.reports.arrange import panels
from moralscope.reports.chosen import games_in_order, values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import BASE_COLOUR, FAINT, GRID
from moralscope.reports.run import Run

AXES: Mapping[str, tuple[float, float]] = {
    "CC": (0.0, 1.0),
    "CD": (1.0, 0.0),
    "DD": (0.0, -1.0),
    "DC": (-1.0, 0.0),
}
"""Directions (across, up) of the states, in the order of the outline."""


def memory_one_radar(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """The shape of each agent's policy in one game, with the base's behind it."""
    name, title = "memory_one_radar", "The shape of each policy, and the strategy it is nearest to"
    if reason := run.lacks("nearest", "policy"):
        return Absent(name, title, reason)
    nearest = run.tables["nearest"]
    policy = run.tables["policy"].filter(pl.col("family") == "structured")
    games = [g for g in games_in_order(values(nearest, "game")) if g in values(policy, "game")]
    if not games:
        return Absent(name, title, "The table policy has no game of the table nearest.")
    game = games[0]
    labels = _labels(nearest.filter(pl.col("game") == game))
    own, silent = _whole(_one_pair(policy.filter(pl.col("game") == game), labels))
    if own.is_empty():
        return Absent(name, title, f"No agent has a legal answer in every state of {game}.")
    groups = agent_groups(run, colours, values(own, "agent"))
    shapes = over_seeds(state_means(own), groups, ["state"], (0.0, 1.0))
    close = _nearest(nearest.filter((pl.col("game") == game) & (pl.col("labels") == labels)))
    told = [
        f"{agent} {close[agent][0]} (distance {close[agent][1]})"
        for agent in values(own, "agent")
        if agent in close
    ]
    return Figure(
        name=name,
        title=title,
        shows=f"P(cooperate | legal answer) after each pair of last moves in {game}, the agent's "
        "own first: from the centre (never) to the rim (always), mean over the label assignments "
        "with the payoff table as written. Rules along the axes: from the lowest to the highest "
        "assignment; where an agent stands for several seeds, 95% intervals over seeds."
        f"{_behind(run, groups)} Nearest classic strategy, by root mean "
        f"square over the four states: {'; '.join(told)}.{silent}",
        does_not_show="Assignments apart: a shape in the middle may be half one label and half "
        "the other (see the tables above), and a rearranged table may turn it round. The area of a "
        "shape means nothing. Nearest need not be near: a distance of 0.5 is half way to anything.",
        chart=_chart(shapes, groups, _base(run, groups), close),
        tables=("nearest", "policy"),
    )


def _labels(nearest: pl.DataFrame) -> str:
    return str(nearest.get_column("labels")[0])


def _one_pair(policy: pl.DataFrame, labels: str) -> pl.DataFrame:
    """Rows of one pair of labels, in either assignment; all rows where it is not there.

    Rows of rearranged payoff tables are left out where there are others.
    """
    original = policy.filter(pl.col("table_order").is_in(("original", "none")))
    policy = policy if original.is_empty() else original
    pair = sorted(labels.split("/"))
    rows = policy.filter(pl.col("labels").str.split("/").list.sort() == pair)
    return policy if rows.is_empty() else rows


def _whole(policy: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Rows of agents that have a legal answer in all four states, and who has none, in words."""
    legal = policy.drop_nulls("p_cooperate")
    states = pl.struct("own_previous", "opponent_previous").n_unique().over("agent")
    whole = legal.filter(states == len(AXES))
    out = [agent for agent in values(policy, "agent") if agent not in values(whole, "agent")]
    return whole, f" No legal answer in some state, so no shape: {listing(out)}." if out else ""


def state_means(policy: pl.DataFrame) -> pl.DataFrame:
    """P(cooperate) after each pair of last moves, and its range over label assignments.

    Columns: agent, state, value, low, high (null for one assignment), n, unit.
    """
    state = pl.concat_str("own_previous", "opponent_previous")
    rows: list[dict[str, object]] = []
    for (agent, name), part in policy.with_columns(state=state).group_by(
        "agent", "state", maintain_order=True
    ):
        found = part.get_column("p_cooperate").to_numpy()
        several = len(found) > 1
        rows.append(
            {
                "agent": agent,
                "state": name,
                "value": float(np.mean(found)),
                "low": float(np.min(found)) if several else None,
                "high": float(np.max(found)) if several else None,
                "n": len(found),
                "unit": "label assignments",
            }
        )
    return pl.DataFrame(rows, schema_overrides={"low": pl.Float64, "high": pl.Float64})


def _nearest(nearest: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """Each agent's nearest strategy, and the distance with its interval in words."""
    found: dict[str, tuple[str, str]] = {}
    for row in nearest.filter(pl.col("rank") == 1).iter_rows(named=True):
        distance = f"{row['distance']:.2f}"
        if row["low"] is not None:
            distance += f" [{max(0.0, row['low']):.2f}, {row['high']:.2f}]"
        found[row["agent"]] = (row["strategy"], distance)
    return found


def _closest(groups: AgentGroups, name: str, close: Mapping[str, tuple[str, str]]) -> list[str]:
    """The strategies that the agents drawn under a name are nearest to."""
    members = [agent for agent, drawn in groups.name_of.items() if drawn == name]
    return list(dict.fromkeys(close[agent][0] for agent in members if agent in close))


def _base(run: Run, groups: AgentGroups) -> str | None:
    """The one base among those drawn."""
    bases = [a.name for a in run.agents if a.kind == "base" and a.name in groups.sizes]
    return bases[0] if len(bases) == 1 else None


def _behind(run: Run, groups: AgentGroups) -> str:
    base = _base(run, groups)
    return f" Dashed: {base}." if base else ""


# Picture


def _outline(shapes: pl.DataFrame) -> pl.DataFrame:
    """Corners in the order of the outline, the first again at its end."""
    order = {state: i for i, state in enumerate(AXES)}
    placed = shapes.filter(pl.col("state").is_in(list(AXES))).with_columns(
        corner=pl.col("state").replace_strict(order, return_dtype=pl.Int64)
    )
    closing = placed.filter(pl.col("corner") == 0).with_columns(corner=pl.lit(4, pl.Int64))
    return _at(pl.concat([placed, closing]), "value", "x", "y").sort("agent", "corner")


def _at(frame: pl.DataFrame, column: str, x: str, y: str) -> pl.DataFrame:
    across = pl.col("state").replace_strict({s: d[0] for s, d in AXES.items()})
    up = pl.col("state").replace_strict({s: d[1] for s, d in AXES.items()})
    return frame.with_columns((pl.col(column) * across).alias(x), (pl.col(column) * up).alias(y))


def _chart(
    shapes: pl.DataFrame,
    groups: AgentGroups,
    base: str | None,
    close: Mapping[str, tuple[str, str]],
) -> alt.FacetChart:
    caption = {
        agent: f"{agent}\nnearest: {listing(names, 1)}"
        if (names := _closest(groups, agent, close))
        else agent
        for agent in groups.names
    }
    outline = _outline(shapes).with_columns(panel=pl.col("agent").replace_strict(caption))
    arms = _at(_at(outline.filter(pl.col("corner") < 4), "low", "x1", "y1"), "high", "x2", "y2")
    scale = alt.Scale(domain=[-1.22, 1.22], nice=False)
    x = alt.X("x:Q", scale=scale, axis=None)
    y = alt.Y("y:Q", scale=scale, axis=None)
    layers: list[alt.Chart] = _frame(x, y)
    if base is not None:
        behind = outline.filter(pl.col("agent") == base).select("x", "y", "corner")
        layers.append(
            alt.Chart(behind)
            .mark_line(color=BASE_COLOUR, strokeDash=[4, 3], strokeWidth=1.4)
            .encode(x=x, y=y, order="corner:Q")
        )
    colour = alt.Color("agent:N", scale=groups.scale, legend=None)
    # One data set for all layers that a panel filters: the outline, with the arms' ends.
    data = outline.join(
        arms.select("agent", "corner", "x1", "y1", "x2", "y2"),
        on=["agent", "corner"],
        how="left",
    )
    shape = alt.Chart().encode(x=x, y=y)
    layers += [
        shape.mark_line(filled=True, opacity=0.14).encode(color=colour, order="corner:Q"),
        shape.mark_line(strokeWidth=2.2).encode(color=colour, order="corner:Q"),
        alt.Chart()
        .transform_filter("isValid(datum.x1)")
        .mark_rule(strokeWidth=3.4, opacity=0.45)
        .encode(x=alt.X("x1:Q", scale=scale, axis=None), y=alt.Y("y1:Q", scale=scale, axis=None),
                x2="x2:Q", y2="y2:Q", color=colour),
        shape.mark_point(filled=True, size=34, opacity=1).encode(color=colour),
    ]  # fmt: skip
    columns = min(4, len(groups.names))
    chart = alt.layer(*layers, data=data).properties(width=186, height=186)
    facet = alt.Facet(
        "panel:N",
        sort=[caption[agent] for agent in groups.names],
        title=None,
        header=alt.Header(labelExpr="split(datum.label, '\\n')", labelLimit=190, labelFontSize=11),
    )
    return panels(chart, facet, columns=columns, spacing=14)


def _frame(x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Diamonds at one half and at one, the axes, and their names."""
    rings = [
        {"x": level * d[0], "y": level * d[1], "ring": level, "corner": i}
        for level in (0.5, 1.0)
        for i, d in enumerate([*AXES.values(), AXES["CC"]])
    ]
    spokes = [
        {"x": sign * d[0], "y": sign * d[1], "spoke": name}
        for name in ("CC", "CD")
        for d in (AXES[name],)
        for sign in (-1.0, 1.0)
    ]
    names = [{"x": 1.13 * d[0], "y": 1.12 * d[1], "name": name} for name, d in AXES.items()]
    return [
        alt.Chart(pl.DataFrame(rings))
        .mark_line(color=GRID, strokeWidth=1)
        .encode(x=x, y=y, order="corner:Q", detail="ring:N"),
        alt.Chart(pl.DataFrame(spokes))
        .mark_line(color=GRID, strokeWidth=1)
        .encode(x=x, y=y, detail="spoke:N"),
        alt.Chart(pl.DataFrame(names))
        .mark_text(fontSize=10, color=FAINT)
        .encode(x=x, y=y, text="name:N"),
    ]
