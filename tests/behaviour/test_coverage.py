"""Do the 95% intervals of behaviour cover? Simulated populations of texts and scenarios.

At least 94%, less three Monte-Carlo standard errors. Over-covering is allowed: intervals are cut
where a probability cannot lie, and the further of two ends is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from moralscope.behaviour.varying.nearest import distance, jackknife
from moralscope.evidence.divergences import alike, apart, divergence_interval, jensen_shannon
from moralscope.evidence.statistics.bounded import bounded_interval, combined_interval
from moralscope.evidence.statistics.intervals import Interval, cluster_t

Array = NDArray[np.float64]
RUNS = 500


def least(runs: int = RUNS) -> float:
    return 0.94 - 3 * math.sqrt(0.94 * 0.06 / runs)


def coverage(
    draw: Callable[[np.random.Generator], Array],
    interval: Callable[[Array], Interval | None],
    truth: float,
    runs: int = RUNS,
) -> float:
    rng = np.random.default_rng(11)
    found = [interval(draw(rng)) for _ in range(runs)]
    return float(np.mean([i is not None and i[0] <= truth <= i[1] for i in found]))


def mean_of_sigmoid(mu: float, sd: float) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    return float(special.expit(mu + sd * nodes) @ weights / weights.sum())


@pytest.mark.parametrize(
    ("units", "mu", "sd"),
    [(4, 0.0, 1.0), (4, -3.0, 1.0), (8, -5.0, 2.0), (8, 2.0, 1.0), (16, -3.0, 2.0)],
)
def test_a_probability_over_few_texts(units: int, mu: float, sd: float) -> None:
    truth = mean_of_sigmoid(mu, sd)
    found = coverage(
        lambda rng: special.expit(mu + sd * rng.normal(size=units)), bounded_interval, truth
    )
    assert found >= least()


@pytest.mark.parametrize(("units", "a", "b"), [(8, 0.5, 0.5), (8, 2.0, 20.0), (4, 0.5, 5.0)])
def test_a_probability_that_follows_another_law(units: int, a: float, b: float) -> None:
    found = coverage(lambda rng: rng.beta(a, b, units), bounded_interval, a / (a + b))
    assert found >= least()


def test_students_interval_would_not_do() -> None:
    """What the bounded interval is for: near an end of the range Student's misses too often."""
    truth = mean_of_sigmoid(-5.0, 2.0)
    found = coverage(lambda rng: special.expit(-5 + 2 * rng.normal(size=8)), cluster_t, truth, 2000)
    assert found < 0.8


@pytest.mark.parametrize(
    ("units", "mu", "correlation"),
    [(4, (0.0, 0.0), 0.8), (8, (-3.0, -5.0), 0.8), (8, (2.0, -3.0), 0.0), (8, (-1.0, -3.0), 0.5)],
)
def test_a_difference_within_texts(units: int, mu: tuple[float, float], correlation: float) -> None:
    root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    truth = mean_of_sigmoid(mu[0], 1.0) - mean_of_sigmoid(mu[1], 1.0)
    found = coverage(
        lambda rng: special.expit(np.array(mu) + rng.normal(size=(units, 2)) @ root.T),
        lambda y: combined_interval([y], [np.array([1.0, -1.0])]),
        truth,
    )
    assert found >= least()


def test_a_change_of_a_contrast_within_texts() -> None:
    """Two agents, two cells each, eight texts: the agents share what is peculiar to a text."""
    mu = np.array([-1.0, -3.0, 1.0, 0.5])
    weights = np.array([1.0, -1.0, -1.0, 1.0])
    truth = sum(
        w * mean_of_sigmoid(m, math.hypot(0.8, 0.5)) for w, m in zip(weights, mu, strict=True)
    )

    def draw(rng: np.random.Generator) -> Array:
        return special.expit(mu + 0.8 * rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 4)))

    found = coverage(draw, lambda y: combined_interval([y], [weights]), truth, 400)
    assert found >= least(400)


def test_a_difference_between_situations() -> None:
    """Four texts of one situation against four of each of four others."""
    mu = (-2.5, 0.0, 1.0, -1.0, 0.5)
    weights = (1.0, -0.25, -0.25, -0.25, -0.25)
    truth = sum(w * mean_of_sigmoid(m, 1.0) for w, m in zip(weights, mu, strict=True))
    found = coverage(
        lambda rng: special.expit(np.array(mu) + rng.normal(size=(4, 5))),
        lambda y: combined_interval(
            [y[:, [k]] for k in range(5)], [np.array([w]) for w in weights]
        ),
        truth,
        300,
    )
    assert found >= least(300)


def divergences(rng: np.random.Generator, scenarios: int, shift: float, spread: float) -> Array:
    """JS of two agents whose log-odds differ by ``shift``, give or take, over scenarios."""
    x = 1.5 * rng.normal(size=scenarios)
    p = special.expit(np.stack([x, x + shift + spread * rng.normal(size=scenarios)]))
    answers = np.stack([p, 1.0 - p], axis=-1)
    return jensen_shannon(answers[0], answers[1])


@pytest.mark.parametrize("scenarios", [4, 20])
def test_a_divergence_over_scenarios_and_its_two_tests(scenarios: int) -> None:
    truth = float(divergences(np.random.default_rng(0), 400_000, 0.5, 0.3).mean())
    assert 0.005 < truth < 0.02
    rng = np.random.default_rng(12)
    drawn = [divergences(rng, scenarios, 0.5, 0.3) for _ in range(RUNS)]
    found = [divergence_interval(y) for y in drawn]
    assert np.mean([i is not None and i[0] <= truth <= i[1] for i in found]) >= least()
    # With the margin at the truth neither test may reject more often than at its level.
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert np.mean([(alike(y, truth) or 0.0) < 0.05 for y in drawn]) <= most
    assert np.mean([(apart(y, truth) or 0.0) < 0.05 for y in drawn]) <= most


def test_agents_that_differ_in_one_scenario_of_ten_are_seldom_called_alike() -> None:
    """Forty scenarios and a true mean at the margin; 1.5% of studies have no such scenario."""
    rng = np.random.default_rng(13)
    drawn = 0.01 * np.where(rng.random((400, 40)) < 0.1, 9.05, 0.105)
    drawn *= rng.uniform(0.99, 1.01, drawn.shape)
    assert drawn.mean() == pytest.approx(0.01, rel=0.05)
    share = np.mean([(alike(y, 0.01) or 0.0) < 0.05 for y in drawn])
    assert share <= 0.12
    assert np.mean([(alike(y, 0.01) or 0.0) < 0.05 for y in 0.2 * drawn[:100]]) >= 0.95


@pytest.mark.parametrize("presentations", [4, 8])
def test_the_distance_to_a_strategy_over_presentations(presentations: int) -> None:
    mu = np.array([2.0, -1.0, 1.0, -2.0])
    tit_for_tat = np.array([1.0, 0.0, 1.0, 0.0])
    truth = distance(np.array([mean_of_sigmoid(m, 1.0) for m in mu]), tit_for_tat)
    found = coverage(
        lambda rng: special.expit(mu + rng.normal(size=(presentations, 4))),
        lambda p: jackknife(p, tit_for_tat),
        truth,
        3000,
    )
    assert found >= least(3000)
