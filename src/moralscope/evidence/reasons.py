"""Why has a claim its verdict? The plain sentence that a statement ends with.

It names the gate that failed, the floor that lies too high, the unit that is missing, the smallest
effect that would have been found, or the correction under which a claim no longer stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from moralscope.evidence.ledger import Finding, probability, size
from moralscope.evidence.statistics.reliability import NAMED_CLAIM
from moralscope.evidence.verdicts import (
    ARTEFACT,
    EQUIVALENT,
    NOISE,
    SUPPORTED,
    Standing,
)


@dataclass(frozen=True, slots=True)
class Screened:
    """What correcting over all claims says of one of them.

    Attributes:
        q: Benjamini-Hochberg over all that were tested; None where no q applies.
        claims: over how many.
        equivalence_q: the same of its two one-sided tests.
        margins: over how many.
    """

    q: float | None = None
    claims: int = 0
    equivalence_q: float | None = None
    margins: int = 0


ALONE = Screened()
"""Of a claim that is looked at by itself."""


@dataclass(frozen=True, slots=True)
class Said:
    """All that the sentences speak of.

    Attributes:
        alpha: the level.
        finding: the numbers.
        standing: what is known about the claim.
        screened: what correcting over all claims gave.
        decision: the verdict.
    """

    alpha: float
    finding: Finding
    standing: Standing
    screened: Screened
    decision: str


def statement(said: Said) -> str:
    """The finding in words: what it asserts or reports, then why it has its verdict."""
    finding = said.finding
    if said.decision == SUPPORTED:
        return f"{finding.found} {_caveat(said)}".strip()
    return f"{finding.observed} {reason(said)}"


def reason(said: Said) -> str:
    """One plain sentence: why the claim has its verdict."""
    if said.decision == SUPPORTED:
        return f"{_why_supported(said)} {_caveat(said)}".strip()
    if said.decision == EQUIVALENT:
        return _why_equivalent(said)
    if said.decision == NOISE:
        return _not_found(said)
    if said.decision == ARTEFACT:
        return f"Artefact: {' '.join(said.finding.consulted.failed)}"
    return _not_identified(said)


def _caveat(said: Said) -> str:
    if said.standing.alive is None:
        return "Liveness could not be checked; the difference stands all the same."
    if said.standing.equivalent:
        margin = size(said.finding.margin)
        return f"It is smaller than the margin of {margin} {said.finding.unit} that would matter."
    return ""


def _why_supported(said: Said) -> str:
    finding = said.finding
    if finding.p_adjusted is None:
        return "It is a count or rests on intervals, not on a p; its gates pass."
    words = f"Its adjusted {probability(finding.p_adjusted)}{_among(finding)}"
    q, claims = said.screened.q, said.screened.claims
    if q is not None:
        words += f" and its {_q(q)} among all {_claims(claims)} that were tested here"
    lie = "lies" if q is None else "lie"
    return f"{words} {lie} below {said.alpha:g}, and its gates pass."


def _why_equivalent(said: Said) -> str:
    finding = said.finding
    against = finding.hypothesis is not None and not finding.hypothesis.equivalence
    return (
        f"Equivalent to zero within a margin of {size(finding.margin)} {finding.unit} "
        f"({probability(finding.equivalence_p)}, two one-sided tests, corrected)"
        f"{', which is not what it says' if against else ''}."
    )


def _not_found(said: Said) -> str:
    finding, standing = said.finding, said.standing
    stated = finding.hypothesis
    if stated is not None and stated.against:
        return f"It does not hold as stated: {stated.against}"
    corrected = _corrected_away(said)
    if corrected:
        return corrected
    if standing.rejects and not standing.above_noise:
        floor = size(finding.noise)
        return f"It does not exceed the numerical noise floor of {floor} {finding.unit}."
    if standing.rejects and not standing.reliable:
        return (
            "Which site it is would not come out again: on as many other scenarios the profile "
            f"over sites has a reliability of {size(finding.reliability)}, and a claim that names "
            f"a site needs {NAMED_CLAIM:g}."
        )
    if finding.detectable is None:
        return "Not distinguishable from noise."
    unit = "in probability" if finding.unit == "probability" else finding.unit
    return (
        f"Not distinguishable from noise: with {finding.n} {finding.replicate} an effect of "
        f"{size(finding.detectable)} {unit} would be found with 80% power at the corrected "
        f"level of {said.alpha:g}."
    )


def _corrected_away(said: Said) -> str:
    """What passes within its family and not among all claims; empty where that is no reason."""
    finding, screened = said.finding, said.screened
    if finding.against:
        return finding.against
    if _screened_out(said):
        return f"{_only_in_family(said)}."
    if _like_in_family_only(said):
        return (
            f"It lies within the margin of {size(finding.margin)} {finding.unit} by itself "
            f"({probability(finding.equivalence_p)}) but not among all {screened.margins} claims "
            f"that a margin was set for ({_q(screened.equivalence_q)})."
        )
    if (
        finding.equivalence_p is not None
        and finding.equivalence_p < said.alpha
        and drowned(finding)
    ):
        return (
            f"The numerical noise floor of {size(finding.noise)} {finding.unit} is no smaller than "
            f"the margin of {size(finding.margin)}, so nothing can be called equal within it; "
            "measure in float32."
        )
    return ""


def drowned(finding: Finding) -> bool:
    """Whether the numerical noise reaches the margin of equivalence."""
    noise, margin = finding.noise, finding.margin
    return noise is not None and margin is not None and noise >= margin


def _not_identified(said: Said) -> str:
    finding = said.finding
    if finding.missing is not None:
        return f"Not identified by this design: {finding.missing}"
    if not said.standing.identified:
        return (
            f"Not identified by this design: with {finding.n} {finding.replicate} no data can give "
            f"a p below {size(finding.p_floor)}, and {size(finding.level)} is needed; add "
            f"{finding.replicate}."
        )
    dead = "liveness could not be checked, and a dead agent looks the same; store a fingerprint "
    dead += "when the agent is trained."
    if finding.hypothesis is not None and finding.hypothesis.against:
        return f"It was not found as stated: {finding.hypothesis.against.rstrip('.')}; but {dead}"
    if _screened_out(said):
        return f"{_only_in_family(said)}; {dead}"
    return f"Not identified by this design: {dead}"


def _screened_out(said: Said) -> bool:
    """Whether a claim passes within its family, and fails among all that were tested."""
    p, q = said.finding.p_adjusted, said.screened.q
    return p is not None and q is not None and p < said.alpha <= q


def _like_in_family_only(said: Said) -> bool:
    """Whether equivalence passes within its family, and fails among all claims."""
    p, q = said.finding.equivalence_p, said.screened.equivalence_q
    return p is not None and q is not None and p < said.alpha <= q


def _only_in_family(said: Said) -> str:
    finding = said.finding
    return (
        f"It passes among its own family (adjusted {probability(finding.p_adjusted)}) but not "
        f"among all {_claims(said.screened.claims)} that were tested here ({_q(said.screened.q)})"
    )


def _among(finding: Finding) -> str:
    if finding.family:
        return f" among {finding.family}"
    return "" if finding.tests is None else f" among {finding.tests} tests"


def _claims(count: int) -> str:
    return "1 claim" if count == 1 else f"{count} claims"


def _q(q: float | None) -> str:
    return probability(q).replace("p", "q", 1)
