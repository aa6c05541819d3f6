"""Does the number lie where it was said to? A finding turned into the answer to a hypothesis.

A direction is held against the two-sided test of the same number, the same units and the same
gates as the exploratory claim, made for this one number alone; the sign must be the one that was
named. With estimate e off the null value, standard error s and f degrees of freedom, a margin D is
held against two one-sided tests (Schuirmann 1987), and the opposite, that the number lies outside,
against a third:

    within:  t = (D - |e|) / s        outside:  t = (|e| - D) / s        p = P(T_f > t)

Holm's correction over all hypotheses of a kind comes afterwards (``evidence.judged``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moralscope.core.errors import ConfigError, nearest
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.hypotheses.grammar import Hypothesis, statement_of
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Consulted,
    Finding,
    Setting,
    Stated,
    between,
    consult,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.intervals import standard_error, t_upper_tail
from moralscope.evidence.statistics.resampling import Array

_NAMING = ("agent", "source", "target", "agent_a", "agent_b")


@dataclass(frozen=True, slots=True)
class Spread:
    """How far a number lies from its null value, and how sure that is.

    Attributes:
        deviation: estimate minus null value, in its unit.
        error: standard error.
        degrees: of freedom.
    """

    deviation: float
    error: float
    degrees: float


def spread_of(values: Array, null: float = 0.0) -> Spread | None:
    """Of the mean of (G,) units; None for fewer than two."""
    if len(values) < 2:
        return None
    return Spread(float(values.mean()) - null, standard_error(values), len(values) - 1)


def spread_between(first: Array, second: Array) -> Spread | None:
    """Of the difference of two groups' means (Welch); None where a group has one unit."""
    if min(len(first), len(second)) < 2:
        return None
    va, vb = standard_error(first) ** 2, standard_error(second) ** 2
    if va + vb == 0.0:
        degrees = float(len(first) + len(second) - 2)
    else:
        degrees = (va + vb) ** 2 / (va**2 / (len(first) - 1) + vb**2 / (len(second) - 1))
    return Spread(float(first.mean() - second.mean()), math.sqrt(va + vb), degrees)


def within_p(spread: Spread, margin: float) -> float:
    """P of the two one-sided tests that the number lies outside (-margin, margin).

    Without any spread it is decided by the number: 0 inside, 1 outside.
    """
    return _one_sided(margin - abs(spread.deviation), spread)


def outside_p(spread: Spread, margin: float) -> float:
    """P of the one-sided test that the number lies inside [-margin, margin]."""
    return _one_sided(abs(spread.deviation) - margin, spread)


def _one_sided(distance: float, spread: Spread) -> float:
    if spread.error == 0.0:
        return 0.0 if distance > 0.0 else 1.0
    return t_upper_tail(distance / spread.error, spread.degrees)


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer is made from.

    Attributes:
        finding: the exploratory finding about this one number, tested by itself, two-sided.
        spread: of the number about its null value; None where no margin can be tested.
        null: the null value.
        default_margin: for the direction ``zero``; None where there is none.
        level: whether the number is a level, and printed without a sign.
        note: a further sentence; empty for none.
    """

    finding: Finding
    spread: Spread | None = None
    null: float = 0.0
    default_margin: float | None = None
    level: bool = False
    note: str = ""


def as_stated(setting: Setting, hypothesis: Hypothesis, basis: Basis) -> Finding:
    """The answer to a hypothesis with a direction or a margin, before Holm's correction."""
    if hypothesis.claims_absence:
        return _absence(setting, hypothesis, basis)
    return _directed(setting, hypothesis, basis)


def _directed(setting: Setting, hypothesis: Hypothesis, basis: Basis) -> Finding:
    found = basis.finding
    deviation = 0.0 if found.estimate is None else found.estimate - basis.null
    wanted = {"above": deviation > 0.0, "below": deviation < 0.0}
    agrees = wanted.get(str(hypothesis.direction), True)
    clear = found.p is not None and found.p < setting.alpha
    stated = Stated(CONFIRMED)
    if not agrees:
        # Only a clear number on the other side speaks against it.
        said = f"the number lies on the other side ({_value(basis)}, {probability(found.p)})."
        stated = Stated(CONTRADICTED, said) if clear else Stated(OPEN)
    lead, report = _sentences(hypothesis, basis, found.p)
    return replace(
        found,
        id=claim_of(hypothesis),
        found=lead,
        observed=report,
        test=_alone(found.test),
        p_adjusted=found.p,
        equivalence_p=None,
        margin=None,
        tests=None if found.p is None else 1,
        family="" if found.p is None else "1 hypothesis",
        hypothesis=stated,
    )


def _absence(setting: Setting, hypothesis: Hypothesis, basis: Basis) -> Finding:
    found, spread = basis.finding, basis.spread
    margin = hypothesis.margin if hypothesis.margin is not None else basis.default_margin
    missing, within, outside = found.missing, None, None
    if spread is None:
        missing = missing or "equivalence needs two units of replication that can be paired."
    elif margin is None or margin <= 0.0:
        missing = missing or "there is no default margin for it here; give a 'margin'."
    else:
        within, outside = within_p(spread, margin), outside_p(spread, margin)
    if missing is not None:
        within = outside = None
    stated = _inside_or_not(setting, basis, margin or 0.0, within, outside)
    lead, report = _sentences(hypothesis, basis, within)
    return replace(
        found,
        id=claim_of(hypothesis),
        found=lead,
        observed=report,
        test=f"two one-sided t tests against the margin over {found.replicate}; null: it lies "
        "outside",
        p=outside,
        p_adjusted=outside,
        p_floor=None,
        equivalence_p=within,
        margin=margin,
        detectable=None,
        missing=missing,
        tests=None if within is None else 1,
        family="" if within is None else "1 hypothesis",
        hypothesis=stated,
    )


