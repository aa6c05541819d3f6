"""How far apart do agents lie in what was measured of each of them, scenario by scenario?

*Behaviour*: mean log-odds. *Attribution*: what each distinct, resolved site contributes to the
answer. *Attention*: the log-odds of the share of attention that each head gives to each category,

    logit(m) = log(m / (1 - m)),   m cut to [0.001, 0.999],

so that a change from 1% to 2% weighs as much as one from 98% to 99%, and shares below a thousandth,
which no decision can rest on, weigh nothing. Each is averaged over the prompts of a scenario.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from moralscope.evidence.findings.inner import inner_values
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.distances import (
    Apart,
    Distances,
    of_profiles,
    placed_rows,
    refuse_other_places,
)
from moralscope.evidence.units import Tables, matrix

Pairs = Sequence[tuple[str, str]]

LEAST_MASS = 1e-3
"""Shares of attention below this, or as near to 1, count as this."""


def behaviour(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances in mean log-odds per scenario; agents with an undefined one are left out."""
    placed = placed_rows(tables, "decisions")
    if placed is None:
        return
    wanted = {name for pair in pairs for name in pair}
    rows = placed[0].filter(pl.col("agent").is_in(wanted))
    undefined = set(rows.filter(pl.col("log_odds").is_null()).get_column("agent").to_list())
    rows = rows.filter(~pl.col("agent").is_in(undefined))
    if rows.is_empty():
        return
    matrix(rows, "prompt", "agent", "log_odds")  # everybody has to be asked the same prompts
    units = matrix(rows, "scenario", "agent", "log_odds")
    values = {name: units.column(name)[:, None] for name in units.columns}
    yield _scenarios("behaviour", "log_odds", "nats", len(units.names), of_profiles(values, pairs))


def attribution(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances in the contributions of the sites that are sound in every agent."""
    agents = present(tables, "attribution", pairs)
    inner = inner_values(tables, "attribution", agents) if agents else None
    sites = [] if inner is None else inner.sound(agents)
    if inner is None or not sites:
        return
    values = {agent: inner.means(agent, sites) for agent in agents}
    found = of_profiles(values, pairs)
    yield _scenarios("attribution", "contribution", "nats", inner.scenarios, found)


def attention(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances in the log-odds of attention per head and category."""
    placed = placed_rows(tables, "attention")
    if placed is None:
        return
    share = pl.col("mass").clip(LEAST_MASS, 1.0 - LEAST_MASS)
    key = ["scenario", "layer", "head", "category"]
    wanted = {name for pair in pairs for name in pair}
    means = (
        placed[0]
        .filter(pl.col("agent").is_in(wanted))
        .group_by("agent", *key)
        .agg((share / (1.0 - share)).log().mean().alias("logit"))
        .sort("agent", *key)
    )
    values: dict[str, Array] = {}
    first: tuple[str, pl.DataFrame] | None = None
    for (agent,), own in means.group_by("agent", maintain_order=True):
        places, name = own.select(key), str(agent)
        if first is None:
            first = name, places
        elif not places.equals(first[1]):
            alone = set(places.rows()) ^ set(first[1].rows())
            refuse_other_places((first[0], name), "scenarios, heads and categories", sorted(alone))
        values[name] = own.get_column("logit").to_numpy()
    if first is None:
        return
    scenarios = first[1].get_column("scenario")
    names = scenarios.unique(maintain_order=True).to_list()
    order = {scenario: index for index, scenario in enumerate(names)}
    at = np.array([order[scenario] for scenario in scenarios.to_list()], dtype=np.float64)
    found = of_profiles(values, pairs, at)
    yield _scenarios("attention", "attention_log_odds", "nats", len(names), found)


def _scenarios(
    level: str, measure: str, unit: str, n: int, found: Mapping[tuple[str, str], Apart]
) -> Distances:
    return Distances(level, measure, unit, "scenarios", n, found, {})


def present(tables: Tables, table: str, pairs: Pairs) -> list[str]:
    """The agents of some pairs that a table has rows of, in the order of the table."""
    if table not in tables or "prompts" not in tables:
        return []
    wanted = {name for pair in pairs for name in pair}
    names = tables[table].get_column("agent").unique(maintain_order=True).to_list()
    return [name for name in names if name in wanted]
