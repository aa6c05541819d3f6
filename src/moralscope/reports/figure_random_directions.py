"""Is it the patch, or any change of its size? Effects of patches beside random directions."""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.core.site import parse_site
from moralscope.reports.agent_groups import first_pairs
from moralscope.reports.arrange import below
from moralscope.reports.dots import label_room
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.look import BASE_COLOUR, INK
from moralscope.reports.run import Run

_REAL, _RANDOM = "the patch", "random directions as long"
_WIDTH = 560


def has_random_directions(run: Run) -> bool:
    """Whether random directions were written where patches were."""
    return "control_patches" in run.tables


def random_directions(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean effect per site of the patch and of each random direction, a panel per pair."""
    name = "random_directions"
    title = "Random directions: is it what a patch writes, or only how much?"
    if reason := run.lacks("control_patches"):
        return Absent(name, title, reason)
    effects = mean_effects(run)
    if effects.is_empty():
        return Absent(name, title, "No random direction was written in this run.")
    # An effect belongs to a pair, not to an agent, so colours only tell who is drawn.
    every = list(dict.fromkeys(effects.select("source", "target").iter_rows()))
    pairs, left_out = first_pairs(run, colours, every)
    larger, sites = _beyond(effects)
    positive = run.option_words[0]
    return Figure(
        name=name,
        title=title,
        shows="Mean effect over prompts of the patch of a site (dark) and of vectors of the "
        "same length in directions drawn at random (grey), at sites spread over the model. At "
        f"{larger} of {sites} sites the patch does more than every random direction.{left_out}",
        does_not_show="A random direction leaves the range that activations have; that a patch "
        "does more than it shows that the direction matters, not that the site alone decides.",
        chart=below(
            [
                _panel(effects.filter(source=source, target=target), positive)
                for source, target in pairs
            ],
            spacing=16,
        ),
        tables=("control_patches",),
    )


def mean_effects(run: Run) -> pl.DataFrame:
    """Columns pair, site, what, draw, value: means over prompts, sites in their order."""
    drawn = run.tables["control_patches"].filter(pl.col("control") == "random_direction")
    key = ["source", "target", "site"]
    random = drawn.group_by(*key, "draw", maintain_order=True).agg(value=pl.col("effect").mean())
    real = (
        drawn.unique([*key, "prompt"], maintain_order=True)
        .group_by(key, maintain_order=True)
        .agg(value=pl.col("source_effect").mean())
        .drop_nulls("value")
        .with_columns(draw=pl.lit(-1, pl.Int64))
    )
    both = pl.concat(
        [
            random.with_columns(what=pl.lit(_RANDOM)),
            real.select(random.columns).with_columns(what=pl.lit(_REAL)),
        ]
    )
    order = {
        site: place
        for place, site in enumerate(sorted(both.get_column("site").unique(), key=parse_site))
    }
    return (
        both.with_columns(
            pair=pl.format("{} into {}", "source", "target"),
            place=pl.col("site").replace_strict(order, return_dtype=pl.Int64),
        )
        .sort("place", maintain_order=True)
        .drop("place")
    )


def _beyond(effects: pl.DataFrame) -> tuple[int, int]:
    """Sites at which the patch does more than every random direction, and sites compared."""
    sizes = effects.group_by("pair", "site").agg(
        real=pl.col("value").filter(pl.col("what") == _REAL).abs().max(),
        random=pl.col("value").filter(pl.col("what") == _RANDOM).abs().max(),
    )
    compared = sizes.drop_nulls()
    return compared.filter(pl.col("real") > pl.col("random")).height, compared.height


def _panel(part: pl.DataFrame, positive: str) -> alt.LayerChart | alt.FacetChart:
    """One pair of agents: its sites down, effects across."""
    sites = part.get_column("site").unique(maintain_order=True).to_list()
    colour = alt.Color(
        "what:N",
        title=None,
        scale=alt.Scale(domain=[_REAL, _RANDOM], range=[INK, "#b6bec8"]),
    )
    marks = [
        alt.Chart(part.filter(pl.col("what") == what))
        .mark_point(filled=True, size=size, opacity=0.9)
        .encode(
            x=alt.X("value:Q", title=f"Effect on the log-odds of {positive} (nats)"),
            y=alt.Y("site:N", sort=sites, title=None, axis=alt.Axis(minExtent=label_room(sites))),
            color=colour,
        )
        for what, size in ((_RANDOM, 22), (_REAL, 60))
    ]
    zero = (
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(x="zero:Q")
    )
    return alt.layer(zero, *marks).properties(
        width=_WIDTH, height=alt.Step(13), title=str(part.get_column("pair")[0])
    )
