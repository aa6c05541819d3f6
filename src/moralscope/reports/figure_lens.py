"""At which depth does the decision form? Logit-lens trajectories, base behind each agent.

The lens reads the residual stream after each sublayer through the model's own final norm and
unembedding, at the answer token where the options part. Depth counts decoder layers passed: 0 the
embedding, L + 0.5 after the attention of layer L, L + 1 after its MLP.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.look import BASE_COLOUR, agent_colour
from moralscope.reports.run import Run

_WITHIN = {"embed": 1.0, "attn": 0.5, "mlp": 1.0}


def lens_trajectories(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Median and interquartile range over prompts of the lens read-out, by depth."""
    name, title = "lens", "Logit lens: where along the depth the agents part"
    if reason := run.lacks("lens"):
        return Absent(name, title, reason)
    curves = lens_quartiles(run.tables["lens"])
    agents = [a for a in colours if a in set(curves.get_column("agent").to_list())]
    references = {f.name: f.reference for f in run.agents}
    trained = [a for a in agents if references.get(a) in agents]
    curve_rows = [_curve_rows(curves, a, references[a]) for a in trained] or [
        _curve_rows(curves, a, None) for a in agents
    ]
    n_prompts = run.tables["lens"].get_column("prompt").n_unique()
    positive, negative = run.option_words
    return Figure(
        name=name,
        title=title,
        shows=f"What the model would answer if it stopped at each depth: {positive} minus "
        f"{negative}, median (line) and middle half (band) of {n_prompts} prompts, each agent "
        "in colour over its base in grey.",
        does_not_show="The lens reads early layers through a map made for the last one, so "
        "where curves part is where the difference becomes readable, not where it is computed; "
        "the band is spread over prompts, not uncertainty.",
        chart=_chart(pl.concat(curve_rows), agents, colours, positive),
        tables=("lens",),
    )


def lens_quartiles(lens: pl.DataFrame) -> pl.DataFrame:
    """Per agent and depth: median, lower and upper quartile over prompts (linear interpolation).

    Only the answer token where the options part is read: it is the decision.
    Columns: agent, depth (decoder layers passed), median, low, high (nats).
    """
    value = pl.col("logit_diff")
    return (
        with_depth(lens.filter("is_branch"))
        .group_by("agent", "depth", maintain_order=True)
        .agg(
            median=value.quantile(0.5, "linear"),
            low=value.quantile(0.25, "linear"),
            high=value.quantile(0.75, "linear"),
        )
        .sort("agent", "depth")
    )


def with_depth(readings: pl.DataFrame) -> pl.DataFrame:
    """Readings with the column depth: decoder layers passed."""
    within = pl.col("sublayer").replace_strict(_WITHIN, return_dtype=pl.Float64)
    return readings.with_columns(depth=pl.col("layer") + within)


def _curve_rows(curves: pl.DataFrame, agent: str, reference: str | None) -> pl.DataFrame:
    shown = [agent] if reference is None else [reference, agent]
    return pl.concat(
        curves.filter(pl.col("agent") == name).with_columns(panel=pl.lit(agent)) for name in shown
    )


def _chart(
    rows: pl.DataFrame, agents: list[str], colours: dict[str, str], positive: str
) -> alt.FacetChart:
    order = rows.get_column("panel").unique(maintain_order=True).to_list()
    base = alt.Chart().encode(
        x=alt.X("depth:Q", title="Depth (decoder layers passed)", axis=alt.Axis(tickCount=6)),
        color=agent_colour(colours, agents),
    )
    layers = alt.layer(
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(y="zero:Q"),
        base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line().encode(y=alt.Y("median:Q", title=f"Towards {positive} (nats)")),
        data=rows,
    ).properties(width=360, height=170)
    facet = alt.Facet("panel:N", sort=order, title=None)
    return panels(layers, facet, columns=min(2, len(order)), spacing=22)
