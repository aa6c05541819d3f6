"""What does a test of several questions on the same units say of each? Findings of one family.

Each question is a column of unit means ``y[scenario]``; all columns of a family share their
scenarios, so their signs flip together and one max-T corrects for all of them. The interval is that
of the column alone; equivalence is two one-sided tests against a margin that was set beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    probability,
    signed,
)
from moralscope.evidence.statistics.equivalence import corrected_tost
from moralscope.evidence.statistics.intervals import (
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.resampling import Array, MaxT, max_t


@dataclass(frozen=True, eq=False)
class Column:
    """One question.

    Attributes:
        id: of the claim.
        found: what is asserted if the test rejects, before the figures.
        observed: what is said otherwise, before the figures.
        more: what is added to either after the figures; empty or a clause that begins with ``;``.
        values: (G,) scenario means, nats.
        query: recomputes their mean.
        consulted: the gates.
        margin: of equivalence, nats; 0 where there is none.
        noise: numerical noise floor, nats; None where none was measured.
    """

    id: str
    found: str
    observed: str
    values: Array
    query: str
    consulted: Consulted
    margin: float = 0.0
    noise: float | None = None
    more: str = ""


def column_findings(
    setting: Setting, address: str, columns: Sequence[Column], family: str
) -> Iterator[Finding]:
    """A finding for each column, corrected for all of them.

    Args:
        setting: level, seed and draws.
        address: name of the random stream.
        columns: on the same scenarios.
        family: what they are, as it stands after ``among``: ``12 pairs of agents and categories``.
    """
    if not columns:
        return
    values = np.stack([column.values for column in columns], axis=1)
    tested = max_t(values, setting.rng(address), setting.draws)
    for index, column in enumerate(columns):
        yield _finding(setting, column, tested, index, family)


def _finding(setting: Setting, column: Column, tested: MaxT, index: int, family: str) -> Finding:
    values, tests = column.values, len(tested.p)
    n, mean = len(values), float(values.mean())
    adjusted = float(tested.p_adjusted[index])
    interval = cluster_interval(values, setting.rng("interval", column.id), draws=setting.draws)
    figures = (
        f"{signed(mean)} nats over {n} scenarios ({between(interval)}; adjusted "
        f"{probability(adjusted)}){column.more}"
    )
    return Finding(
        id=column.id,
        found=f"{column.found} {figures}.",
        observed=f"{column.observed} {figures}.",
        estimate=mean,
        interval=interval,
        unit="nats",
        n=n,
        test=f"sign-flips of scenarios, max-T over {family}; null: symmetric about zero",
        query=column.query,
        consulted=column.consulted,
        p=float(tested.p[index]),
        p_adjusted=adjusted,
        p_floor=tested.floor,
        level=setting.alpha,
        noise=column.noise,
        equivalence_p=corrected_tost(values, column.margin, tests),
        margin=column.margin if column.margin > 0.0 else None,
        detectable=None
        if n < 2
        else smallest_detectable_effect(standard_error(values), n - 1, setting.alpha / tests),
        tests=tests,
        family=family,
    )


def untold(name: str, words: str, missing: str, consulted: Consulted, query: str) -> Finding:
    """The finding about a question that the tables cannot answer.

    Args:
        name: id of the claim.
        words: what is not known, one sentence.
        missing: why, and what would identify it.
        consulted: the gates.
        query: with the columns ``unit`` and ``value``, nothing in them.
    """
    return Finding(
        id=name,
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="nats",
        n=0,
        test="none",
        query=query,
        consulted=consulted,
        missing=missing,
    )
