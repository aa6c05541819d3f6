"""Do agents of different rewards differ more than agents of one reward that differ in their seed?

With y_i[g, k] the mean over the prompts of scenario g of what was measured of training seed i (its
log-odds; or what site k contributes or writes), two seeds lie apart by

    d_ij = sqrt(mean over g, k of (y_i[g, k] - y_j[g, k])^2)

and the estimate is the mean of d over pairs of different rewards and seeds minus that over pairs of
one reward: from one seed agents lie closer, whatever they were trained for. Its p comes from
relabelling the seeds (``statistics.replicates``), one-sided, with Holm's correction over the
measures. Unit: the training seed; agents of one reward and one seed are one
training run measured several times, and are averaged. Unlike the difference of two rewards in their
mean log-odds (``rewards``), a distance also sees rewards that move different scenarios, or other
sites, by the same amount on average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.findings.attribution import completeness_error
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.findings.inner import inner_values
from moralscope.evidence.findings.queries import failed_gates
from moralscope.evidence.findings.replicate_queries import (
    decided_rows,
    distance_difference,
    inner_rows,
)
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.copies import seeds_subject
from moralscope.evidence.gates.site_quality import distinct_columns
from moralscope.evidence.gates.sites import SITE_GATES
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    noise_floor,
    probability,
    signed,
    size,
)
from moralscope.evidence.replicated import (
    BEHAVIOUR,
    MEASURES,
    Replicated,
    other_starts,
    replicated,
    seeds_to_replicate,
    shared_starts,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.replicates import (
    MIN_SEEDS,
    Replicates,
    replicate_floor,
    seed_replicate,
)
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import matrix, on_family

_BY = {
    BEHAVIOUR: "their decisions",
    "attribution": "what their sites contribute to the answer",
    "norms": "the size of what their sites write",
}
_TEST = (
    "relabelling of training seeds, Holm over measures, one-sided; null: rewards are exchangeable"
)


@dataclass(frozen=True, eq=False)
class Profiles:
    """What one measure says of every training seed.

    Attributes:
        asked: the measure, the base and the rewards.
        values: (S, P) one row per seed, reward by reward; one column per scenario (and site).
        over: what the columns are, in words.
        query: recomputes the estimate.
        consulted: the gates behind it.
        noise: numerical noise floor, in the unit of the values.
        counted: (S, S) which pairs of seeds count.
        null: a sentence on how far the base lies from itself, with a space before it, or nothing.
    """

    asked: Replicated
    values: Array
    over: str
    query: str
    consulted: Consulted
    noise: float
    counted: NDArray[np.bool_]
    null: str = ""

    @property
    def rewards(self) -> list[str]:
        """(S,) the reward of each seed."""
        return [design.reward for design in self.asked.designs for _ in design.agents]

    @property
    def unit(self) -> str:
        """Of the distances."""
        return "model units" if self.asked.measure == "norms" else "nats"


def replicate_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per measure and base with two rewards or more; together they are one family."""
    looked = [
        profiles
        for asked in replicated(setting.tables)
        if (profiles := _profiles(setting, asked)) is not None
    ]
    level = setting.alpha / max(1, len(looked))
    tested = [_tested(setting, profiles) for profiles in looked]
    identified = [
        result is not None and result.seeds >= MIN_SEEDS and result.floor < level
        for result in tested
    ]
    # A claim that could not be tested counts with p = 1, as everywhere.
    p_values = [
        result.p if result is not None and enough else 1.0
        for result, enough in zip(tested, identified, strict=True)
    ]
    adjusted = holm(np.array(p_values, dtype=np.float64)) if looked else np.array([])
    suffixed = len({profiles.asked.base for profiles in looked}) > 1
    for index, (profiles, result) in enumerate(zip(looked, tested, strict=True)):
        name = f"replicates:{profiles.asked.measure}"
        base = profiles.asked.base
        yield _finding(
            profiles,
            result,
            name=f"{name}:{base}" if suffixed else name,
            p_adjusted=float(adjusted[index]) if identified[index] else None,
            level=level,
            measures=len(looked),
        )


def distances(values: Array) -> Array:
    """(S, S) root mean square differences between the rows of (S, P) values."""
    return np.array([np.sqrt(np.mean((values - row) ** 2, axis=1)) for row in values])


