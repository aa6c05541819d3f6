"""What carries the difference between two prompts? Patches from a counterpart of the prompt.

The mean over prompts of (patched minus baseline log-odds) when one component writes at the answer
what it writes on a prompt that differs in one thing, such as the other player's last move. Prompts
that differ in opposite directions would cancel in a mean and have panels of their own.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_sites import (
    DRAWN,
    Panel,
    flips,
    heatmaps,
    largest,
    one_protocol,
    pair_heading,
    patching_effect,
)
from moralscope.reports.run import Run

_FACTORS = (
    "own_previous", "opponent_previous", "labels", "option_order", "answer_order", "table_order",
    "template", "game",
)  # fmt: skip
_MOVES = ("own_previous", "opponent_previous")
_AT_MOST = 8
"""Panels that a reader can still compare."""


def has_changes(run: Run) -> bool:
    """Whether patches across prompts were asked for beside those on the same prompt."""
    table = run.tables.get("patching")
    if table is None:
        return False
    across = table.get_column("prompt") != table.get_column("source_prompt")
    return bool(across.any()) and not bool(across.all())


def patching_across(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mean effect of one component's write on a changed prompt, a panel per pair and change."""
    name, title = "patching_across", "Patching across prompts: which components read what changed"
    del colours  # panels are named by their pair; hue is taken by the sign of the effect
    if reason := run.lacks("patching"):
        return Absent(name, title, reason)
    table = effects_across(run)
    if table.filter(pl.col("kind").is_in(DRAWN)).is_empty():
        return Absent(name, title, "No single head or MLP was patched across prompts.")
    groups = [
        (str(label), rows)
        for (label, _), rows in table.group_by("label", "within", maintain_order=True)
    ]
    # Within one agent first: there nothing but the prompt differs.
    groups.sort(key=lambda group: not group[1].get_column("within").item(0))
    shown = groups[:_AT_MOST]
    maps = [_panel(label, rows) for label, rows in shown]
    single = pl.concat(rows for _, rows in shown).filter(pl.col("kind").is_in(DRAWN))
    positive, negative = run.option_words
    left_out = f" Of {len(groups)} such panels the first {_AT_MOST} are drawn."
    return Figure(
        name=name,
        title=title,
        shows="Change in the target's log-odds when one head or MLP writes what it writes in the "
        f"source on the changed prompt, mean of {table.get_column('prompt').n_unique()} prompts; "
        f"orange pushes towards {positive}, purple towards {negative}. Largest: "
        f"{largest(maps, [label for label, _ in shown])}. Single patches flip {flips(single)} "
        f"decisions.{left_out if len(groups) > _AT_MOST else ''}",
        does_not_show="Everything that follows from the changed words is swapped with them, so an "
        "effect need not be about their meaning. Components act together, so single effects need "
        "not add up to the full swap; and a change that pushes some prompts up and others down "
        "cancels in the mean.",
        chart=heatmaps(maps, "Mean effect on log-odds (nats)"),
        tables=("patching", "prompts") if "prompts" in run.tables else ("patching",),
    )


def effects_across(run: Run) -> pl.DataFrame:
    """Patches across prompts in one way of patching, each with its panel.

    Columns: those of the table patching, and label (pair and change) and within (one agent).
    """
    table = run.tables["patching"].filter(pl.col("prompt") != pl.col("source_prompt"))
    table = one_protocol(table)
    pairs = table.select("prompt", "source_prompt").unique(maintain_order=True)
    words = [_change(run, prompt, source) for prompt, source in pairs.iter_rows()]
    named = pairs.with_columns(change=pl.Series(words, dtype=pl.String))
    within = pl.col("source") == pl.col("target")
    agents = pl.when(within).then("target").otherwise(pl.format("{} into {}", "source", "target"))
    return table.join(named, on=["prompt", "source_prompt"], maintain_order="left").with_columns(
        label=pl.format("{}, {}", agents, "change"), within=within
    )


def _change(run: Run, prompt: str, source: str) -> str:
    """How the source's prompt differs from the target's, in words."""
    prompts = run.tables.get("prompts")
    if prompts is None:
        return "from another prompt"
    rows = {
        row["prompt"]: row
        for row in prompts.filter(pl.col("prompt").is_in([prompt, source])).iter_rows(named=True)
    }
    if len(rows) < 2:
        return "from another prompt"
    here, there = rows[prompt], rows[source]
    factors = [factor for factor in _FACTORS if here[factor] != there[factor]]
    if not factors:
        return "from other words"
    named = " and ".join(factor.replace("_", " ") for factor in factors)
    if len(factors) == 1 and factors[0] in _MOVES:
        return f"{named} {there[factors[0]]} into {here[factors[0]]}"
    return f"other {named}"


def _panel(label: str, rows: pl.DataFrame) -> Panel:
    effects = patching_effect(rows)
    return Panel(pair_heading(label, rows, effects), effects)
