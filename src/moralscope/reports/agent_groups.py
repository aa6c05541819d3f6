"""Which agents does a figure draw as one, and with which interval? Seeds of one training.

Agents that differ in their training seed only are drawn as one: their mean, with Student's 95%
interval over seeds,

    mean +- t_{n-1}(0.975) sd / sqrt(n).

All other agents keep the interval of their table. Who differs in the seed only is decided as for
learning curves (``seed_groups``); without the table ``training`` by what the table ``agents``
tells: kind, base, reward and opponent agree, and no two seeds are equal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.reports.figure import listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, agent_colour
from moralscope.reports.run import Run
from moralscope.reports.seed_groups import seed_groups

SEEDS = "training seeds"


@dataclass(frozen=True, slots=True)
class AgentGroups:
    """Who is drawn, in the order of the study.

    Attributes:
        name_of: an agent's name to that under which it is drawn.
        sizes: drawn names to how many seeds each is the mean of.
        colours: drawn names to colours.
    """

    name_of: Mapping[str, str]
    sizes: Mapping[str, int]
    colours: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Drawn names."""
        return list(self.sizes)

    @property
    def colour(self) -> alt.Color:
        """The colour encoding of the column ``agent``."""
        return agent_colour(self.colours, self.names)

    @property
    def scale(self) -> alt.Scale:
        """Names to colours, for an encoding without a legend."""
        return alt.Scale(domain=self.names, range=[self.colours[name] for name in self.names])


def agent_groups(run: Run, colours: Mapping[str, str], shown: Sequence[str]) -> AgentGroups:
    """Groups of the agents that a table holds.

    Args:
        run: the run.
        colours: of the agents of the run, in the order of the study.
        shown: agents of the table, in its order; those without a colour get one.
    """
    found = dict.fromkeys(shown)
    order = [name for name in colours if name in found]
    order += [name for name in found if name not in colours]
    members = _members(run, order)
    names = _names(members, {agent.name: agent.reward for agent in run.agents})
    given = {
        name: colours[group[0]]
        for name, group in zip(names, members, strict=True)
        if group[0] in colours
    }
    for name in names:
        free = (colour for colour in AGENT_COLOURS if colour not in given.values())
        if name not in given:
            given[name] = next(free, BASE_COLOUR)
    grouped = list(zip(names, members, strict=True))
    return AgentGroups(
        name_of={agent: name for name, group in grouped for agent in group},
        sizes={name: len(group) for name, group in grouped},
        colours={name: given[name] for name in names},
    )


def first_pairs(
    run: Run, colours: Mapping[str, str], pairs: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], str]:
    """The first pair of agents of every pair of groups, and a sentence about the others.

    A study of five seeds has five pairs of every kind, which look alike: one is drawn.

    Args:
        run: the run.
        colours: of its agents, in the order of the study.
        pairs: source and target, in the order of a table.
    """
    shown = [name for pair in pairs for name in pair]
    name_of = agent_groups(run, colours, shown).name_of
    firsts: dict[tuple[str, str], tuple[str, str]] = {}
    for pair in pairs:
        firsts.setdefault((name_of[pair[0]], name_of[pair[1]]), pair)
    drawn = list(firsts.values())
    others = len(pairs) - len(drawn)
    if not others:
        return drawn, ""
    more = f"{others} pair{'s' * (others > 1)} of other seeds"
    return drawn, f" Not drawn, but in the table: {more}."


def _members(run: Run, order: Sequence[str]) -> list[tuple[str, ...]]:
    """Agents drawn together, each group where its first agent stands."""
    group_of: dict[str, tuple[str, ...]] = {}
    if run.lacks("training") is None:
        for group in seed_groups(run):
            if group.first.learned_beside is None:
                names = tuple(dict.fromkeys(member.agent for member in group.members))
                group_of |= dict.fromkeys(names, names)
    alike: dict[tuple[object, ...], list[tuple[str, int]]] = {}
    for agent in run.agents:
        if agent.name not in group_of and None not in (agent.reward, agent.training_seed):
            kind = (agent.kind, agent.reference, agent.reward, agent.opponent)
            alike.setdefault(kind, []).append((agent.name, agent.training_seed or 0))
    for found in alike.values():
        if len({seed for _, seed in found}) == len(found):
            names = tuple(name for name, _ in found)
            group_of |= dict.fromkeys(names, names)
    groups = (
        tuple(other for other in order if other in group_of.get(name, (name,))) for name in order
    )
    return list(dict.fromkeys(groups))