def _inside_or_not(
    setting: Setting, basis: Basis, margin: float, within: float | None, outside: float | None
) -> Stated:
    """Which side of the margin the number lies on, and whether the other side can be excluded."""
    if within is None or outside is None:
        return Stated(OPEN, equivalence=True)
    far = f"{size(margin)} {_in(basis.finding.unit)}".rstrip()
    if outside < setting.alpha:
        against = f"it lies further away than {far} ({_value(basis)}, {probability(outside)})."
        return Stated(CONTRADICTED, against, equivalence=True)
    against = (
        f"whether it lies within {far} is not settled ({_value(basis)}; two one-sided tests give "
        f"{probability(within)} before correction over all named hypotheses)."
    )
    inside = within < setting.alpha
    return Stated(CONFIRMED if inside else OPEN, against, equivalence=True)


def _alone(test: str) -> str:
    """The test without its family of one: ``sign-flips of scenarios; null: ...``."""
    method, separator, null = test.partition("; null: ")
    return method.partition(", max-T")[0].partition(", Holm")[0] + separator + null


def _value(basis: Basis) -> str:
    value = basis.finding.estimate
    if value is None:
        return "undefined"
    return size(value) if basis.level else signed(value)


def _sentences(hypothesis: Hypothesis, basis: Basis, p: float | None) -> tuple[str, str]:
    """The sentence that asserts, and the one that only reports."""
    said, found = statement_of(hypothesis), basis.finding
    figures = (
        f"{_value(basis)} {_in(found.unit)}over {found.n} {found.replicate} "
        f"({between(found.interval)}, {probability(p)} alone)"
    )
    note = f" {basis.note}" if basis.note else ""
    return (
        f"{said.rstrip('.')}, as hypothesis {hypothesis.id} says: {figures}.{note}",
        f"Hypothesis {hypothesis.id}: {said[:1].lower()}{said[1:]} Measured: {figures}.{note}",
    )


def _in(unit: str) -> str:
    return "" if unit in ("probability", "ratio") else f"{unit} "


def claim_of(hypothesis: Hypothesis) -> str:
    """The id of the claim about a hypothesis."""
    return f"hypothesis:{hypothesis.id}"


def untested(setting: Setting, hypothesis: Hypothesis, reason: str) -> Finding:
    """The finding about a hypothesis that nothing here can test; ``reason`` is a sentence."""
    said = statement_of(hypothesis)
    words = f"Hypothesis {hypothesis.id}: {said[:1].lower()}{said[1:]} It was not tested."
    return Finding(
        id=claim_of(hypothesis),
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit=hypothesis.form.unit,
        n=0,
        test="none",
        query=NOTHING,
        consulted=consulted_about(setting, hypothesis.agents),
        missing=reason,
        hypothesis=Stated(OPEN),
    )


def consulted_about(setting: Setting, agents: Sequence[str]) -> Consulted:
    """Liveness of the agents named; nothing where there is no table of agents."""
    if not setting.has("agents") or not agents:
        return Consulted("none applies", (), None)
    return consult(setting, agents)


WHERE_FROM = {
    "agents": "the stage agents, or a table that names them and their base",
    "prompts": "the stage prompts, or a table of prompts and their scenarios",
    "decisions": "the stages decide-AGENT",
    "patching": "the stages patch-SOURCE>TARGET (method patching)",
    "attribution": "the stages explain-AGENT (method attribution)",
    "learned": "the stage behaviour",
    "comparisons": "a study that names comparisons",
    "attention": "the stages attend-AGENT (method attention)",
    "norms": "the stages interact-AGENT (method interactions)",
    "update_distances": "the stage overlap (method weights)",
    "representation_pairs": "the stage representations (method representations)",
}
"""Where a table comes from that a hypothesis needs."""


def lacking(setting: Setting, hypothesis: Hypothesis) -> str | None:
    """Which table is missing and where it comes from, a sentence; None if all are there."""
    absent = [name for name in hypothesis.needs if not setting.has(name)]
    if not absent:
        return None
    come = WHERE_FROM.get(absent[0], "the study or tool that measured it")
    return f"the table {absent[0]} is not there; it comes from {come}."


def require_agents(setting: Setting, hypothesis: Hypothesis) -> None:
    """Refuse agents that no table speaks of.

    Raises:
        ConfigError: an agent is unknown; the nearest right name is given.
    """
    known: set[str] = set()
    for table in setting.tables.values():
        for column in (name for name in _NAMING if name in table.columns):
            known |= set(table.get_column(column).drop_nulls().unique().to_list())
    require_known(hypothesis, "agent", hypothesis.agents, sorted(known))


def require_known(
    hypothesis: Hypothesis, what: str, named: Sequence[str], known: Sequence[str]
) -> None:
    """Refuse a name that is not among those that the tables have; no table knows: nothing.

    Raises:
        ConfigError: a name is unknown; the nearest right one is given.
    """
    for name in named:
        if known and name not in known:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} names the unknown {what} {name!r}",
                seen=name,
                allowed=_some(known),
                remedy=nearest(name, known),
            )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
