"""When does training change what? What is left of the way, by step, a panel for each level.

The scale is that of the table ``course``: the distance of a state from the end of its training,
over that of the base from the end. So every training starts at 1 and ends at 0, at every level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from moralscope.reports.arrange import below, beside
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_cascade import LEVELS, first_measures, rewards_of
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.run import Run
from moralscope.reports.seed_means import seed_means

NAME, TITLE = "course", "When training changes what, level by level"

MOST = len(AGENT_COLOURS)
"""Rewards drawn; more would repeat colours."""

_BESIDE = 3
"""Panels in a row."""


def has_course(run: Run) -> bool:
    """Whether states of trainings on their way were looked at."""
    return "course" in run.tables


def course_of_training(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """A panel per level, a colour per reward; thin: single trainings, bold: their mean."""
    if reason := run.lacks("course"):
        return Absent(NAME, TITLE, reason)
    states = _states(run)
    every = states.get_column("reward").unique(maintain_order=True).to_list()
    drawn = states.filter(pl.col("reward").is_in(every[:MOST]))
    means = _means(drawn)
    levels = [level for level in LEVELS if level in set(states.get_column("level").to_list())]
    more = f" Of {len(every)} rewards the first {MOST} are drawn." if len(every) > MOST else ""
    return Figure(
        name=NAME,
        title=TITLE,
        shows="Distance of a training's state from its end, as a share of the distance of the base "
        f"from the end: 1 at the start and 0 at the end by definition. {_told(states, levels)} "
        "Bold: mean over trainings of one reward; band: its 95% interval over trainings, of a "
        f"single training over scenarios; thin: single trainings.{more}",
        does_not_show="Whether one level lags behind another: the claims compare them training by "
        "training. A distance above 1 is a detour. Weights are no sample, so a single training "
        "has no interval there. Each level has its own unit, so equal heights mean equal shares "
        "of what the whole training does.",
        chart=_chart(drawn, means, levels, _colour(drawn, colours)),
        tables=("course", "checkpoints") if "checkpoints" in run.tables else ("course",),
    )


def _states(run: Run) -> pl.DataFrame:
    """Every state on the first measure of its level, with the reward of its training."""
    rewards = rewards_of(run)
    table = first_measures(run.tables["course"])
    named = [rewards.get(of) or of for of in table.get_column("of").to_list()]
    rows = table.with_columns(reward=pl.Series(named, dtype=pl.String)).select(
        "of", "reward", "level", "step", "remaining", "low", "high"
    )
    keys = rows.select("of", "reward", "level").unique(maintain_order=True)
    known = {"low": pl.lit(None, pl.Float64), "high": pl.lit(None, pl.Float64)}
    ends = [keys.with_columns(step=pl.lit(0, pl.Int64), remaining=pl.lit(1.0), **known)]
    if "checkpoints" in run.tables:
        last = run.tables["checkpoints"].select("of", step="steps").unique(maintain_order=True)
        ends.append(keys.join(last, on="of").with_columns(remaining=pl.lit(0.0), **known))
    return pl.concat([rows, *(end.select(rows.columns) for end in ends)]).sort(
        "reward", "level", "of", "step", maintain_order=True
    )


def _means(states: pl.DataFrame) -> pl.DataFrame:
    """Mean over trainings; of a single one the interval is its own, over scenarios."""
    keys = ["reward", "level", "step"]
    own = states.group_by(keys, maintain_order=True).agg(
        pl.col("low").first().alias("own_low"), pl.col("high").first().alias("own_high")
    )
    single = pl.col("n") == 1
    return (
        seed_means(states, keys, "remaining")
        .join(own, on=keys)
        .with_columns(
            # A distance is not negative, whatever the interval of its mean.
            low=pl.when(single).then("own_low").otherwise(pl.col("low").clip(0.0)),
            high=pl.when(single).then("own_high").otherwise("high"),
        )
        .select(*keys, "mean", "low", "high", "n")
    )


def _told(states: pl.DataFrame, levels: Sequence[str]) -> str:
    """By which step that was looked at half of the way is behind, in each level."""
    means = seed_means(states, ["level", "step"], "remaining").filter(pl.col("mean") < 0.5)
    first = dict(means.group_by("level").agg(pl.col("step").min()).iter_rows())
    told = [f"{level} by step {first[level]}" for level in levels if level in first]
    never = [level for level in levels if level not in first]
    words = f"More than half of the way is behind, on average, in {listing(told)}." if told else ""
    if never:
        words += f"{' ' if words else ''}Less than half at every step seen: {listing(never)}."
    return words


def _colour(states: pl.DataFrame, colours: Mapping[str, str]) -> alt.Color:
    """Each reward in the colour of its first agent, or in one that no reward has yet."""
    firsts = dict(states.group_by("reward", maintain_order=True).agg(pl.col("of").first()).rows())
    given: dict[str, str] = {}
    for reward, agent in firsts.items():
        own = colours.get(agent)
        taken = own is None or own in given.values()
        free = (one for one in AGENT_COLOURS if one not in given.values())
        given[reward] = next(free, BASE_COLOUR) if own is None or taken else own
    scale = alt.Scale(domain=list(given), range=list(given.values()))
    return alt.Color("reward:N", scale=scale, title="Reward")


def _chart(
    states: pl.DataFrame, means: pl.DataFrame, levels: Sequence[str], colour: alt.Color
) -> alt.VConcatChart:
    top = max(
        1.0, *(v for frame, name in ((states, "remaining"), (means, "high"))
               for v in frame.get_column(name).drop_nulls().to_list())
    )  # fmt: skip
    panels = [
        _panel(
            states.filter(pl.col("level") == level).select("of", "reward", "step", "remaining"),
            means.filter(pl.col("level") == level).drop("level"),
            level,
            colour,
            1.04 * top,
        )
        for level in levels
    ]
    rows = [panels[i : i + _BESIDE] for i in range(0, len(panels), _BESIDE)]
    return below([beside(row, spacing=26) for row in rows], spacing=24)


def _panel(
    states: pl.DataFrame, means: pl.DataFrame, level: str, colour: alt.Color, top: float
) -> alt.LayerChart | alt.FacetChart:
    scale = alt.Scale(domain=[0.0, top], nice=False)
    x = alt.X("step:Q", title="Training step", axis=alt.Axis(tickMinStep=1, tickCount=5))

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title="Left of the way", scale=scale)

    band = alt.Chart(means.drop_nulls("low")).encode(x=x, y=y("low"), y2="high:Q", color=colour)
    single = alt.Chart(states).encode(x=x, y=y("remaining"), color=colour, detail="of:N")
    mean = alt.Chart(means).encode(x=x, y=y("mean"), color=colour)
    return alt.layer(
        band.mark_area(opacity=0.18),
        single.mark_line(strokeWidth=0.8, opacity=0.45),
        mean.mark_line(point=alt.OverlayMarkDef(size=36)),
    ).properties(width=230, height=170, title=level)
