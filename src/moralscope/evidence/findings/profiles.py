"""What does an analysis say of every site, scenario by scenario? One table per analysis, one form.

A profile is ``y[scenario, site]``: effects of a patch of the first agent into the second
(``patching``), or what a site contributes (``attribution``) or writes (``norms``) in the first
agent minus the same in the second. With it come what it was averaged from, which sites are copies,
dead or rounding, the gates behind it, and the SQL of its rows. Nothing is tested here.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from moralscope.evidence.findings.attribution import completeness_error
from moralscope.evidence.findings.inner import VALUES, inner_agents, inner_values
from moralscope.evidence.findings.inner_queries import difference_rows, effect_rows
from moralscope.evidence.findings.patching import (
    consult_sweeps,
    found_sweeps,
    pair_rows,
    ways_there,
)
from moralscope.evidence.gates.site_quality import mantissa_bits
from moralscope.evidence.gates.sites import SITE_GATES, SiteFaults, SiteResults, faults
from moralscope.evidence.ledger import Consulted, Setting, consult
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Units, inference_family, matrix, on_family

PROFILES = ("patching", *VALUES)
"""Tables that give a profile."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which profile is meant.

    Attributes:
        table: ``patching``, ``attribution`` or ``norms``.
        agents: the first minus the second; of patching, the first into the second.
        positions, write: of patching; None where not told.
    """

    table: str
    agents: tuple[str, str]
    positions: str | None = None
    write: str | None = None


@dataclass(frozen=True, eq=False)
class Profile:
    """One analysis over all sites.

    Attributes:
        words: what it measures, as it stands in a sentence.
        unit: of the values.
        units: (G, K) scenario means of all sites.
        rows: (n, K) the values of single prompts that they are means of.
        faults: sites that cannot carry a claim, of each measurement that it was made from.
        consulted: the gates behind it.
        noise: numerical noise floor, in the unit of the values.
        evidence: SQL of ``unit, prompt, site, value``.
    """

    words: str
    unit: str
    units: Units
    rows: Array
    faults: tuple[SiteFaults, ...]
    consulted: Consulted
    noise: float
    evidence: str

    def copies(self) -> frozenset[str]:
        """Sites that repeat another, the first of each group left out."""
        dead = self.dead()
        return frozenset(
            site
            for site in self.units.columns
            if site not in dead and any(site not in fault.distinct for fault in self.faults)
        )

    def dead(self) -> frozenset[str]:
        """Sites that are exactly zero everywhere."""
        return frozenset[str]().union(*(fault.dead for fault in self.faults))

    def rounded(self) -> frozenset[str]:
        """Sites that vary by no more than rounding, the copies among them left out."""
        return frozenset[str]().union(*(f.rounded for f in self.faults)) - self.copies()


def profile(setting: Setting, asked: Asked) -> Profile | str:
    """The profile that is meant; or a sentence: why there is none.

    Raises:
        TableError: two agents were measured on different prompts or sites.
    """
    return _patched(setting, asked) if asked.table == "patching" else _differing(setting, asked)


def _patched(setting: Setting, asked: Asked) -> Profile | str:
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    source, target = asked.agents
    own = pair_rows(patching, asked.agents, asked.positions, asked.write)
    family = inference_family(prompts, own.get_column("prompt"))
    found = [] if family is None else list(found_sweeps(setting, on_family(own, prompts, family)))
    if family is None or not found:
        instead = ways_there(patching, asked.agents)
        return (
            f"there is no sweep of single sites of {source} into {target} on known prompts"
            f"{instead}."
        )
    sweep = found[0]
    singles = sweep.rows.filter(pl.col("site") != "all")
    return Profile(
        words=f"effects of patching {source} into {target}",
        unit="nats",
        units=matrix(singles, "scenario", "site", "effect"),
        rows=matrix(singles, "prompt", "site", "effect").values,
        faults=(sweep.faults,),
        consulted=consult_sweeps(setting, sweep),
        noise=sweep.noise,
        evidence=effect_rows(sweep.key, family),
    )


def _differing(setting: Setting, asked: Asked) -> Profile | str:
    table, agents = asked.table, asked.agents
    unmeasured = [a for a in agents if a not in inner_agents(setting.tables, table)]
    if unmeasured:
        return f"the table {table} has no rows of {unmeasured[0]}."
    inner = inner_values(setting.tables, table, agents)
    if inner is None:
        return f"none of the {table} is on a prompt of the table of prompts."
    first, second = (inner.values[agent] for agent in agents)
    difference = first - second
    bits = [_bits(setting, agent) if table != "norms" else 23 for agent in agents]
    return Profile(
        words=f"{'contributions' if table == 'attribution' else 'norms'} of {agents[0]} minus "
        f"those of {agents[1]}",
        unit="nats" if table == "attribution" else "model units",
        units=inner.units(
            inner.means(agents[0], inner.sites) - inner.means(agents[1], inner.sites), inner.sites
        ),
        rows=difference,
        # A difference is as coarse as the coarser of the two that it was made from.
        faults=tuple(
            faults(SiteResults(f"{table} {agent}", known, inner.sites, difference, stored))
            for agent, known, stored in zip(agents, bits, (first, second), strict=True)
        ),
        consulted=_consult(setting, asked),
        noise=completeness_error(setting, agents) if table == "attribution" else 0.0,
        evidence=difference_rows(inner.source, agents),
    )


def _bits(setting: Setting, agent: str) -> int | None:
    if "agents" not in setting.tables:
        return None
    rows = setting.tables["agents"].filter(pl.col("agent") == agent)
    known: list[str] = rows.get_column("dtype").to_list()
    return mantissa_bits(known[0]) if known else None


def _consult(setting: Setting, asked: Asked) -> Consulted:
    complete = (
        [("completeness", agent) for agent in asked.agents] if asked.table == "attribution" else []
    )
    return consult(
        setting,
        asked.agents,
        gates=[*complete, ("duplicates", "scenarios")],
        shown=[(gate, f"{asked.table} {agent}") for agent in asked.agents for gate in SITE_GATES],
    )
