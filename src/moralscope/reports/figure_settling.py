"""Is the decision more than what the lens shows where nothing is decided?

With ``s_p`` the final sign of prompt p and ``v_p(d)`` its lens reading at depth d, the decision is
``D(d) = mean_p s_p v_p(d)``. Random option pairs, scaled to directions of the decision's length,
are aligned with their own final sign on each prompt; unrelated prompts with that of the prompt
that they control. Either gives a curve per draw, and the band is the range of one more draw,

    mean +- t_{n-1}(0.975) sd sqrt(1 + 1/n)

as in the table stabilisation_summary, whose depths the sentences quote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_lens import with_depth
from moralscope.reports.look import BASE_COLOUR, INK
from moralscope.reports.run import Run

_SERIES = {
    "decision": ("the decision", INK),
    "random_pair": ("random option pairs, 95% range", "#8a97a6"),
    "unrelated_prompt": ("unrelated prompts, 95% range", "#c9a227"),
}
_BEYOND = {
    "random_pair": ("beyond_random_pairs", "random pairs"),
    "unrelated_prompt": ("beyond_unrelated_prompts", "unrelated prompts"),
}


def has_lens_controls(run: Run) -> bool:
    """Whether the controls of the lens were asked for."""
    return "lens_controls" in run.tables


def lens_settling(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """The decision by depth, aligned with its final sign, before the bands of its controls."""
    name, title = "lens_settling", "Logit lens against its controls: from where on it is a decision"
    if reason := run.lacks("lens_controls", "lens"):
        return Absent(name, title, reason)
    curves = aligned_curves(run)
    agents = [a for a in colours if a in set(curves.get_column("agent").to_list())]
    controls = run.tables["lens_controls"]
    draws = controls.group_by("control").agg(pl.col("draw").n_unique())
    counts = dict(draws.iter_rows())
    n_prompts = run.tables["lens"].get_column("prompt").n_unique()
    return Figure(
        name=name,
        title=title,
        shows="Lens reading towards the agent's own final decision, mean of "
        f"{n_prompts} prompts (line), before the range in which one more of "
        f"{counts.get('random_pair', 0)} random option pairs and one more of "
        f"{counts.get('unrelated_prompt', 0)} unrelated prompts would lie with 95%. "
        f"{_settling(run, agents)}",
        does_not_show="A curve inside the bands is no evidence that nothing is decided yet: the "
        "lens may not read it. Bands take draws to be about normal; few unrelated prompts make "
        "theirs wide.",
        chart=_chart(curves.filter(pl.col("agent").is_in(agents)), agents),
        tables=("lens_controls", "lens", *(["stabilisation_summary"] if _has(run) else [])),
    )


def aligned_curves(run: Run) -> pl.DataFrame:
    """The decision and its controls by depth.

    Columns: agent, series (decision, random_pair, unrelated_prompt), depth (decoder layers
    passed), value (mean, nats), low, high (of one more draw; null for the decision). Controls of
    fewer than two draws have no range and are left out.
    """
    lens = with_depth(run.tables["lens"].filter("is_branch"))
    final = pl.col("logit_diff").sort_by("depth").last().sign()
    signs = lens.group_by("agent", "prompt").agg(decided=final)
    decision = (
        lens.join(signs, on=["agent", "prompt"])
        .group_by("agent", "depth")
        .agg(value=(pl.col("decided") * pl.col("logit_diff")).mean())
        .with_columns(
            series=pl.lit("decision"), low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64)
        )
    )
    drawn = with_depth(run.tables["lens_controls"]).with_columns(
        pl.col("logit_diff") * pl.col("scale")
    )
    own = final.over("agent", "prompt", "control", "draw")
    random = pl.col("control") == "random_pair"
    bands = (
        drawn.join(signs, on=["agent", "prompt"])
        .with_columns(sign=pl.when(random).then(own).otherwise("decided"))
        .group_by("agent", "control", "draw", "depth")
        .agg(value=(pl.col("sign") * pl.col("logit_diff")).mean())
        .group_by("agent", "control", "depth")
        .agg(pl.col("value").mean(), sd=pl.col("value").std(), n=pl.len())
        .filter(pl.col("n") > 1)
        .with_columns(half=pl.col("sd") * pl.col("n").map_elements(_factor, pl.Float64))
        .select(
            "agent",
            "depth",
            "value",
            series="control",
            low=pl.col("value") - pl.col("half"),
            high=pl.col("value") + pl.col("half"),
        )
    )
    columns = ["agent", "series", "depth", "value", "low", "high"]
    return pl.concat([decision.select(columns), bands.select(columns)]).sort(columns[:3])


def _factor(n: int) -> float:
    """Half the range of one more draw, in standard deviations of n draws."""
    return t_quantile(0.975, n - 1) * math.sqrt(1.0 + 1.0 / n)


def _has(run: Run) -> bool:
    return run.lacks("stabilisation_summary") is None


def _settling(run: Run, agents: list[str]) -> str:
    """Where each agent's decision settles, and whether it exceeds its controls, in words."""
    if not _has(run):
        return "Where decisions settle was not summarised."
    table = run.tables["stabilisation_summary"]
    rows = {str(row["agent"]): row for row in table.iter_rows(named=True)}
    last = float(with_depth(run.tables["lens"]).get_column("depth").to_numpy().max())
    measured = run.tables["lens_controls"].get_column("control").unique().to_list()
    return " ".join(
        f"{agent} {_settles(rows[agent], last)} and {_exceeds(rows[agent], measured)}."
        for agent in agents
        if agent in rows
    )


