"""Are two agents as alike as it was published? The likeness of what changed, not of what was there.

Two models that share a base are alike before any training: the cosine of their raw results is
mostly the base. The statement therefore gives the cosine (or correlation) of their *changes from
base*, with an interval over scenarios, beside the raw figure and that of each with its base.

That two agents are *equivalent* is asked of their results themselves: with

    u_g = mean over the results of scenario g of |first - second|,

the mean of u must lie below a margin (one-sided t test on scenarios; by default 10% of the base's
mean absolute result). It needs live agents, and agents of which one at least differs from base by
more than the margin: two agents that do nothing are equal for no reason. Where the base is as like
each of them as they are like each other, and they are not equivalent, the printed figure is an
artefact of the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.evidence.designs import base_of
from moralscope.evidence.findings.cells import CELLS, UNITS, Cells, cells, mean_difference
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_parts import blame, not_there, said, tables_named
from moralscope.evidence.hypotheses.stating import claim_of, require_known, untested
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
    size,
)
from moralscope.evidence.statistics.equivalence import DEFAULT_MARGIN_SHARE, tost
from moralscope.evidence.statistics.intervals import cluster_t, standard_error, t_upper_tail
from moralscope.evidence.statistics.likeness import Likeness, Measure, likeness
from moralscope.evidence.statistics.resampling import Array

MEASURES = ("cosine", "pearson")

AGREES = 0.05
"""A raw likeness this close to the printed one, or above, counts as found again."""


def similarity(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The likeness of two agents, published as that of their raw results."""
    (table,) = tables_named(hypothesis, list(CELLS), 1)
    if hypothesis.metric is not None:
        require_known(hypothesis, "metric", [hypothesis.metric], MEASURES)
    absent = not_there(setting, hypothesis, [table, "prompts", "agents"])
    if absent is not None:
        return absent
    base = _base(setting, hypothesis)
    if base is None:
        reason = (
            "the base is not among the agents, so nothing says how much of the likeness is the "
            "base's; measure it on the same prompts."
        )
        return untested(setting, hypothesis, reason)
    names = tuple(dict.fromkeys([*hypothesis.agents, base]))
    found = cells(setting.tables, table, names)
    if isinstance(found, str):
        return untested(setting, hypothesis, found)
    return _answer(setting, hypothesis, found, base)


def _base(setting: Setting, hypothesis: Hypothesis) -> str | None:
    """The base that both agents come from; None where it is not there.

    Raises:
        ConfigError: they have two bases.
    """
    agents = setting.tables["agents"]
    named = agents.filter(pl.col("agent").is_in(list(hypothesis.agents)))
    models: list[str] = named.get_column("base").unique().sort().to_list()
    if len(models) > 1:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} compares agents that have different bases",
            seen=", ".join(models),
            allowed="two agents of one base, whose changes from it can be compared",
            remedy="name two agents of the same base",
        )
    found = [base for agent in hypothesis.agents if (base := base_of(agents, agent)) is not None]
    return found[0] if found else None


@dataclass(frozen=True, eq=False)
class _Alike:
    """All figures of a comparison.

    Attributes:
        raw: of the two agents' results.
        to_base: of each with the base.
        changes: of their changes from base; None where one of them is the base or does nothing.
        apart: (G,) mean absolute difference per scenario.
        moved: of each, the mean absolute change from base.
        margin: what the mean difference has to lie below; None where the base's results are zero.
    """

    raw: Likeness | None
    to_base: tuple[Likeness | None, ...]
    changes: Likeness | None
    apart: Array
    moved: tuple[float, ...]
    margin: float | None


def _figures(setting: Setting, hypothesis: Hypothesis, found: Cells, base: str) -> _Alike:
    first, second = (found.values[agent] for agent in hypothesis.agents)
    zero = found.values[base]
    measure = cast("Measure", hypothesis.metric or "cosine")
    trained = [agent for agent in hypothesis.agents if agent != base]
    moves = [found.values[agent] - zero for agent in trained]
    usual = DEFAULT_MARGIN_SHARE * float(np.abs(zero).mean())
    margin = hypothesis.margin or (setting.margin if found.table == "decisions" else None) or usual
    return _Alike(
        raw=likeness(first, second, found.units, measure),
        to_base=tuple(likeness(found.values[a], zero, found.units, measure) for a in trained),
        changes=likeness(moves[0], moves[1], found.units, measure) if len(moves) == 2 else None,
        apart=found.means(np.abs(first - second)),
        moved=tuple(float(np.abs(move).mean()) for move in moves),
        margin=margin if margin > 0.0 else None,
    )