def _names(members: Sequence[tuple[str, ...]], rewards: Mapping[str, str | None]) -> list[str]:
    """A name for each group: its agent, or what its agents' names begin with."""
    stems = [group[0] if len(group) == 1 else _stem(group) for group in members]
    names: list[str] = []
    for group, stem in zip(members, stems, strict=True):
        if len(group) == 1:
            names.append(group[0])
            continue
        words = stem if stem and stems.count(stem) == 1 else rewards.get(group[0]) or group[0]
        name = f"{words} ({len(group)} seeds)"
        names.append(name if name not in names else f"{group[0]} ({len(group)} seeds)")
    return names


def _stem(names: Sequence[str]) -> str:
    """What all names begin with, less separators, digits and the word seed."""
    same = 0
    while all(len(name) > same and name[same] == names[0][same] for name in names):
        same += 1
    return re.sub(r"[\s._-]*(?:seed|run)?[\s._-]*\d*$", "", names[0][:same])


def over_seeds(
    frame: pl.DataFrame,
    groups: AgentGroups,
    keys: Sequence[str],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> pl.DataFrame:
    """One row per drawn agent and key.

    Args:
        frame: columns agent, ``keys``, value, low, high, n (units of the interval), unit (what
            they are called); one row per agent and key.
        groups: who is drawn as one.
        keys: names of further columns that identify a row.
        bounds: what a value can be at all; intervals over seeds are cut there.

    Returns:
        The same columns. Groups of several agents: mean over those that have the key, interval
        over seeds (null where it has one, or they do not differ), n seeds.
    """
    named = frame.with_columns(
        member="agent", agent=pl.col("agent").replace_strict(dict(groups.name_of))
    )
    several = [name for name, size in groups.sizes.items() if size > 1]
    columns = ["agent", *keys, "value", "low", "high", "n", "unit"]
    single = named.filter(~pl.col("agent").is_in(several)).select(columns)
    value = pl.col("value")
    pooled = (
        named.filter(pl.col("agent").is_in(several))
        .drop_nulls("value")
        .group_by("agent", *keys, maintain_order=True)
        .agg(
            value.mean(),
            sd=value.std(),
            apart=value.max() > value.min(),
            n=pl.len().cast(pl.Int64),
            unit=pl.lit(SEEDS),
        )
        .with_columns(
            half=pl.when("apart").then(
                pl.col("sd") * pl.col("n").map_elements(_factor, pl.Float64, skip_nulls=True)
            )
        )
        .with_columns(
            low=(value - pl.col("half")).clip(lower_bound=bounds[0]),
            high=(value + pl.col("half")).clip(upper_bound=bounds[1]),
        )
        .select(columns)
    )
    order = {name: rank for rank, name in enumerate(groups.names)}
    return (
        pl.concat([single.with_columns(pl.col("n").cast(pl.Int64)), pooled])
        .with_columns(rank=pl.col("agent").replace_strict(order))
        .sort("rank", maintain_order=True)
        .drop("rank")
    )


def _factor(n: int) -> float | None:
    return t_quantile(0.975, n - 1) / math.sqrt(n) if n > 1 else None


def intervals_told(frame: pl.DataFrame) -> str:
    """What the intervals of a frame are over, and which values have none, in a sentence.

    Args:
        frame: as from ``over_seeds``.
    """
    with_one = frame.drop_nulls("low")
    over = [
        f"over {_counted(rows.get_column('n').unique().sort().to_list(), str(unit))}"
        for (unit,), rows in with_one.group_by("unit", maintain_order=True)
    ]
    none = frame.drop_nulls("value").height - with_one.height
    if not over:
        return "No value has an interval: each rests on one unit, or its units do not differ."
    without = f"; {none} of {frame.height} values rest on one unit or on units that do not differ"
    return f"Intervals: 95%, {listing(over)}{(without + ', and have none') * bool(none)}."


def _counted(counts: Sequence[int], unit: str) -> str:
    least, most = counts[0], counts[-1]
    return f"{least} {unit}" if least == most else f"{least} to {most} {unit}"
