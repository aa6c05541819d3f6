"""Agents at play, against powers of the chain, closed forms, and play drawn move by move."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.behaviour.playing.pairs import (
    CLASSICS,
    NOISES,
    agent_strategy,
    exploitability_table,
    play_table,
    price_of_morality_table,
)
from moralscope.behaviour.presentations import Presented, presented
from moralscope.core.errors import ConfigError
from moralscope.core.tables import schema_of
from moralscope.games import GAMES, PAIRS, get_game, get_opponent

LABELS = "action1/action2"
COIN, ALWAYS_C, ALWAYS_D = (
    get_opponent(f) for f in ("random", "always-cooperate", "always-defect")
)


def legal(*p: float) -> list[list[float]]:
    return [[x, 1 - x, 0.0] for x in p]


def asked(
    agent: str, *ways: list[list[float]], game: str = "IPD", labels: str = LABELS
) -> Presented:
    names = tuple(f"{labels} order-{i}" for i in range(len(ways)))
    return Presented(agent, game, labels, names, np.array(ways))


KIND, CRUEL, ECHO = legal(1, 1, 1, 1), legal(0, 0, 0, 0), legal(1, 0, 1, 0)


def frequencies(first: np.ndarray, second: np.ndarray, noise: float) -> np.ndarray:
    """Long-run frequencies of CC, CD, DC, DD: the mean over 2**35 rounds, by doubling.

    Tables are P(C) by own last move and other's last move, ``[2, 2]``, C first.
    """
    chain = np.zeros((2, 2, 2, 2))
    for a, b in product((0, 1), (0, 1)):
        own, other = first[a, b], second[b, a]
        own, other = (p + noise - 2 * noise * p for p in (own, other))
        chain[a, b] = np.outer([own, 1 - own], [other, 1 - other])
    power, mean = chain.reshape(4, 4), np.eye(4)
    for _ in range(35):
        mean, power = (mean + mean @ power) / 2, power @ power
        power /= power.sum(axis=1, keepdims=True)
    return np.full(4, 0.25) @ power @ mean


def table_of(answers: np.ndarray) -> np.ndarray:
    """P(C) by own and other's last move: an answer that is neither repeats the own one."""
    table = answers[:, 0].reshape(2, 2).copy()
    table[0] += answers[:2, 2]
    return table


def row(table: pl.DataFrame, **wanted: object) -> dict[str, object]:
    found = table.filter(**wanted)
    assert found.height == 1
    return found.row(0, named=True)


def random_agent(
    name: str, seed: int, *, n: int = 3, game: str = "IPD", labels: str = LABELS
) -> Presented:
    answers = np.random.default_rng(seed).dirichlet((2, 2, 0.7), size=(n, 4))
    return asked(name, *answers.tolist(), game=game, labels=labels)


def test_an_answer_that_is_neither_repeats_the_own_last_move() -> None:
    answers = np.array([[0.5, 0.3, 0.2], [0.1, 0.5, 0.4], [0.5, 0.3, 0.2], [0.1, 0.5, 0.4]])
    found = agent_strategy("a", answers)
    np.testing.assert_allclose(found.p_cooperate, (0.7, 0.5, 0.5, 0.1))
    assert agent_strategy("a", np.array([[0.1, 0.2, 0.7]] * 4)).p_cooperate[0] == pytest.approx(0.8)
    # Sums of floats that overshoot 1 are still a strategy.
    over = np.array([[0.7, 0.0, 0.1 + 0.2 + 1e-16]] * 4)
    assert max(agent_strategy("a", over).p_cooperate) == 1


