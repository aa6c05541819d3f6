"""Which parts must be trained? Parameters against behaviour kept, as a curve for every choice."""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, INK
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run
from moralscope.reports.seed_means import seed_means

NAME, TITLE = "targeting", "Behaviour kept by training parts alone"

LABELS = {
    "all": "everything",
    "patching": "chosen by patching",
    "attribution": "chosen by attribution",
    "pathways": "chosen by pathways",
    "random": "drawn at random",
    "early": "early layers",
    "middle": "middle layers",
    "late": "late layers",
}
"""Ways of choosing, in the order of the legend."""

_CHOSEN = [way for way in LABELS if way not in ("all", "random")]
_COLOURS = {
    LABELS["all"]: INK,
    LABELS["random"]: BASE_COLOUR,
    **{LABELS[way]: colour for way, colour in zip(_CHOSEN, AGENT_COLOURS, strict=False)},
}
"""What is compared with is dark or grey, as everywhere in the report."""


def has_targeting(run: Run) -> bool:
    """Whether parts were trained."""
    return "targeting" in run.tables


def targeting_curve(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean over training seeds with its interval, and every training as a dot."""
    del colours  # every agent is a training of parts; ways of choosing have colours
    if reason := run.lacks("targeting"):
        return Absent(NAME, TITLE, reason)
    table = run.tables["targeting"].filter(pl.col("behaviour_kept").is_not_null())
    if table.is_empty():
        return Absent(NAME, TITLE, "The whole training changed nothing that could be kept.")
    rows = table.select(
        "agent",
        pl.col("strategy").replace(LABELS).alias("way"),
        pl.col("budget").alias("sub_layers"),
        pl.col("share").alias("parameters"),
        pl.col("behaviour_kept").alias("kept"),
        "chosen_here",
    )
    keys = ["way", "sub_layers"]
    sizes = rows.group_by(keys).agg(pl.col("parameters").mean())
    means = seed_means(rows, keys, "kept").join(sizes, on=keys).sort(*keys)
    ways = [label for label in LABELS.values() if label in set(rows["way"])]
    seeds = table.get_column("training_seed").n_unique()
    return Figure(
        name=NAME,
        title=TITLE,
        shows="Share of the whole training's change in log-odds that trainings of parts keep "
        f"(slope over prompts), against their share of its parameters. {_told(means, ways)} "
        f"Small dots: each of {seeds} training seed{'s' * (seeds != 1)}, hollow where parts were "
        "chosen on that very seed; lines: means, bars: their 95% intervals over seeds.",
        does_not_show="Whether a way of choosing beats chance: the claims say that. A share of 1 "
        "says that decisions move as much, not that they are made in the same way.",
        chart=_chart(rows, means, ways),
        tables=("targeting",),
    )


def _told(means: pl.DataFrame, ways: list[str]) -> str:
    """What each way keeps with the fewest sub-layers, where all stand beside each other."""
    parts = means.filter(pl.col("way") != LABELS["all"])
    if parts.is_empty():
        return "Nothing but everything was trained."
    fewest = parts.get_column("sub_layers").min()
    first = dict(parts.filter(pl.col("sub_layers") == fewest).select("way", "mean").iter_rows())
    told = ", ".join(f"{plain(first[way])} {way}" for way in ways if way in first)
    return f"With {fewest} sub-layer{'s' * (fewest != 1)}: {told}."


def _chart(
    rows: pl.DataFrame, means: pl.DataFrame, ways: list[str]
) -> alt.LayerChart | alt.FacetChart:
    colour = alt.Color(
        "way:N",
        title=None,
        sort=ways,
        scale=alt.Scale(domain=ways, range=[_COLOURS[way] for way in ways]),
    )
    x = alt.X(
        "parameters:Q",
        title="Parameters trained, as a share of the whole training's",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~%"),
    )

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title="Share of the change kept", axis=alt.Axis(format="~%"))

    ends = alt.Chart(pl.DataFrame({"kept": [0.0, 1.0]}))
    lines, bars, hollow, filled = (
        alt.Chart(part).encode(x=x, color=colour)
        for part in (
            means,
            means.drop_nulls("low"),
            rows.filter("chosen_here"),
            rows.filter(~pl.col("chosen_here")),
        )
    )
    tooltip = ["agent:N", "sub_layers:Q", alt.Tooltip("kept:Q", format=".2f")]
    return alt.layer(
        ends.mark_rule(strokeDash=[4, 3], color=BASE_COLOUR).encode(y=y("kept")),
        bars.mark_rule(opacity=0.75).encode(y=y("low"), y2="high:Q"),
        lines.mark_line(point=alt.OverlayMarkDef(size=60)).encode(y=y("mean")),
        filled.mark_point(filled=True, size=20, opacity=0.6).encode(y=y("kept"), tooltip=tooltip),
        hollow.mark_point(filled=False, size=20, opacity=0.9, strokeWidth=1.2).encode(
            y=y("kept"), tooltip=tooltip
        ),
    ).properties(width=620, height=300)
