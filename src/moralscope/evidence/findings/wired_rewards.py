"""Are agents of different rewards wired more differently than seeds of one reward?

With z_i[j, k] the Fisher z of the correlation of sites j and k in training seed i (mean over the
agents of that seed, |r| taken as 0.999 at most), two seeds lie apart by

    d_ij = sqrt(mean over pairs of sites of (z_i - z_j)^2)

and the estimate is the mean of d over pairs of different rewards and seeds minus that over pairs of
one reward; p comes from relabelling the seeds (``statistics.replicates``), one-sided, with Holm's
correction over sizes and pushes. Unit: the training seed. A claim about *these checkpoints* is
``findings.wiring``; only this one speaks of rewards.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moralscope.evidence.findings.inner import Inner, inner_values
from moralscope.evidence.findings.replicate_queries import PAIRS, inner_rows
from moralscope.evidence.findings.replicates import distances
from moralscope.evidence.findings.wiring import consult_inner
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.copies import seeds_subject
from moralscope.evidence.gates.site_quality import distinct_columns
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    probability,
    signed,
    size,
)
from moralscope.evidence.replicated import (
    Replicated,
    other_starts,
    replicated,
    seeds_to_replicate,
    shared_starts,
)
from moralscope.evidence.statistics.correlations import MAX_CORRELATION, correlation_matrix
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.replicates import (
    MIN_SEEDS,
    Replicates,
    replicate_floor,
    seed_replicate,
)
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.wired import MEASURES, by_layer

_OF = {"norms": "sizes of what they write", "projections": "pushes along the decision"}
_ID = {"norms": "replicates:wiring", "projections": "replicates:wiring:projection"}


@dataclass(frozen=True, eq=False)
class Wirings:
    """The networks of every training seed.

    Attributes:
        asked: the base and the rewards.
        inner: the values behind them.
        sites: those that are sound in every agent and correlated with each other.
        values: (S, P) Fisher z, one row per seed, reward by reward.
        result: the test; None where seeds cannot be told from rewards at all.
    """

    asked: Replicated
    inner: Inner
    sites: tuple[str, ...]
    values: Array
    result: Replicates | None

    @property
    def table(self) -> str:
        """``norms`` or ``projections``."""
        return self.inner.table


def wired_reward_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per measure and base with two rewards or more; together they are one family."""
    looked = [each for table in MEASURES for each in _looked(setting, table)]
    level = setting.alpha / max(1, len(looked))
    identified = [_identified(each, level) for each in looked]
    p = [
        each.result.p if each.result is not None and enough else 1.0
        for each, enough in zip(looked, identified, strict=True)
    ]
    adjusted = holm(np.array(p, dtype=np.float64)) if looked else np.empty(0)
    several = len({each.asked.base for each in looked}) > 1
    for each, corrected, enough in zip(looked, adjusted, identified, strict=True):
        name = f"{_ID[each.table]}:{each.asked.base}" if several else _ID[each.table]
        found = float(corrected) if enough else None
        yield _finding(setting, each, name=name, adjusted=found, tests=len(looked))


def _looked(setting: Setting, table: str) -> Iterator[Wirings]:
    if not setting.has("agents", "prompts", table):
        return
    # Which agents there are is asked of any table with agents and prompts in the same way.
    names = ("agents", "prompts", "checkpoints", "targeting")
    known = {name: setting.tables[name] for name in names if name in setting.tables}
    tables = {**known, "norms": setting.tables[table]}
    for asked in replicated(tables):
        inner = inner_values(by_layer(setting.tables, table), table, asked.agents)
        if inner is None:
            continue
        sites, of_agents = _networks(inner, asked.agents)
        values = np.array([
            np.mean([of_agents[agent] for agent in seed], axis=0)
            for design in asked.designs
            for seed in design.agents
        ])  # fmt: skip
        result = None
        if values.size and max(asked.seeds) > 1:
            rewards = [design.reward for design in asked.designs for _ in design.agents]
            rng = setting.rng("replicates", "wiring", table, asked.base)
            counted = other_starts(setting.tables["agents"], asked)
            apart = distances(values)
            result = seed_replicate(apart, rewards, rng, setting.draws, counted=counted)
        yield Wirings(asked, inner, sites, values, result)


def _networks(inner: Inner, agents: list[str]) -> tuple[tuple[str, ...], dict[str, Array]]:
    """The sites that every agent's correlations are defined at, and each agent's Fisher z."""
    sites = inner.sound(agents)
    found = {agent: correlation_matrix(inner.columns(agent, sites)) for agent in agents}
    # A column without variation has no correlation, not even with itself.
    whole = [
        i for i in range(len(sites)) if all(np.isfinite(r[i, i]) for r in found.values())
    ]  # fmt: skip
    rows, columns = np.triu_indices(len(whole), 1)
    at = np.array(whole, dtype=np.int64)
    z = {
        agent: np.arctanh(np.clip(r[at[rows], at[columns]], -MAX_CORRELATION, MAX_CORRELATION))
        for agent, r in found.items()
    }
    return tuple(sites[i] for i in whole), z


def _identified(each: Wirings, level: float) -> bool:
    result = each.result
    return result is not None and result.seeds >= MIN_SEEDS and result.floor < level


