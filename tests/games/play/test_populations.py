"""Populations, against closed forms, nashpy, another integrator and brute-force absorption."""

from __future__ import annotations

import re

import nashpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import GAMES, get_opponent
from moralscope.games.play.chains import Strategy, expected_play, strategy_of
from moralscope.games.play.populations import fixation, payoff_matrix, replicator

NAMES = ("always-cooperate", "always-defect", "tit-for-tat")
CLASSICS = [strategy_of(get_opponent(name)) for name in NAMES]
points = st.floats(-10, 10)


def test_payoffs_of_everybody_against_everybody() -> None:
    wanted = [[3, 0, 3], [4, 1, 1], [3, 1, 2]]
    np.testing.assert_allclose(payoff_matrix(CLASSICS, GAMES["IPD"]), wanted, atol=1e-12)
    shaken = payoff_matrix(CLASSICS, GAMES["IPD"], noise=0.1)
    cell = expected_play(CLASSICS[1], CLASSICS[2], GAMES["IPD"], noise=0.1)
    assert shaken[1, 2] == pytest.approx(cell.payoff_first, abs=1e-15)
    assert shaken[1, 2] > wanted[1][2] + 0.1


def test_in_a_game_with_two_seats_everybody_takes_both() -> None:
    # In BOS a pair that cooperates gives 3 and 2: 2.5 to each. Against tit-for-tat the same.
    found = payoff_matrix(CLASSICS, GAMES["BOS"])
    np.testing.assert_allclose(found[:2, :2], [[2.5, 0], [0, 2.5]], atol=1e-12)
    assert found[0, 2] == found[2, 0] == pytest.approx(2.5)
    # A player that insists on its own favourite in either seat: CC for the first, DD for the other.
    insists = [Strategy("insists", (1, 1, 1, 1)), Strategy("yields", (0, 0, 0, 0))]
    other_seat = [Strategy("insists", (0, 0, 0, 0)), Strategy("yields", (1, 1, 1, 1))]
    found = payoff_matrix(insists, GAMES["BOS"], mirrored=other_seat)
    np.testing.assert_allclose(found, [[0, 3], [2, 0]], atol=1e-12)
    with pytest.raises(ConfigError, match=re.escape("Seen: 2 and 1")):
        payoff_matrix(insists, GAMES["BOS"], mirrored=other_seat[:1])


def test_two_strategies_in_closed_form() -> None:
    # Defection gains 1 on cooperation whatever the others do: log-odds rise with slope 1.
    payoffs, times = np.array([[3.0, 0.0], [4.0, 1.0]]), np.linspace(0, 30, 16)
    found = replicator(payoffs, np.array([0.9, 0.1]), times)
    odds = 0.1 / 0.9 * np.exp(times)
    np.testing.assert_allclose(found[:, 1], odds / (1 + odds), rtol=1e-7)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + odds), rtol=1e-7)
    assert found[-1, 0] < 1e-11  # a share that dies out keeps its relative accuracy


