"""Which components write the decision? Rankings with intervals, and maps of whole contributions.

A contribution is what a component adds to the logit difference, not how it differs from the
base's. Means and intervals are over scenarios; ranked by absolute mean, an interval describes its
component alone and is not corrected for the ranking.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_sites import Panel, contributions_of, heatmaps, largest
from moralscope.reports.look import GRID, agent_colour
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run
from moralscope.reports.scenario_means import over_scenarios, with_scenario

TOP = 20
"""Components that a ranking names."""


def has_contributions(run: Run) -> bool:
    """Whether attribution can be taken over scenarios."""
    return run.lacks("attribution", "prompts") is None


def components(run: Run) -> pl.DataFrame:
    """Mean contribution over scenarios: agent, site, layer, kind, head, mean, sd, low, high, n."""
    rows = with_scenario(run, contributions_of(run, "whole")).rename({"contribution": "value"})
    return over_scenarios(rows, ("agent", "site", "layer", "kind", "head"))


def top_components(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """The components of each agent that contribute most, either way."""
    name, title = "attribution_top", "Attribution: the components that contribute most"
    if reason := run.lacks("attribution", "prompts"):
        return Absent(name, title, reason, "attribution")
    means = components(run)
    agents = [a for a in colours if a in set(means.get_column("agent").to_list())]
    ranked = ranking(means)
    first = {agent: ranked.filter(pl.col("agent") == agent).row(0, named=True) for agent in agents}
    shared = ranked.group_by("site").len().filter(pl.col("len") == len(agents)).height
    positive, negative = run.option_words
    told = ", ".join(f"{a} {row['site']} ({signed(row['mean'])})" for a, row in first.items())
    n = means.get_column("n").max()
    return Figure(
        name=name,
        title=title,
        shows=f"The {TOP} components with the largest absolute mean contribution to the logit "
        f"difference, with 95% intervals over {n} scenarios; right is towards {positive}, left "
        f"towards {negative}. First: {told} nats. {shared} components are among the {TOP} of "
        "every agent.",
        does_not_show="The ranking chose these components on the same scenarios, so their means "
        "are too large on average, and a large contribution that all agents share says nothing "
        "of fine-tuning. Whether a component is needed is asked by patching.",
        chart=_ranked_chart(ranked, agents, colours),
        tables=("attribution", "prompts"),
        topic="attribution",
    )


def ranking(means: pl.DataFrame) -> pl.DataFrame:
    """The ``TOP`` rows of each agent by absolute mean, with the column rank from 1."""
    return (
        means.sort(pl.col("mean").abs(), descending=True, maintain_order=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("agent"))
        .filter(pl.col("rank") <= TOP)
    )


def _ranked_chart(
    ranked: pl.DataFrame, agents: list[str], colours: dict[str, str]
) -> alt.FacetChart:
    base = alt.Chart().encode(
        y=alt.Y("site:N", sort=alt.SortField("rank"), title=None, axis=alt.Axis(ticks=False)),
        color=agent_colour(colours, agents).legend(None),
    )
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=GRID).encode(x="zero:Q")
    chart = alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=44, opacity=1).encode(
            x=alt.X("mean:Q", title="Contribution (nats)")
        ),
        data=ranked.select("agent", "site", "rank", "mean", "low", "high"),
    ).properties(width=190, height=alt.Step(13))
    facet = alt.Facet("agent:N", sort=agents, title=None)
    drawn = panels(chart, facet, columns=min(3, len(agents)), spacing=26)
    return drawn.resolve_scale(y="independent")  # pyright: ignore[reportUnknownMemberType]


def component_maps(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean contribution of every head and MLP, a panel per agent, the base among them."""
    name, title = "attribution_maps", "Attribution: what every head and MLP contributes"
    if reason := run.lacks("attribution", "prompts"):
        return Absent(name, title, reason, "attribution")
    means = components(run).rename({"mean": "value"})
    agents = [a for a in colours if a in set(means.get_column("agent").to_list())]
    maps = [Panel(agent, means.filter(pl.col("agent") == agent)) for agent in agents]
    positive, negative = run.option_words
    return Figure(
        name=name,
        title=title,
        shows=f"Mean contribution of each head and MLP to the logit difference, over scenarios; "
        f"orange pushes towards {positive}, purple towards {negative}. Largest: "
        f"{largest(maps, agents)}.",
        does_not_show="Maps of fine-tunes of one base look alike whatever they learned, because "
        "most of each is the base's: changes from the base are the figure to compare.",
        chart=heatmaps(maps, "Mean contribution (nats)"),
        tables=("attribution", "prompts"),
        topic="attribution",
    )