@pytest.mark.parametrize("game", list(GAMES))
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_agents_and_strategies_as_powers_of_the_chain_have_it(game: str, noise: float) -> None:
    agent = random_agent("agent", 3, n=4, game=game)
    table = play_table([agent], noises=(noise,))
    assert set(table["other"]) >= {"zd-extortion", "grim", "random"}
    for opponent in CLASSICS:
        met = row(table, other=opponent.name, other_kind="strategy")
        other = np.array([[opponent.p_cooperate_after[(b, a)] for b in "CD"] for a in "CD"])
        points = np.array([get_game(game).payoffs[pair] for pair in PAIRS])
        d = frequencies(table_of(agent.mean), other, noise)
        assert met["payoff"] == pytest.approx(d @ points[:, 0], abs=1e-9)
        assert met["payoff_other"] == pytest.approx(d @ points[:, 1], abs=1e-9)
        assert met["cooperation"] == pytest.approx(d[:2].sum(), abs=1e-9)
        assert met["cooperation_other"] == pytest.approx(d[0] + d[2], abs=1e-9)
        assert met["legal"] == pytest.approx(d @ (1 - agent.mean[:, 2]), abs=1e-9)
        single = [frequencies(table_of(way), other, noise) @ points[:, 0] for way in agent.answers]
        assert met["n_units"] == 4
        if np.ptp(single) < 1e-10:  # zero-determinant strategies fix what others get
            assert (met["low"], met["high"]) == (None, None)
            continue
        low, high = stats.t.interval(0.95, 3, np.mean(single), stats.sem(single))
        least, most = points[:, 0].min(), points[:, 0].max()
        assert met["low"] == pytest.approx(max(low, least), abs=1e-8)
        assert met["high"] == pytest.approx(min(high, most), abs=1e-8)
    assert table["low"].null_count() < 4


def test_scripted_agents_have_closed_forms() -> None:
    table = play_table([asked("kind", KIND, KIND), asked("cruel", CRUEL)], noises=(0.0,))
    met = row(table, agent="kind", other="random")
    assert (met["payoff"], met["payoff_other"], met["cooperation"]) == (1.5, 3.5, 1.0)
    assert (met["low"], met["high"], met["n_units"], met["legal"]) == (None, None, 2, 1.0)
    met = row(table, agent="cruel", other="kind")
    assert (met["payoff"], met["payoff_other"], met["cooperation_other"]) == (4, 0, 1)
    assert (met["other_kind"], met["low"], met["n_units"]) == ("agent", None, 1)


def test_play_without_a_single_legal_answer() -> None:
    # It stays where it started: half of the games it cooperates for ever, half it defects.
    mute = asked("mute", [[0.0, 0.0, 1.0]] * 4)
    table = play_table([mute], noises=(0.0,))
    met = row(table, other="always-cooperate")
    assert (met["legal"], met["cooperation"], met["payoff"]) == (0.0, 0.5, 3.5)
    met = row(table, other="tit-for-tat")
    assert (met["payoff"], met["payoff_other"]) == (2.0, 2.0)
    assert exploitability_table([mute])["exploiter_payoff"][0] == pytest.approx(2.5)
    assert price_of_morality_table([mute]).height == len(CLASSICS)


def test_the_legal_share_is_that_of_the_states_that_play_meets() -> None:
    # Legal after the other's cooperation alone: with a defector, never; with a cooperator, always.
    picky = asked("picky", [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]])
    table = play_table([picky], (ALWAYS_C, ALWAYS_D, COIN), noises=(0.0, 0.05))
    shares = {key: row(table, other=key[0], noise=key[1])["legal"] for key in
              product(("always-cooperate", "always-defect", "random"), (0.0, 0.05))}  # fmt: skip
    assert shares["always-cooperate", 0.0] == 1
    assert shares["always-defect", 0.0] == 0
    assert shares["random", 0.0] == pytest.approx(0.5)
    assert shares["always-cooperate", 0.05] == pytest.approx(0.95)
    assert shares["always-defect", 0.05] == pytest.approx(0.05)


