"""When does training change what, and do early states foretell the end?

From the table ``course`` (states of trainings on their way, see ``evidence.course``):

1. ``course:LEVEL``: does a level lag behind behaviour, or lead? Per training the mean over steps of
   ``remaining`` at the level minus that of behaviour; sign-flips over trainings, Holm over levels.
2. ``forecast:REWARD:STEP``: among trainings of one reward, which differ in their seed alone, do
   those that change most by a step change most in the end? Correlation over trainings of the mean
   change of log-odds; null: trainings permuted, and scenarios flipped. Among different rewards a
   forecast would be easy and say little.

The unit of both is the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from moralscope.evidence.designs import MIN_SEEDS, units_to_differ_from_zero
from moralscope.evidence.findings.behaviour import (
    Behaviour,
    Contrast,
    behaviour,
    contrast_units,
)
from moralscope.evidence.findings.decision_gates import decision_gates, level_gates
from moralscope.evidence.findings.queries import asked, layered, text
from moralscope.evidence.ledger import Finding, Setting, between, consult, probability
from moralscope.evidence.statistics.associations import MIN_SITES, associate
from moralscope.evidence.statistics.correlations import pearson
from moralscope.evidence.statistics.intervals import (
    cluster_t,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, sign_flip, sign_flip_floor

REFERENCE = "behaviour"


def course_findings(setting: Setting) -> Iterator[Finding]:
    """Levels against behaviour, and forecasts."""
    if setting.has("course", "checkpoints", "agents"):
        yield from _levels(setting)
        yield from _forecasts(setting)


def _levels(setting: Setting) -> Iterator[Finding]:
    course = setting.tables["course"]
    first = course.unique(["level"], keep="first", maintain_order=True)
    measures = dict(first.select("level", "measure").iter_rows())
    if REFERENCE not in measures:
        return
    values = {level: _lags(course, level, measures) for level in measures if level != REFERENCE}
    tested = {level: lags for level, lags in values.items() if len(lags)}
    tests = max(1, len(tested))
    needed = max(MIN_SEEDS, units_to_differ_from_zero(setting.alpha, tests))
    found = {
        level: sign_flip(lags, setting.rng("course", level), setting.draws)[0]
        for level, lags in tested.items()
        if len(lags) >= needed
    }
    p_values = [found.get(level, 1.0) for level in tested]
    adjusted = holm(np.array(p_values)) if tested else np.empty(0)
    for (level, lags), corrected in zip(tested.items(), adjusted, strict=True):
        p = found.get(level)
        pair = (measures[level], measures[REFERENCE])
        yield _level(setting, (level, pair), lags, (p, float(corrected), tests, needed))


def _lags(course: pl.DataFrame, level: str, measures: dict[str, str]) -> Array:
    """(trainings,) mean over steps of remaining at a level minus at behaviour."""
    own, reference = (
        course.filter((pl.col("level") == name) & (pl.col("measure") == measures[name]))
        for name in (level, REFERENCE)
    )
    both = own.join(reference.select("agent", "remaining"), on="agent", suffix="_reference")
    lags = both.group_by("of", maintain_order=True).agg(
        (pl.col("remaining") - pl.col("remaining_reference")).mean().alias("lag")
    )
    return lags.get_column("lag").to_numpy()


def _level(
    setting: Setting,
    what: tuple[str, tuple[str, str]],
    lags: Array,
    tested: tuple[float | None, float, int, int],
) -> Finding:
    (level, measures), (p, corrected, tests, needed) = what, tested
    mean, interval = float(lags.mean()), cluster_t(lags)
    trainings = f"{len(lags)} training{'s' * (len(lags) != 1)}"
    p_adjusted = None if p is None else corrected
    figures = (
        f"{mean:+.2f} of its whole way, mean over steps and {trainings} ({between(interval)}, "
        f"adjusted {probability(p_adjusted)})"
    )
    agents = setting.tables["checkpoints"].get_column("agent").to_list()
    error = standard_error(lags) if len(lags) > 1 else 0.0
    return Finding(
        id=f"course:{level}",
        found=f"While agents are trained, {level} {'lags behind' if mean > 0 else 'leads'} "
        f"behaviour: {figures}.",
        observed=f"While agents are trained, {level} has, compared with behaviour, {figures} more "
        "to go.",
        estimate=mean,
        interval=interval,
        unit="share of the way",
        n=len(lags),
        replicate="trainings",
        test="sign-flips of trainings, Holm over levels; null: symmetric about zero",
        query=_lag_query(level, measures),
        consulted=consult(setting, agents, _gates(setting, level, agents)),
        p=p,
        p_adjusted=p_adjusted,
        p_floor=min(1.0, sign_flip_floor(len(lags))),
        level=setting.alpha / tests,
        detectable=smallest_detectable_effect(error, len(lags) - 1, setting.alpha / tests)
        if error
        else None,
        tests=tests,
        family=f"{tests} level{'s' * (tests != 1)}",
        missing=None if p is not None else f"{trainings} cannot carry it; {needed} would.",
    )


def _gates(setting: Setting, level: str, agents: Sequence[str]) -> list[tuple[str, str]]:
    """What could explain a lag: the level, or the behaviour that it is held against."""
    found = [key for name in (REFERENCE, level) for key in level_gates(setting, name, agents)[0]]
    return list(dict.fromkeys(found))


def _lag_query(level: str, measures: tuple[str, str]) -> str:
    def rows(name: str, measure: str, sign: str) -> str:
        return (
            f"SELECT of AS unit, agent, {sign}remaining AS value FROM course "  # noqa: S608 -- see queries
            f"WHERE level = {text(name)} AND measure = {text(measure)}"
        )

    own, reference = rows(level, measures[0], ""), rows(REFERENCE, measures[1], "-")
    return layered(
        f"{own} UNION ALL {reference}",
        "SELECT unit, 2 * AVG(value) AS value FROM evidence_rows GROUP BY unit",
    )


def _forecasts(setting: Setting) -> Iterator[Finding]:
    found = behaviour(setting)
    if found is None:
        return
    ends = setting.tables["agents"].select(pl.col("agent").alias("of"), "reward")
    states = setting.tables["checkpoints"].join(ends, on="of", maintain_order="left")
    groups = [
        (str(reward), int(str(step)), list(rows.select("agent", "of").iter_rows()))
        for (reward, step), rows in states.group_by("reward", "step", maintain_order=True)
        if rows.height > 1
        and all(name in found.bases for name in [*rows["agent"].to_list(), *rows["of"].to_list()])
    ]
    made = [_forecast(setting, found, group, len(groups)) for group in groups]
    if made:
        adjusted = holm(np.array([1.0 if f.p is None else f.p for f in made]))
        for finding, p in zip(made, adjusted, strict=True):
            yield finding if finding.p is None else replace(finding, p_adjusted=float(p))


def _forecast(
    setting: Setting, found: Behaviour, group: tuple[str, int, list[tuple[str, str]]], tests: int
) -> Finding:
    """Whether the order of some trainings after a step is their order in the end."""
    reward, step, trainings = group
    early, late = (
        contrast_units(found, [Contrast(a, a, found.bases[a], None) for a in side]).values
        for side in zip(*trainings, strict=True)
    )
    enough = len(trainings) >= MIN_SITES
    rng = setting.rng("forecast", reward, str(step))
    linked = associate(early, late, rng, setting.draws, same_units=True) if enough else None
    r = pearson(early.mean(axis=0), late.mean(axis=0))
    figures = (
        f"r = {'undefined' if r is None else format(r, '+.2f')} over {len(trainings)} trainings "
        f"with the {reward} reward"
    )
    agents = [name for pair in trainings for name in pair]
    return Finding(
        id=f"forecast:{reward}:{step}",
        found=f"After {step} steps agents are ordered as they are in the end: the changes from "
        f"base are correlated, {figures}.",
        observed=f"The changes from base after {step} steps and in the end have {figures}.",
        estimate=r,
        interval=None if linked is None else linked.interval,
        unit="correlation",
        n=len(trainings),
        replicate="trainings",
        test="correlation over trainings; null: trainings permuted, and scenarios flipped; the "
        "larger p, Holm over rewards and steps",
        query=_forecast_query(trainings, found),
        consulted=consult(setting, agents, decision_gates(setting, agents)),
        p=None if linked is None else linked.p,
        p_floor=None if linked is None else linked.floor,
        level=setting.alpha / tests,
        tests=tests,
        family=f"{tests} forecasts",
        missing=f"{len(trainings)} trainings cannot carry it; {_needed(setting.alpha / tests)} "
        "with this reward would."
        if linked is None
        else None,
    )


def _needed(level: float) -> int:
    """Fewest trainings whose order can be surprising at a level."""
    count = MIN_SITES
    while 1.0 / math.factorial(count) >= level:
        count += 1
    return count


def _forecast_query(trainings: Sequence[tuple[str, str]], found: Behaviour) -> str:
    def rows(early: str, end: str) -> str:
        return (
            f"SELECT {text(end)} AS unit, p.scenario, s.log_odds - b.log_odds AS early, "  # noqa: S608 -- see queries
            "e.log_odds - b.log_odds AS value "
            f"FROM {asked('decisions', found.family)} AS p "
            "JOIN decisions AS s ON s.prompt = p.prompt "
            "JOIN decisions AS e ON e.prompt = p.prompt "
            "JOIN decisions AS b ON b.prompt = p.prompt "
            f"WHERE s.agent = {text(early)} AND e.agent = {text(end)} "
            f"AND b.agent = {text(found.bases[end])}"
        )

    return layered(
        " UNION ALL ".join(rows(*pair) for pair in trainings),
        "SELECT unit, AVG(early) AS early, AVG(value) AS value FROM (SELECT unit, scenario, "
        "AVG(early) AS early, AVG(value) AS value FROM evidence_rows GROUP BY unit, scenario) "
        "AS scenarios GROUP BY unit",
        "SELECT (AVG(early * value) - AVG(early) * AVG(value)) / "
        "SQRT((AVG(early * early) - AVG(early) * AVG(early)) * "
        "(AVG(value * value) - AVG(value) * AVG(value))) AS estimate FROM unit_means",
    )