def _tested(setting: Setting, profiles: Profiles) -> Replicates | None:
    """The test; None where no reward has two seeds, or nothing was resolved."""
    asked = profiles.asked
    if max(asked.seeds) < 2 or not profiles.values.size:
        return None
    rng = setting.rng("replicates", asked.measure, asked.base)
    return seed_replicate(
        distances(profiles.values),
        profiles.rewards,
        rng,
        setting.draws,
        counted=profiles.counted,
    )


def _profiles(setting: Setting, asked: Replicated) -> Profiles | None:
    return _decided(setting, asked) if asked.measure == BEHAVIOUR else _inner(setting, asked)


def _decided(setting: Setting, asked: Replicated) -> Profiles:
    decisions, prompts = setting.tables["decisions"], setting.tables["prompts"]
    own = decisions.filter(pl.col("agent").is_in(asked.agents))
    rows = on_family(own, prompts, asked.family)
    matrix(rows, "prompt", "agent", "log_odds")  # everybody has to be asked the same prompts
    units = matrix(rows, "scenario", "agent", "log_odds")
    gates = [*decision_gates(setting, asked.agents), *_runs(setting, asked)]
    return _sound(
        Profiles(
            asked=asked,
            values=_of_seeds(asked, {agent: units.column(agent) for agent in asked.agents}),
            over=f"{len(units.names)} scenarios",
            query=distance_difference(decided_rows(asked.agents, asked.family), ["scenario"]),
            consulted=consult(setting, asked.agents, gates),
            noise=noise_floor(setting, asked.agents),
            counted=other_starts(setting.tables["agents"], asked),
            null=_null(setting, asked),
        )
    )


def _inner(setting: Setting, asked: Replicated) -> Profiles | None:
    table, agents = MEASURES[asked.measure], asked.agents
    inner = inner_values(setting.tables, table, agents)
    if inner is None:
        return None
    sites = inner.sound(agents)
    attributed = table == "attribution"
    complete = [("completeness", agent) for agent in agents] if attributed else []
    consulted = consult(
        setting,
        agents,
        gates=[*complete, (DUPLICATES, "scenarios"), *_runs(setting, asked)],
        shown=[(gate, f"{table} {agent}") for agent in agents for gate in SITE_GATES],
    )
    if not sites:
        reason = "dead sites and resolution: no site is a distinct, resolved measurement."
        consulted = replace(consulted, failed=(*consulted.failed, reason))
    rows = inner_rows(inner.source, agents, sites)
    return _sound(
        Profiles(
            asked=asked,
            values=_of_seeds(asked, {a: inner.means(a, sites).ravel() for a in agents}),
            over=f"{inner.scenarios} scenarios and {len(sites)} distinct sites",
            query=distance_difference(rows, ["scenario", "site"])
            if sites
            else failed_gates(consulted.subjects),
            consulted=consulted,
            noise=completeness_error(setting, agents) if attributed else 0.0,
            counted=other_starts(setting.tables["agents"], asked),
        )
    )


def _runs(setting: Setting, asked: Replicated) -> list[tuple[str, str]]:
    """The gates on training runs that are copies, where they were judged."""
    keys = [(DUPLICATES, seeds_subject(design.reward, asked.base)) for design in asked.designs]
    return [key for key in keys if key in setting.gates]


def _of_seeds(asked: Replicated, of_agents: Mapping[str, Array]) -> Array:
    """(S, P) mean over the agents of each seed, reward by reward."""
    return np.array([
        np.mean([of_agents[agent] for agent in names], axis=0)
        for design in asked.designs
        for names in design.agents
    ])  # fmt: skip


def _sound(profiles: Profiles) -> Profiles:
    """With a failed gate for seeds that are copies, where no gate has found them already."""
    failed = profiles.consulted.failed
    if not profiles.values.size or any(f"{DUPLICATES} (seeds" in reason for reason in failed):
        return profiles
    seeds = [names for design in profiles.asked.designs for names in design.agents]
    copies = [
        f"{DUPLICATES}: {_names([seeds[i][0] for i in group])} have the same results in all "
        f"{profiles.over}, so they are one training run under {len(group)} names; keep one of them."
        for group in distinct_columns(profiles.values.T).clones
    ]
    consulted = profiles.consulted
    return replace(profiles, consulted=replace(consulted, failed=(*consulted.failed, *copies)))


