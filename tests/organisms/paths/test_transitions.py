"""Transitions beside matched controls: planted ones, schedules, too few seeds."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.peaks import Peak
from moralscope.organisms.paths.transitions import (
    Transition,
    judge_transition,
    over_schedules,
)

ORGANISM = (0.31, 0.28, 0.35, 0.30, 0.27, 0.33)
FLAT = (0.02, 0.04, 0.01, 0.03, 0.02, 0.05)


def peaks(excesses: tuple[float, ...], step: int = 180, first_seed: int = 0) -> dict[int, Peak]:
    return {
        seed: Peak(step, excess - 0.97, -0.97, excess, step, step, True, 50)
        for seed, excess in enumerate(excesses, start=first_seed)
    }


def judged(organism: dict[int, Peak], control: dict[int, Peak], tolerance: int = 20) -> Transition:
    return judge_transition(organism, control, np.random.default_rng(0), tolerance=tolerance)


def test_a_planted_transition_is_found() -> None:
    found = judged(peaks(ORGANISM), peaks(FLAT, step=40))
    assert found.outcome == "transition"
    assert (found.paired, found.seeds) == (True, (6, 6))
    assert found.reason.startswith("More than the control shows: mean excess 0.307 (peaks at step")
    assert "step 40) of the matched control, p = 0.031" in found.reason


def test_p_and_interval_are_those_of_the_paired_differences() -> None:
    found = judged(peaks(ORGANISM), peaks((0.3, 0.1, 0.2, 0.25, 0.3, 0.1)))
    differences = np.array(ORGANISM) - np.array((0.3, 0.1, 0.2, 0.25, 0.3, 0.1))
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=6)]
    assert found.p == pytest.approx(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12))
    interval = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-10)
    assert found.floor == 2 / 2**6


def test_other_seeds_are_compared_as_groups() -> None:
    found = judged(peaks(ORGANISM[:4]), peaks(FLAT[:4], first_seed=10))
    assert not found.paired
    pooled = np.array(ORGANISM[:4] + FLAT[:4])
    whole = abs(pooled[:4].mean() - pooled[4:].mean())
    ways = [
        abs(pooled[list(pick)].mean() - np.delete(pooled, pick).mean())
        for pick in combinations(range(8), 4)
    ]
    assert found.p == pytest.approx(np.mean(np.array(ways) >= whole - 1e-12), abs=1e-12)
    welch = stats.ttest_ind(pooled[:4], pooled[4:], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=1e-10)


def test_a_peak_that_the_control_has_as_well_is_the_schedules() -> None:
    control = tuple(each + noise for each, noise in zip(ORGANISM, FLAT, strict=True))
    found = judged(peaks(ORGANISM), peaks(control, step=190))
    assert found.outcome == "schedule"
    assert found.reason.startswith("The benign control shows the same peak")


def test_three_seeds_still_name_a_schedule() -> None:
    found = judged(peaks(ORGANISM[:3]), peaks(ORGANISM[1:4]))
    assert found.floor > 0.05
    assert found.outcome == "schedule"


def test_a_peak_of_the_control_elsewhere_does_not_explain_it() -> None:
    found = judged(peaks(ORGANISM), peaks(tuple(x + 0.01 for x in ORGANISM), step=40))
    assert found.outcome == "none"
    assert found.reason.startswith("No more than the control shows")


def test_a_smaller_peak_of_the_control_is_mentioned() -> None:
    found = judged(peaks(ORGANISM), peaks(tuple(0.6 * x for x in ORGANISM)))
    assert found.outcome == "transition"
    assert found.reason.endswith("; the control has a smaller peak at the same steps")


def test_a_difference_too_small_to_count_is_no_transition() -> None:
    found = judged(peaks(tuple(x + 0.01 for x in FLAT)), peaks(FLAT, step=40))
    assert found.p <= 0.05
    assert found.outcome == "none"


def test_too_few_seeds_are_said_to_be() -> None:
    found = judged(peaks(ORGANISM[:3]), peaks(FLAT[:3], step=40))
    assert found.outcome == "not identified"
    assert found.reason.startswith("No data of 3 and 3 seeds could show it")


def test_without_a_control_nothing_is_judged() -> None:
    with pytest.raises(EvidenceError, match="6 organisms, 0 controls"):
        judged(peaks(ORGANISM), {})


def test_a_transition_under_one_schedule_only_is_that_schedules() -> None:
    there = judged(peaks(ORGANISM), peaks(FLAT, step=40))
    nowhere = judged(peaks(FLAT), peaks(FLAT[::-1], step=40))
    artefact = judged(peaks(ORGANISM), peaks(tuple(x + 0.01 for x in ORGANISM)))
    few = judged(peaks(ORGANISM[:3]), peaks(FLAT[:3], step=40))
    assert over_schedules({"constant": there, "linear": there})[0] == "transition"
    outcome, reason = over_schedules({"constant": nowhere, "linear": there})
    assert outcome == "schedule"
    assert reason == "It hangs on the schedule (constant: none; linear: transition)"
    assert over_schedules({"constant": there, "linear": artefact})[0] == "schedule"
    assert over_schedules({"constant": there, "linear": few})[0] == "not identified"
    assert over_schedules({"constant": nowhere, "linear": nowhere})[0] == "none"


def test_one_schedule_does_not_rule_itself_out() -> None:
    with pytest.raises(EvidenceError, match="A schedule cannot be ruled out. Seen: linear"):
        over_schedules({"linear": judged(peaks(ORGANISM), peaks(FLAT))})
