"""Does training act at the same relative depth in models of different size?

``depth:LEVEL:A:B`` for every two models of a series: the centre of effects in scenario g,

    c_g = mean over agents of sum_l s_gl (l + 1/2) / L,

is compared between the models scenario by scenario, by sign-flips of the scenarios that both were
asked, Holm over levels and pairs of models. It is a statement about these two models; how depth
changes with size in general is one that only many models can carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import polars as pl

from moralscope.evidence.findings.decision_gates import level_gates
from moralscope.evidence.findings.queries import layered, text
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    consult,
    probability,
)
from moralscope.evidence.statistics.intervals import (
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, sign_flip, sign_flip_floor

MIN_SCENARIOS = 6


def depth_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per level and pair of models."""
    if not setting.has("depths"):
        return
    centres = (
        setting.tables["depths"]
        .group_by("member", "level", "agent", "scenario", maintain_order=True)
        .agg((pl.col("share") * pl.col("relative_depth")).sum().alias("centre"))
        .group_by("member", "level", "scenario", maintain_order=True)
        .agg(pl.col("centre").mean())
    )
    cases = [
        (str(level), pair, _differences(rows, pair))
        for (level,), rows in centres.group_by("level", maintain_order=True)
        for pair in combinations(rows.get_column("member").unique(maintain_order=True), 2)
    ]
    found = [
        sign_flip(d, setting.rng("depth", level, *pair), setting.draws)[0]
        if len(d) >= MIN_SCENARIOS
        else 1.0
        for level, pair, d in cases
    ]
    adjusted = holm(np.array(found)) if cases else np.empty(0)
    for (level, pair, d), p, corrected in zip(cases, found, adjusted, strict=True):
        if len(d):
            yield _finding(setting, (level, *pair), d, (p, float(corrected), len(cases)))


def _differences(rows: pl.DataFrame, pair: tuple[str, str]) -> Array:
    """(G,) centre of the first minus that of the second model, on shared scenarios."""
    first, second = (
        rows.filter(pl.col("member") == name).select("scenario", "centre") for name in pair
    )
    both = first.join(second, on="scenario", suffix="_second", maintain_order="left")
    return (both["centre"] - both["centre_second"]).to_numpy()


def _finding(
    setting: Setting, what: tuple[str, str, str], d: Array, tested: tuple[float, float, int]
) -> Finding:
    (level, first, second), (p, corrected, tests) = what, tested
    mean, n = float(d.mean()), len(d)
    identified = n >= MIN_SCENARIOS
    interval = (
        cluster_interval(d, setting.rng("depth interval", *what), draws=setting.draws)
        if n > 1
        else None
    )
    figures = (
        f"{abs(mean):.3f} of the depth over {n} scenarios ({between(interval)}, adjusted "
        f"{probability(corrected if identified else None)})"
    )
    return Finding(
        id=f"depth:{level}:{first}:{second}",
        found=f"What training does by {level} lies {'deeper' if mean > 0 else 'less deep'} in "
        f"{first} than in {second}, by {figures}.",
        observed=f"The centre of what training does by {level} differs between {first} and "
        f"{second} by {figures}.",
        estimate=mean,
        interval=interval,
        unit="relative depth",
        n=n,
        test="sign-flips of scenarios, Holm over levels and pairs of models; null: symmetric "
        "about zero",
        query=_query(level, first, second),
        consulted=_consulted(setting, level, (first, second)),
        p=p if identified else None,
        p_adjusted=corrected if identified else None,
        p_floor=min(1.0, sign_flip_floor(n)),
        level=setting.alpha / tests,
        detectable=smallest_detectable_effect(standard_error(d), n - 1, setting.alpha / tests)
        if n > 1
        else None,
        tests=tests,
        family=f"{tests} levels and pairs of models",
        missing=None
        if identified
        else f"both models were asked {n} scenarios in common; {MIN_SCENARIOS} are needed.",
    )


def _consulted(setting: Setting, level: str, members: tuple[str, str]) -> Consulted:
    """Liveness, and what could explain the level, as the gates of a series name agents."""
    rows = setting.tables["depths"].filter(
        (pl.col("level") == level) & pl.col("member").is_in(members)
    )
    named = list(rows.select("member", "agent").unique(maintain_order=True).iter_rows())
    own = [
        (gate, subject_of(member, subject))
        for member, agent in named
        for gate, subject in level_gates(setting, level, [agent])[0]
    ]
    judged = [key for key in dict.fromkeys(own) if key in setting.gates]
    return consult(setting, [subject_of(member, agent) for member, agent in named], judged)


def subject_of(member: str, agent: str) -> str:
    """What the gates of a series call an agent of one of its models."""
    return f"{member}: {agent}"


def _query(level: str, first: str, second: str) -> str:
    def rows(member: str, sign: str) -> str:
        return (
            f"SELECT scenario AS unit, {text(member)} AS side, agent, layer, "  # noqa: S608 -- see queries
            f"{sign}share * relative_depth AS value FROM depths "
            f"WHERE level = {text(level)} AND member = {text(member)} AND scenario IN "
            f"(SELECT scenario FROM depths WHERE level = {text(level)} AND member = "
            f"{text(second if member == first else first)})"
        )

    return layered(
        f"{rows(first, '')} UNION ALL {rows(second, '-')}",
        "SELECT unit, SUM(value) AS value FROM (SELECT unit, side, AVG(value) AS value FROM "
        "(SELECT unit, side, agent, SUM(value) AS value FROM evidence_rows GROUP BY unit, side, "
        "agent) AS agents GROUP BY unit, side) AS sides GROUP BY unit",
    )
