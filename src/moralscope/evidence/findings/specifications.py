"""Does a change hold whichever way it is reasonably measured? Agreement of ways as a tested claim.

A change from base is a number only once somebody has chosen how to take it. For every trained agent
all reasonable choices are made, each giving one mean per scenario (g) and specification (m):

    mean log-odds                      over the prompts of a scenario
    median log-odds                    so that no single prompt decides
    probability given a legal answer   mean difference, where all prompts have one
    labels, wording or option order    mean log-odds on the prompts of one level alone

A specification that some scenario lacks is left out, and the sentence names it; two that come to
the same numbers on the same prompts count once. Each rejects or not by its own sign-flip p at
alpha; how many reject one way, and how strongly, is tested by flipping whole scenarios in all
specifications together (``statistics.multiverse``), with Holm over the agents.

    estimate = share of specifications whose mean lies on the side where most reject

The claim ``specifications:AGENT`` is supported only if that test rejects, more than half of the
specifications reject on the same side, and none rejects on the other: a change that is seen in one
wording and reversed in another is no change *in general*, however many prompts there are. A
specification whose mean lies within the numerical noise floor counts as no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.findings.behaviour import Behaviour, Contrast, behaviour, behaviour_gates
from moralscope.evidence.findings.specification_queries import (
    LOG_ODDS,
    PROBABILITY,
    ZERO,
    Measure,
    pointing_share,
)
from moralscope.evidence.ledger import Finding, Setting, consult, noise_floor, probability
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.multiverse import Multiverse, multiverse
from moralscope.evidence.statistics.resampling import Array, max_t
from moralscope.evidence.units import matrix, paired

FEWEST = 3
"""Fewer specifications than this agree too easily."""

_STEEPEST = 0.25
"""A probability changes by at most a quarter of the change of its log-odds."""

_ALONE = {"labels": "labels", "template": "wording", "option_order": "option order"}
"""Columns of the prompts whose levels are each looked at alone, and what they are called."""

_NAMED = 8
"""More specifications than this are counted from there on."""


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways in which a change can be measured on the prompts at hand.

    Attributes:
        measures: the M specifications, none the same as another.
        left_out: what could not be used, each with the reason.
        values: (G, M) scenario means, in nats or probability.
    """

    measures: tuple[Measure, ...]
    left_out: tuple[str, ...]
    values: Array


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the specifications of one agent say.

    Attributes:
        agent, base: who is compared.
        ways: how.
        tested: how many agree, and its null.
        direction: +1 or -1, the side on which most reject; where none is, on which most point.
        pointing: specifications whose mean lies on that side.
        more, less: names of those that reject by themselves above and below zero.
    """

    agent: str
    base: str
    ways: Ways
    tested: Multiverse
    direction: int
    pointing: int
    more: tuple[str, ...]
    less: tuple[str, ...]

    @property
    def count(self) -> int:
        """M, the specifications."""
        return len(self.ways.measures)


def specification_findings(setting: Setting) -> Iterator[Finding]:
    """One finding for every trained agent that has a base."""
    found = behaviour(setting)
    if found is None or not found.bases:
        return
    orders = setting.tables["prompts"].select("prompt", "option_order")
    rows = found.rows.join(orders, on="prompt", how="left", maintain_order="left")
    agreements = [_agreement(setting, rows, *pair) for pair in found.bases.items()]
    # An agent that cannot be tested counts with p = 1.
    raw = [each.tested.p if each.count >= FEWEST else 1.0 for each in agreements]
    adjusted = holm(np.array(raw, dtype=np.float64)).tolist()
    for each, p_adjusted in zip(agreements, adjusted, strict=True):
        yield _finding(setting, found, each, p_adjusted)


def ways_to_measure(rows: pl.DataFrame, agent: str, base: str) -> Ways:
    """Every reasonable way in which the change of an agent can be measured on these decisions.

    Args:
        rows: decisions with ``scenario``, ``labels``, ``template`` and ``option_order``; log-odds
            of both agents are defined.
        agent: who is measured.
        base: who is subtracted.

    Raises:
        TableError: the two agents were not measured on the same prompts.
    """
    extra = ("template", "option_order")
    changes = paired(rows, agent, base, "log_odds", extra).rename({"difference": LOG_ODDS})
    legal = paired(rows, agent, base, "p_positive_given_legal", extra)
    changes = changes.with_columns(legal.get_column("difference").alias(PROBABILITY))
    scenarios = changes.get_column("scenario").n_unique()
    left_out: list[str] = []
    kept: dict[tuple[object, ...], list[Measure]] = {}
    for measure in _measures(changes):
        used = _used(changes, measure)
        if used.get_column(measure.column).null_count():
            left_out.append(f"{measure.name}, undefined on some prompts")
        elif used.get_column("scenario").n_unique() < scenarios:
            left_out.append(f"{measure.name}, not asked in every scenario")
        else:
            kept.setdefault(_identity(used, measure), []).append(measure)
    measures = tuple(_merged(same) for same in kept.values())
    frames = [_scenario_means(changes, measure) for measure in measures]
    values = matrix(pl.concat(frames), "scenario", "specification", "value").values
    return Ways(measures, tuple(left_out), values)


def _measures(changes: pl.DataFrame) -> Iterator[Measure]:
    yield Measure("mean log-odds")
    yield Measure("median log-odds", aggregate="median")
    yield Measure("probability given a legal answer", PROBABILITY)
    for column, words in _ALONE.items():
        for level in changes.get_column(column).unique(maintain_order=True).to_list():
            yield Measure(f"{words} {level} alone", where=(column, level))


def _used(changes: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    if measure.where is None:
        return changes
    column, level = measure.where
    return changes.filter(pl.col(column) == level)


def _identity(used: pl.DataFrame, measure: Measure) -> tuple[object, ...]:
    """What makes a specification: quantity, aggregate and prompts. A median of two is a mean."""
    most = used.group_by("scenario").len().get_column("len").to_numpy().max()
    aggregate = "mean" if most <= 2 else measure.aggregate
    return measure.column, aggregate, frozenset(used.get_column("prompt").to_list())


def _merged(same: Sequence[Measure]) -> Measure:
    """The first of specifications that are one and the same, under all their names."""
    first, others = same[0], [measure.name for measure in same[1:]]
    if not others:
        return first
    name = f"{first.name} (the same as {' and '.join(others)})"
    return Measure(name, first.column, first.aggregate, first.where)


def _scenario_means(changes: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    value = pl.col(measure.column)
    aggregated = value.median() if measure.aggregate == "median" else value.mean()
    grouped = _used(changes, measure).group_by("scenario", maintain_order=True)
    return grouped.agg(aggregated.alias("value")).with_columns(specification=pl.lit(measure.name))


def _agreement(setting: Setting, rows: pl.DataFrame, agent: str, base: str) -> Agreement:
    ways = ways_to_measure(rows, agent, base)
    means = ways.values.mean(axis=0)
    noise = noise_floor(setting, (agent, base))
    floors = np.array([noise * (_STEEPEST if m.column != LOG_ODDS else 1) for m in ways.measures])
    values = np.where(np.abs(means) > floors, ways.values, 0.0)

    def rng() -> np.random.Generator:
        return setting.rng("specifications", agent)  # the same signs for one and for all

    tested = multiverse(values, rng(), setting.alpha, setting.draws)
    rejects = max_t(values, rng(), setting.draws).p < setting.alpha
    above, below = int((means > ZERO).sum()), int((means < -ZERO).sum())
    direction = tested.direction or (1 if above >= below else -1)
    names = [measure.name for measure in ways.measures]
    more, less = (
        tuple(name for name, clear in zip(names, rejects & side, strict=True) if clear)
        for side in (means > 0.0, means < 0.0)
    )
    pointing = above if direction > 0 else below
    return Agreement(agent, base, ways, tested, direction, pointing, more, less)


def _finding(setting: Setting, found: Behaviour, each: Agreement, p_adjusted: float) -> Finding:
    agents = len(found.bases)
    contrast = Contrast(f"specifications:{each.agent}", each.agent, each.base, each.base)
    enough = each.count >= FEWEST
    asserted, observed = _sentences(setting, found, each, p_adjusted if enough else None)
    family = f"{agents} agent{'s' * (agents > 1)}"
    return Finding(
        id=contrast.id,
        found=asserted,
        observed=observed,
        estimate=each.pointing / each.count,
        interval=None,
        unit="share of specifications",
        n=len(each.ways.values),
        test="number of specifications that reject one way, equal numbers by strength, against "
        f"sign-flips of scenarios, Holm over {family}; null: symmetric about zero",
        query=pointing_share(
            (each.agent, each.base), found.family, each.ways.measures, each.direction
        ),
        consulted=consult(setting, (each.agent, each.base), behaviour_gates(setting, contrast)),
        p=each.tested.p if enough else None,
        p_adjusted=p_adjusted if enough else None,
        p_floor=each.tested.floor,
        level=setting.alpha / agents,
        tests=agents,
        family=family,
        missing=None
        if enough
        else f"there are {each.count} ways to measure it here, and {FEWEST} are needed; ask every "
        "scenario in several wordings, under both label assignments or in both option orders.",
        against=_against(setting, found, each, p_adjusted) if enough else "",
    )


def _sentences(
    setting: Setting, found: Behaviour, each: Agreement, p_adjusted: float | None
) -> tuple[str, str]:
    """The sentence that asserts, and the one that only reports."""
    agent, base, total = each.agent, each.base, each.count
    corrected = f"adjusted {probability(p_adjusted)}"
    note = f" Left out: {'; '.join(each.ways.left_out)}." if each.ways.left_out else ""
    clear, word = (each.more, "more") if each.direction > 0 else (each.less, "less")
    itself = f"p below {setting.alpha:g}"
    asserted = (
        f"In {each.pointing} of {total} reasonable specifications {agent} is {word} inclined "
        f"{found.toward} than {base}; {len(clear)} show it by themselves ({itself}; {corrected} "
        f"for so many): {_listed(clear)}.{note}"
    )
    other = "less" if each.direction > 0 else "more"
    observed = (
        f"In {each.pointing} of {total} reasonable specifications the mean of {agent} is {word} "
        f"inclined {found.toward} than that of {base}. By themselves ({itself}) "
        f"{len(clear)} show {word}, {len(each.more) + len(each.less) - len(clear)} show {other} "
        f"({corrected} for so many).{note}"
    )
    return asserted, observed


def _against(setting: Setting, found: Behaviour, each: Agreement, p_adjusted: float) -> str:
    """Why specifications that reject do not make the claim; empty where they do."""
    itself = f"p below {setting.alpha:g}"
    if each.more and each.less:
        return (
            f"The specifications disagree: {each.agent} is more inclined {found.toward} than "
            f"{each.base} by {_listed(each.more)}, and less by {_listed(each.less)}, each with "
            f"{itself} by itself."
        )
    clear = each.more or each.less
    if p_adjusted < setting.alpha and 2 * len(clear) <= each.count:
        return (
            f"Only {len(clear)} of {each.count} specifications show it by themselves ({itself}): "
            f"{_listed(clear)}; more than half have to."
        )
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
