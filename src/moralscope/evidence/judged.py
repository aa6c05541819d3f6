"""What stands, once everything that was looked at is counted? From all findings to rows of claims.

The p of a finding is corrected within its family: max-T or Holm over the agents, sites or pairs
that were tested together. Many families are tested, so exploratory claims are screened once more,
over all of them: with p_(1) <= ... <= p_(m) the adjusted p of the m claims that a test decides,

    q_(i) = min_{j >= i} m p_(j) / j    (Benjamini and Hochberg 1995)

A claim is supported only if both its adjusted p and its q lie below alpha. The adjusted p are
larger than the raw ones that the procedure is made for, so q is conservative. Claims that a gate or
the design has settled already are not among the m: nothing can be supported there, whatever p is.
The p of equivalence are screened in the same way, over all claims that a margin was set for.

A hypothesis that was named is tested by itself. It gets Holm's correction over its own kind, the
registered ones or the published statements, and no q.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    LATE,
    OPEN,
    PUBLISHED,
    REGISTERED,
    Finding,
    Setting,
)
from moralscope.evidence.reasons import ALONE, Said, Screened, drowned, reason, statement
from moralscope.evidence.statistics.multiplicity import benjamini_hochberg, holm
from moralscope.evidence.statistics.reliability import NAMED_CLAIM
from moralscope.evidence.verdicts import EQUIVALENT, SUPPORTED, Standing, verdict


def claim_rows(setting: Setting, findings: Sequence[Finding]) -> list[dict[str, object]]:
    """The rows of the claims table, in the order of the findings; named hypotheses first.

    All findings of a study or an audit must be handed over together: what a claim has to exceed
    depends on how many there are.
    """
    named = [f for f in findings if f.hypothesis is not None]
    others = [f for f in findings if f.hypothesis is None]
    kinds = {
        kind: [f for f in named if f.hypothesis is not None and f.hypothesis.kind == kind]
        for kind in (REGISTERED, PUBLISHED, LATE)
    }
    corrected = [
        *(f for kind in (REGISTERED, PUBLISHED) for f in _over_kind(setting, kinds[kind], kind)),
        *kinds[LATE],
        *others,
    ]
    screens = screen(setting, corrected)
    return [claim_row(setting, f, s) for f, s in zip(corrected, screens, strict=True)]


def _over_kind(setting: Setting, named: Sequence[Finding], kind: str) -> list[Finding]:
    """Holm over the hypotheses of one kind; one that could not be tested counts with p = 1."""
    tested = [f for f in named if _decisive(f) is not None or f.missing is not None]
    if not tested:
        return list(named)
    m = len(tested)
    raw = [p if (p := _decisive(f)) is not None else 1.0 for f in tested]
    adjusted = dict(zip([f.id for f in tested], holm(np.array(raw)).tolist(), strict=True))
    return [
        _with_p(f, adjusted[f.id], m, setting.alpha, kind) if f.id in adjusted else f for f in named
    ]


def _decisive(finding: Finding) -> float | None:
    equivalence = finding.hypothesis is not None and finding.hypothesis.equivalence
    return finding.equivalence_p if equivalence else finding.p_adjusted


def _with_p(finding: Finding, p: float, m: int, alpha: float, kind: str) -> Finding:
    family = f"{m} {kind} {'hypothesis' if m == 1 else 'hypotheses'}"
    counted = replace(finding, tests=m, family=family, level=min(finding.level, alpha / m))
    if _decisive(finding) is None:
        return counted
    if finding.hypothesis is not None and finding.hypothesis.equivalence:
        # Beside it the test that the effect lies outside, which only a contradiction rests on.
        outside = None if finding.p_adjusted is None else min(1.0, m * finding.p_adjusted)
        return replace(counted, equivalence_p=p, p_adjusted=outside)
    return replace(counted, p_adjusted=p)


def screen(setting: Setting, findings: Sequence[Finding]) -> list[Screened]:
    """Benjamini-Hochberg over the exploratory findings that a test decides, in their order."""
    unsettled = [i for i, f in enumerate(findings) if f.exploratory and not _settled(setting, f)]
    q = _over_all({i: findings[i].p_adjusted for i in unsettled})
    like = _over_all({i: findings[i].equivalence_p for i in unsettled})
    return [
        Screened(
            q.get(i),
            len(q) if i in q else 0,
            like.get(i),
            len(like) if i in like else 0,
        )
        for i in range(len(findings))
    ]


def _over_all(p_values: Mapping[int, float | None]) -> dict[int, float]:
    tested = {i: p for i, p in p_values.items() if p is not None}
    if not tested:
        return {}
    adjusted = benjamini_hochberg(np.array(list(tested.values()), dtype=np.float64))
    return dict(zip(tested, adjusted.tolist(), strict=True))


def _settled(setting: Setting, finding: Finding) -> bool:
    """Whether a gate or the design decides, whatever the tests give."""
    standing = _standing(setting, finding, ALONE)
    return standing.gate_failed or standing.alive is False or not standing.identified


def claim_row(setting: Setting, finding: Finding, screened: Screened = ALONE) -> dict[str, object]:
    """The row of the claims table: verdict, and the statement that goes with it.

    Args:
        setting: the level.
        finding: its p values corrected within its family.
        screened: what correcting over all claims said of it.
    """
    standing = _standing(setting, finding, screened)
    decision = verdict(standing)
    said = Said(setting.alpha, finding, standing, screened, decision)
    low, high = finding.interval or (None, None)
    return {
        "id": finding.id,
        "statement": statement(said),
        "estimate": finding.estimate,
        "low": low,
        "high": high,
        "unit": finding.unit,
        "n_units": finding.n,
        "test": finding.test,
        "p": finding.p,
        "p_adjusted": finding.p_adjusted,
        "p_floor": finding.p_floor,
        "q": screened.q,
        "n_tests": finding.tests,
        "detectable": finding.detectable,
        "gates": finding.consulted.text,
        "registered": finding.hypothesis is not None and finding.hypothesis.kind == REGISTERED,
        "outcome": _outcome(finding, standing, decision),
        "verdict": decision,
        "reason": reason(said),
        "replicate": finding.replicate,
        "query": finding.query,
    }


def _standing(setting: Setting, finding: Finding, screened: Screened) -> Standing:
    stated, p, alpha = finding.hypothesis, finding.p_adjusted, setting.alpha
    reached = finding.p_floor is None or finding.p_floor < finding.level
    in_family = finding.decided if p is None else p < alpha
    holds = not finding.against
    if stated is not None:
        holds = stated.outcome == CONFIRMED and not stated.equivalence
    return Standing(
        gate_failed=bool(finding.consulted.failed),
        identified=finding.missing is None and reached,
        rejects=holds and in_family and (screened.q is None or screened.q < alpha),
        above_noise=_above_noise(finding),
        alive=finding.consulted.alive,
        equivalent=_equivalent(finding, screened, alpha),
        contradicted=bool(finding.against)
        or (stated is not None and stated.outcome == CONTRADICTED and in_family),
        reliable=finding.reliability is None or finding.reliability >= NAMED_CLAIM,
    )


def _equivalent(finding: Finding, screened: Screened, alpha: float) -> bool | None:
    if finding.equivalence_p is None:
        return None
    stated = finding.hypothesis
    agrees = stated is None or not stated.equivalence or stated.outcome == CONFIRMED
    among_all = screened.equivalence_q is None or screened.equivalence_q < alpha
    # What numerical noise alone can move further than the margin cannot be called equal within it.
    fine = not drowned(finding)
    return agrees and finding.equivalence_p < alpha and among_all and fine


def _above_noise(finding: Finding) -> bool:
    if finding.noise is None or finding.estimate is None:
        return finding.estimate is not None or finding.noise is None
    return abs(finding.estimate) > finding.noise


def _outcome(finding: Finding, standing: Standing, decision: str) -> str | None:
    """What became of a hypothesis; None for a claim that nobody named."""
    stated = finding.hypothesis
    if stated is None:
        return None
    if decision == SUPPORTED or (decision == EQUIVALENT and stated.equivalence):
        return CONFIRMED
    unsettled = standing.gate_failed or standing.alive is False or not standing.identified
    against = decision == EQUIVALENT or standing.contradicted
    return CONTRADICTED if against and not unsettled else OPEN
