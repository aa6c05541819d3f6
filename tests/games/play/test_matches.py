"""Matches by hand, against the library's own, and against exact expectations."""

from __future__ import annotations

import importlib
from itertools import product

import numpy as np
import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.streams import stream
from moralscope.games import GAMES, PAIRS
from moralscope.games.play.matches import agent_entrant, play_match, strategy_entrant

IPD = GAMES["IPD"]
C, D, NEITHER = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def played(first, second, seed: int = 0, game=IPD, **settings):
    return play_match(first, second, game, stream(seed, "test"), **settings)


def strategies(first: str, second: str, seed: int = 0, **settings):
    return played(strategy_entrant(first), strategy_entrant(second), seed, **settings)


def expected_scores(first, second, rounds: int, noise: float, game) -> np.ndarray:
    """Mean points of both agents: every opening, answer and flip of every round, added up."""
    total = np.zeros(2)
    now = dict.fromkeys(PAIRS, 0.25)
    for _ in range(rounds):
        then = dict.fromkeys(PAIRS, 0.0)
        for (a, b), weight in now.items():
            rows = first[PAIRS.index((a, b))], second[PAIRS.index((b, a))]
            for (i, p), (j, q) in product(enumerate(rows[0]), enumerate(rows[1])):
                for flip_a, flip_b in product((False, True), repeat=2):
                    chance = weight * p * q
                    chance *= noise if flip_a else 1 - noise
                    chance *= noise if flip_b else 1 - noise
                    move_a, move_b = ("C", "D", a)[i], ("C", "D", b)[j]
                    move_a = {"C": "D", "D": "C"}[move_a] if flip_a else move_a
                    move_b = {"C": "D", "D": "C"}[move_b] if flip_b else move_b
                    then[(move_a, move_b)] += chance
        now = then
        total += sum(weight * np.array(game.payoffs[pair]) for pair, weight in now.items())
    return total / rounds