def runge_kutta(payoffs: np.ndarray, start: np.ndarray, time: float, steps: int) -> np.ndarray:
    """The equation as it stands, in shares, with fixed steps of fourth order."""

    def slope(x: np.ndarray) -> np.ndarray:
        gain = payoffs @ x
        return x * (gain - x @ gain)

    x, h = start, time / steps
    for _ in range(steps):
        a = slope(x)
        b = slope(x + h / 2 * a)
        c = slope(x + h / 2 * b)
        d = slope(x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


@pytest.mark.parametrize("seed", range(6))
def test_many_strategies_as_other_integrators_have_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 2 + seed
    payoffs, start = rng.normal(size=(n, n)), rng.dirichlet(np.ones(n))
    times = np.linspace(0, 8, 9)
    found = replicator(payoffs, start, times)
    np.testing.assert_allclose(found[-1], runge_kutta(payoffs, start, 8.0, 2000), atol=1e-8)
    # nashpy integrates with the default accuracy of odeint.
    wanted = nashpy.Game(payoffs).replicator_dynamics(y0=start, timepoints=times)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert abs(found[-1] - start).max() > 0.01


def test_a_cycle_stays_a_cycle() -> None:
    # Rock, paper, scissors: the product of shares is conserved.
    payoffs = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    found = replicator(payoffs, np.array([0.6, 0.3, 0.1]), np.linspace(0, 100, 51))
    np.testing.assert_allclose(found.prod(axis=1), 0.018, rtol=1e-6)
    assert np.ptp(found[:, 0]) > 0.3


@given(
    st.lists(st.lists(points, min_size=3, max_size=3), min_size=3, max_size=3),
    st.sampled_from([(0.2, 0.3, 0.5), (0.0, 0.4, 0.6), (1e-9, 1 - 1e-9, 0.0)]),
    st.floats(-100, 100),
)
@settings(max_examples=25, deadline=None)
def test_shares_stay_shares(
    payoffs: list[list[float]], start: tuple[float, ...], shift: float
) -> None:
    times = np.array([0.0, 0.5, 3.0])
    found = replicator(np.array(payoffs), np.array(start), times)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert np.all(found >= 0)
    np.testing.assert_allclose(found[0], start, rtol=1e-12)
    assert np.all((found == 0) == (np.array(start) == 0))
    # Only differences of payoffs matter.
    shifted = replicator(np.array(payoffs) + shift, np.array(start), times)
    np.testing.assert_allclose(shifted, found, atol=1e-6)


def absorbed(payoffs: np.ndarray, n: int, selection: float) -> float:
    """The chance that the invader's kind takes over, from the Moran chain on 0..n invaders."""
    chain = np.zeros((n + 1, n + 1))
    chain[0, 0] = chain[n, n] = 1
    for i in range(1, n):
        meets_invader, meets_resident = (i - 1) / (n - 1), (n - i) / (n - 1)
        fit = np.exp(selection * (payoffs[0, 0] * meets_invader + payoffs[0, 1] * meets_resident))
        meets_invader, meets_resident = i / (n - 1), (n - i - 1) / (n - 1)
        unfit = np.exp(selection * (payoffs[1, 0] * meets_invader + payoffs[1, 1] * meets_resident))
        born = i * fit / (i * fit + (n - i) * unfit)
        chain[i, i + 1] = born * (n - i) / n
        chain[i, i - 1] = (1 - born) * i / n
        chain[i, i] = 1 - chain[i, i + 1] - chain[i, i - 1]
    inner = chain[1:n, 1:n]
    return float(np.linalg.solve(np.eye(n - 1) - inner, chain[1:n, n])[0])


@pytest.mark.parametrize("population", [2, 3, 10, 25])
@pytest.mark.parametrize("seed", range(4))
def test_fixation_is_absorption_of_the_moran_chain(population: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    payoffs, selection = rng.uniform(-2, 4, (2, 2)), float(rng.uniform(0, 1))
    found = fixation(payoffs, population, selection)
    assert found == pytest.approx(absorbed(payoffs, population, selection), rel=1e-9)
    assert abs(found - 1 / population) > 1e-6


def test_drift_and_constant_advantage_in_closed_form() -> None:
    payoffs = np.array([[3.0, 0.0], [4.0, 1.0]])
    assert fixation(payoffs, 40, 0.0) == pytest.approx(1 / 40, rel=1e-12)
    # Fitness r relative to the residents': (1 - 1/r) / (1 - 1/r^N).
    constant = np.array([[2.0, 2.0], [1.5, 1.5]])
    r = np.exp(0.2 * 0.5)
    wanted = (1 - 1 / r) / (1 - r**-40.0)
    assert fixation(constant, 40, 0.2) == pytest.approx(wanted, rel=1e-12)


def test_nothing_overflows() -> None:
    strong = np.array([[1e6, 1e6], [0.0, 0.0]])
    assert fixation(strong, 1000, 10.0) == 1.0
    assert fixation(strong[::-1], 1000, 10.0) == 0.0
    # Whoever is rare gains: an invader is never lost at once, and then both kinds are alike.
    rare = np.array([[0.0, 1e6], [1e6, 0.0]])
    assert fixation(rare, 1000, 10.0) == pytest.approx(0.5, abs=1e-6)
    # A long valley, whose product of ratios is far beyond any double.
    assert 0 <= fixation(np.array([[4.0, 0.0], [3.0, 1.0]]), 10_000, 1.0) < 1e-300


@given(st.tuples(points, points, points, points), st.integers(2, 60), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_one_invader_and_one_resident_kind_left(
    cells: tuple[float, float, float, float], population: int, selection: float
) -> None:
    a, b, c, d = cells
    found = fixation(np.array([[a, b], [c, d]]), population, selection)
    assert 0 <= found <= 1
    # The same advantage in any unit of payoff.
    other = fixation(np.array([[a, b], [c, d]]) * 2, population, selection / 2)
    assert other == pytest.approx(found, rel=1e-9, abs=1e-300)
    # In a population of two, one of the two kinds takes over.
    back = fixation(np.array([[d, c], [b, a]]), 2, selection)
    assert fixation(np.array([[a, b], [c, d]]), 2, selection) + back == pytest.approx(1, abs=1e-12)


def test_what_is_no_population_is_refused() -> None:
    payoffs, half = np.eye(2), np.full(2, 0.5)
    for start, times in (
        (np.array([0.5, 0.6]), np.array([0.0, 1.0])),
        (np.array([-0.5, 1.5]), np.array([0.0, 1.0])),
        (half, np.array([1.0, 0.5])),
        (half, np.array([-1.0, 0.5])),
        (half, np.array([])),
        (np.full(3, 1 / 3), np.array([0.0, 1.0])),
    ):
        with pytest.raises(ConfigError, match="There is no such population. Seen: payoffs"):
            replicator(payoffs, start, times)
    with pytest.raises(ConfigError, match="There is no such population"):
        replicator(np.full((2, 2), np.nan), half, np.array([0.0, 1.0]))
    for bad, n, selection in ((payoffs, 1, 1.0), (payoffs, 9, -0.1), (np.eye(3), 9, 1.0)):
        with pytest.raises(ConfigError, match="There is no such invasion. Seen: payoffs"):
            fixation(bad, n, selection)
    np.testing.assert_allclose(replicator(payoffs, half, np.array([0.0])), [half])
