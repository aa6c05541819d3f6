"""Does a patch do the same in every scenario? Effects by scenario, signs, and both directions.

By scenario: the sites whose effects are largest on average, scenarios across. Consistency: for
each site the share of scenarios whose effect has the sign of the mean; half is what no effect
gives, and the largest of many sites lies above it by chance. Asymmetry, where a pair was patched
both ways: half the sum of both effects, which is 0 where undoing undoes.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_sites import (
    DRAWN,
    Panel,
    heatmaps,
    largest,
    one_protocol,
    saturation,
)
from moralscope.reports.look import BASE_COLOUR, signed_colour
from moralscope.reports.run import Run
from moralscope.reports.scenario_means import with_scenario

SITES = 15
"""Sites of a direction that a map by scenario has rows for."""

DIRECTIONS = 6
"""Directions between agents that are drawn; the exports have all."""


def has_patches(run: Run) -> bool:
    """Whether single components were patched on prompts whose scenario is known."""
    return run.lacks("patching", "prompts") is None


def has_directions(run: Run) -> bool:
    """Whether some pair was patched both ways."""
    return run.lacks("directions") is None


def _effects(run: Run) -> pl.DataFrame:
    """Mean effect per direction, site and scenario, of one way of patching."""
    table = one_protocol(run.tables["patching"]).filter(pl.col("kind").is_in(DRAWN))
    return (
        with_scenario(run, table)
        .with_columns(pair=pl.col("source") + " into " + pl.col("target"))
        .group_by("pair", "site", "scenario", maintain_order=True)
        .agg(value=pl.col("effect").mean())
    )


def patching_by_scenario(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Effect of the sites that do most, in every scenario, a panel per direction."""
    name, title = "patching_scenarios", "Patching by scenario: does a component do it everywhere?"
    del colours
    if reason := run.lacks("patching", "prompts"):
        return Absent(name, title, reason, "patching")
    effects = _effects(run)
    if effects.is_empty():
        return Absent(name, title, "No single head or MLP was patched in this run.", "patching")
    pairs = effects.get_column("pair").unique(maintain_order=True).to_list()
    shown = effects.filter(pl.col("pair").is_in(pairs[:DIRECTIONS]))
    top = _largest_sites(shown)
    rows = shown.join(top, on=["pair", "site"], maintain_order="left").filter(
        pl.col("rank").is_not_null()
    )
    n = effects.get_column("scenario").n_unique()
    positive, negative = run.option_words
    left = len(pairs) - DIRECTIONS
    return Figure(
        name=name,
        title=title,
        shows=f"Effect on the log-odds of the {SITES} components that do most on average, in each "
        f"of {n} scenarios; orange pushes towards {positive}, purple towards {negative}."
        + (f" {left} more directions are in the exports." if left > 0 else ""),
        does_not_show="The components were chosen on these scenarios, so their means are too "
        "large on average; whether they would be chosen again is in the claims' reasons.",
        chart=_scenario_chart(rows, pairs[:DIRECTIONS]),
        tables=("patching", "prompts"),
        topic="patching",
    )


def _largest_sites(effects: pl.DataFrame) -> pl.DataFrame:
    """Columns pair, site, rank: the ``SITES`` of each direction with the largest absolute mean."""
    return (
        effects.group_by("pair", "site", maintain_order=True)
        .agg(pl.col("value").mean().abs())
        .sort("value", descending=True, maintain_order=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("pair"))
        .filter(pl.col("rank") <= SITES)
        .select("pair", "site", "rank")
    )


def _scenario_chart(rows: pl.DataFrame, pairs: list[str]) -> alt.FacetChart:
    cap = saturation(rows.get_column("value"))
    scenarios = rows.get_column("scenario").unique().sort().to_list()
    step = max(4.0, min(18.0, 300 / len(scenarios)))
    few = len(scenarios) <= 24
    chart = (
        alt.Chart(rows.select("pair", "site", "rank", "scenario", "value"))
        .mark_rect()
        .encode(
            x=alt.X(
                "scenario:N", sort=scenarios, title="Scenario",
                axis=alt.Axis(labels=few, labelAngle=-90, labelFontSize=9, ticks=False),
            ),
            y=alt.Y("site:N", sort=alt.SortField("rank"), title=None, axis=alt.Axis(ticks=False)),
            color=signed_colour(
                "value", cap, f"Effect on log-odds (nats); colours saturate at \u00b1{cap:.2g}"
            ),
        )
        .properties(width=alt.Step(step), height=alt.Step(13))
    )  # fmt: skip
    facet = alt.Facet("pair:N", sort=pairs, title=None)
    drawn = panels(chart, facet, columns=min(2, len(pairs)), spacing=24)
    return drawn.resolve_scale(y="independent")  # pyright: ignore[reportUnknownMemberType]


