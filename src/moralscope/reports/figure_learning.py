"""How did agents learn, and how far do training seeds differ? Curves with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.arrange import below, beside
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, FAINT
from moralscope.reports.numbers import probability
from moralscope.reports.run import Run
from moralscope.reports.seed_curves import DRAWN_STEPS, seed_intervals, seed_values, stride
from moralscope.reports.seed_groups import SeedGroup, seed_groups


@dataclass(frozen=True, slots=True)
class _Panel:
    """A measure, its title, the ends of its scale where it has any, and its width in pixels."""

    measure: str
    title: str
    ends: tuple[float, float] | None
    width: int


_PANELS = (
    _Panel("p_defect", "P(defect | legal answer)", (0.0, 1.0), 250),
    _Panel("reward", "Reward (points)", None, 180),
    _Panel("legal_mass", "Legal mass (probability)", (0.0, 1.0), 180),
    _Panel("kl", "KL from the base (nats)", None, 180),
)
_DASHES = {"as given": [1, 0], "exchanged": [5, 3], "not told apart": [1, 2]}
_AT_MOST = len(AGENT_COLOURS)
_BOLD = 100
"""Curves of more steps than this, of sampled play often, are ragged, and thinner lines show it."""

_SAME_AXIS = 3.0
"""Trainings whose lengths differ by more than this factor have rows of panels of their own."""

_TOLD = 3
"""Warnings of training that the figure puts in words."""


def learning_curves(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """P(defect) under either labels, reward, legal mass and KL by step, with intervals over seeds.

    A colour for each group of trainings that differ in their seed only.
    """
    name, title = "learning_curves", "Learning curves, and how far training seeds differ"
    if reason := run.lacks("training"):
        return Absent(name, title, reason)
    every = seed_groups(run)
    groups = every[:_AT_MOST]
    values = seed_values(run, groups)
    curves = seed_intervals(values)
    rows = [
        _row(values, curves, lengths, _group_colour(groups, colours)) for lengths in _rows(groups)
    ]
    told = (
        "P(defect | legal answer), reward, legal mass and KL from the base on each step's own "
        f"prompts.{_labels_told(values)}{_spread_told(groups)}{_phases_told(groups)}"
        f"{_thinned_told(groups)} {_ends_told(curves, groups)}"
    )
    if len(every) > len(groups):
        told += f" Of {len(every)} groups of trainings the first {len(groups)} are drawn."
    told += _warnings_told(run)
    return Figure(
        name=name,
        title=title,
        shows=told,
        does_not_show="Behaviour on prompts that were not trained on. An interval is about the "
        "training seed alone, on this base with these settings, and for each step on its own, not "
        "for a whole curve. Rewards of differently rewarded agents are on scales of their own; in "
        "sampled play reward and KL are means of what was played, not expectations.",
        chart=below(rows, spacing=30),
        tables=("training", "agents") if "agents" in run.tables else ("training",),
    )


# Words


def _warnings_told(run: Run) -> str:
    """What was noticed while training, the first few in words."""
    table = run.tables.get("diagnostics")
    if table is None or table.is_empty():
        return ""
    found = [f"{row['agent']}: {row['sentence']}" for row in table.head(_TOLD).to_dicts()]
    more = "" if table.height <= _TOLD else f" and {table.height - _TOLD} more"
    return f" Noticed while training (table diagnostics): {' '.join(found)}{more}"


def _labels_told(values: pl.DataFrame) -> str:
    labels = set(values.filter(pl.col("measure") == "p_defect").get_column("labels").to_list())
    if {"as given", "exchanged"} <= labels:
        return " Solid: labels as given; dashed: the two labels exchanged."
    return " Labels were always exchanged." if labels == {"exchanged"} else ""


def _spread_told(groups: Sequence[SeedGroup]) -> str:
    several = [group for group in groups if len(group.members) > 1]
    single = [group.name for group in groups if len(group.members) == 1]
    told = ""
    if several:
        told = (
            " Bold: mean over training seeds; band: its 95% interval over seeds (Student's t, n "
            "\N{MINUS SIGN} 1 degrees of freedom, cut at the possible range); thin: single seeds."
        )
    if single and several:
        told += f" One seed each, so no interval over seeds: {listing(single)}."
    elif single:
        told = " Every group has one training seed, so no interval over seeds can be given."
    return told


def _phases_told(groups: Sequence[SeedGroup]) -> str:
    changed = [
        f"{group.name} (to {reward} at step {step})"
        for group in groups
        for reward, step in group.first.phases[1:]
    ]
    return f" Vertical rules: the reward changes, {listing(changed)}." if changed else ""


def _thinned_told(groups: Sequence[SeedGroup]) -> str:
    strides = sorted({stride(group) for group in groups} - {1})
    if not strides:
        return ""
    kept = listing([str(n) for n in strides])
    return f" Of trainings longer than {DRAWN_STEPS} steps one step in {kept} is drawn."


def _ends_told(curves: pl.DataFrame, groups: Sequence[SeedGroup]) -> str:
    """Where each group ends, with its interval."""
    defect = curves.filter(pl.col("measure") == "p_defect")
    told: list[str] = []
    for group in groups:
        rows = defect.filter(pl.col("group") == group.name)
        ends = [
            _end(part.sort("step").row(-1, named=True))
            for _, part in rows.group_by("labels", maintain_order=True)
        ]
        n = len(group.members)
        seeds = "1 seed" if n == 1 else f"{n} seeds"
        told.append(f"{group.name}: {', '.join(ends)} ({seeds}, {group.first.steps} steps)")
    return f"P(defect) at the last step. {'; '.join(told)}."


def _end(row: dict[str, object]) -> str:
    text = probability(float(str(row["mean"])))
    if row["low"] is not None:
        low, high = (probability(float(str(row[end]))) for end in ("low", "high"))
        text += f" [{low}, {high}]"
    return text if row["labels"] == "not told apart" else f"{text} {row['labels']}"


# Picture


def _rows(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Groups whose trainings are about as long, shortest first."""
    rows: list[list[SeedGroup]] = []
    for group in sorted(groups, key=lambda group: group.first.steps):
        if not rows or group.first.steps > _SAME_AXIS * rows[-1][0].first.steps:
            rows.append([])
        rows[-1].append(group)
    return rows


