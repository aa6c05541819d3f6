"""The verdict as a truth table, written out by hand for the cases that matter."""

import itertools

import pytest

from moralscope.evidence.verdicts import (
    ARTEFACT,
    EQUIVALENT,
    NOISE,
    NOT_IDENTIFIED,
    SUPPORTED,
    VERDICTS,
    Standing,
    verdict,
)

#   gate_failed, identified, rejects, above_noise, alive, equivalent -> verdict
TABLE = [
    ((False, True, True, True, True, None), SUPPORTED),
    ((False, True, True, True, True, True), SUPPORTED),
    ((False, True, True, True, None, None), SUPPORTED),
    ((False, True, True, False, True, None), NOISE),
    ((False, True, True, False, True, True), EQUIVALENT),
    ((False, True, True, False, None, True), NOT_IDENTIFIED),
    ((False, True, False, True, True, None), NOISE),
    ((False, True, False, True, True, False), NOISE),
    ((False, True, False, True, True, True), EQUIVALENT),
    ((False, True, False, True, None, True), NOT_IDENTIFIED),
    ((False, True, False, True, None, False), NOT_IDENTIFIED),
    ((False, False, True, True, True, True), NOT_IDENTIFIED),
    ((False, True, True, True, False, None), ARTEFACT),
    ((True, True, True, True, True, None), ARTEFACT),
    ((True, False, False, False, None, None), ARTEFACT),
]


@pytest.mark.parametrize(("facts", "expected"), TABLE)
def test_truth_table(facts: tuple[bool, bool, bool, bool, bool | None, bool | None],
                     expected: str) -> None:  # fmt: skip
    assert verdict(Standing(*facts)) == expected


def test_rules_hold_in_every_case() -> None:
    flags, maybe = (True, False), (True, False, None)
    for facts in itertools.product(flags, flags, flags, flags, maybe, maybe):
        standing = Standing(*facts)
        said = verdict(standing)
        assert said in VERDICTS
        assert (said == ARTEFACT) == (standing.gate_failed or standing.alive is False)
        if said == SUPPORTED:
            assert standing.identified
            assert standing.rejects
            assert standing.above_noise
        if said in (EQUIVALENT, NOISE):
            assert standing.alive is True