def _settles(row: Mapping[str, float | None], last: float) -> str:
    """Where, with the interval as far as it lies within the model."""
    if row["depth"] is None:
        return "settles on no prompt"
    low, high = row["low"], row["high"]
    interval = "no interval"
    if low is not None and high is not None:
        interval = f"95% interval {max(low, 0.0):.1f} to {min(high, last):.1f}"
        interval += ", cut at the ends of the model" * (low < 0.0 or high > last)
    count = f"{row['n_scenarios']} {'scenario' if row['n_scenarios'] == 1 else 'scenarios'}"
    return f"settles at depth {row['depth']:.1f} of {last:.0f} ({interval}, {count})"


def _exceeds(row: Mapping[str, float | None], measured: Sequence[str]) -> str:
    """From where on each control that was measured is exceeded, or that it is not."""
    found = {
        words: row[column]
        for control, (column, words) in _BEYOND.items()
        if control in measured
    }  # fmt: skip
    over = [
        f"{words} from depth {depth:.1f} on" for words, depth in found.items() if depth is not None
    ]
    under = [words for words, depth in found.items() if depth is None]
    parts = [f"exceeds {listing(over)}"] if over else []
    if len(under) == 2:
        parts.append(f"exceeds neither {under[0]} nor {under[1]} at the last depth")
    elif under:
        parts.append(f"does not exceed {under[0]} at the last depth")
    return " but ".join(parts)


def _chart(curves: pl.DataFrame, agents: list[str]) -> alt.FacetChart:
    names = {series: label for series, (label, _) in _SERIES.items()}
    rows = curves.with_columns(pl.col("series").replace(names))
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(
            domain=list(names.values()), range=[colour for _, colour in _SERIES.values()]
        ),
    )
    base = alt.Chart().encode(
        x=alt.X("depth:Q", title="Depth (decoder layers passed)", axis=alt.Axis(tickCount=6)),
        color=colour,
    )
    band = base.transform_filter("datum.low != null")
    layers = alt.layer(
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(y="zero:Q"),
        band.mark_area(opacity=0.25).encode(y=alt.Y("low:Q"), y2="high:Q"),
        band.mark_line(strokeWidth=1).encode(y="low:Q"),
        band.mark_line(strokeWidth=1).encode(y="high:Q"),
        base.transform_filter("datum.low == null")
        .mark_line()
        .encode(y=alt.Y("value:Q", title="Towards the final decision (nats)")),
        data=rows,
    ).properties(width=360, height=190)
    facet = alt.Facet("agent:N", sort=agents, title=None)
    return panels(layers, facet, columns=min(2, len(agents)), spacing=22)
