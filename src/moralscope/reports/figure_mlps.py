"""How does what MLPs contribute depend on the situation? By layer, a panel per pair of last moves.

Means over the prompts of a situation, all games and wordings together; each agent in its colour.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_sites import contributions_of
from moralscope.reports.look import BASE_COLOUR, agent_colour
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

ANY = "all prompts"


def mlp_contributions(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Contribution of each MLP by layer and situation, every agent in one panel."""
    name, title = "attribution_mlps", "Attribution: MLPs by layer and situation"
    if reason := run.lacks("attribution", "prompts"):
        return Absent(name, title, reason, "attribution")
    rows = by_situation(run)
    if rows.is_empty():
        return Absent(name, title, "No MLP is in the table attribution.", "attribution")
    agents = [a for a in colours if a in set(rows.get_column("agent").to_list())]
    situations = rows.get_column("situation").unique(maintain_order=True).to_list()
    top = rows.sort(pl.col("value").abs(), descending=True, maintain_order=True).row(0, named=True)
    spread = (
        rows.group_by("situation", "layer").agg(pl.col("value").max() - pl.col("value").min())
    ).get_column("value")  # fmt: skip
    positive, negative = run.option_words
    return Figure(
        name=name,
        title=title,
        shows=f"Mean contribution of each layer's MLP to the logit difference after each pair of "
        f"last moves (own first); up is towards {positive}, down towards {negative}. Largest: "
        f"layer {top['layer']} of {top['agent']} after {top['situation']} "
        f"({signed(top['value'])} nats). Agents lie at most {spread.max():.2g} nats apart.",
        does_not_show="Curves that lie on each other show a shared base, not the absence of "
        "learning: differences this small may decide, and are tested as changes from the base.",
        chart=_chart(rows, agents, situations, colours, positive),
        tables=("attribution", "prompts"),
        topic="attribution",
    )


def by_situation(run: Run) -> pl.DataFrame:
    """Mean contribution per agent, layer and situation: agent, layer, situation, value (nats)."""
    situation = pl.when(pl.col("own_previous").is_null() | pl.col("opponent_previous").is_null())
    prompts = run.tables["prompts"].select(
        "prompt",
        situation=situation.then(pl.lit(ANY)).otherwise(
            pl.col("own_previous") + pl.col("opponent_previous")
        ),
    )
    return (
        contributions_of(run, "whole")
        .filter(pl.col("kind") == "mlp")
        .join(prompts, on="prompt", maintain_order="left")
        .group_by("agent", "layer", "situation", maintain_order=True)
        .agg(value=pl.col("contribution").mean())
        .sort("situation", "agent", "layer", maintain_order=True)
    )


def _chart(
    rows: pl.DataFrame,
    agents: list[str],
    situations: list[str],
    colours: dict[str, str],
    positive: str,
) -> alt.FacetChart:
    zero = (
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(y="zero:Q")
    )
    lines = (
        alt.Chart()
        .mark_line(point=alt.OverlayMarkDef(size=14), opacity=0.85, strokeWidth=1.5)
        .encode(
            x=alt.X("layer:Q", title="Layer", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=f"Towards {positive} (nats)"),
            color=agent_colour(colours, agents),
        )
    )
    chart = alt.layer(zero, lines, data=rows).properties(width=360, height=150)
    facet = alt.Facet("situation:N", sort=situations, title=None)
    return panels(chart, facet, columns=min(2, len(situations)), spacing=20)
