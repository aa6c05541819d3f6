"""Best responses against a linear program with a longer memory; equilibria against nashpy."""

from __future__ import annotations

import warnings
from itertools import product

import nashpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from moralscope.games import GAMES, PAIRS, Game, get_game, get_opponent
from moralscope.games.play.chains import Strategy, expected_play, strategy_of
from moralscope.games.play.responses import (
    BestResponse,
    Equilibria,
    best_response,
    equilibria,
    exploitability,
    price_of_morality,
)

four = st.tuples(*[st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1)] * 4)
games = st.sampled_from(list(GAMES.values()))


def classic(name: str) -> Strategy:
    return strategy_of(get_opponent(name))


def game_of(own: np.ndarray, other: np.ndarray) -> Game:
    cells = zip(own.ravel().tolist(), other.ravel().tolist(), strict=True)
    return Game("free", "any game", dict(zip(PAIRS, cells, strict=True)))


def optimum_with_memory_two(strategy: Strategy, game: Game) -> float:
    """The most that a response gets which remembers two rounds, from uniform starts.

    The linear program of average-reward decision processes with any number of recurrent classes
    (Kallenberg; Puterman 1994, section 9.3), over states (round before last, last round):

        max sum r x  s.t.  sum_a x(j,a) = sum p(j|s,a) x(s,a),
                           sum_a x(j,a) + sum_a y(j,a) - sum p(j|s,a) y(s,a) = start(j),  x, y >= 0
    """
    states = list(product(range(4), range(4)))
    flow, rewards = np.zeros((16, 32)), np.zeros(32)
    for i, (_, last) in enumerate(states):
        own, other = PAIRS[last]
        q = strategy.p_cooperate[PAIRS.index((other, own))]
        for a, move in enumerate("CD"):
            for now, p in (("C", q), ("D", 1 - q)):
                after = PAIRS.index((move, now))
                flow[states.index((last, after)), 2 * i + a] += p
                rewards[2 * i + a] += p * game.payoffs[(move, now)][0]
    leaving = np.kron(np.eye(16), np.ones((1, 2)))
    equal = np.block([[leaving - flow, np.zeros((16, 32))], [leaving, leaving - flow]])
    start = np.concatenate([np.zeros(16), np.full(16, 1 / 16)])
    solved = optimize.linprog(-np.concatenate([rewards, np.zeros(32)]), A_eq=equal, b_eq=start)
    assert solved.status == 0
    return -solved.fun


@pytest.mark.parametrize("seed", range(40))
def test_no_longer_memory_gets_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random(4) if seed % 2 else rng.choice([0.0, 1.0, 0.3, 0.7], 4)
    game = list(GAMES.values())[seed % 6]
    strategy = Strategy("s", tuple(table.tolist()))
    found = best_response(strategy, game)
    assert found.payoff == pytest.approx(optimum_with_memory_two(strategy, game), abs=1e-8)


@given(four, four, games)
@settings(max_examples=60, deadline=None)
def test_nobody_gets_more_than_the_best_response(
    met: tuple[float, float, float, float], tried: tuple[float, float, float, float], game: Game
) -> None:
    strategy = Strategy("met", met)
    best = best_response(strategy, game)
    assert expected_play(Strategy("tried", tried), strategy, game).payoff_first <= (
        best.payoff + 1e-9
    )
    again = expected_play(best.strategy, strategy, game)
    assert (again.payoff_first, again.payoff_second) == (best.payoff, best.payoff_other)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("always-defect", BestResponse("DDDD", 1, 1)),
        ("always-cooperate", BestResponse("DDDD", 4, 0)),
        ("random", BestResponse("DDDD", 2.5, 0.5)),
        ("tit-for-tat", BestResponse("CCCC", 3, 3)),
        # From the start CC it cooperates for ever; from the others nothing moves it.
        ("grim", BestResponse("CDDD", 1.5, 1.5)),
        # The way back to mutual cooperation leads over mutual defection.
        ("win-stay-lose-shift", BestResponse("CDDC", 3, 3)),
    ],
)
def test_best_responses_to_classic_strategies(name: str, wanted: BestResponse) -> None:
    found = best_response(classic(name), GAMES["IPD"])
    assert found.policy == wanted.policy
    assert found.payoff == pytest.approx(wanted.payoff, abs=1e-12)
    assert found.payoff_other == pytest.approx(wanted.payoff_other, abs=1e-12)