def _finding(
    setting: Setting, each: Wirings, *, name: str, adjusted: float | None, tests: int
) -> Finding:
    asked, result, level = each.asked, each.result, setting.alpha / max(1, tests)
    rewards = " and ".join(design.reward for design in asked.designs)
    of, seeds = _OF[each.table], sum(asked.seeds)
    aside = shared_starts(other_starts(setting.tables["agents"], asked))
    figures = (
        "not available, as no reward has two seeds or too few sites are sound"
        if result is None
        else f"their networks lie {size(result.between)} of Fisher z apart between rewards and "
        f"{size(result.within)} within one, {signed(result.between - result.within)} (root mean "
        f"square over {each.values.shape[1]} pairs of {len(each.sites)} sites, {seeds} training "
        f"seeds; {probability(adjusted)})"
    )
    return Finding(
        id=name,
        found=f"In the {of}, agents of different rewards ({rewards}) are wired more differently "
        f"than agents of one reward that differ in their training seed: {figures}.{aside}",
        observed=f"In the {of}, the wiring of agents of different rewards ({rewards}) is compared "
        f"with that of agents of one reward that differ in their training seed: {figures}.{aside}",
        estimate=None if result is None else result.between - result.within,
        interval=None,
        unit="Fisher z",
        n=seeds,
        replicate="training seeds",
        test="relabelling of training seeds, Holm over measures, one-sided; null: rewards are "
        "exchangeable",
        query=_query(each),
        consulted=_sound(setting, each),
        p=None if adjusted is None or result is None else result.p,
        p_adjusted=adjusted,
        p_floor=replicate_floor(asked.seeds) if result is None else result.floor,
        level=level,
        tests=tests,
        family=f"{tests} measure{'s' * (tests != 1)}",
        missing=None if adjusted is not None else _missing(each, level),
    )


def _sound(setting: Setting, each: Wirings) -> Consulted:
    """The gates behind it: sites, scenarios, and training runs that are copies of each other."""
    asked = each.asked
    keys = [(DUPLICATES, seeds_subject(design.reward, asked.base)) for design in asked.designs]
    runs = consult(setting, asked.agents, [key for key in keys if key in setting.gates])
    sites = consult_inner(setting, each.inner, asked.agents)
    failed = [*sites.failed, *(reason for reason in runs.failed if reason not in sites.failed)]
    seeds = [names for design in asked.designs for names in design.agents]
    copies = distinct_columns(each.values.T).clones if each.values.size else ()
    for group in copies if len(failed) == len(sites.failed) else ():
        named = " and ".join(seeds[index][0] for index in group)
        failed.append(
            f"{DUPLICATES}: {named} are wired the same to the last digit, so they are one training "
            f"run under {len(group)} names; keep one of them."
        )
    if len(each.sites) < 2:
        failed.append("dead sites and resolution: fewer than two sites are sound in every agent.")
    return replace(sites, failed=tuple(failed))


def _missing(each: Wirings, level: float) -> str:
    rewards = len(each.asked.designs)
    needed = seeds_to_replicate(rewards, level)
    seeds = ", ".join(str(count) for count in each.asked.seeds)
    return (
        f"rewards are told from training seeds by relabelling the seeds, and {seeds} seeds of the "
        f"{rewards} rewards cannot carry it; {needed} of each would identify it."
    )


def _query(each: Wirings) -> str:
    most = f"{math.atanh(MAX_CORRELATION)!r}"
    correlations = (
        "SELECT x.unit, x.reward, x.seed, x.agent, x.site AS site_a, y.site AS site_b, "
        "CORR(x.value, y.value) AS r FROM evidence_rows AS x JOIN evidence_rows AS y "
        "ON x.agent = y.agent AND x.prompt = y.prompt WHERE x.site < y.site "
        "GROUP BY x.unit, x.reward, x.seed, x.agent, x.site, y.site"
    )
    means = (
        "SELECT unit, reward, seed, site_a, site_b, "
        f"AVG(CASE WHEN r > {MAX_CORRELATION} THEN {most} "
        f"WHEN r < -{MAX_CORRELATION} THEN -{most} ELSE LN((1 + r) / (1 - r)) / 2 END) AS value "
        f"FROM ({correlations}) AS of_agents GROUP BY unit, reward, seed, site_a, "
        "site_b"
    )
    return (
        f"WITH evidence_rows AS ({inner_rows(each.inner.source, each.asked.agents, each.sites)}), "
        f"unit_means AS ({means}), "
        "distances AS (SELECT x.unit AS unit, y.unit AS other, x.reward AS reward, "
        "y.reward AS other_reward, SQRT(AVG((x.value - y.value) * (x.value - y.value))) AS value "
        "FROM unit_means AS x JOIN unit_means AS y ON x.site_a = y.site_a AND x.site_b = y.site_b "
        f"WHERE {PAIRS} GROUP BY x.unit, y.unit, x.reward, y.reward) "
        "SELECT AVG(CASE WHEN reward <> other_reward THEN value END) - "
        "AVG(CASE WHEN reward = other_reward THEN value END) AS estimate FROM distances"
    )
