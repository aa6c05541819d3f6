"""Exact play, against powers of the chain, rational arithmetic, closed forms and played games."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.errors import ConfigError
from moralscope.games import GAMES, OPPONENTS, PAIRS, Game, get_opponent
from moralscope.games.play.chains import (
    Outcome,
    Strategy,
    expected_play,
    long_run,
    noisy,
    pair_chain,
    strategy_of,
)

UNIFORM = np.full(4, 0.25)
four = st.tuples(*[st.floats(0, 1)] * 4)
corners = st.tuples(*[st.sampled_from([0.0, 1.0, 0.5, 1e-12, 1 - 1e-12])] * 4)
strategies = st.builds(Strategy, st.just("s"), four | corners)
games = st.sampled_from(list(GAMES.values()))


def classic(name: str) -> Strategy:
    return strategy_of(get_opponent(name))


def averaged(transition: np.ndarray, start: np.ndarray, doublings: int = 40) -> np.ndarray:
    """Mean over 2**doublings rounds, by doubling: S_2n = (S_n + S_n M^n) / 2."""
    power, mean = transition, np.eye(len(start))
    for _ in range(doublings):
        mean, power = (mean + mean @ power) / 2, power @ power
        power /= power.sum(axis=1, keepdims=True)
    return start @ mean


def test_a_strategy_seen_from_its_own_seat() -> None:
    # Extortion is forgiving after its own defection, and unforgiving after its own cooperation.
    own = classic("zd-extortion").p_cooperate
    agents = [OPPONENTS["zd-extortion"].p_cooperate_after[pair] for pair in PAIRS]
    assert own == (agents[0], agents[2], agents[1], agents[3])
    assert own[1] != own[2]
    assert classic("tit-for-tat").p_cooperate == (1, 0, 1, 0)


def test_a_chain_cell_by_cell() -> None:
    first, second = Strategy("a", (0.9, 0.2, 0.7, 0.1)), Strategy("b", (0.6, 0.3, 0.8, 0.4))
    chain = pair_chain(first, second)
    for (i, (a, b)), (j, (c, d)) in product(enumerate(PAIRS), enumerate(PAIRS)):
        p = first.p_cooperate[PAIRS.index((a, b))]
        q = second.p_cooperate[PAIRS.index((b, a))]
        expected = (p if c == "C" else 1 - p) * (q if d == "C" else 1 - q)
        assert chain[i, j] == pytest.approx(expected, abs=1e-16)


@given(strategies, strategies)
@settings(max_examples=150, deadline=None)
def test_the_long_run_is_a_fixed_point(first: Strategy, second: Strategy) -> None:
    chain = pair_chain(first, second)
    found = long_run(chain, UNIFORM)
    assert found.sum() == pytest.approx(1, abs=1e-14)
    assert np.all(found >= 0)
    np.testing.assert_allclose(found @ chain, found, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(30))
def test_the_long_run_is_the_limit_of_averages(seed: int) -> None:
    # Mixtures of certainty and chance: periodic, reducible, transient and ergodic chains.
    rng = np.random.default_rng(seed)
    tables = rng.choice([0.0, 0.0, 1.0, 1.0, 0.3, 0.8], size=(2, 4))
    chain = pair_chain(*(Strategy("s", tuple(table.tolist())) for table in tables))
    start = rng.dirichlet(np.ones(4))
    np.testing.assert_allclose(long_run(chain, start), averaged(chain, start), atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_chains_of_other_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [rng.dirichlet(np.ones(2), size=2), np.roll(np.eye(3), 1, axis=1), np.eye(1)]
    chain = np.zeros((8, 8))
    at = 0
    for block in blocks:
        n = len(block)
        chain[at : at + n, at : at + n] = block
        at += n
    chain[6:] = rng.dirichlet(np.ones(8), size=2)  # two states that lead everywhere
    order = rng.permutation(8)
    chain = chain[np.ix_(order, order)]
    start = rng.dirichlet(np.ones(8))
    np.testing.assert_allclose(long_run(chain, start), averaged(chain, start), atol=1e-10)
    assert long_run(np.ones((1, 1)), np.ones(1)) == [1.0]


def rational_stationary(chain: list[list[Fraction]]) -> list[Fraction]:
    """The stationary distribution by Gauss-Jordan elimination over the rationals."""
    n = len(chain)
    rows = [[chain[j][i] - (i == j) for j in range(n)] + [Fraction(0)] for i in range(n)]
    rows[-1] = [Fraction(1)] * (n + 1)
    for i in range(n):
        pivot = next(r for r in range(i, n) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(n):
            if r != i:
                factor = rows[r][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("tiny", [2.0**-20, 2.0**-45])
def test_parts_of_a_chain_that_are_hardly_linked(tiny: float) -> None:
    # Powers of two: 1 - tiny is exact, so the rational chain is the same chain.
    first = Strategy("a", (1 - tiny, tiny, 1 - tiny, 4 * tiny))
    second = Strategy("b", (1 - 2 * tiny, 0.25, 1 - tiny, tiny))
    p, q = ([Fraction(x) for x in s.p_cooperate] for s in (first, second))
    exact = [
        [a * b for a in (p[i], 1 - p[i]) for b in (q[j], 1 - q[j])]
        for i, j in ((0, 0), (1, 2), (2, 1), (3, 3))
    ]
    wanted = [float(x) for x in rational_stationary(exact)]
    assert min(wanted) < 10 * tiny  # the comparison is of relative accuracy in small numbers too
    np.testing.assert_allclose(long_run(pair_chain(first, second), UNIFORM), wanted, rtol=1e-12)


@given(strategies, strategies, games, st.sampled_from([None, 1, 7]), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_exchanging_seats_exchanges_what_is_got(
    first: Strategy, second: Strategy, game: Game, rounds: int | None, noise: float
) -> None:
    here = expected_play(first, second, game, noise=noise, rounds=rounds)
    there = expected_play(second, first, game.mirrored, noise=noise, rounds=rounds)
    assert here.payoff_first == pytest.approx(there.payoff_second, abs=1e-9)
    assert here.payoff_second == pytest.approx(there.payoff_first, abs=1e-9)
    assert here.cooperation_first == pytest.approx(there.cooperation_second, abs=1e-9)
    assert here.cooperation_second == pytest.approx(there.cooperation_first, abs=1e-9)
    np.testing.assert_allclose(here.states, there.states[[0, 2, 1, 3]], atol=1e-9)


@given(strategies, strategies, st.sampled_from([None, 3]))
@settings(max_examples=50, deadline=None)
def test_with_noise_one_half_every_move_is_a_coin_toss(
    first: Strategy, second: Strategy, rounds: int | None
) -> None:
    found = expected_play(first, second, GAMES["IPD"], noise=0.5, rounds=rounds)
    np.testing.assert_allclose(found.states, UNIFORM, atol=1e-15)
    assert found.payoff_first == pytest.approx(2.0, abs=1e-14)


@given(strategies, strategies)
@settings(max_examples=50, deadline=None)
def test_many_rounds_approach_the_long_run(first: Strategy, second: Strategy) -> None:
    # With noise the chain forgets its start: |mean over n - limit| <= 2 / (n * (2 * 0.2)**2).
    limit = expected_play(first, second, GAMES["ISH"], noise=0.2)
    many = expected_play(first, second, GAMES["ISH"], noise=0.2, rounds=2000)
    assert abs(limit.states - many.states).max() <= 2 / (2000 * 0.16)


# Closed forms, ``(first, second, states)`` with the states that are played in the long run: by
# hand, from four starting states with weight 1/4 each.
CLOSED = (
    ("always-cooperate", "always-defect", (0, 1, 0, 0)),
    ("always-cooperate", "always-cooperate", (1, 0, 0, 0)),
    ("always-defect", "always-defect", (0, 0, 0, 1)),
    ("tit-for-tat", "always-defect", (0, 0, 0, 1)),
    ("tit-for-tat", "always-cooperate", (1, 0, 0, 0)),
    # CC and DD stay; CD and DC change places for ever.
    ("tit-for-tat", "tit-for-tat", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    # Against a fair coin: tit-for-tat lags it by one round.
    ("tit-for-tat", "random", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    ("always-defect", "random", (0, 0, 1 / 2, 1 / 2)),
    ("always-cooperate", "random", (1 / 2, 1 / 2, 0, 0)),
    ("random", "random", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    # Grim stays at CC where it begins there (1/4), else it defects for good.
    ("grim", "grim", (1 / 4, 0, 0, 3 / 4)),
    ("grim", "random", (0, 0, 1 / 2, 1 / 2)),
    ("grim", "always-cooperate", (1 / 4, 0, 3 / 4, 0)),
    # Win-stay-lose-shift: from anywhere to DD and CC at the latest; alternates against defection.
    ("win-stay-lose-shift", "win-stay-lose-shift", (1, 0, 0, 0)),
    ("win-stay-lose-shift", "always-defect", (0, 1 / 2, 0, 1 / 2)),
    # CC stays (with the start CC); CD, DC, DD: CD -> DC -> DD -> CD, three rounds a turn.
    ("win-stay-lose-shift", "tit-for-tat", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    # Win-stay-lose-shift against chance: after CC and DD it cooperates, which is half the time.
    ("win-stay-lose-shift", "random", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    # It forgives 2/3 of the defections that it meets: 2/3 cooperation against always-defect.
    ("generous-tit-for-tat", "always-defect", (0, 2 / 3, 0, 1 / 3)),
    ("generous-tit-for-tat", "generous-tit-for-tat", (1, 0, 0, 0)),
    ("generous-tit-for-tat", "random", (5 / 12, 5 / 12, 1 / 12, 1 / 12)),
)


@pytest.mark.parametrize(("first", "second", "states"), CLOSED)
def test_closed_forms_of_scripted_pairs_in_all_six_games(
    first: str, second: str, states: tuple[float, float, float, float]
) -> None:
    assert len(GAMES) == 6
    for game in GAMES.values():
        found = expected_play(classic(first), classic(second), game)
        np.testing.assert_allclose(found.states, states, rtol=0, atol=1e-12)
        own = sum(w * game.payoffs[pair][0] for w, pair in zip(states, PAIRS, strict=True))
        other = sum(w * game.payoffs[pair][1] for w, pair in zip(states, PAIRS, strict=True))
        assert found.payoff_first == pytest.approx(own, abs=1e-12)
        assert found.payoff_second == pytest.approx(other, abs=1e-12)
        assert found.cooperation_first == pytest.approx(states[0] + states[1], abs=1e-12)
        assert found.cooperation_second == pytest.approx(states[0] + states[2], abs=1e-12)


def test_extortion_holds_whoever_is_met() -> None:
    for other in ("random", "always-cooperate", "win-stay-lose-shift", "generous-tit-for-tat"):
        found = expected_play(classic("zd-extortion"), classic(other), GAMES["IPD"])
        assert found.payoff_first - 1 == pytest.approx(2 * (found.payoff_second - 1), abs=1e-12)
        assert found.payoff_second > 1.1


def test_play_of_five_rounds_by_hand() -> None:
    # From CC and DC tit-for-tat opens with C, then defects; from CD and DD it defects at once.
    found = expected_play(classic("tit-for-tat"), classic("always-defect"), GAMES["IPD"], rounds=5)
    np.testing.assert_allclose(found.states, (0, 0.1, 0, 0.9), atol=1e-15)
    assert found.payoff_first == pytest.approx(0.9, abs=1e-15)
    assert found.payoff_second == pytest.approx(1.3, abs=1e-15)
    # The memory before the first round is not itself a round.
    once = expected_play(classic("always-cooperate"), classic("always-cooperate"), GAMES["IPD"],
                         rounds=1)  # fmt: skip
    assert once.payoff_first == 3


def test_noise_in_a_closed_form() -> None:
    # Two unconditional players make mistakes independently of each other.
    e = 0.05
    found = expected_play(
        classic("always-cooperate"), classic("always-defect"), GAMES["ICN"], noise=e
    )
    wanted = ((1 - e) * e, (1 - e) ** 2, e * e, e * (1 - e))
    np.testing.assert_allclose(found.states, wanted, atol=1e-15)
    # Tit-for-tat against itself forgets in the end: every error moves on, all states alike.
    shaken = expected_play(classic("tit-for-tat"), classic("tit-for-tat"), GAMES["IPD"], noise=e)
    np.testing.assert_allclose(shaken.states, UNIFORM, atol=1e-14)


def played(
    tables: np.ndarray, rounds: int, games_each: int, rng: np.random.Generator, skipped: int = 0
) -> np.ndarray:
    """How often each state is played, game by game: ``[pairs, games, 4]``, moves drawn one by one.

    The tables hold P(C) after CC, CD, DC, DD from either player's own seat, ``[2, pairs, 4]``;
    some rounds are played first and not counted.
    """
    first, second = tables
    pairs = len(first)
    row = np.arange(pairs)[:, None]
    own = rng.integers(0, 2, (pairs, games_each), dtype=np.int8)
    other = rng.integers(0, 2, (pairs, games_each), dtype=np.int8)
    seen = np.zeros((pairs, games_each, 4))
    for i in range(skipped + rounds):
        own_defects = rng.random((pairs, games_each)) >= first[row, 2 * own + other]
        other_defects = rng.random((pairs, games_each)) >= second[row, 2 * other + own]
        own, other = own_defects.astype(np.int8), other_defects.astype(np.int8)
        if i >= skipped:
            now = (2 * own + other)[:, :, None]
            np.put_along_axis(seen, now, np.take_along_axis(seen, now, 2) + 1, 2)
    return seen / rounds


def test_exact_play_is_what_is_played_by_500_random_pairs() -> None:
    """Family-wise: Bonferroni over 500 pairs and four quantities, each a t test over games.

    Games of 20 rounds are independent of each other, so a mean over 400 of them is close to
    normal. Noise and finite horizon are on.
    """
    rng = np.random.default_rng(20261121)
    tables = rng.random((2, 500, 4))
    # Some certain moves, as trained agents have them.
    tables = np.where(rng.random(tables.shape) < 0.2, tables.round(), tables)
    noise, rounds, each = 0.03, 20, 400
    flipped = (1 - noise) * tables + noise * (1 - tables)
    seen = played(flipped, rounds, each, rng)
    names = list(GAMES)
    smallest = 1.0
    for i in range(500):
        game = GAMES[names[i % 6]]
        first, second = (Strategy("s", tuple(tables[k, i].tolist())) for k in (0, 1))
        exact: Outcome = expected_play(first, second, game, noise=noise, rounds=rounds)
        points = np.array([game.payoffs[pair] for pair in PAIRS])
        for value, per_game in (
            (exact.payoff_first, seen[i] @ points[:, 0]),
            (exact.payoff_second, seen[i] @ points[:, 1]),
            (exact.cooperation_first, seen[i, :, 0] + seen[i, :, 1]),
            (exact.cooperation_second, seen[i, :, 0] + seen[i, :, 2]),
        ):
            t = (per_game.mean() - value) / (per_game.std(ddof=1) / np.sqrt(each))
            smallest = min(smallest, float(2 * stats.t.sf(abs(t), each - 1)))
    assert min(1.0, 2000 * smallest) > 0.001
    assert smallest < 0.1  # the games were random, and all four quantities were compared


def test_the_long_run_is_what_500_random_pairs_play_in_long_games() -> None:
    rng = np.random.default_rng(7)
    tables = rng.uniform(0.05, 0.95, (2, 500, 4))
    # 150 rounds are more than any of these chains needs to forget its start.
    rounds, each = 64, 64
    seen = played(tables, rounds, each, rng, skipped=150)
    smallest = 1.0
    for i in range(500):
        first, second = (Strategy("s", tuple(tables[k, i].tolist())) for k in (0, 1))
        exact = expected_play(first, second, GAMES["IPD"])
        points = np.array([GAMES["IPD"].payoffs[pair] for pair in PAIRS])
        for side, value in enumerate((exact.payoff_first, exact.payoff_second)):
            per_game = seen[i] @ points[:, side]
            t = (per_game.mean() - value) / (per_game.std(ddof=1) / np.sqrt(each))
            smallest = min(smallest, float(2 * stats.t.sf(abs(t), each - 1)))
    assert min(1.0, 1000 * smallest) > 0.001


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("'x' is not four probabilities")):
        Strategy("x", (0.1, 0.2, 1.3, 0.4))
    with pytest.raises(ConfigError, match="each from 0 to 1"):
        Strategy("x", (0.1, 0.2, float("nan"), 0.4))
    with pytest.raises(ConfigError, match="is not four probabilities"):
        Strategy("x", (0.1, 0.2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=re.escape("Noise is not a probability. Seen: -0.1")):
        noisy(classic("random"), -0.1)
    with pytest.raises(ConfigError, match=re.escape("Nothing is played. Seen: rounds 0")):
        expected_play(classic("random"), classic("random"), GAMES["IPD"], rounds=0)
    with pytest.raises(ConfigError, match="not a Markov chain with a start. Seen: sums from 0.9"):
        long_run(np.array([[0.5, 0.4], [0.5, 0.5]]), np.array([0.5, 0.5]))
    with pytest.raises(ConfigError, match=re.escape("Seen: transition (2, 2), start (3,)")):
        long_run(np.eye(2), np.ones(3) / 3)
    with pytest.raises(ConfigError, match="not a Markov chain with a start"):
        long_run(np.full((2, 2), np.nan), np.array([0.5, 0.5]))


def test_names_tell_the_noise() -> None:
    assert noisy(classic("grim"), 0.05).name == "noisy(grim, 0.05)"
    assert noisy(classic("grim"), 0.0) == classic("grim")
    np.testing.assert_allclose(noisy(classic("grim"), 0.1).p_cooperate, (0.9, 0.1, 0.1, 0.1))