def patching_consistency(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean effect of each site against the share of scenarios that agree with its sign."""
    name, title = (
        "patching_consistency",
        "Consistency: in how many scenarios a patch points one way",
    )
    del colours
    if reason := run.lacks("patching", "prompts"):
        return Absent(name, title, reason, "patching")
    sites = consistency(_effects(run))
    if sites.is_empty():
        return Absent(name, title, "No single head or MLP was patched in this run.", "patching")
    pairs = sites.get_column("pair").unique(maintain_order=True).to_list()
    shown = sites.filter(pl.col("pair").is_in(pairs[:DIRECTIONS]))
    n = shown.get_column("n").max()
    whole = [
        f"{pair} {shown.filter((pl.col('pair') == pair) & (pl.col('agree') == 1)).height} of "
        f"{shown.filter(pl.col('pair') == pair).height}"
        for pair in pairs[:DIRECTIONS]
    ]
    return Figure(
        name=name,
        title=title,
        shows=f"Each point is a head or MLP: its mean effect on the log-odds, and the share of "
        f"{n} scenarios whose effect has the sign of that mean. The same sign in all of them: "
        f"{listing(whole)}.",
        does_not_show="With few scenarios many components agree by chance: with n of them, one "
        "in 2 to the power n - 1 does. Points are no tests; the claims correct for their number.",
        chart=_consistency_chart(shown, pairs[:DIRECTIONS]),
        tables=("patching", "prompts"),
        topic="patching",
    )


def consistency(effects: pl.DataFrame) -> pl.DataFrame:
    """Per direction and site: pair, site, mean (nats), agree (share of scenarios), n.

    A scenario without any effect agrees with neither sign.
    """
    mean = pl.col("value").mean()
    return effects.group_by("pair", "site", maintain_order=True).agg(
        mean=mean,
        agree=((pl.col("value") * mean) > 0).mean(),
        n=pl.len().cast(pl.Int64),
    )


def _consistency_chart(sites: pl.DataFrame, pairs: list[str]) -> alt.FacetChart:
    half = (
        alt.Chart(pl.DataFrame({"half": [0.5]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(y="half:Q")
    )
    points = (
        alt.Chart()
        .mark_point(filled=True, size=22, opacity=0.55, color="#22577a")
        .encode(
            x=alt.X("mean:Q", title="Mean effect (nats)", axis=alt.Axis(tickCount=5)),
            y=alt.Y(
                "agree:Q", title="Scenarios that agree", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=3),
            ),
        )
    )  # fmt: skip
    data = sites.select("pair", "site", "mean", "agree")
    chart = alt.layer(half, points, data=data).properties(width=230, height=150)
    facet = alt.Facet("pair:N", sort=pairs, title=None)
    return panels(chart, facet, columns=min(3, len(pairs)), spacing=22)


def asymmetry_maps(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean asymmetry of both directions of a patch, a panel per pair."""
    name, title = "patching_asymmetry", "Asymmetry: does patching back undo what patching did?"
    del colours
    if reason := run.lacks("directions"):
        return Absent(name, title, reason, "patching")
    means = asymmetries(run.tables["directions"])
    drawn = means.filter(pl.col("kind").is_in(DRAWN))
    if drawn.is_empty():
        return Absent(name, title, "No single head or MLP was patched both ways.", "patching")
    pairs = drawn.get_column("pair").unique(maintain_order=True).to_list()
    maps = [Panel(pair, drawn.filter(pl.col("pair") == pair)) for pair in pairs]
    shares = [
        f"{pair} {own.filter(pl.col('value').abs() > pl.col('symmetric').abs()).height} of "
        f"{own.height}"
        for pair in pairs
        if (own := drawn.filter(pl.col("pair") == pair)).height
    ]
    return Figure(
        name=name,
        title=title,
        shows="Half the sum of the effects of patching one component from the first agent into "
        "the second and back, mean over prompts: 0 where one undoes the other. Largest: "
        f"{largest(maps, pairs)}. Components whose asymmetry exceeds their symmetric part: "
        f"{listing(shares)}.",
        does_not_show="Nonlinearity alone makes both effects differ, more so between agents that "
        "lie far apart, and small effects differ by rounding: how many do beyond that is a claim.",
        chart=heatmaps(maps, "Mean asymmetry (nats)"),
        tables=("directions",),
        topic="patching",
    )


def asymmetries(directions: pl.DataFrame) -> pl.DataFrame:
    """Means over prompts per pair and site: pair, site, layer, kind, head, symmetric, value.

    One way of patching: the source's own write at the answer, where it was run. Layer, kind and
    head are read from the name of the site.
    """
    table = directions
    for condition in (pl.col("write") == "write", pl.col("positions") == "answer_span"):
        chosen = table.filter(condition)
        table = table if chosen.is_empty() else chosen
    table = table.filter(
        (pl.col("positions") == pl.col("positions").first())
        & (pl.col("write") == pl.col("write").first())
    )
    head = pl.col("site").str.extract(r"^L\d+\.h(\d+)$").cast(pl.Int64)
    return (
        table.with_columns(pair=pl.col("agent_a") + " and " + pl.col("agent_b"))
        .group_by("pair", "site", maintain_order=True)
        .agg(pl.col("symmetric").mean(), value=pl.col("asymmetry").mean())
        .with_columns(
            layer=pl.col("site").str.extract(r"^L(\d+)\.").cast(pl.Int64),
            head=head,
            kind=pl.when(head.is_not_null())
            .then(pl.lit("head"))
            .when(pl.col("site").str.ends_with(".mlp"))
            .then(pl.lit("mlp"))
            .otherwise(pl.lit("other")),
        )
    )