def test_agents_meet_each_other_and_copies_of_themselves() -> None:
    one, other = random_agent("one", 1), random_agent("other", 2)
    table = play_table([one, other], (), noises=NOISES)
    assert sorted(table.select("agent", "other", "noise").rows()) == sorted(
        product(("one", "other"), ("one", "other"), NOISES)
    )
    here, there = (
        row(table, agent=a, other=b, noise=0.05) for a, b in (("one", "other"), ("other", "one"))
    )
    assert here["payoff"] == pytest.approx(there["payoff_other"], abs=1e-12)
    assert here["cooperation"] == pytest.approx(there["cooperation_other"], abs=1e-12)
    assert here["payoff"] != pytest.approx(here["payoff_other"], abs=1e-3)
    copies = row(table, agent="one", other="one", noise=0.0)
    assert copies["payoff"] == pytest.approx(copies["payoff_other"], abs=1e-12)
    # Both are asked in the same way: presentation by presentation.
    points = np.array([GAMES["IPD"].payoffs[pair][0] for pair in PAIRS])
    single = [
        frequencies(table_of(a), table_of(b), 0.05) @ points
        for a, b in zip(one.answers, other.answers, strict=True)
    ]
    low, high = stats.t.interval(0.95, 2, np.mean(single), stats.sem(single))
    assert (here["low"], here["high"]) == (
        pytest.approx(max(low, 0), abs=1e-8),
        pytest.approx(min(high, 4), abs=1e-8),
    )


def test_only_presentations_that_both_were_asked_are_units() -> None:
    one, other = random_agent("one", 1, n=4), random_agent("other", 2, n=2)
    table = play_table([one, other], (COIN,), noises=(0.0,))
    assert row(table, agent="one", other="other")["n_units"] == 2
    assert row(table, agent="other", other="one")["n_units"] == 2
    assert row(table, agent="one", other="random")["n_units"] == 4
    apart = Presented("apart", "IPD", LABELS, ("else", "where"), other.answers)
    met = row(play_table([one, apart], (), noises=(0.0,)), agent="one", other="apart")
    assert (met["n_units"], met["low"]) == (0, None)


def test_agents_meet_in_one_game_under_one_pair_of_labels() -> None:
    agents = [
        random_agent("one", 1),
        random_agent("other", 2, labels="C/D"),
        random_agent("third", 3, game="ISH"),
    ]
    table = play_table(agents, (COIN,), noises=(0.0,))
    assert sorted(table.select("agent", "other").rows()) == sorted(
        [(a, o) for a in ("one", "other", "third") for o in (a, "random")]
    )


def test_the_other_seat_is_taken_by_who_was_asked_about_it() -> None:
    stays = asked("one", KIND, game="BOS")
    assert set(play_table([stays], noises=(0.0,))["other_kind"]) == {"strategy"}
    moves = asked("one", CRUEL, game="BOS-mirrored")
    table = play_table([stays, moves, asked("two", KIND, game="BOS")], (COIN,), noises=(0.0,))
    # In its own seat it plays C, in the other one D: it never meets itself at a concert.
    met = row(table, agent="one", other="one", game="BOS")
    assert (met["payoff"], met["cooperation"], met["cooperation_other"]) == (0, 1, 0)
    met = row(table, agent="one", game="BOS-mirrored", other="two")
    assert (met["payoff"], met["payoff_other"]) == (0, 0)
    assert table.filter(agent="two", other="two").height == 0
    assert row(table, agent="one", other="random", game="BOS")["payoff"] == 1.5
    assert row(table, agent="one", other="random", game="BOS-mirrored")["payoff"] == 1.5


def test_a_strategy_with_the_name_of_an_agent_is_told_apart() -> None:
    agent = asked("random", KIND)
    table = play_table([agent], (COIN, ALWAYS_C), noises=(0.0,))
    assert table["other"].to_list() == ["random", "random (strategy)", "always-cooperate"]
    assert price_of_morality_table([agent], (COIN,))["other"][0] == "random (strategy)"


def test_from_prompts_and_decisions(world: Any) -> None:
    prompts = world.prompts()
    echo = world.follow("echo", prompts, lambda p: float(p["opponent_previous"] == "D"))
    agents = list(presented(prompts, echo))
    table = play_table(agents, noises=(0.0,))
    assert row(table, other="echo")["payoff"] == 2.0  # two who repeat each other
    assert row(table, other="tit-for-tat")["payoff"] == 2.0
    assert row(table, other="always-defect")["cooperation"] == 0.0
    assert table["n_units"].unique().to_list() == [4]  # two assignments, two orders
    assert table["low"].null_count() == table.height
    assert exploitability_table(agents)["best_response"][0] == "CCCC"


