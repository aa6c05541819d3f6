"""What changed inside, and what carries it? Heat maps over heads and MLPs.

Attribution: the mean over prompts of (agent's contribution minus its base's) to the logit
difference, per component; contributions sum to the logit difference, so these changes sum to its
change. Patching: the mean over prompts of (patched minus baseline log-odds) when one component's
write is taken from another agent; site ``all`` swaps everything and is the ceiling.

Does not test anything: which sites stand out beyond noise is a matter of the claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import agent_groups, first_pairs
from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import signed_colour
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

DRAWN = ("head", "mlp")
"""The kinds that a map has cells for."""


@dataclass(frozen=True)
class Panel:
    """One heat map: its heading and the columns site, layer, kind, head, value."""

    heading: str
    frame: pl.DataFrame


def attribution_heatmap(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Change from base in each component's contribution, a panel per trained agent."""
    name, title = "attribution", "Attribution: whose contribution to the decision changed"
    if reason := run.lacks("attribution"):
        return Absent(name, title, reason)
    changes = attribution_change(run)
    agents = [a for a in colours if a in set(changes.get_column("agent").to_list())]
    if not agents:
        return Absent(name, title, "The table attribution holds no agent together with its base.")
    name_of = agent_groups(run, colours, agents).name_of
    every = agents
    agents = list({name_of[agent]: agent for agent in reversed(every)}.values())[::-1]
    unseen = [agent for agent in every if agent not in agents]
    left_out = f" Not drawn, but in the table: {listing(unseen)}." if unseen else ""
    maps: list[Panel] = []
    others: list[str] = []
    for agent in agents:
        own = changes.filter(pl.col("agent") == agent)
        total = float(own.get_column("value").sum())
        maps.append(Panel(f"{agent}\nall components together {signed(total)} nats", own))
        rest = float(own.filter(~pl.col("kind").is_in(DRAWN)).get_column("value").sum())
        others.append(f"{agent} {signed(rest)}")
    positive, negative = run.option_words
    n_prompts = run.tables["attribution"].get_column("prompt").n_unique()
    return Figure(
        name=name,
        title=title,
        shows=f"Change from base in what each head and MLP adds to the logit difference, mean of "
        f"{n_prompts} prompts; orange pushes towards {positive}, purple towards {negative}. "
        f"Largest: {largest(maps, agents)}. Components outside the map (embedding, biases): "
        f"{', '.join(others)} nats.{left_out}",
        does_not_show="A contribution that changed need not have been trained: it may only pass "
        "on a change from below, which patching tells apart. Opposite changes on different "
        "prompts cancel in this mean.",
        chart=heatmaps(maps, "Mean change in contribution (nats)"),
        tables=("attribution",),
    )


def attribution_change(run: Run) -> pl.DataFrame:
    """Mean over prompts of agent minus base, per agent and component.

    Columns: agent, site, layer, kind, head, value (nats). An answer of several tokens is summed
    over its tokens. Prompts that only one of the two was run on are left out.
    """
    place = ("site", "layer", "kind", "head")
    per_prompt = contributions_of(run, "whole")
    pairs = pl.DataFrame(
        [(f.name, f.reference) for f in run.agents if f.reference is not None],
        schema={"agent": pl.String, "reference": pl.String},
        orient="row",
    )
    base = per_prompt.select(
        pl.col("agent").alias("reference"), "prompt", "site", base=pl.col("contribution")
    )
    return (
        per_prompt.join(pairs, on="agent", maintain_order="left")
        .join(base, on=["reference", "prompt", "site"], maintain_order="left")
        .group_by("agent", *place, maintain_order=True)
        .agg(value=(pl.col("contribution") - pl.col("base")).mean())
    )


def contributions_of(run: Run, part: str) -> pl.DataFrame:
    """One part of each component's contribution, per agent and prompt, over the whole answer.

    Columns: agent, prompt, site, layer, kind, head, contribution (nats).
    """
    table = run.tables["attribution"].filter(pl.col("part") == part)
    sums = table.filter(pl.col("token") == -1)
    place = ("agent", "prompt", "site", "layer", "kind", "head")
    return (
        (table if sums.is_empty() else sums)
        .group_by(*place, maintain_order=True)
        .agg(pl.col("contribution").sum())
    )


