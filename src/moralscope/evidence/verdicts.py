"""What may be said? The five verdicts, as one pure function of what is known about a claim.

*artefact*: a gate failed and explains the number. *not identified by this design*: the unit of
replication is missing, or there are too few units for any data to reach significance.
*supported*: the corrected test rejects, the effect is larger than the numerical noise, and where
the claim names a site, the sites would come out alike on other scenarios.
*equivalent*: two one-sided tests put the effect inside the margin. *not distinguishable from
noise*: none of these. The last two say that an effect is absent, which a dead adapter imitates
perfectly; without a liveness check they become *not identified by this design*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SUPPORTED: Final = "supported"
EQUIVALENT: Final = "equivalent"
NOISE: Final = "not distinguishable from noise"
ARTEFACT: Final = "artefact"
NOT_IDENTIFIED: Final = "not identified by this design"

VERDICTS: Final = (SUPPORTED, EQUIVALENT, NOISE, ARTEFACT, NOT_IDENTIFIED)


@dataclass(frozen=True, slots=True)
class Standing:
    """All that the verdict of a claim depends on.

    Attributes:
        gate_failed: a gate failed that would by itself explain the number.
        identified: the unit of replication exists, in a number for which the smallest attainable
            p lies below the level that the test is held to.
        rejects: the p lies below alpha, corrected within its family and, of an exploratory
            claim, among all claims; of a named hypothesis, in its favour as stated.
        above_noise: the estimate exceeds the measured numerical noise floor.
        alive: the agents were shown to behave as they did when trained; None if that could not
            be checked.
        equivalent: the two one-sided tests both reject; None without a margin.
        contradicted: a hypothesis was named, and the test rejects in favour of its opposite; or
            other tests of the same data reject in favour of the opposite of a claim.
        reliable: what the claim singles out would be singled out again; True where it singles
            out nothing.
    """

    gate_failed: bool
    identified: bool
    rejects: bool
    above_noise: bool
    alive: bool | None
    equivalent: bool | None
    contradicted: bool = False
    reliable: bool = True


def verdict(standing: Standing) -> str:
    """One of ``VERDICTS``.

    A failed liveness gate (``alive`` is False) is a failed gate, whatever else holds. A failed
    gate is named before a missing design, because it must be mended first.
    """
    if standing.gate_failed or standing.alive is False:
        return ARTEFACT
    if not standing.identified:
        return NOT_IDENTIFIED
    seen = standing.rejects and standing.above_noise
    if seen and standing.reliable:
        return SUPPORTED
    if seen or standing.contradicted:
        # An effect was seen, so the agents need not be shown alive; it is not the one named.
        return NOISE
    if standing.alive is None:
        return NOT_IDENTIFIED
    return EQUIVALENT if standing.equivalent else NOISE
