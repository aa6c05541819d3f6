"""What did agents compute inside, prompt by prompt? Matrices of prompts by sites, and their faults.

From ``norms`` (the size of what a site writes), ``projections`` (what it adds to the decision) or
``attribution`` (its contribution to the answer, summed over the answer): ``y[prompt, site]`` of
each agent on the same prompts of one family, with the scenario of each prompt, which is the unit of
everything that is tested on them.

Which sites are clones, dead or rounding is found here, agent by agent; what that means for a claim
is said where the claim is made. Nothing is averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.findings.inner_queries import InnerSource
from moralscope.evidence.gates.site_quality import MANTISSA_BITS, mantissa_bits
from moralscope.evidence.gates.sites import SiteFaults, SiteResults, answer_rows, faults
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, Units, inference_family, matrix, on_family

VALUES = {"norms": "norm", "attribution": "contribution"}
"""Tables with a number per agent, prompt and site, and the column that it stands in."""

COLUMNS = {**VALUES, "projections": "projection"}
"""The same with what is read of the network of sites alone: not a profile of its own."""


@dataclass(frozen=True, eq=False)
class Inner:
    """What some agents computed at the same sites on the same prompts.

    Attributes:
        table: ``norms``, ``projections`` or ``attribution``.
        family: the prompt family.
        token: of attribution, the answer token that is read; None for others.
        prompts: the n prompts.
        clusters: (n,) the scenario of each.
        sites: the K sites.
        values: per agent (n, K).
        faults: per agent its clones, dead and rounded sites.
    """

    table: str
    family: str
    token: int | None
    prompts: tuple[str, ...]
    clusters: tuple[str, ...]
    sites: tuple[str, ...]
    values: Mapping[str, Array]
    faults: Mapping[str, SiteFaults]

    @property
    def scenarios(self) -> int:
        """Units of replication."""
        return len(set(self.clusters))

    def sound(self, agents: Sequence[str]) -> list[str]:
        """Sites that are distinct and resolved in every one of some agents, in order."""
        return [
            site
            for site in self.sites
            if all(
                site in self.faults[agent].distinct and site not in self.faults[agent].rounded
                for agent in agents
            )
        ]

    def columns(self, agent: str, sites: Sequence[str]) -> Array:
        """(n, k) values of an agent at some sites."""
        return self.values[agent][:, [self.sites.index(site) for site in sites]]

    def means(self, agent: str, sites: Sequence[str]) -> Array:
        """(G, k) means over the prompts of each scenario, in order of appearance."""
        order = {name: index for index, name in enumerate(dict.fromkeys(self.clusters))}
        index = np.array([order[name] for name in self.clusters])
        counts = np.bincount(index, minlength=len(order))[:, None]
        sums = np.zeros((len(order), len(sites)))
        np.add.at(sums, index, self.columns(agent, sites))
        return sums / counts

    def units(self, values: Array, sites: Sequence[str]) -> Units:
        """(G, k) scenario means as units."""
        return Units(tuple(dict.fromkeys(self.clusters)), tuple(sites), values)

    @property
    def source(self) -> InnerSource:
        """Where the values stand, for queries."""
        return InnerSource(self.table, COLUMNS[self.table], self.family, self.token)


def inner_agents(tables: Tables, table: str) -> list[str]:
    """The agents of a table of inner values, in order of appearance."""
    return tables[table].get_column("agent").unique(maintain_order=True).to_list()


def inner_values(tables: Tables, table: str, agents: Sequence[str]) -> Inner | None:
    """What these agents computed, from one of ``COLUMNS``; None off the known prompts.

    Args:
        tables: with ``prompts`` and the table.
        table: one of ``COLUMNS``.
        agents: that the table has rows of.

    Raises:
        TableError: two of the agents were measured on different prompts or at different sites, or
            one lacks a site on some prompt.
    """
    rows, token = answer_rows(tables[table]) if table == "attribution" else (tables[table], None)
    own = rows.filter(pl.col("agent").is_in(list(agents)) & (pl.col("site") != "bias"))
    family = inference_family(tables["prompts"], own.get_column("prompt"))
    if family is None:
        return None
    placed = on_family(own, tables["prompts"], family)
    found = {
        agent: matrix(placed.filter(pl.col("agent") == agent), "prompt", "site", COLUMNS[table])
        for agent in agents
    }
    first = found[agents[0]]
    values = {agent: _aligned(first, other, (agents[0], agent)) for agent, other in found.items()}
    scenario = dict(placed.select("prompt", "scenario").unique().iter_rows())
    return Inner(
        table=table,
        family=family,
        token=token,
        prompts=first.names,
        clusters=tuple(scenario[prompt] for prompt in first.names),
        sites=first.columns,
        values=values,
        faults={
            agent: faults(SiteResults(
                f"{table} {agent}", _bits(tables, table, agent), first.columns, one, one
            ))
            for agent, one in values.items()
        },
    )  # fmt: skip


def _aligned(first: Units, other: Units, agents: tuple[str, str]) -> Array:
    """The values of the other agent in the order of the first.

    Raises:
        TableError: their prompts or sites differ.
    """
    for what, mine, theirs in (
        ("prompts", first.names, other.names),
        ("sites", first.columns, other.columns),
    ):
        alone = sorted(set(mine) ^ set(theirs))
        if alone:
            raise TableError(
                f"Agents {agents[0]!r} and {agents[1]!r} were not measured on the same {what}",
                seen=f"{len(alone)} {what} of one alone, such as {alone[0]!r}",
                allowed=f"the same {what} for both",
                remedy="measure both alike; what is compared pair by pair needs all of it",
            )
    rows = {name: index for index, name in enumerate(other.names)}
    return other.keep(first.columns).values[[rows[name] for name in first.names]]


def _bits(tables: Tables, table: str, agent: str) -> int | None:
    """Mantissa bits of the stored values; norms are documented as measured in float32."""
    if "agents" in tables:
        known = tables["agents"].filter(pl.col("agent") == agent).get_column("dtype").to_list()
        if known and mantissa_bits(known[0]) is not None:
            return mantissa_bits(known[0])
    return MANTISSA_BITS["float32"] if table in ("norms", "projections") else None
