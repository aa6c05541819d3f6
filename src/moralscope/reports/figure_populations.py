"""Who wins among many? Standings of a round robin, and shares in a population over time.

Scores are means a round over all opponents; shares follow the replicator equation, in which a
player grows by what it earns beyond the population's mean. A Moran process tells how likely one
invader takes over a population of residents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from moralscope.reports.arrange import below, beside, panels
from moralscope.reports.chosen import games_in_order, values
from moralscope.reports.dots import PAGE, domain_of, label_room
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.matrix import Scale, heat_panels
from moralscope.reports.run import Run

_FIRST = 14
"""Players of a game that have room, the agents apart."""

_STRATEGY = "#9aa5b1"
_LEADERS = 4
"""Strategies of a game that have a line of their own in a population, the rest together."""

_TIMES = 40
"""Times of a population's path that a panel has room for."""

_DASHES = ((6, 3), (2, 2), (8, 3, 2, 3), (1, 3))
OTHERS = "other strategies"


def standings(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Scores with intervals over opponents, best first, a panel per game."""
    name, title = "standings", "Round-robin tournament: scores, best first"
    if reason := run.lacks("standings"):
        return Absent(name, title, reason)
    rows, setting = _first_setting(run.tables["standings"])
    players = values(rows, "player")
    note = ""
    if len(players) > _FIRST + rows.filter(pl.col("kind") == "agent")["player"].n_unique():
        rows = rows.filter((pl.col("kind") == "agent") | (pl.col("rank") <= _FIRST))
        note = f" Shown: the first {_FIRST} of {len(players)} players and every agent."
    first = rows.row(0, named=True)
    return Figure(
        name=name,
        title=title,
        shows=f"Mean points a round over {first['opponents']} opponents, {first['rounds']} rounds "
        f"a match{setting}, with the 95% interval over opponents; grey: classical strategies."
        f"{note} {_places(rows)}",
        does_not_show="Skill as such: a score belongs to this field of players, and an interval "
        "over opponents is about the field, not about the luck of play.",
        chart=_standings_chart(rows, colours),
        tables=("standings",),
    )


def _first_setting(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Rows of the first labels and the least noise, where a table tells them apart, in words."""
    told: list[str] = []
    if "labels" in table.columns:
        labels = table.get_column("labels")[0]
        table = table.filter(pl.col("labels") == labels)
        told.append(f"labels {labels}")
    if "noise" in table.columns:
        table = table.filter(pl.col("noise") == pl.col("noise").min())
        noise = table.get_column("noise")[0]
        told.append(f"noise {noise:g}" if noise else "no noise")
    return table, f" ({', '.join(told)})" if told else ""


def _places(rows: pl.DataFrame) -> str:
    """Each agent's best and worst place."""
    agents = rows.filter(pl.col("kind") == "agent")
    told: list[str] = []
    for agent in values(agents, "player"):
        ranks = agents.filter(pl.col("player") == agent).get_column("rank").to_list()
        place = f"{min(ranks)}" if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
        told.append(f"{agent} {place}")
    return f"Places: {', '.join(told)}." if told else "No agent took part."


def _standings_chart(rows: pl.DataFrame, colours: Mapping[str, str]) -> alt.VConcatChart:
    games = games_in_order(values(rows, "game"))
    across = min(3, len(games))
    # Every panel has labels of its own: places differ.
    room = label_room(values(rows, "player"), 150.0)
    width = max(80, int(PAGE / across - room - 18))
    lines = [games[i : i + across] for i in range(0, len(games), across)]
    charts = [
        beside(
            [_standing(rows.filter(pl.col("game") == game), colours, game, width) for game in line],
            spacing=14,
        )
        for line in lines
    ]
    return below(charts, spacing=18)


def _standing(
    rows: pl.DataFrame, colours: Mapping[str, str], game: str, width: int
) -> alt.LayerChart | alt.FacetChart:
    shown = rows.sort("rank", "player").with_columns(value="score")
    low, high = domain_of(shown, zero=False)
    x_scale = alt.Scale(domain=[low - 0.02 * (high - low), high], nice=False, zero=False)
    players = values(shown, "player")
    colour = alt.Color(
        "player:N",
        scale=alt.Scale(
            domain=players, range=[colours.get(player, _STRATEGY) for player in players]
        ),
        legend=None,
    )
    base = alt.Chart(shown).encode(
        y=alt.Y(
            "player:N",
            sort=players,
            title=None,
            axis=alt.Axis(ticks=False, domain=False, grid=True, labelLimit=150, labelFontSize=10),
        ),
        color=colour,
    )
    axis = alt.Axis(tickCount=4)
    title = "Points a round"
    layers = alt.layer(
        base.mark_rule(strokeWidth=1.6, opacity=0.75).encode(
            x=alt.X("low:Q", scale=x_scale, title=title, axis=axis), x2="high:Q"
        ),
        base.mark_point(filled=True, size=38, opacity=1).encode(
            x=alt.X("score:Q", scale=x_scale, title=title, axis=axis)
        ),
    )
    separate = layers.resolve_scale(color="independent")  # pyright: ignore[reportUnknownMemberType]
    return separate.properties(width=width, height=alt.Step(13), title=game)


# Populations


def population_dynamics(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Shares over time, a panel per game; the leading strategies have lines of their own."""
    name, title = "dynamics", "A population of agents and strategies over time"
    if reason := run.lacks("dynamics"):
        return Absent(name, title, reason)
    rows, setting = _first_setting(run.tables["dynamics"])
    agents = [name for name in colours if name in values(rows, "player")]
    lines, leaders = population_lines(thinned(rows), agents)
    players = rows.get_column("player").n_unique()
    return Figure(
        name=name,
        title=title,
        shows=f"Shares of {players} players in a population that follows the replicator "
        f"equation{setting}, from equal shares. Solid: agents; broken: strategies that lead in "
        f"some game, {listing(leaders)}; the rest of the strategies together. {_winners(rows)}",
        does_not_show="Chance: the equation has none, and so no intervals. Payoffs are those of "
        "exact play; who survives depends on who was there at the start.",
        chart=_dynamics_chart(lines, colours, agents, leaders),
        tables=("dynamics",),
    )


def thinned(rows: pl.DataFrame) -> pl.DataFrame:
    """At most ``_TIMES`` times of each game, evenly, the last among them."""
    times = rows.select("game", "time").unique().sort("game", "time")
    last = pl.col("time").max().over("game")
    every = (pl.len().over("game") / _TIMES).ceil().cast(pl.Int64)
    place = pl.int_range(pl.len()).over("game")
    kept = times.filter((place % every == 0) | (pl.col("time") == last))
    return rows.join(kept, on=["game", "time"], how="semi", maintain_order="left")


def population_lines(rows: pl.DataFrame, agents: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Shares as they are drawn, and which strategies have lines of their own.

    Columns: game, time, player (an agent, a leading strategy or ``OTHERS``), share. Leading
    strategies are those with the largest share that any reaches in any game.
    """
    strategies = rows.filter(~pl.col("player").is_in(list(agents)))
    peaks = strategies.group_by("player", maintain_order=True).agg(pl.col("share").max())
    leaders = peaks.sort("share", descending=True, maintain_order=True)["player"].to_list()
    leaders = leaders[:_LEADERS]
    kept = pl.col("player").is_in([*agents, *leaders])
    lines = (
        rows.with_columns(player=pl.when(kept).then("player").otherwise(pl.lit(OTHERS)))
        .group_by("game", "time", "player", maintain_order=True)
        .agg(pl.col("share").sum())
    )
    return lines, leaders


def _winners(rows: pl.DataFrame) -> str:
    told: list[str] = []
    for game in games_in_order(values(rows, "game")):
        own = rows.filter(pl.col("game") == game)
        last = own.filter(pl.col("time") == pl.col("time").max()).sort(
            "share", descending=True, maintain_order=True
        )
        told.append(f"{game} {last['player'][0]} ({last['share'][0]:.2f})")
    return f"Largest share at the end: {', '.join(told)}."


def _dynamics_chart(
    lines: pl.DataFrame, colours: Mapping[str, str], agents: Sequence[str], leaders: Sequence[str]
) -> alt.FacetChart:
    games = games_in_order(values(lines, "game"))
    rest = [OTHERS] if OTHERS in values(lines, "player") else []
    players = [*agents, *leaders, *rest]
    free = [c for c in AGENT_COLOURS if c not in [colours[agent] for agent in agents]]
    hues = [colours[agent] for agent in agents]
    hues += [free[i] if i < len(free) else BASE_COLOUR for i in range(len(leaders))]
    hues += [_STRATEGY] * len(rest)
    dashes = [[1, 0]] * len(agents) + [list(dash) for dash in _DASHES[: len(leaders)]]
    dashes += [[1, 1]] * len(rest)
    columns = min(3, len(games))
    chart = (
        alt.Chart(lines)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("time:Q", title="Time (1 / points)", scale=alt.Scale(nice=False),
                    axis=alt.Axis(tickCount=5)),
            y=alt.Y("share:Q", title="Share", scale=alt.Scale(domain=[0, 1]),
                    axis=alt.Axis(tickCount=5)),
            color=alt.Color("player:N", title="Player",
                            scale=alt.Scale(domain=players, range=hues)),
            strokeDash=alt.StrokeDash("player:N", title="Player",
                                      scale=alt.Scale(domain=players, range=dashes)),
        )
        .properties(width=int((PAGE - 50) / columns) - 22, height=140)
    )  # fmt: skip
    return panels(chart, alt.Facet("game:N", sort=games, title=None), columns, spacing=20)


def fixation(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """How much likelier than by chance an invader takes over, a panel per game."""
    name, title = "fixation", "Can one invader take over a population of residents?"
    if reason := run.lacks("fixation"):
        return Absent(name, title, reason)
    every, setting = _first_setting(run.tables["fixation"])
    agents = [player for player in values(every, "invader") if player in colours]
    rows = every.filter(pl.col("invader").is_in(agents)) if agents else every
    others = every.get_column("invader").n_unique() - len(agents) if agents else 0
    note = f" Strategies as invaders ({others}) are in the table." if others else ""
    cells = rows.select(
        pl.col("game").alias("panel"),
        pl.col("resident").alias("x"),
        pl.col("invader").alias("y"),
        (pl.col("fixation") / pl.col("neutral")).alias("value"),
        pl.lit("").alias("note"),
    ).with_columns(cell=pl.col("value").map_elements(_times, pl.String))
    first = rows.row(0, named=True)
    over = cells.filter(pl.col("value") > 1.0).height
    return Figure(
        name=name,
        title=title,
        shows="Probability that one invader (at the side) takes over a population of "
        f"{first['population']} whose others are all residents (on top){setting}, over the same "
        "probability without selection, 1 / population: above 1 selection favours the invader "
        f"(Moran process, exact; intensity of selection {first['selection']:g}). It does in "
        f"{over} of {cells.height} cells.{note}",
        does_not_show="More than two kinds at a time, and mutation. The probability is exact for "
        "the mean policy and has no interval.",
        chart=heat_panels(
            cells,
            Scale("Fixation over neutral (1: chance)", 0.0, 2.0),
            games_in_order(values(cells, "panel")),
            _agents_first(values(cells, "x"), colours),
            _agents_first(values(cells, "y"), colours),
        ),
        tables=("fixation",),
    )


def _agents_first(players: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    return [a for a in colours if a in players] + [p for p in players if p not in colours]


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