def test_exploitability_of_a_mean_and_its_interval() -> None:
    half = asked("half", KIND, CRUEL)
    found = exploitability_table([half]).row(0, named=True)
    # Its mean tosses a coin: defecting gets 2.5, a copy 2.
    assert found["best_response"] == "DDDD"
    assert found["exploiter_payoff"] == pytest.approx(2.5, abs=1e-12)
    assert found["agent_payoff"] == pytest.approx(0.5, abs=1e-12)
    assert found["copy_payoff"] == pytest.approx(2.0, abs=1e-12)
    assert found["exploitability"] == pytest.approx(0.5, abs=1e-12)
    # Its presentations: 1 and 0. The t interval of two values is wide, and cut to [0, 4].
    low, high = stats.t.interval(0.95, 1, 0.5, 0.5)
    assert low < 0
    assert high > 4
    assert (found["low"], found["high"], found["n_units"]) == (0, 4, 2)
    even = exploitability_table([asked("kind", KIND, KIND, game="ISH")]).row(0, named=True)
    assert (even["exploitability"], even["low"], even["high"]) == (0, None, None)


def test_the_exploiter_has_the_other_seat() -> None:
    found = exploitability_table([asked("kind", KIND, game="BOS")]).row(0, named=True)
    assert (found["best_response"], found["exploiter_payoff"]) == ("CCCC", 2)
    assert (found["agent_payoff"], found["copy_payoff"]) == (3, 2)


def test_the_price_of_morality_in_closed_form() -> None:
    table = price_of_morality_table([asked("kind", KIND), asked("cruel", CRUEL)], (COIN, ALWAYS_C))
    paid = row(table, agent="kind", other="random")
    assert (paid["payoff"], paid["best_payoff"], paid["given_up"]) == (1.5, 2.5, 1)
    assert (paid["joint"], paid["joint_best"], paid["joint_gained"], paid["price"]) == (
        5,
        3,
        2,
        0.5,
    )
    paid = row(table, agent="kind", other="always-cooperate")
    assert (paid["given_up"], paid["joint_gained"], paid["price"]) == (1, 2, 0.5)
    free = row(table, agent="cruel", other="random")
    assert (free["given_up"], free["joint_gained"], free["price"]) == (0, 0, None)


@given(st.integers(0, 10_000), st.sampled_from([*GAMES, "BOS-mirrored"]))
@settings(max_examples=15, deadline=None)
def test_what_holds_of_any_agent(seed: int, game: str) -> None:
    agent = random_agent("agent", seed, game=game)
    payoffs = [cell[0] for cell in get_game(game).payoffs.values()]
    played = play_table([agent], noises=(0.0, 0.5))
    assert played["payoff"].is_between(min(payoffs) - 1e-12, max(payoffs) + 1e-12).all()
    assert played["legal"].is_between(0, 1).all()
    assert (played["low"] <= played["high"]).all()
    tossed = played.filter(noise=0.5)
    np.testing.assert_allclose(tossed["payoff"], np.mean(payoffs), atol=1e-12)
    price = price_of_morality_table([agent])
    assert (price["given_up"] >= 0).all()
    joined = played.filter(noise=0.0, other_kind="strategy").join(price, on="other")
    assert joined.height == len(CLASSICS)
    np.testing.assert_allclose(joined["payoff"], joined["payoff_right"], atol=1e-12)
    assert (exploitability_table([agent])["exploitability"] >= 0).all()


def test_no_agents_and_what_is_refused() -> None:
    assert play_table([]).columns == list(schema_of("play").dtypes())
    assert exploitability_table([]).height == price_of_morality_table([]).height == 0
    with pytest.raises(ConfigError, match="Noise is not a probability. Seen: 2"):
        play_table([asked("kind", KIND)], noises=(2.0,))
    with pytest.raises(ConfigError, match="There is no game of this name. Seen: chess"):
        play_table([asked("kind", KIND, game="chess")])
