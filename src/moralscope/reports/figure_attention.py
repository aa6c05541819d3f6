"""What do agents look at, and do they use it? Attention by category, with intervals and a floor.

*Mass*: the share of a head's attention, from the last token of the prompt, that goes to a category,
mean over heads. *Change*: the same on the scale of log-odds, agent minus base, beside how far two
seeds of one reward lie apart. *Use*: how far the decision moves when attention to a category is
masked, beside as many random tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from moralscope.reports.agent_groups import AgentGroups, agent_groups, intervals_told, over_seeds
from moralscope.reports.attention_numbers import (
    EDITED,
    change_rows,
    edit_rows,
    looked,
    mass_rows,
    seed_distances,
)
from moralscope.reports.chosen import values
from moralscope.reports.dots import Measure, domain_of, interval_panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

TOPIC = "attention"
_UNKNOWN = "None of its prompts is in the table prompts."
FLOOR = "two seeds of one reward"
"""The row of the noise floor."""


def has_attention(run: Run) -> bool:
    """Whether attention was measured."""
    return "attention" in run.tables


def has_edits(run: Run) -> bool:
    """Whether attention was masked."""
    return "attention_edits" in run.tables


def attention_mass(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Mass of each category, mean over heads, a panel per category."""
    name, title = "attention_mass", "Attention: what agents look at when they decide"
    if reason := run.lacks("attention"):
        return Absent(name, title, reason, TOPIC)
    looking = looked(run)
    if looking is None:
        return Absent(name, title, _UNKNOWN, TOPIC)
    groups = agent_groups(run, colours, list(looking.values))
    dots = over_seeds(mass_rows(looking), groups, ["panel", "row"], (0.0, 1.0))
    return Figure(
        name=name,
        title=title,
        shows="Share of attention from the last token of the prompt to the tokens of each "
        f"category, mean over {len(looking.heads)} heads; what is missing to 1 goes to the rest "
        f"of the prompt. {intervals_told(dots)} {_ranges(dots)}{_partial(looking.partial)}",
        does_not_show="Whether the decision depends on what is looked at: masking shows that. The "
        "first token gets what a head needs nowhere else, so its share is a head's rest, not its "
        "interest.",
        chart=interval_panels(
            dots.with_columns(row=pl.lit("")),
            groups,
            list(looking.categories),
            Measure("Mass, mean over heads", None, None),
        ),
        tables=("attention", "prompts"),
        topic=TOPIC,
    )


def _ranges(dots: pl.DataFrame) -> str:
    """From which agent to which the mass of each category ranges."""
    told: list[str] = []
    for panel in values(dots, "panel"):
        own = dots.filter(pl.col("panel") == panel).sort("value", maintain_order=True)
        low, high = own.row(0, named=True), own.row(-1, named=True)
        told.append(
            f"{panel} {low['value']:.3g} ({low['agent']}) to {high['value']:.3g} ({high['agent']})"
        )
    return f"Ranges: {'; '.join(told)}."


def _partial(partial: Mapping[str, int]) -> str:
    names = list(partial)
    return f" Not named by all prompts, and left out: {listing(names)}." if names else ""