def _null(setting: Setting, asked: Replicated) -> str:
    """How far the base lies from itself when it is measured in another way, as a sentence."""
    if not setting.has("replicas"):
        return ""
    again = setting.tables["replicas"].filter(pl.col("agent") == asked.base).drop_nulls()
    rows = on_family(again, setting.tables["prompts"], asked.family).with_columns(
        (pl.col("log_odds") - pl.col("reference_log_odds")).alias("difference")
    )
    means = rows.group_by("change", "setting", "scenario", maintain_order=True).agg(
        pl.col("difference").mean()
    )
    apart = [
        f"{size(float(np.sqrt(np.mean(own.get_column('difference').to_numpy() ** 2))))} nats "
        f"under another {change} ({how}, {own.height} scenarios)"
        for (change, how), own in means.group_by("change", "setting", maintain_order=True)
    ]
    return f" {asked.base} itself lies {' and '.join(apart)} from itself." if apart else ""


def _finding(
    profiles: Profiles,
    result: Replicates | None,
    *,
    name: str,
    p_adjusted: float | None,
    level: float,
    measures: int,
) -> Finding:
    """The finding of one measure; ``result`` is None where seeds cannot be told apart at all."""
    asked = profiles.asked
    seeds = sum(asked.seeds)
    by, rewards = _BY[asked.measure], _names([design.reward for design in asked.designs])
    figures = _figures(profiles, result, p_adjusted)
    aside = f"{_left_out(asked)}{shared_starts(profiles.counted)}{profiles.null}"
    return Finding(
        id=name,
        found=f"In {by}, agents of different rewards ({rewards}) differ more than agents of one "
        f"reward that differ in their training seed: {figures}.{aside}",
        observed=f"In {by}, agents of different rewards ({rewards}) are compared with agents of "
        f"one reward that differ in their training seed: {figures}.{aside}",
        estimate=None if result is None else result.between - result.within,
        interval=None,
        unit=profiles.unit,
        n=seeds,
        replicate="training seeds",
        test=_TEST,
        query=profiles.query,
        consulted=profiles.consulted,
        p=None if p_adjusted is None or result is None else result.p,
        p_adjusted=p_adjusted,
        p_floor=replicate_floor(asked.seeds) if result is None else result.floor,
        level=level,
        noise=profiles.noise,
        tests=measures,
        family=f"{measures} measure{'s' * (measures > 1)}",
        missing=None if p_adjusted is not None else _missing(asked, level, measures),
    )


def _figures(profiles: Profiles, result: Replicates | None, p_adjusted: float | None) -> str:
    if result is None:
        return "not available, as no reward has two seeds or nothing was resolved"
    unit, seeds = profiles.unit, sum(profiles.asked.seeds)
    p = "" if p_adjusted is None else f"; adjusted {probability(p_adjusted)}"
    return (
        f"they lie {size(result.between)} {unit} apart between rewards and {size(result.within)} "
        f"{unit} within one, {signed(result.between - result.within)} {unit} (root mean square "
        f"over {profiles.over}, {seeds} training seeds{p})"
    )


def _missing(asked: Replicated, level: float, measures: int) -> str:
    rewards = len(asked.designs)
    needed = seeds_to_replicate(rewards, level)
    each = (
        f"{asked.seeds[0]} training seed{'s' * (asked.seeds[0] > 1)} of each reward"
        if len(set(asked.seeds)) == 1
        else f"{_names([str(n) for n in asked.seeds])} training seeds of them"
    )
    return (
        f"rewards are told from training seeds by relabelling the seeds, and {each} cannot carry "
        f"it; {needed} seeds of each of the {rewards} rewards would identify it (attainable p "
        f"{replicate_floor([needed] * rewards):.2g} over {measures} "
        f"measure{'s' * (measures > 1)})."
    )


def _left_out(asked: Replicated) -> str:
    count = len(asked.left_out)
    if not count:
        return ""
    return (
        f" {count} of {count + len(asked.agents)} agents with a reward "
        f"{'is' if count == 1 else 'are'} not measured there and left out: "
        f"{_names(asked.left_out)}."
    )


def _names(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
