"""Do two profiles over depth go together? Against scipy, and every order and turn by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from moralscope.core.errors import EvidenceError, TableError
from moralscope.evidence.statistics.rotations import profiles_together

RNG = np.random.default_rng


def rho(x: np.ndarray, y: np.ndarray) -> float:
    return float(
        np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    )


@pytest.mark.parametrize("agents", [1, 3])
def test_it_is_spearmans_and_its_p_are_shares_of_rearrangements(agents: int) -> None:
    rng = RNG(agents)
    x = rng.normal(size=(agents, 7))
    y = x + rng.normal(size=(agents, 7))
    y[0, 2] = y[0, 4]  # a tie
    found = profiles_together(x, y, RNG(0), 4_999)
    assert found is not None
    assert found.rho == pytest.approx(rho(x, y), abs=1e-12)
    assert found.each == pytest.approx(
        [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)], abs=1e-12
    )
    turned = [
        rho(x, np.roll(way, by, axis=1)) for way in (y, y[:, ::-1]) for by in range(y.shape[1])
    ]
    assert found.p_turns == pytest.approx(np.mean(np.abs(turned) >= abs(found.rho) - 1e-12))
    orders = np.array(list(itertools.permutations(range(7))))
    ranks = [scipy.stats.rankdata(v, axis=1) for v in (x, y)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    every = np.mean([(b[i][orders] @ a[i]) / lengths[i] for i in range(agents)], axis=0)
    exact = np.mean(np.abs(every) >= abs(found.rho) - 1e-12)
    assert found.p_layers == pytest.approx(exact, abs=0.03)
    assert found.p == max(found.p_layers, found.p_turns)
    assert found.floor == 1 / 14


def test_smooth_profiles_that_have_nothing_to_do_with_each_other_are_kept_back_by_turns() -> None:
    rng = RNG(4)
    rejected = {"layers": 0, "both": 0}
    for _ in range(150):
        x, y = (np.cumsum(rng.normal(size=24))[None] for _ in range(2))
        found = profiles_together(x, y, rng, 199)
        assert found is not None
        rejected["layers"] += found.p_layers < 0.05
        rejected["both"] += found.p < 0.05
    assert rejected["layers"] > 50
    assert rejected["both"] < rejected["layers"] / 2


def test_profiles_that_go_together_reach_the_floor() -> None:
    x = RNG(2).normal(size=(2, 12))
    found = profiles_together(x, np.exp(x), RNG(0), 999)
    assert found is not None
    assert found.rho == pytest.approx(1.0)
    assert found.p == found.p_turns == found.floor == 1 / 24


def test_flat_profiles_say_nothing_and_bad_ones_are_refused() -> None:
    x = RNG(0).normal(size=(1, 8))
    assert profiles_together(np.ones((1, 8)), x, RNG(0)) is None
    with pytest.raises(EvidenceError, match="Profiles over layers cannot be compared") as caught:
        profiles_together(x[:, :5], x[:, :5], RNG(0))
    assert "1 x 5 and 1 x 5" in str(caught.value)
    with pytest.raises(EvidenceError, match="cannot be compared"):
        profiles_together(x, x[:, :7], RNG(0))
    with pytest.raises(TableError):
        profiles_together(x * np.nan, x, RNG(0))
