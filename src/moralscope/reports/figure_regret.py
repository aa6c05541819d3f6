"""What does each agent regret? Bars by game, deontological and utilitarian.

Regret is the best attainable reward of a round minus the one obtained, mean over rounds:
deontological in points, 0 to 6 with the penalty for illegal answers; utilitarian as a share of
the published range, ``(max - r) / (max + 6)`` with ``max`` the best sum of both payoffs. These are
the scales on which readers of arXiv 2410.01639 know it (its Figure 4).
"""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.arrange import below, beside
from moralscope.reports.chosen import games_in_order, one_setting, protocol_words, values
from moralscope.reports.dots import PAGE
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.look import INK
from moralscope.reports.run import Run

_KINDS = {
    "deontological": "Deontological regret (points)",
    "utilitarian": "Utilitarian regret (share of range)",
}
_UNITS = {"exact": "presentations", "paper": "episodes"}


def regret_bars(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Bars by game and agent, a panel per kind of regret and protocol."""
    name, title = "regret", "Moral regret by game"
    if reason := run.lacks("regret"):
        return Absent(name, title, reason)
    chosen, setting = one_setting(run.tables["regret"])
    groups = agent_groups(run, colours, values(chosen, "agent"))
    bars = over_seeds(_scaled(chosen), groups, ["protocol", "game", "kind"], (0.0, math.inf))
    return Figure(
        name=name,
        title=title,
        shows=f"Regret a round {setting}: the best attainable reward minus the one obtained. "
        "Deontological: in points; 6 is the penalty for an illegal answer. Utilitarian: as a "
        "share of the published range, from the best sum of both payoffs down to that penalty. "
        f"Each game has its own payoffs. {intervals_told(bars)} {_worst(bars)}",
        does_not_show="Other opponents and labels, and shares of the range that is attainable "
        "with legal answers, which are in the table. Little utilitarian regret need not mean that "
        "an agent weighs the other's payoff: always cooperating has little in most games, and "
        "much where defecting together pays best.",
        chart=_chart(bars, groups),
        tables=("regret",),
    )


def _scaled(rows: pl.DataFrame) -> pl.DataFrame:
    """Value, low and high: utilitarian regret over the published range, the other as it is."""
    same = ["game", "kind"]
    known = pl.col("regret_normalised_published").is_not_null()
    # One factor a game: also where a regret is 0 or its share is not defined in one row.
    share = pl.col("regret_normalised_published").filter(known).sum().over(same)
    total = pl.col("regret").filter(known).sum().over(same)
    factor = pl.when((pl.col("kind") == "utilitarian") & (total != 0)).then(share / total)
    return rows.with_columns(factor=factor.otherwise(1.0)).select(
        "agent",
        "protocol",
        "game",
        "kind",
        pl.col("regret").alias("value") * pl.col("factor"),
        pl.col("low") * pl.col("factor"),
        pl.col("high") * pl.col("factor"),
        pl.col("n_units").alias("n"),
        pl.col("protocol").replace_strict(_UNITS, default="units").alias("unit"),
    )


def _worst(bars: pl.DataFrame) -> str:
    """Where each kind of regret is largest."""
    told: list[str] = []
    for kind in values(bars, "kind"):
        row = bars.filter(pl.col("kind") == kind).sort("value").row(-1, named=True)
        told.append(f"{kind} {row['value']:.2f} ({row['agent']}, {row['game']})")
    return f"Largest: {'; '.join(told)}."


def _chart(bars: pl.DataFrame, groups: AgentGroups) -> alt.VConcatChart:
    protocols = values(bars, "protocol")
    kinds = [kind for kind in _KINDS if kind in values(bars, "kind")]
    rows = [
        beside(
            [
                _panel(
                    bars.filter((pl.col("kind") == kind) & (pl.col("protocol") == protocol)),
                    groups,
                    _ends(bars.filter(pl.col("kind") == kind)),
                    _KINDS[kind] if protocol == protocols[0] else "",
                ).properties(width=int((PAGE - 60) / len(protocols)) - 20)
                for protocol in protocols
            ],
            spacing=22,
        )
        for kind in kinds
    ]
    return below(rows, spacing=22)


def _ends(bars: pl.DataFrame) -> tuple[float, float]:
    """0 and a little beyond the largest value or interval; below 0 where a value is."""
    found = [*bars.get_column("value").to_list(), *bars.get_column("high").drop_nulls().to_list()]
    return min(0.0, *found), 1.04 * max(*found, 1e-3)


def _panel(
    bars: pl.DataFrame, groups: AgentGroups, ends: tuple[float, float], title: str
) -> alt.LayerChart | alt.FacetChart:
    scale = alt.Scale(domain=list(ends), nice=False, clamp=True)
    words = bars.select(protocol_words()).get_column("protocol")
    base = alt.Chart(bars).encode(
        x=alt.X(
            "game:N",
            sort=games_in_order(values(bars, "game")),
            title=None,
            axis=alt.Axis(labelAngle=0, ticks=False, domain=False),
            scale=alt.Scale(paddingInner=0.18, paddingOuter=0.08),
        ),
        xOffset=alt.XOffset("agent:N", sort=groups.names),
        color=groups.colour,
    )
    # The outline keeps a bar of height 0 in sight.
    return alt.layer(
        base.mark_bar(strokeWidth=1).encode(
            y=alt.Y("value:Q", title=title or None, scale=scale, axis=alt.Axis(tickCount=5)),
            stroke=alt.Stroke("agent:N", scale=groups.scale, title="Agent"),
        ),
        base.mark_rule(strokeWidth=1.2, color=INK).encode(
            y=alt.Y("low:Q", scale=scale), y2="high:Q", color=alt.value(INK)
        ),
    ).properties(height=170, title=words[0] if len(words) else "")