@pytest.mark.parametrize(("name", "noise"), [("IPD", 0.0), ("IPD", 0.2), ("BOS", 0.1)])
def test_scores_of_agents_are_right_on_average(name: str, noise: float) -> None:
    rng = np.random.default_rng(3)
    first, second = rng.dirichlet([1, 1, 0.7], size=(2, 4))
    players = agent_entrant("one", first), agent_entrant("two", second)
    found = np.array(
        [
            (match.first_score, match.second_score)
            for match in (
                played(*players, seed, GAMES[name], rounds=4, noise=noise) for seed in range(3000)
            )
        ]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    expected = expected_scores(first, second, 4, noise, GAMES[name])
    assert (error < 0.03).all()
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()


def test_points_and_moves_by_hand() -> None:
    match = strategies("suspicious-tit-for-tat", "tit-for-two-tats", rounds=5)
    assert (match.first_moves, match.second_moves) == ("DCCCC", "CCCCC")
    assert (match.first_answers, match.second_answers) == ("DCCCC", "CCCCC")
    assert match.first_score == (4 + 3 * 4) / 5
    assert match.second_score == 3 * 4 / 5
    assert (match.game, match.first, match.rounds) == ("IPD", "suspicious-tit-for-tat", 5)
    # Bach or Stravinsky pays the two seats differently.
    match = strategies("alternator", "always-defect", rounds=4, game=GAMES["BOS"])
    assert (match.first_moves, match.first_score, match.second_score) == ("CDCD", 1.0, 1.5)


def test_an_agent_opens_out_of_a_uniform_state_that_two_agents_share() -> None:
    """It cooperates after CD only, so it opens with C in a quarter of all matches."""
    picky = agent_entrant("picky", np.array([D, C, D, D]))
    mirror = agent_entrant("mirror", np.array([D, D, C, D]))
    opened = dict.fromkeys(product("CD", "CD"), 0)
    for seed in range(2000):
        match = played(picky, mirror, seed, rounds=1)
        opened[(match.first_moves, match.second_moves)] += 1
    assert opened[("C", "D")] == opened[("D", "C")] == 0
    assert abs(opened[("C", "C")] - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)


def test_an_answer_that_is_neither_repeats_the_last_move() -> None:
    mute = agent_entrant("mute", np.array([NEITHER] * 4))
    opened = []
    for seed in range(400):
        match = played(mute, strategy_entrant("tit-for-tat"), seed, rounds=6)
        assert match.first_answers == "xxxxxx"
        assert match.first_moves in ("CCCCCC", "DDDDDD")
        assert match.second_moves == "C" + match.first_moves[:-1]
        assert match.first_score == (3 if match.first_moves[0] == "C" else (4 + 5) / 6)
        opened.append(match.first_moves[0])
    assert 140 < opened.count("C") < 260
    # Noise turns what was repeated, and the turned move is what is repeated next.
    match = played(mute, strategy_entrant("always-cooperate"), 1, rounds=6, noise=1.0)
    assert match.first_answers == "xxxxxx"
    assert match.first_moves in ("CDCDCD", "DCDCDC")
    assert (match.second_answers, match.second_moves) == ("CCCCCC", "DDDDDD")
    # After C it says nothing, after D it cooperates: both rules in one player.
    half = agent_entrant("half", np.array([NEITHER, NEITHER, C, C]))
    seen = {played(half, mute, seed, rounds=4).first_answers for seed in range(20)}
    assert seen == {"xxxx", "Cxxx"}


@pytest.mark.parametrize("expression", ["alternator", "axelrod(Alternator)"])
def test_noise_is_seen_by_both(expression: str) -> None:
    """An alternator answers the move that it made, not the one that it meant."""
    match = strategies(expression, "tit-for-tat", 5, rounds=300, noise=0.3)
    turned = {"C": "D", "D": "C"}
    assert match.first_answers[1:] == "".join(turned[move] for move in match.first_moves[:-1])
    assert match.second_answers[1:] == match.first_moves[:-1]
    flips = sum(a != b for a, b in zip(match.first_answers, match.first_moves, strict=True))
    assert 60 < flips < 120
    assert match.first_answers != match.second_answers


def test_strategies_of_the_library_play_their_own_matches() -> None:
    axelrod = importlib.import_module("axelrod")
    points = axelrod.Game(r=3, s=0, t=4, p=1)
    attributes = {"length": -1, "noise": 0, "game": points}
    names = ["Gradual", "Adaptive", "First by Downing", "Tit For 2 Tats", "Prober 4"]
    for first, second in product(names, names):
        match = strategies(f"axelrod({first})", f"axelrod({second})", rounds=40)
        made = [next(s for s in axelrod.strategies if s.name == n)() for n in (first, second)]
        theirs = axelrod.Match(made, turns=40, game=points, match_attributes=attributes)
        moves = theirs.play()
        assert match.first_moves == "".join(a.name for a, _ in moves)
        assert match.second_moves == "".join(b.name for _, b in moves)
        assert (match.first_score, match.second_score) == theirs.final_score_per_turn()
    entrant = strategy_entrant("axelrod(gradual)")
    assert (entrant.name, entrant.kind, entrant.deterministic) == (
        "axelrod(Gradual)",
        "axelrod",
        True,
    )
    assert not strategy_entrant("axelrod(Random)").deterministic


def test_strategies_of_the_library_say_what_is_needed() -> None:
    players = importlib.import_module("moralscope.games.axelrod_players")
    known = players.library().strategies[::6]
    depths = {players.memory_depth(each.name) for each in known}
    chances = {players.is_stochastic(each.name) for each in known}
    assert {1, 2, float("inf")} <= depths
    assert chances == {True, False}


def test_who_needs_no_second_match() -> None:
    steady = [C] * 4
    cases = {
        "always": (steady, True),
        "never": ([D] * 4, True),
        "mute": ([NEITHER] * 4, False),
        "copies": ([C, D, C, D], False),  # its opening is drawn
        "wavers": ([(0.5, 0.5, 0.0)] * 4, False),
    }
    for name, (answers, deterministic) in cases.items():
        assert agent_entrant(name, np.array(answers)).deterministic == deterministic
    assert strategy_entrant("grim").deterministic
    assert not strategy_entrant("noisy(grim, 0.1)").deterministic
    assert not strategy_entrant("memory-one(1, 0, 0, 1)").deterministic  # its opening is unknown
    assert strategy_entrant("memory-one(1, 0, 0, 1, opening=1)").deterministic


def test_rounding_makes_no_illegal_answer() -> None:
    """Probabilities of single precision that miss 1 by a rounding: no letter x may come of it."""
    answers = np.array([(0.9999999, 0.0, 0.0)] * 4)
    player = agent_entrant("rounded", answers)
    assert "x" not in played(player, strategy_entrant("random"), rounds=2000).first_answers
    assert player.deterministic


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(ConfigError, match="A match has no rounds. Seen: rounds 0"):
        strategies("grim", "grim", rounds=0)
    for noise in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="Noise is not a probability"):
            strategies("grim", "grim", rounds=1, noise=noise)
    good = [C, D, C, D]
    for answers in (
        good[:3],
        [*good[:3], (0.5, 0.6, 0.0)],
        [*good[:3], (1.5, -0.5, 0.0)],
        [*good[:3], (float("nan"), 0.5, 0.5)],
        [row[:2] for row in good],
    ):
        with pytest.raises(ConfigError, match="The answers of 'odd' are not probabilities"):
            agent_entrant("odd", np.array(answers))
    with pytest.raises(ConfigError, match="There is no classical strategy of this name"):
        strategy_entrant("grimm")
    with pytest.raises(ConfigError, match="The Axelrod library has no strategy of this name"):
        strategy_entrant("axelrod(Grimmm)")
