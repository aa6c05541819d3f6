"""Does it reciprocate, forgive, resist, repair? Contrasts between situations, with intervals.

Each contrast is a weighted sum of probabilities of cooperating over memory-one states or named
situations (``evidence.contrasts``, which also says what the units are). It is taken within a unit
first wherever the unit was asked in all of them, and so is its change from base; the interval is
over units (``evidence.statistics.bounded``): Student's interval for units close together in the
middle of the range, and wider or to one side where probabilities crowd at 0 or 1.

What it does not do: test. A table of contrasts has no correction for having looked at all of them;
the claims have (``evidence.contrast_claims``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.core.tables import conform, from_rows
from moralscope.evidence.contrasts import (
    Contrast,
    Design,
    Measured,
    designs,
    estimate,
    measure,
    used,
    weights_of,
)
from moralscope.evidence.designs import base_of
from moralscope.evidence.statistics.bounded import combined_interval
from moralscope.evidence.statistics.intervals import Interval


@dataclass(frozen=True, eq=False)
class _Agent:
    """One agent in one design: alone, beside its base, and both in log-odds."""

    name: str
    alone: Measured
    beside: Measured | None
    log_odds: Measured | None


def contrasts_table(
    prompts: pl.DataFrame, decisions: pl.DataFrame, agents: pl.DataFrame
) -> pl.DataFrame:
    """What does each agent do differently between situations, and how did training change it?

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.
        agents: an ``agents`` table; the base of an agent is the agent of kind ``base`` on the same
            base model. Bases and scripted policies have no change.

    Returns:
        A ``contrasts`` table: ``estimate`` in [-1, 1] (a level in [0, 1]), ``change`` in [-2, 2],
        ``change_log_odds`` in nats towards cooperating. Units in which an agent has no legal
        answer somewhere are left out, which ``sentence`` says; a contrast without any unit has no
        row. Intervals are null for one unit or no spread.

    Raises:
        TableError: the tables break their schemas, an agent decided on part of a family only, or
            two base agents share a model.
    """
    asked, made = conform("prompts", prompts), conform("decisions", decisions)
    listed = conform("agents", agents)
    names: list[str] = made.get_column("agent").unique(maintain_order=True).to_list()
    bases = {name: _base(listed, name) for name in names}
    rows: list[dict[str, object]] = []
    for design in designs(asked):
        for agent in _measured(design, made, bases):
            rows += [_row(design, contrast, agent) for contrast in design.contrasts]
    return from_rows("contrasts", rows)


def _base(agents: pl.DataFrame, agent: str) -> str | None:
    kinds = agents.filter(pl.col("agent") == agent).get_column("kind").to_list()
    return base_of(agents, agent) if kinds and kinds[0] not in ("base", "policy") else None


def _measured(
    design: Design, decisions: pl.DataFrame, bases: dict[str, str | None]
) -> Iterator[_Agent]:
    """The agents that a contrast can be formed for, in order of appearance."""
    for name, base in bases.items():
        alone = measure(design, decisions, [name])
        if alone is None or any(len(group) == 0 for group in alone.groups):
            continue
        pair = [] if base is None else [name, base]
        beside = measure(design, decisions, pair) if pair else None
        log_odds = measure(design, decisions, pair, "log_odds") if pair else None
        yield _Agent(name, alone, _whole(beside), _whole(log_odds))


def _whole(measured: Measured | None) -> Measured | None:
    if measured is None or any(len(group) == 0 for group in measured.groups):
        return None
    return measured


def _row(design: Design, contrast: Contrast, agent: _Agent) -> dict[str, object]:
    groups, weights = used(agent.alone.groups, weights_of(design, contrast, (1.0,)))
    value = estimate(groups, weights)
    interval = combined_interval(groups, weights)
    n_units = sum(len(group) for group in groups)
    change = bounds = nats = None
    both = weights_of(design, contrast, (1.0, -1.0))
    if agent.beside is not None:
        terms = used(agent.beside.groups, both)
        change, bounds = estimate(*terms), combined_interval(*terms)
    if agent.log_odds is not None:
        nats = estimate(*used(agent.log_odds.groups, both))
    low, high = interval or (None, None)
    change_low, change_high = bounds or (None, None)
    said = said_of(contrast, agent.name, value, interval, n_units)
    figures = f"{_figure(contrast, value)} ({_over(interval, n_units, design.unit)})"
    changed = "" if change is None else f"; change from base {change:+.3f} ({_between(bounds)})"
    without = "" if not agent.alone.left_out else f"; {_without(agent.alone.left_out)}"
    return {
        "agent": agent.name,
        "contrast": contrast.name,
        "game": design.game,
        "family": design.family,
        "estimate": value,
        "low": low,
        "high": high,
        "change": change,
        "change_low": change_low,
        "change_high": change_high,
        "change_log_odds": nats,
        "unit": design.unit,
        "n_units": n_units,
        "sentence": f"{said}: {figures}{changed}{without}.",
    }


def said_of(
    contrast: Contrast, agent: str, value: float, interval: Interval | None, n_units: int
) -> str:
    """What a contrast of this value says of an agent, without figures.

    Nothing is asserted where the interval covers equality or where one unit leaves it undefined;
    units that all agree (a scripted policy) need no interval.
    """
    equal = 0.5 if contrast.is_level else 0.0
    covered = interval is not None and interval[0] <= equal <= interval[1]
    clear = n_units > 1 and not covered
    more = "more" if value > equal else "less"
    if contrast.is_level:
        (where,) = contrast.words
        if clear and value == equal:
            return f"{agent} cooperates half of the time {where}"
        if clear:
            return f"{agent} cooperates {more} often than not {where}"
        return f"Whether {agent} cooperates more often than not {where} is not clear"
    first, second = contrast.words
    if clear and value == equal:
        return f"{agent} cooperates {first} as it does {second}"
    if clear:
        return f"{agent} cooperates {more} {first} than {second}"
    return f"Whether {agent} cooperates more {first} than {second} is not clear"


def _figure(contrast: Contrast, value: float) -> str:
    return f"P(C) {value:.3f}" if contrast.is_level else f"difference {value:+.3f}"


def _over(interval: Interval | None, n: int, unit: str) -> str:
    return f"{_between(interval)}, {n} {unit if n != 1 else unit.removesuffix('s')}"


def _between(interval: Interval | None) -> str:
    if interval is None:
        return "no interval"
    return f"95% interval {interval[0]:.3f} to {interval[1]:.3f}"


def _without(count: int) -> str:
    return f"{count} {'unit' if count == 1 else 'units'} without a legal answer left out"