def attention_change(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Change of the log-odds from the base, beside the distance between seeds."""
    name, title = "attention_change", "Attention: what agents look at more or less than the base"
    if reason := run.lacks("attention"):
        return Absent(name, title, reason, TOPIC)
    looking = looked(run)
    if looking is None:
        return Absent(name, title, _UNKNOWN, TOPIC)
    changes = change_rows(looking, {agent.name: agent.reference for agent in run.agents})
    if changes.is_empty():
        reason = "The table attention holds no agent together with its base."
        return Absent(name, title, reason, TOPIC)
    groups = agent_groups(run, colours, values(changes, "agent"))
    dots = over_seeds(changes, groups, ["panel", "row"])
    floor = _floor(seed_distances(run, looking), groups)
    shown = pl.concat([dots, floor])
    return Figure(
        name=name,
        title=title,
        shows="Change from base in the log-odds of attention to each category, mean over "
        f"{len(looking.heads)} heads: 0.7 doubles the odds. {intervals_told(dots)} "
        f"{_floor_told(floor)} {_largest(dots)}",
        does_not_show="Which heads changed: opposite changes of two heads cancel here. Shares "
        "below one in ten thousand count as that, so what hardly anybody looks at does not count.",
        chart=interval_panels(
            shown,
            groups,
            list(looking.categories),
            Measure("Change of log-odds (nats)", domain_of(shown), 0.0),
        ),
        tables=("attention", "prompts"),
        topic=TOPIC,
    )


def _floor(apart: pl.DataFrame, groups: AgentGroups) -> pl.DataFrame:
    """The distances between seeds as rows of the figure: intervals about 0, without a dot."""
    name = pl.col("first").replace_strict(dict(groups.name_of), default=None)
    return (
        apart.with_columns(agent=name)
        .drop_nulls("agent")
        .select(
            "agent",
            "panel",
            pl.lit(FLOOR).alias("row"),
            pl.lit(None, pl.Float64).alias("value"),
            "low",
            "high",
            pl.col("pairs").alias("n"),
            pl.lit("pairs of seeds").alias("unit"),
        )
    )


def _floor_told(floor: pl.DataFrame) -> str:
    if floor.is_empty():
        return "No reward was trained with two seeds, so there is no floor of what chance does."
    most = int(str(floor.get_column("n").max()))
    return (
        f"Row {FLOOR!r}: how far two seeds lie apart, root mean square over "
        f"{'1 pair' if most == 1 else f'up to {most} pairs'}; what is no wider may be chance."
    )


def _largest(dots: pl.DataFrame) -> str:
    row = dots.sort(pl.col("value").abs(), maintain_order=True).row(-1, named=True)
    return f"Largest: {row['agent']} at {row['panel']}, {signed(row['value'])}."


def attention_uses(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """How far the decision moves without attention to a category, beside random tokens."""
    name, title = "attention_uses", "Attention: what decisions use of what agents look at"
    for table in ("attention_edits", "prompts"):
        if reason := run.lacks(table):
            return Absent(name, title, reason, TOPIC)
    rows = edit_rows(run)
    if rows.is_empty():
        return Absent(name, title, _UNKNOWN, TOPIC)
    groups = agent_groups(run, colours, values(rows, "agent"))
    dots = over_seeds(rows, groups, ["panel", "row"], (0.0, float("inf")))
    layers = str(run.tables["attention_edits"].get_column("layers").first())
    where = "every layer" if layers == "all" else layers.replace("+", ", ")
    return Figure(
        name=name,
        title=title,
        shows="Size of the change of the log-odds when attention from the answer to the tokens of "
        f"a category, and to nothing else, is masked at all heads of {where}"
        f"{_amplified(run.tables['attention_edits'])}; below it as many tokens drawn at random "
        f"from the rest. {intervals_told(dots)} {_excess(dots)}",
        does_not_show="What earlier tokens had read of the category before: it stays. A size has "
        "no direction: a category may move some decisions up and others down.",
        chart=interval_panels(
            dots,
            groups,
            values(dots, "panel"),
            Measure("Size of the effect (nats)", domain_of(dots), None),
        ),
        tables=("attention_edits", "prompts"),
        topic=TOPIC,
    )


def _amplified(table: pl.DataFrame) -> str:
    factors: Sequence[float] = (
        table.filter(pl.col("how") == "amplify").get_column("factor").unique().sort().to_list()
    )
    return f", or amplified {listing([f'{f:g} times' for f in factors])}" if factors else ""


def _excess(dots: pl.DataFrame) -> str:
    """The category that moves each agent furthest beyond random tokens."""
    wide = dots.pivot(on="row", index=["agent", "panel"], values="value", maintain_order=True)
    own, random = EDITED["own"], EDITED["random"]
    if own not in wide.columns or random not in wide.columns:
        return "Nothing was drawn at random to compare with."
    told: list[str] = []
    beyond = wide.with_columns(excess=pl.col(own) - pl.col(random)).drop_nulls("excess")
    for agent in values(beyond, "agent"):
        top = beyond.filter(pl.col("agent") == agent).sort("excess").row(-1, named=True)
        told.append(f"{agent} {top['panel']} ({signed(top['excess'])} nats)")
    return f"Furthest beyond random tokens: {', '.join(told)}."
