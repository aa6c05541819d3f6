"""Which rows are judged together? Tables of millions of rows, cut where families of tests end.

A family of tests lies within one pair of agents (patches) or one agent with its base (attribution),
so such tables are read by these parts, each with the small tables that it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.auditing.normalising import Normalised
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.designs import base_of, reward_designs, trained_agents
from moralscope.evidence.hypotheses.grammar import Hypothesis

Frames = dict[str, pl.DataFrame]

IN_PARTS = ("patching", "attribution", "attention")
"""Tables that are never in memory as a whole."""

WHOLE = 3_000_000
"""Most rows of any other table that are judged."""

_BESIDE = ("agents", "prompts", "controls", "replicas", "control_patches", "completeness")
"""Small tables that gates and claims about inner results consult."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows of a table that is judged in parts.

    Attributes:
        table: which.
        subject: whom it is about, for messages.
        rows: the filter that chooses them.
    """

    table: str
    subject: str
    rows: pl.Expr


def small_tables(known: Normalised, settings: AuditSettings) -> Frames:
    """The tables that are judged as a whole; prompts only where scenarios are known."""
    small = {
        name: known.scan(name).collect()
        for name in known.tables
        if name not in IN_PARTS and known.rows[name] <= WHOLE
    }
    small.pop("prompts", None)
    if known.prompts.prompts is not None:
        small["prompts"] = known.prompts.prompts
    if "agents" in small:
        small["agents"] = _in_dtype(small["agents"], settings, "decisions")
    return small


def with_seeds(known: Normalised, small: Frames) -> Frames:
    """With the attribution of all agents, where training seeds of two rewards are compared.

    Distances between agents need all of them at once; more than ``WHOLE`` rows are not judged so.
    """
    if not 0 < known.rows.get("attribution", 0) <= WHOLE or "agents" not in small:
        return small
    designs = reward_designs(small["agents"])
    if len(designs) < 2:
        return small
    names = [name for design in designs for seed in design.agents for name in seed]
    rows = known.scan("attribution").filter(pl.col("agent").is_in(names))
    return {**small, "attribution": rows.collect(engine="streaming")}


def _in_dtype(agents: pl.DataFrame, settings: AuditSettings, table: str) -> pl.DataFrame:
    """The agents with the dtype in which a table's values were stored, where that was said."""
    said = settings.dtype_of(table)
    return agents if said is None else agents.with_columns(dtype=pl.lit(said))


def parts_to_judge(known: Normalised, small: Frames) -> Iterator[Part]:
    """Every part, in the order in which they are judged."""
    if "patching" in known.tables:
        pairs = known.scan("patching").select("source", "target").unique().collect()
        both = sorted({tuple(sorted(pair)) for pair in pairs.iter_rows()})
        for first, second in both:
            within = [first, second]
            rows = pl.col("source").is_in(within) & pl.col("target").is_in(within)
            if first != second:  # an agent patched into itself is a part of its own
                rows &= pl.col("source") != pl.col("target")
            yield Part("patching", f"{first} and {second}", rows)
    if "attribution" in known.tables:
        for names in _with_bases(known.scan("attribution"), small.get("agents")):
            yield Part("attribution", " and ".join(names), pl.col("agent").is_in(names))
    if "attention" in known.tables:
        agents = known.scan("attention").select(pl.col("agent").unique()).collect().to_series()
        for name in sorted(agents.to_list()):
            yield Part("attention", name, pl.col("agent") == name)


def _with_bases(frame: pl.LazyFrame, agents: pl.DataFrame | None) -> list[list[str]]:
    """Each trained agent with its base; whoever is left, alone."""
    present: list[str] = sorted(frame.select(pl.col("agent").unique()).collect().to_series())
    found: list[list[str]] = []
    for agent in trained_agents(agents) if agents is not None else []:
        base = base_of(agents, agent) if agents is not None else None
        if agent in present:
            found.append([agent, base] if base is not None and base in present else [agent])
    covered = set(itertools.chain.from_iterable(found))
    return [*found, *([name] for name in present if name not in covered)]


def rows_of(known: Normalised, part: Part) -> pl.DataFrame:
    """The rows of a part; patches without a baseline get one of zero.

    Nothing that rests on it is kept: claims about flips are left out.
    """
    rows = known.scan(part.table).filter(part.rows).collect(engine="streaming")
    if part.table == "patching" and not known.baselines:
        rows = rows.with_columns(
            baseline_log_odds=pl.lit(0.0), patched_log_odds="effect", flipped=pl.lit(value=False)
        )
    return rows


def beside(small: Frames, settings: AuditSettings, part: Part) -> Frames:
    """The small tables that a part is judged with."""
    frames = {name: small[name] for name in _BESIDE if name in small}
    if part.table == "attribution":
        frames |= {name: small[name] for name in ("decisions", "lens") if name in small}
    if "agents" in frames:
        frames["agents"] = _in_dtype(frames["agents"], settings, part.table)
    return frames


def about(table: str, hypothesis: Hypothesis, small: Frames) -> pl.Expr:
    """The rows of a hypothesis's agents and their bases; all where it names none."""
    if not hypothesis.agents or "agents" not in small:
        return pl.lit(value=True)
    agents = small["agents"]
    names = {
        *hypothesis.agents,
        *(b for a in hypothesis.agents if (b := base_of(agents, a)) is not None),
    }
    columns = ("source", "target") if table == "patching" else ("agent",)
    return pl.all_horizontal(pl.col(column).is_in(sorted(names)) for column in columns)
