"""Which kinds of action do agents take? Own move after the other's, in play and over training.

A kind is the own move given the other's move before: ``C|C`` repays cooperation, ``C|D`` turns
the other cheek, ``D|C`` betrays, ``D|D`` retaliates; an illegal answer is no move. Colours are
those of arXiv 2410.01639 (its Figures 2 and 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.arrange import below, in_row, panels
from moralscope.reports.chosen import games_in_order, one_setting, protocol_words, values
from moralscope.reports.dots import PAGE, label_room
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import INK
from moralscope.reports.played import played_rounds, rounds_told, window
from moralscope.reports.run import Run

COLOURS = {
    "C|C": "#28641e",
    "C|D": "#b0dc82",
    "D|D": "#8e0b52",
    "D|C": "#fbe6f1",
    "illegal": "#a9a9a9",
}
"""As published, retaliation next to betrayal."""

_BINS = 50
"""Windows of steps of a training that a panel has room for."""

_DECISIONS = 25
"""A window has at least so many on average, as many as a step of the published five seeds."""

_UNITS = {"exact": "presentations", "paper": "episodes"}


def action_shares(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Stacked shares per agent, a panel per game, a row of panels per protocol."""
    name, title = "action_shares", "Kinds of action in play: own move after the other's"
    if reason := run.lacks("action_shares"):
        return Absent(name, title, reason)
    chosen, setting = one_setting(run.tables["action_shares"])
    groups = agent_groups(run, colours, values(chosen, "agent"))
    keys = ["protocol", "game", "kind"]
    # The shares of illegal answers after C and after D are one kind; theirs has no interval.
    parts = (
        chosen.with_columns(kind=_kind())
        .group_by("agent", *keys, maintain_order=True)
        .agg(
            value=pl.col("share").sum(),
            low=pl.when(pl.len() == 1).then(pl.col("low").first()),
            high=pl.when(pl.len() == 1).then(pl.col("high").first()),
            n=pl.col("n_units").first(),
        )
        .with_columns(unit=pl.col("protocol").replace_strict(_UNITS, default="units"))
    )
    shares = over_seeds(parts, groups, keys, (0.0, 1.0))
    return Figure(
        name=name,
        title=title,
        shows=f"Share of all rounds {setting} in which the agent's move (before the bar) follows "
        "the other's move of the round before (after it), by game. Rules: 95% interval of each "
        f"share, about the end of its part. {intervals_told(shares)} {_most_illegal(shares)}",
        does_not_show="Conditional probabilities: a part is small where its situation is rare. "
        "The memory-one tables above say what an agent does once it is there.",
        chart=_shares_chart(_stacked(shares, keys[:2]), groups),
        tables=("action_shares",),
    )


def _kind() -> pl.Expr:
    legal = pl.format("{}|{}", "own", "opponent_previous")
    return pl.when(pl.col("own") == "illegal").then(pl.lit("illegal")).otherwise(legal)


def _most_illegal(shares: pl.DataFrame) -> str:
    rows = shares.filter(pl.col("kind") == "illegal").sort("value")
    if rows.is_empty() or rows.get_column("value")[-1] == 0:
        return "No answer was illegal."
    row = rows.row(-1, named=True)
    return f"Most illegal answers: {row['value']:.2f} ({row['agent']}, {row['game']})."