def patching_heatmap(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean effect of writing one component of the source into the target, a panel per pair."""
    name, title = "patching", "Patching: which components carry an agent's decision into another"
    # Panels are named by their pair; hue is taken by the sign of the effect.
    if reason := run.lacks("patching"):
        return Absent(name, title, reason)
    table = one_protocol(run.tables["patching"])
    if table.filter(pl.col("kind").is_in(DRAWN)).is_empty():
        return Absent(name, title, "No single head or MLP was patched in this run.")
    every = list(dict.fromkeys(table.select("source", "target").iter_rows()))
    pairs, left_out = first_pairs(run, colours, every)
    maps: list[Panel] = []
    for source, target in pairs:
        rows = table.filter((pl.col("source") == source) & (pl.col("target") == target))
        effects = patching_effect(rows)
        maps.append(Panel(pair_heading(f"{source} into {target}", rows, effects), effects))
    positive, negative = run.option_words
    n_prompts = table.get_column("prompt").n_unique()
    return Figure(
        name=name,
        title=title,
        shows=f"Change in the target's log-odds when one head or MLP writes what it writes in "
        f"the source, mean of {n_prompts} prompts; orange pushes towards {positive}, purple "
        f"towards {negative}. Largest: {largest(maps, [f'{s} into {t}' for s, t in pairs])}. "
        f"{_ceiling(table)}{left_out}",
        does_not_show="Components act together, so single effects need not add up to the full "
        "swap, and a decision that no single patch flips may still rest on several. A pair is "
        f"patched {where_patched(table)}.",
        chart=heatmaps(maps, "Mean effect on log-odds (nats)"),
        tables=("patching",),
    )


def one_protocol(table: pl.DataFrame) -> pl.DataFrame:
    """One way of patching, where several were run: effects of different ways have no mean.

    The source's own write, at the answer, from the same prompt, as far as there is such a thing.
    """
    usual = (
        pl.col("write") == "write",
        pl.col("positions") == "answer_span",
        pl.col("prompt") == pl.col("source_prompt"),
    )
    for condition in usual:
        chosen = table.filter(condition)
        table = table if chosen.is_empty() else chosen
    return table.filter(pl.col("positions") == pl.col("positions").first())


def where_patched(table: pl.DataFrame) -> str:
    """Where the patches of a table act, and from where, in words."""
    positions = str(table.get_column("positions").first())
    known = {"answer_span": "at the answer only", "all": "at every token"}
    across = table.filter(pl.col("prompt") != pl.col("source_prompt")).height > 0
    return known.get(positions, f"at the span {positions}") + (", across prompts" if across else "")


def patching_effect(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean effect over prompts per site: columns site, layer, kind, head, value (nats)."""
    return rows.group_by("site", "layer", "kind", "head", maintain_order=True).agg(
        value=pl.col("effect").mean()
    )


def pair_heading(pair: str, rows: pl.DataFrame, effects: pl.DataFrame) -> str:
    """The panel's heading: the pair, its full-swap ceiling, and what flipped."""
    full = rows.filter(pl.col("kind") == "all")
    single = flips(rows.filter(pl.col("kind").is_in(DRAWN)))
    if full.is_empty():
        return f"{pair}\nno full swap\nsingle patches flip {single}"
    ceiling = float(effects.filter(pl.col("kind") == "all").get_column("value").item())
    return (
        f"{pair}\nfull swap {signed(ceiling)} nats, flips {flips(full)}\n"
        f"single patches flip {single}"
    )


def _ceiling(table: pl.DataFrame) -> str:
    """What single patches flip against the full swap, over all pairs."""
    full = table.filter(pl.col("kind") == "all")
    single = f"{flips(table.filter(pl.col('kind').is_in(DRAWN)))} decisions"
    if full.is_empty():
        return f"Single patches flip {single}; no full swap was run, so there is no ceiling."
    return (
        f"Swapping everything at once (over each map) flips {flips(full)} decisions, "
        f"single patches {single}."
    )


def flips(rows: pl.DataFrame) -> str:
    """How many decisions these patches flip, in words."""
    return f"{rows.get_column('flipped').sum()} of {rows.height}"


def largest(maps: list[Panel], names: list[str]) -> str:
    """The site with the largest absolute value in each panel, in words."""
    words: list[str] = []
    for panel, name in zip(maps, names, strict=True):
        drawn = panel.frame.filter(pl.col("kind").is_in(DRAWN))
        if drawn.is_empty():
            continue
        top = drawn.sort(pl.col("value").abs(), descending=True, maintain_order=True).row(
            0, named=True
        )
        words.append(f"{name} {top['site']} ({signed(top['value'])})")
    return ", ".join(words)


def saturation(values: pl.Series) -> float:
    """Where the colours saturate: the 99th percentile of the absolute values, never 0."""
    cap = values.abs().quantile(0.99, "higher") if len(values) else None
    return float(cap) if cap else 1.0


def heatmaps(maps: list[Panel], legend: str) -> alt.FacetChart:
    """Panels with one colour scale, two beside each other: layers across, heads and MLP down."""
    cells = pl.concat(_cells(panel) for panel in maps)
    cap = saturation(cells.get_column("value"))
    heads = cells.get_column("component").unique().to_list()
    rows = [*sorted((head for head in heads if head != "MLP"), key=int), "MLP"]
    layers = cells.get_column("layer").unique().sort().to_list()
    every = max(1, -(-len(layers) // 10))
    # Wide enough for a heading, and never larger than half the page.
    width = 240 / len(layers) if len(layers) < 18 else max(3.0, min(14.0, 430 / len(layers)))
    height = max(3.0, min(14.0, 240 / len(rows)))
    ticks = alt.Axis(values=layers[::every], labelAngle=0, ticks=False)
    chart = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="Layer", sort=layers, axis=ticks),
            y=alt.Y(
                "component:O",
                title="Head",
                sort=rows,
                axis=alt.Axis(values=_some(rows), ticks=False),
            ),
            color=signed_colour("value", cap, f"{legend}; colours saturate at ±{cap:.2g}"),
        )
        .properties(width=alt.Step(width), height=alt.Step(height))
    )
    facet = alt.Facet(
        "panel:N",
        sort=[panel.heading for panel in maps],
        title=None,
        header=alt.Header(labelExpr="split(datum.label, '\\n')", labelAnchor="start"),
    )
    return panels(chart, facet, columns=min(2, len(maps)), spacing=22)


def _cells(panel: Panel) -> pl.DataFrame:
    """The drawn components of a panel: columns panel, layer, component (head or MLP), value."""
    component = pl.when(pl.col("kind") == "mlp").then(pl.lit("MLP")).otherwise(
        pl.format("{}", "head")
    )  # fmt: skip
    return panel.frame.filter(pl.col("kind").is_in(DRAWN)).select(
        pl.lit(panel.heading).alias("panel"), "layer", component.alias("component"), "value"
    )


def _some(rows: list[str]) -> list[str]:
    """Row labels that fit: every one up to a dozen, else every other or fewer, MLP always."""
    every = max(1, -(-len(rows) // 12))
    return [*rows[:-1:every], rows[-1]]
