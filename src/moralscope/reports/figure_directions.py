"""Which directions tell apart, and do they matter? Probes by depth, and directions added.

Held-out accuracy of a linear probe beside what permuted labels give (band) and what a model with
random weights gives (dotted): a property that the tokens carry along is found in any network. Where
directions were added to the stream, their effect stands beside that of random ones of equal length.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.evidence.pairs import compared
from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import BASE_COLOUR, INK, agent_colour
from moralscope.reports.run import Run

METHOD = "logistic"
"""The probe that is drawn; the other is in the table."""

_REAL, _RANDOM = "the direction", "random directions as long"
_SEEDS = "seeds of one reward"


def has_separations(run: Run) -> bool:
    """Whether directions were probed."""
    return "separations" in run.tables


def separations(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Held-out accuracy by relative depth, a panel per thing told apart."""
    name, title = "separations", "Directions: what can be told apart on unseen scenarios"
    if reason := run.lacks("separations"):
        return Absent(name, title, reason)
    rows = separation_rows(run)
    found = [
        f"{what} ({own.filter(pl.col('null_p') < 0.05).height} of {own.height} readings)"
        for (what,), own in rows.group_by("what", maintain_order=True)
    ]
    seeds = rows.filter(what="agents", agent=_SEEDS)
    control = (
        " Two agents can always be told apart on equal prompts, so the control of agents are two "
        "seeds of one reward (grey)."
        if seeds.height
        else " Two agents can always be told apart on equal prompts; no seeds of one reward were "
        "told apart, so the panel of agents has no control."
    )
    return Figure(
        name=name,
        title=title,
        shows="Accuracy of a regularised logistic probe on scenarios that it was not fitted to, "
        "both classes weighing alike, by the share of layers passed. Band: 95% of permuted "
        "labels; dotted: the same probe on a model with random weights. Better than permuted "
        f"labels at p < .05: {listing(found)}.{control}",
        does_not_show="That a probe reads something does not mean that the model uses it: see "
        "which directions move the decision. Readings of one agent at several depths are not "
        "independent, and are not corrected for each other here.",
        chart=_chart(rows, colours),
        tables=("separations",),
        topic="representations",
    )


def separation_rows(run: Run) -> pl.DataFrame:
    """Columns what, agent, subject, depth, accuracy, chance_low, chance_high, random_model, null_p.

    Pairs of agents are drawn under the name of the second, seeds of one reward under one name.
    """
    table = run.tables["separations"].filter(method=METHOD)
    seeds = {"|".join(p.agents) for p in compared(run.tables) if p.kind == "replicate"}
    seeds |= {"|".join(reversed(name.split("|"))) for name in seeds}
    layers = int(str(table.get_column("layer").max())) + 1
    second = pl.col("subject").str.split("|").list.last()
    return table.with_columns(
        depth=(pl.col("layer") + 1) / layers,
        agent=pl.when(pl.col("subject").is_in(sorted(seeds)))
        .then(pl.lit(_SEEDS))
        .otherwise(second),
    ).select(
        "what", "agent", "subject", "depth", "accuracy", "chance_low", "chance_high",
        "random_model", "null_p",
    )  # fmt: skip


def _chart(rows: pl.DataFrame, colours: dict[str, str]) -> alt.FacetChart:
    agents = rows.get_column("agent").unique(maintain_order=True).to_list()
    known = {**colours, _SEEDS: "#9aa5b1"}
    order = rows.get_column("what").unique(maintain_order=True).to_list()
    x = alt.X(
        "depth:Q",
        title="Share of layers passed",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=4),
    )
    y = alt.Scale(domain=[0, 1])
    base = alt.Chart().encode(x=x)
    chart = alt.layer(
        base.mark_area(opacity=0.25, color=BASE_COLOUR).encode(
            y=alt.Y("min(chance_low):Q", scale=y, title="Held-out accuracy"),
            y2="max(chance_high):Q",
        ),
        base.mark_line(strokeDash=[2, 3], color=INK).encode(
            y=alt.Y("mean(random_model):Q", scale=y, title="Held-out accuracy")
        ),
        base.mark_line(point=alt.OverlayMarkDef(size=14), opacity=0.85).encode(
            y=alt.Y("accuracy:Q", scale=y, title="Held-out accuracy"),
            color=agent_colour(known, agents),
            detail="subject:N",
        ),
        data=rows,
    ).properties(width=260, height=150)
    return panels(chart, alt.Facet("what:N", sort=order, title=None), columns=2, spacing=18)


def has_direction_effects(run: Run) -> bool:
    """Whether directions were added."""
    return "direction_effects" in run.tables


def direction_effects(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Largest effect over layers of each direction, beside random ones of its length."""
    name, title = "direction_effects", "Directions: which of them move the decision"
    del colours  # a direction belongs to what it tells apart
    if reason := run.lacks("direction_effects"):
        return Absent(name, title, reason)
    rows = strongest(run.tables["direction_effects"])
    beyond = (
        rows.group_by("row")
        .agg(
            real=pl.col("effect").filter(what_is=_REAL).abs().max(),
            random=pl.col("effect").filter(what_is=_RANDOM).abs().max(),
        )
        .filter(pl.col("real") > pl.col("random"))
        .height
    )
    return Figure(
        name=name,
        title=title,
        shows="Change of the log-odds when a difference of means, found on half of the scenarios, "
        "is added to the stream where the options part, on the other half (dark), and when random "
        "directions of its length are added (grey), at the layer where the direction does most. "
        f"{beyond} of {rows.get_column('row').n_unique()} directions do more than every random "
        "one.",
        does_not_show="The layer was chosen by the effect that is drawn, so small leads over "
        "random directions mean nothing. A random direction leaves the range that streams have.",
        chart=_effects(rows, run.option_words[0]),
        tables=("direction_effects",),
        topic="representations",
    )


def strongest(table: pl.DataFrame) -> pl.DataFrame:
    """Of every direction the layer where it does most: columns row, what_is, effect, low, high."""
    key = ["what", "subject", "agent"]
    best = (
        table.filter(draw=-1)
        .sort(pl.col("effect").abs(), descending=True)
        .unique(key, keep="first", maintain_order=True)
        .select(*key, "layer")
    )
    own = table.join(best, on=[*key, "layer"], how="inner", maintain_order="left")
    return own.select(
        row=pl.format("{}: {} at L{}", "what", "subject", "layer"),
        what_is=pl.when(pl.col("draw") < 0).then(pl.lit(_REAL)).otherwise(pl.lit(_RANDOM)),
        effect="effect",
        low="low",
        high="high",
    )


def _effects(rows: pl.DataFrame, positive: str) -> alt.LayerChart | alt.FacetChart:
    order = rows.get_column("row").unique(maintain_order=True).to_list()
    colour = alt.Color(
        "what_is:N",
        title=None,
        scale=alt.Scale(domain=[_REAL, _RANDOM], range=[INK, "#b6bec8"]),
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=330)),
        x=alt.X("effect:Q", title=f"Effect on the log-odds of {positive} (nats)"),
        color=colour,
    )
    real = base.transform_filter(f"datum.what_is == '{_REAL}'")
    zero = (
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(x="zero:Q")
    )
    return alt.layer(
        zero,
        real.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q"),
        base.transform_filter(f"datum.what_is == '{_RANDOM}'").mark_point(filled=True, size=22),
        real.mark_point(filled=True, size=60, opacity=0.9),
    ).properties(width=440, height=alt.Step(14))
