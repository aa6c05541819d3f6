"""How differently do two agents decide? Divergence of their answers, scenario by scenario.

An agent's answer to a prompt is one of three: the positive option, the negative one, or neither.
Between the distributions a and b of two agents lies the Jensen-Shannon divergence (Lin 1991, IEEE
Trans. Inf. Theory 37:145) and the total variation,

    JS = (KL(a || m) + KL(b || m)) / 2,  m = (a + b) / 2,   0 <= JS <= log 2 nats
    TV = sum |a - b| / 2,                                   0 <= TV <= 1

JS is defined where answers have no probability at all, and is the information that one answer
gives about which of the two agents gave it. Both are averaged over the prompts of a scenario, which
is the unit: prompts of a scenario are wordings of one question.

A divergence cannot be negative, so two agents that differ a little never average to zero. Whether
they decide *alike* is therefore asked against a margin set beforehand, and its p is the larger of
Student's and that of the pivot in ``bounded``: small where the mean divergence is clearly below the
margin. Where agents are alike in nine scenarios of ten and far apart in the tenth, the pivot alone
would call them alike in 36 to 64% of such studies at 10 to 40 scenarios.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special

from moralscope.core.errors import ConfigError, TableError
from moralscope.evidence.statistics.bounded import bounded_interval, bounded_tail
from moralscope.evidence.statistics.intervals import Interval, standard_error, t_upper_tail
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import on_family

MARGIN = 0.01
"""Nats. Two agents that choose the same option with probability .43 and .57 lie this far apart, and
so do two that choose it with .01 and .06: near certainty smaller differences count."""

TOP = math.log(2.0)
"""Nats: the divergence of agents that never give the same answer."""

RESOLUTION = 1e-4
"""Share of ``TOP`` below which divergences are not told apart, a hundredth of the usual margin.
Simulated agents alike up to the margin are then called alike in at most 5% of the cases."""


@dataclass(frozen=True, eq=False)
class Divergences:
    """Pairs of agents on one prompt family.

    Attributes:
        pairs: (first, second), P of them, in order of appearance.
        scenarios: the G units.
        js: (G, P) Jensen-Shannon divergence, nats.
        tv: (G, P) total variation.
    """

    pairs: tuple[tuple[str, str], ...]
    scenarios: tuple[str, ...]
    js: Array
    tv: Array


def divergences(
    prompts: pl.DataFrame, decisions: pl.DataFrame, family: str, agents: Sequence[str]
) -> Divergences:
    """Divergence of every pair of agents, averaged within scenarios.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.
        family: the prompt family.
        agents: two or more, in the order in which they are paired.

    Raises:
        TableError: the agents were not measured on the same prompts of the family.
    """
    answered = decisions.filter(pl.col("agent").is_in(list(agents)))
    rows = on_family(answered, prompts, family).rename({"scenario": "place"})
    first = rows.filter(pl.col("agent") == agents[0])
    names = first.get_column("prompt")
    answers = np.stack([_answers(rows, agent, agents[0], names) for agent in agents])
    places: list[str] = first.get_column("place").to_list()
    scenarios = tuple(dict.fromkeys(places))
    index = np.array([scenarios.index(place) for place in places])
    belongs = (np.arange(len(scenarios))[:, None] == index).astype(np.float64)
    belongs /= belongs.sum(axis=1, keepdims=True)
    pairs = tuple(itertools.combinations(range(len(agents)), 2))
    js = [belongs @ jensen_shannon(answers[i], answers[j]) for i, j in pairs]
    tv = [belongs @ (np.abs(answers[i] - answers[j]).sum(axis=1) / 2.0) for i, j in pairs]
    return Divergences(
        pairs=tuple((agents[i], agents[j]) for i, j in pairs),
        scenarios=scenarios,
        js=np.stack(js, axis=1),
        tv=np.stack(tv, axis=1),
    )


def _answers(rows: pl.DataFrame, agent: str, other: str, names: pl.Series) -> Array:
    """(N, 3) probabilities of positive, negative and neither, in the order of ``names``."""
    own = rows.filter(pl.col("agent") == agent)
    aligned = pl.DataFrame({"prompt": names}).join(
        own.select("prompt", "p_positive", "p_negative"),
        on="prompt",
        how="left",
        maintain_order="left",
    )
    if own.height != len(names) or aligned.get_column("p_positive").null_count():
        raise TableError(
            f"Agents {other!r} and {agent!r} were not measured on the same prompts",
            seen=f"{len(names)} prompts of one and {own.height} of the other",
            allowed="the same prompts of a family for all agents that are compared",
            remedy="measure all agents on the same prompt set",
        )
    options = aligned.select("p_positive", "p_negative").to_numpy().astype(np.float64)
    # Probabilities in float32 overshoot 1 by some 1e-7.
    answers = np.hstack([options, np.maximum(0.0, 1.0 - options.sum(axis=1, keepdims=True))])
    return answers / answers.sum(axis=1, keepdims=True)


def jensen_shannon(a: Array, b: Array) -> Array:
    """JS in nats between distributions along the last axis; 0 log 0 is 0."""
    middle = (a + b) / 2.0
    each = (special.rel_entr(a, middle) + special.rel_entr(b, middle)).sum(axis=-1) / 2.0
    return np.clip(each, 0.0, TOP)


def divergence_interval(values: Array) -> Interval | None:
    """95% interval, in [0, log 2] nats, for a mean divergence over scenarios."""
    return bounded_interval(values, top=TOP, resolution=RESOLUTION)


def alike(values: Array, margin: float) -> float | None:
    """P that the mean divergence reaches the margin; None for one scenario.

    Raises:
        ConfigError: the margin is not between 0 and log 2.
    """
    check_margin(margin)
    if len(values) < 2:
        return None
    below = bounded_tail(values, margin, top=TOP, resolution=RESOLUTION)
    return max(below or 0.0, _student(values, margin, side=1.0))


def apart(values: Array, margin: float) -> float | None:
    """P that the mean divergence stays within the margin; None for one scenario.

    The larger of Student's p and the pivot's: divergences have their long tail upwards, where the
    pivot alone would find agents apart too often.
    """
    check_margin(margin)
    if len(values) < 2:
        return None
    if np.ptp(values) == 0.0:
        return 0.0 if float(values.mean()) > margin else 1.0
    below = bounded_tail(values, margin, top=TOP, resolution=RESOLUTION) or 0.0
    return max(1.0 - below, _student(values, margin, side=-1.0))


def _student(values: Array, margin: float, side: float) -> float:
    """Student's p that the mean is not below the margin (side 1), or not above it (side -1)."""
    distance = side * (margin - float(values.mean()))
    if np.ptp(values) == 0.0:
        return 0.0 if distance > 0.0 else 1.0
    return t_upper_tail(distance / standard_error(values), len(values) - 1)


def check_margin(margin: float) -> None:
    """Refuse a margin that no divergence can be measured against.

    Raises:
        ConfigError: the margin is not between 0 and log 2.
    """
    if not 0.0 < margin < TOP:
        raise ConfigError(
            "The margin for deciding alike is out of range",
            seen=margin,
            allowed=f"nats of Jensen-Shannon divergence, above 0 and below log 2 = {TOP:.3f}",
            remedy=f"leave it out for {MARGIN}",
        )