def test_extortion_is_best_answered_by_giving_in() -> None:
    found = best_response(classic("zd-extortion"), GAMES["IPD"])
    kind = expected_play(classic("always-cooperate"), classic("zd-extortion"), GAMES["IPD"])
    assert found.policy == "CCCC"
    assert found.payoff == pytest.approx(kind.payoff_first, abs=1e-12)
    assert found.payoff_other - 1 == pytest.approx(2 * (found.payoff - 1), abs=1e-12)


def test_among_equals_the_one_that_leaves_more() -> None:
    # The responder gets 1 whatever it does; the other 5 where the responder cooperates.
    game = get_game("matrix(CC=1:5, CD=1:5, DC=1:0, DD=1:0)")
    assert best_response(classic("random"), game) == BestResponse("CCCC", 1, 5)


@pytest.mark.parametrize("seed", range(20))
def test_best_responses_to_a_mixed_move_are_those_of_nashpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, other, q = rng.normal(size=(2, 2)), rng.normal(size=(2, 2)), float(rng.random())
    found = best_response(Strategy("mixed", (q, q, q, q)), game_of(own, other))
    played = expected_play(found.strategy, Strategy("mixed", (q,) * 4), game_of(own, other))
    p = played.cooperation_first
    row, column = np.array([p, 1 - p]), np.array([q, 1 - q])
    assert nashpy.Game(own, other).is_best_response(row, column)[0]
    assert not nashpy.Game(own, other).is_best_response(1 - row, column)[0]
    assert found.payoff == pytest.approx(float(row @ own @ column), abs=1e-12)


def profiles(found: Equilibria) -> list[tuple[float, float]]:
    return sorted((point.p_first, point.p_second) for point in found.points)


@pytest.mark.parametrize("seed", range(60))
def test_equilibria_are_those_of_nashpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, other = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    if seed >= 20:  # coordination and matching pennies: games with mixed equilibria
        own[0, 0], own[1, 1] = own[1, 0] + rng.random() + 0.1, own[0, 1] + rng.random() + 0.1
        sign = 1 if seed % 2 else -1
        other[0, 0] = other[0, 1] + sign * (rng.random() + 0.1)
        other[1, 1] = other[1, 0] + sign * (rng.random() + 0.1)
    found = equilibria(game_of(own, other))
    wanted = sorted(
        (float(row[0]), float(column[0]))
        for row, column in nashpy.Game(own, other).support_enumeration()
    )
    assert not found.degenerate
    np.testing.assert_allclose(profiles(found), wanted, atol=1e-10)
    assert seed < 20 or any(0 < p < 1 for p, _ in wanted)
    for point in found.points:
        row, column = ([p, 1 - p] for p in (point.p_first, point.p_second))
        np.testing.assert_allclose(
            (point.payoff_first, point.payoff_second),
            nashpy.Game(own, other)[row, column],
            atol=1e-12,
        )


def test_equilibria_of_the_six_games() -> None:
    once = {name: profiles(equilibria(game)) for name, game in GAMES.items()}
    assert once["IPD"] == [(0, 0)]
    assert once["ISH"] == [(0, 0), (0.5, 0.5), (1, 1)]
    np.testing.assert_allclose(once["ICN"], [(0, 1), (1 / 3, 1 / 3), (1, 0)])
    np.testing.assert_allclose(once["BOS"], [(0, 0), (0.6, 0.4), (1, 1)])
    np.testing.assert_allclose(once["ICD"], [(0, 0), (0.8, 0.8), (1, 1)])
    np.testing.assert_allclose(once["IVD"], [(0, 1), (0.5, 0.5), (1, 0)])
    assert not any(equilibria(game).degenerate for game in GAMES.values())


def brute(own: np.ndarray, other: np.ndarray, grid: np.ndarray) -> set[tuple[int, int]]:
    """Equilibria on a grid of mixed moves, by trying both pure deviations."""
    found: set[tuple[int, int]] = set()
    for (i, p), (j, q) in product(enumerate(grid), enumerate(grid)):
        row, column = np.array([p, 1 - p]), np.array([q, 1 - q])
        stays = row @ own @ column >= (own @ column).max() - 1e-12
        if stays and row @ other @ column >= (row @ other).max() - 1e-12:
            found.add((i, j))
    return found