def _row(
    values: pl.DataFrame, curves: pl.DataFrame, groups: Sequence[SeedGroup], colour: alt.Color
) -> alt.HConcatChart:
    """The panels of trainings that are about equally long."""
    means = curves.filter(pl.col("group").is_in([group.name for group in groups]))
    several = [group.name for group in groups if len(group.members) > 1]
    singles = values.filter(pl.col("group").is_in(several))
    changes = sorted({start for group in groups for _, start in group.first.phases[1:]})
    charts = [
        _panel(
            means.filter(pl.col("measure") == panel.measure),
            singles.filter(pl.col("measure") == panel.measure),
            changes,
            panel,
            colour,
        )
        for panel in _PANELS
    ]
    return beside(charts, spacing=26)


def _panel(
    means: pl.DataFrame,
    singles: pl.DataFrame,
    changes: Sequence[int],
    panel: _Panel,
    colour: alt.Color,
) -> alt.LayerChart | alt.FacetChart:
    """Where the reward changes; bands; single seeds; means on top."""
    steps = means.get_column("step").unique().sort().to_list()
    axis = alt.Axis(values=steps) if len(steps) < 8 else alt.Axis(tickMinStep=1, tickCount=5)
    x = alt.X("step:Q", title="Training step", axis=axis, scale=alt.Scale(nice=False))
    # Rounding puts the base's own KL a hair below 0, which a rounded axis would give room.
    kl = panel.measure == "kl"
    free = alt.Scale(zero=kl, nice=not kl)
    scale = free if panel.ends is None else alt.Scale(domain=list(panel.ends))

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=panel.title, scale=scale)

    band = alt.Chart(means.filter(pl.col("n") > 1)).encode(
        x=x, y=y("low"), y2="high:Q", color=colour, detail="labels:N"
    )
    single = alt.Chart(singles).encode(
        x=x, y=y("value"), color=colour, detail=["agent:N", "seed:N"]
    )
    mean = alt.Chart(means).encode(x=x, y=y("mean"), color=colour)
    if panel.measure == "p_defect":
        single, mean = (chart.encode(strokeDash=_dashes(means)) for chart in (single, mean))
    # The step at which a reward begins was already taken under it: the rule stands before it.
    rule = alt.Chart(
        pl.DataFrame({"step": [c - 0.5 for c in changes]}, schema={"step": pl.Float64})
    )
    layers = [
        rule.mark_rule(color=FAINT, strokeWidth=1, strokeDash=[2, 2]).encode(x=x),
        # A single step has no line and no area: a point with its interval shows it.
        band.mark_rule(strokeWidth=2) if len(steps) == 1 else band.mark_area(opacity=0.2),
        single.mark_line(strokeWidth=0.8, opacity=0.4),
        mean.mark_line(
            strokeWidth=2 if len(steps) <= _BOLD else 1.2,
            point={"size": 40} if len(steps) == 1 else False,
        ),
    ]
    return alt.layer(*layers).properties(width=panel.width, height=190)


def _dashes(means: pl.DataFrame) -> alt.StrokeDash:
    """Which assignment of labels a line is of; explained only where there are several."""
    labels = [name for name in _DASHES if name in set(means.get_column("labels").to_list())]
    scale = alt.Scale(domain=labels, range=[_DASHES[name] for name in labels])
    legend = alt.Legend(title="Labels") if len(labels) > 1 else None
    return alt.StrokeDash("labels:N", scale=scale, legend=legend)


def _group_colour(groups: Sequence[SeedGroup], colours: Mapping[str, str]) -> alt.Color:
    """Each group in the colour of its first agent, or in one that no group has yet."""
    given: dict[str, str] = {}
    for group in groups:
        own = colours.get(group.first.agent)
        if own is not None and own not in given.values():
            given[group.name] = own
    for group in groups:
        free = (colour for colour in AGENT_COLOURS if colour not in given.values())
        given.setdefault(group.name, next(free, BASE_COLOUR))
    names = [group.name for group in groups]
    scale = alt.Scale(domain=names, range=[given[name] for name in names])
    return alt.Color("group:N", scale=scale, title="Agent")