def _stacked(shares: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Where each part begins and ends, and its interval about its end."""
    rank = pl.col("kind").replace_strict({kind: i for i, kind in enumerate(COLOURS)})
    return (
        shares.with_columns(rank=rank.cast(pl.Int64))
        .sort("rank", maintain_order=True)
        .with_columns(end=pl.col("value").cum_sum().over("agent", *keys))
        .with_columns(
            start=pl.col("end") - pl.col("value"),
            from_=pl.col("end") - pl.col("value") + pl.col("low"),
            to=pl.col("end") - pl.col("value") + pl.col("high"),
        )
    )


def _colour() -> alt.Color:
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("kind:N", scale=scale, title="Own move | other's move before")


def _shares_chart(parts: pl.DataFrame, groups: AgentGroups) -> alt.VConcatChart:
    protocols = values(parts, "protocol")
    games = games_in_order(values(parts, "game"))
    room = label_room(groups.names)
    width = max(70, int((PAGE - room) / len(games)) - 12)
    charts = [
        _shares_row(
            parts.filter(pl.col("protocol") == protocol), groups, games, width,
            last=protocol == protocols[-1],
        )
        for protocol in protocols
    ]  # fmt: skip
    return below(charts, spacing=16)


def _shares_row(
    parts: pl.DataFrame, groups: AgentGroups, games: Sequence[str], width: int, *, last: bool
) -> alt.FacetChart:
    scale = alt.Scale(domain=[0, 1], nice=False, clamp=True)
    axis = alt.Axis(values=[0, 0.5, 1], format=".2~f", labels=last, ticks=last)
    title = "Share of rounds" if last else ""
    y = alt.Y("agent:N", sort=groups.names, title=None, axis=alt.Axis(ticks=False, domain=False))
    base = alt.Chart().encode(y=y)
    layers = [
        base.mark_bar(height={"band": 0.8}, stroke="#7b8794", strokeWidth=0.4).encode(
            x=alt.X("start:Q", title=title, scale=scale, axis=axis), x2="end:Q", color=_colour()
        )
    ]
    # Intervals of neighbouring parts would hide each other on one line.
    for rank, kind in enumerate(list(COLOURS)[:-1]):
        layers.append(
            base.transform_filter(alt.datum.kind == kind)
            .mark_rule(strokeWidth=1.1, color=INK, yOffset=3 * rank - 4.5)
            .encode(x=alt.X("from_:Q", scale=scale, title=title, axis=axis), x2="to:Q")
        )
    words = parts.select(protocol_words()).get_column("protocol")[0]
    chart = alt.layer(*layers, data=parts).properties(width=width, height=alt.Step(21))
    facet = alt.Column("game:N", sort=[g for g in games if g in values(parts, "game")], title=None)
    return in_row(chart, facet, spacing=12).properties(title=words)


# Over training


def training_actions(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Stacked shares by training step, a panel per training, seeds summed."""
    name, title = "training_actions", "Kinds of action over training: own move after the other's"
    if reason := run.lacks("plays"):
        return Absent(name, title, reason)
    rounds = played_rounds(run)
    if rounds.is_empty():
        return Absent(
            name,
            title,
            "No round of the table plays has one other player whose last move is known.",
        )
    groups = agent_groups(run, colours, values(rounds, "agent"))
    shares = shares_by_step(rounds, groups)
    sizes = [f"{agent} {_seeds(rounds, groups, agent)}" for agent in groups.names]
    return Figure(
        name=name,
        title=title,
        shows="Share of the decisions of sampled training play, summed over training seeds: the "
        "agent's move (before the bar) and the other's move of the round before (after it). "
        f"Each point is a window of steps. Trainings: {listing(sizes)}.{rounds_told(run)}",
        does_not_show="Intervals: shares of stacked areas have none here; those over seeds are in "
        "the drift below. Play visits what training leads to, so that a rare kind may be a rare "
        "situation. Exact trainings play no rounds and are not here.",
        chart=_areas(shares, groups),
        tables=("plays", "prompts") if "prompts" in run.tables else ("plays",),
    )


def _seeds(rounds: pl.DataFrame, groups: AgentGroups, agent: str) -> str:
    own = rounds.filter(pl.col("agent").replace_strict(dict(groups.name_of)) == agent)
    count = own.select("agent", "training_seed").unique().height
    return f"({own.height} decisions{f', {count} seeds' * (count > 1)})"


def shares_by_step(rounds: pl.DataFrame, groups: AgentGroups) -> pl.DataFrame:
    """Columns agent, step (middle of a window), kind, share; kinds that did not occur are 0."""
    named = rounds.with_columns(
        agent=pl.col("agent").replace_strict(dict(groups.name_of)), kind=_kind()
    )
    binned = named.with_columns(step=window(_BINS, _DECISIONS))
    total = binned.group_by("agent", "step").agg(total=pl.len())
    every = total.join(pl.DataFrame({"kind": list(COLOURS)}), how="cross")
    counts = binned.group_by("agent", "step", "kind").agg(count=pl.len())
    return (
        every.join(counts, on=["agent", "step", "kind"], how="left")
        .with_columns(share=pl.col("count").fill_null(0) / pl.col("total"))
        .sort("agent", "step", "kind")
        .select("agent", "step", "kind", "share")
    )


def _areas(shares: pl.DataFrame, groups: AgentGroups) -> alt.FacetChart:
    columns = min(3, len(groups.names))
    order = alt.Order("rank:Q")
    ranked = shares.with_columns(
        rank=pl.col("kind").replace_strict({k: i for i, k in enumerate(COLOURS)})
    )
    chart = (
        alt.Chart(ranked)
        .mark_area(stroke="#7b8794", strokeWidth=0.3)
        .encode(
            x=alt.X("step:Q", title="Training step", scale=alt.Scale(nice=False),
                    axis=alt.Axis(tickCount=5, grid=False)),
            y=alt.Y("share:Q", title="Share of decisions", stack="zero",
                    scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)),
            color=_colour(),
            order=order,
        )
        .properties(width=int((PAGE - 50) / max(columns, 2)) - 30, height=150)
    )  # fmt: skip
    facet = alt.Facet("agent:N", sort=groups.names, title=None)
    return panels(chart, facet, columns=columns, spacing=20)