def _answer(setting: Setting, hypothesis: Hypothesis, found: Cells, base: str) -> Finding:
    alike = _figures(setting, hypothesis, found, base)
    n = len(alike.apart)
    within = None if alike.margin is None else tost(alike.apart, alike.margin)
    trivial = alike.margin is not None and max(alike.moved) <= alike.margin
    equivalent = within is not None and within < setting.alpha
    explained = _explained(hypothesis, alike) and not equivalent
    consulted = _consult(setting, hypothesis, found, base)
    asserted, reported = said(hypothesis, _words(hypothesis, alike, within, base, n))
    return Finding(
        id=claim_of(hypothesis),
        found=asserted,
        observed=reported,
        estimate=float(alike.apart.mean()),
        interval=cluster_t(alike.apart),
        unit=UNITS[found.table],
        n=n,
        test="one-sided t test of the mean absolute difference over scenarios against the margin; "
        "null: it reaches the margin",
        query=mean_difference(found, (hypothesis.agents[0], hypothesis.agents[1])),
        consulted=blame(consulted, _of_base(alike) if explained else ""),
        p=_outside(alike),
        p_adjusted=_outside(alike),
        level=setting.alpha,
        equivalence_p=within,
        margin=alike.margin,
        tests=None if within is None else 1,
        missing=_missing(alike, within, trivial=trivial),
        hypothesis=_stated(alike, within, setting.alpha),
    )


def _consult(setting: Setting, hypothesis: Hypothesis, found: Cells, base: str) -> Consulted:
    complete = [("completeness", a) for a in (*hypothesis.agents, base)]
    return consult(
        setting,
        hypothesis.agents,
        gates=[
            *(complete if found.table == "attribution" else []),
            ("duplicates", "scenarios"),
        ],
    )


def _outside(alike: _Alike) -> float | None:
    """P of the one-sided test that the mean difference stays within the margin."""
    if alike.margin is None or len(alike.apart) < 2:
        return None
    error = standard_error(alike.apart)
    distance = float(alike.apart.mean()) - alike.margin
    if error == 0.0:
        return 0.0 if distance > 0.0 else 1.0
    return t_upper_tail(distance / error, len(alike.apart) - 1)


def _explained(hypothesis: Hypothesis, alike: _Alike) -> bool:
    """Whether the printed figure comes out, and the base is as like each agent as they are."""
    if alike.raw is None or len(alike.to_base) < 2:
        return False
    if hypothesis.published is not None and alike.raw.value < hypothesis.published - AGREES:
        return False
    values = [found.value for found in alike.to_base if found is not None]
    return len(values) == len(alike.to_base) and min(values) >= alike.raw.value


def _of_base(alike: _Alike) -> str:
    raw = alike.raw
    return (
        f"likeness of the base: untrained, it is as like each of the agents "
        f"({', '.join(_percent(found) for found in alike.to_base)}) as they are like each other "
        f"({_percent(raw)}), so the figure says nothing of what training did; their changes from "
        f"base have {_value(alike.changes)}."
    )


def _percent(found: Likeness | None) -> str:
    return "undefined" if found is None else f"{100.0 * found.value:.4g}%"


def _value(found: Likeness | None) -> str:
    return "no likeness that is defined" if found is None else f"{found.value:+.3f}"


def _words(hypothesis: Hypothesis, alike: _Alike, within: float | None, base: str, n: int) -> str:
    measure = hypothesis.metric or "cosine"
    bases = ", ".join(_percent(found) for found in alike.to_base)
    changed = (
        "their changes from base have no such figure, because one of them is zero"
        if alike.changes is None
        else f"that of their changes from base {alike.changes.value:+.3f} "
        f"({between(alike.changes.interval)} over {n} scenarios)"
    )
    margin = (
        "there is no margin, because the base's results are zero"
        if alike.margin is None
        else f"they differ by {size(float(alike.apart.mean()))} on average, against a margin of "
        f"{size(alike.margin)} ({probability(within)})"
    )
    return (
        f"the {measure} of the raw results is {_percent(alike.raw)}, with {base} {bases}; "
        f"{changed}; {margin}."
    )


def _missing(alike: _Alike, within: float | None, *, trivial: bool) -> str | None:
    if alike.margin is None:
        return "the base's results are zero, so there is no margin to hold a difference against."
    if within is None:
        return "one scenario shows no variation; ask in more scenarios."
    if trivial:
        return (
            f"neither agent differs from its base by more than the margin of {size(alike.margin)} "
            "that the two are compared with, so that they are alike shows nothing; compare agents "
            "that learned something."
        )
    return None


def _stated(alike: _Alike, within: float | None, alpha: float) -> Stated:
    if alike.margin is None or within is None:
        return Stated(OPEN, equivalence=True)
    mean = float(alike.apart.mean())
    if mean > alike.margin:
        return Stated(
            CONTRADICTED,
            f"they differ by {size(mean)} on average, more than the margin of "
            f"{size(alike.margin)}.",
            equivalence=True,
        )
    return Stated(
        CONFIRMED,
        ""
        if within < alpha
        else f"their difference does not lie below the margin of "
        f"{size(alike.margin)} clearly enough ({probability(within)}).",
        equivalence=True,
    )
