"""Do two transitions come together? Lags over seeds, and pairings across them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.organisms.paths.coincidence import Coincidence, coincidence

MECHANISM = (180.0, 150.0, 210.0, 120.0, 240.0, 165.0)


def judged(
    behaviour: tuple[float, ...],
    mechanism: tuple[float, ...] = MECHANISM,
    margin: float = 40.0,
    draws: int = 999,
) -> Coincidence:
    return coincidence(
        dict(enumerate(mechanism)),
        dict(enumerate(behaviour)),
        np.random.default_rng(0),
        margin=margin,
        resolution=5.0,
        draws=draws,
    )


def shifted(*lags: float) -> tuple[float, ...]:
    return tuple(at + lag for at, lag in zip(MECHANISM, lags, strict=True))


def test_transitions_that_come_together_coincide() -> None:
    lags = np.array((4.0, -2.0, 6.0, 0.0, -5.0, 3.0))
    found = judged(shifted(*lags))
    assert found.outcome == "coincide"
    assert found.lag == pytest.approx(1.0)
    t = stats.ttest_1samp(lags, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((t.low - 5.0, t.high + 5.0), abs=1e-10)
    sides = [
        stats.ttest_1samp(lags, -35.0, alternative="greater").pvalue,
        stats.ttest_1samp(lags, 35.0, alternative="less").pvalue,
    ]
    assert found.p_equivalent == pytest.approx(max(sides), abs=1e-12)


def test_the_pairing_is_compared_with_every_other() -> None:
    behaviour = shifted(4.0, -2.0, 6.0, 0.0, -5.0, 3.0)
    found = judged(behaviour)
    near = [
        sum(abs(b - m) for b, m in zip(order, MECHANISM, strict=True))
        for order in permutations(behaviour)
    ]
    assert found.p_pairing == pytest.approx(np.mean(np.array(near) <= near[0] + 1e-9))
    assert found.p_pairing == found.floor == 1 / 720


def test_events_at_one_step_in_every_seed_say_nothing_of_each_other() -> None:
    found = judged((182.0,) * 6, (180.0,) * 6)
    assert found.outcome == "coincide"
    assert (found.low, found.high) == (-3.0, 7.0)
    assert found.p_pairing == 1.0


def test_behaviour_that_comes_later_is_apart() -> None:
    found = judged(shifted(100.0, 120.0, 90.0, 110.0, 130.0, 105.0))
    assert found.outcome == "apart"
    assert found.low is not None
    assert found.low > 0.0


def test_scattered_lags_are_open() -> None:
    assert judged(shifted(200.0, -180.0, 90.0, -110.0, 130.0, -100.0)).outcome == "open"


def test_many_seeds_draw_their_pairings() -> None:
    many = tuple(float(x) for x in range(100, 1000, 100))
    found = judged(tuple(x + 1.0 for x in many), many)
    assert found.floor == 1 / 1000
    assert found.p_pairing == pytest.approx(1 / 1000)


@pytest.mark.parametrize(("seeds", "bounded"), [(1, False), (4, True)])
def test_few_seeds_are_not_identified(seeds: int, bounded: bool) -> None:
    found = judged(shifted(1, 2, 3, 4, 5, 6)[:seeds], MECHANISM[:seeds])
    assert found.outcome == "not identified"
    assert found.p_equivalent is None
    assert (found.low is not None) == bounded


def test_other_trainings_are_refused() -> None:
    with pytest.raises(EvidenceError, match=r"seeds \[0, 1\] and \[0, 1, 2\]"):
        judged((1.0, 2.0, 3.0), (1.0, 2.0))


def test_a_margin_within_the_resolution_is_refused() -> None:
    with pytest.raises(EvidenceError, match="a margin of 5 steps, records 5 steps apart"):
        judged(MECHANISM, margin=5.0)