def test_degenerate_games_have_their_extreme_equilibria() -> None:
    """All 2 x 2 games with payoffs 0 and 1, by brute force on a grid that holds every corner."""
    grid = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    seen = {True: 0, False: 0}
    for cells in product((0.0, 1.0), repeat=8):
        own, other = np.array(cells[:4]).reshape(2, 2), np.array(cells[4:]).reshape(2, 2)
        found = equilibria(game_of(own, other))
        indices = {(float(p), float(q)) for p, q in profiles(found)}
        wanted = {(float(grid[i]), float(grid[j])) for i, j in brute(own, other, grid)}
        assert indices <= wanted
        # Whatever the grid holds beside them is only there in degenerate games, and follows from
        # them: mixing along one axis, repeatedly, reaches it.
        assert found.degenerate or wanted == indices
        hull = set(indices)
        for _ in range(2):
            for axis in (0, 1):
                for a, b in product(set(hull), set(hull)):
                    if a[axis] == b[axis] and _mixable(a, b, axis, wanted):
                        hull |= {_on(a, axis, x) for x in grid if _between(x, a, b, 1 - axis)}
        assert hull == wanted
        seen[found.degenerate] += 1
    assert seen == {True: 240, False: 16}


def _between(x: float, a: tuple[float, float], b: tuple[float, float], axis: int) -> bool:
    return min(a[axis], b[axis]) <= x <= max(a[axis], b[axis])


def _on(a: tuple[float, float], axis: int, x: float) -> tuple[float, float]:
    return (a[0], float(x)) if axis == 0 else (float(x), a[1])


def _mixable(
    a: tuple[float, float], b: tuple[float, float], axis: int, wanted: set[tuple[float, float]]
) -> bool:
    middle = (a[1 - axis] + b[1 - axis]) / 2
    return a == b or _on(a, axis, middle) in wanted


def test_a_degenerate_game_of_nashpy() -> None:
    # The row player is indifferent where the column player cooperates.
    own, other = np.array([[3.0, 0.0], [3.0, 1.0]]), np.array([[2.0, 1.0], [0.0, 2.0]])
    found = equilibria(game_of(own, other))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nashpy warns that it is degenerate
        wanted = sorted(
            (round(float(row[0]), 9), round(float(column[0]), 9))
            for row, column in nashpy.Game(own, other).vertex_enumeration()
        )
    assert found.degenerate
    np.testing.assert_allclose(profiles(found), sorted(set(wanted)), atol=1e-9)
    assert len(found.points) == 3


def test_who_can_be_exploited() -> None:
    kind = exploitability(classic("always-cooperate"), GAMES["IPD"])
    assert (kind.response.policy, kind.exploitability) == ("DDDD", 1)
    assert (kind.response.payoff, kind.response.payoff_other, kind.copy_payoff) == (4, 0, 3)
    assert exploitability(classic("always-defect"), GAMES["IPD"]).exploitability == 0
    # Two copies of tit-for-tat punish each other for ever from CD; whoever forgives does better.
    assert exploitability(classic("tit-for-tat"), GAMES["IPD"]).exploitability == 1
    # In Bach or Stravinsky the exploiter has the other seat: 2 is all that cooperation gives it.
    moved = exploitability(classic("always-cooperate"), GAMES["BOS"])
    assert (moved.response.policy, moved.response.payoff) == ("CCCC", 2)
    assert (moved.response.payoff_other, moved.copy_payoff) == (3, 2)
    stubborn = exploitability(classic("always-defect"), GAMES["BOS"])
    assert (stubborn.response.policy, stubborn.response.payoff) == ("DDDD", 3)


@given(four, games)
@settings(max_examples=40, deadline=None)
def test_a_copy_is_never_better_than_the_best_response(
    table: tuple[float, float, float, float], game: Game
) -> None:
    found = exploitability(Strategy("s", table), game)
    assert found.exploitability >= 0
    assert found.copy_payoff <= found.response.payoff + 1e-9


def test_the_price_of_cooperating() -> None:
    # Against a coin: 1.5 instead of 2.5 for the player, 5 instead of 3 for both.
    price = price_of_morality(classic("always-cooperate"), classic("random"), GAMES["IPD"])
    assert (price.payoff, price.best_payoff, price.given_up) == (1.5, 2.5, 1)
    assert (price.joint, price.joint_best, price.joint_gained, price.price) == (5, 3, 2, 0.5)
    # Nothing is given up, and nothing gained, by a best response.
    best = price_of_morality(classic("always-defect"), classic("random"), GAMES["IPD"])
    assert (best.given_up, best.joint_gained, best.price) == (0, 0, None)
    # Giving up payoff for a smaller joint payoff has no price.
    worse = price_of_morality(classic("always-defect"), classic("tit-for-tat"), GAMES["IPD"])
    assert worse.given_up == 2
    assert worse.joint_gained == -4
    assert worse.price is None
    # The seat matters: in BOS the first player prefers CC.
    bach = price_of_morality(classic("always-defect"), classic("random"), GAMES["BOS"])
    assert (bach.payoff, bach.best_payoff) == (1, 1.5)
