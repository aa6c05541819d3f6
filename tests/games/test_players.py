"""Players move by move: memory-one ones against their tables, responses against exact play."""

from __future__ import annotations

import numpy as np
import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import (
    OPPONENTS,
    PAIRS,
    MemoryOnePlayer,
    get_opponent,
    initial_states,
    make_player,
    response_table,
    visitation,
)


def moves(player, agent) -> str:
    return player.previous + "".join(player.move(move) for move in agent)


@pytest.mark.parametrize(
    ("expression", "agent", "expected"),
    [
        # The agent's moves, its move before the first round first; the opponent's opening first.
        ("suspicious-tit-for-tat", "CDDCC", "DCDDCC"),
        ("grim", "CCDCC", "CCCDDD"),
        ("win-stay-lose-shift", "CDDCDC", "CCDCCDD"),
        ("always-defect", "CCD", "DDDD"),
        ("always-cooperate", "CDD", "CCCC"),
        ("noisy(suspicious-tit-for-tat, 1)", "CDDCC", "CDCCDD"),
        ("memory-one(0, 0, 1, 1, opening=0)", "CDDCC", "DDCCDD"),
    ],
)
def test_deterministic_players_by_hand(expression: str, agent: str, expected: str) -> None:
    assert moves(make_player(expression, np.random.default_rng(0)), agent) == expected


def test_a_player_answers_the_state_with_its_probability() -> None:
    """Each state's share of cooperation, over games in which the agent plays at random."""
    opponent = get_opponent("memory-one(0.9, 0.2, 0.6, 0.05, opening=0.3)")
    rng = np.random.default_rng(3)
    counts = {pair: [0, 0] for pair in PAIRS}
    openings = 0
    for _ in range(1500):
        player = MemoryOnePlayer(opponent, rng)
        openings += player.previous == "C"
        last = player.previous
        for _ in range(8):
            agent = "CD"[rng.integers(2)]
            now = player.move(agent)
            counts[(agent, last)][now == "C"] += 1
            last = now
    assert openings / 1500 == pytest.approx(0.3, abs=0.04)
    for pair, (d, c) in counts.items():
        p = opponent.p_cooperate_after[pair]
        assert c / (c + d) == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / (c + d)))


def test_a_seed_gives_a_game_and_another_seed_another() -> None:
    agent = "CDDC" * 8
    first, same, other = (
        moves(make_player("random", np.random.default_rng(seed)), agent) for seed in (1, 1, 2)
    )
    assert first == same != other


@pytest.mark.parametrize("expression", ["learner", "agent(somewhere)"])
def test_a_model_is_no_player(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"is a model, which .* Seen: (learner|agent\(somew)"):
        make_player(expression, np.random.default_rng(0))


P_C, P_LEGAL = np.array([0.8, 0.3, 0.6, 0.4]), np.array([0.9, 0.7, 1.0, 0.8])


@pytest.mark.parametrize("expression", ["noisy(tit-for-tat, 0.2)", "zd-extortion", "grim"])
def test_the_response_of_a_memory_one_opponent_is_its_own_table(expression: str) -> None:
    exact = get_opponent(expression)
    response = response_table(
        expression, P_C, P_LEGAL, rounds=6, games=3000, rng=np.random.default_rng(5)
    )
    assert response.opponent.name == exact.name
    assert response.visits.sum() == 18000
    assert response.visits.min() > 300
    np.testing.assert_allclose(response.visitation, visitation(P_C, P_LEGAL, exact, 6), atol=0.02)
    np.testing.assert_allclose(initial_states(response.opponent), initial_states(exact), atol=0.02)
    for pair, n in zip(PAIRS, response.visits.tolist(), strict=True):
        p = exact.p_cooperate_after[pair]
        bound = 4.5 * np.sqrt(p * (1 - p) / n)
        assert response.opponent.p_cooperate_after[pair] == pytest.approx(p, abs=bound)


def test_a_response_gets_closer_with_more_games() -> None:
    exact = get_opponent("random")
    errors = []
    for games in (20, 5000):
        found = response_table(
            "random", P_C, P_LEGAL, rounds=4, games=games, rng=np.random.default_rng(6)
        ).opponent
        q, p = (np.array([o.p_cooperate_after[pair] for pair in PAIRS]) for o in (found, exact))
        errors.append(np.abs(q - p).max())
    assert 0.025 > errors[1] < errors[0]


def test_a_state_that_was_never_met_is_even() -> None:
    response = response_table(
        "always-cooperate", np.ones(4), np.ones(4), rounds=3, games=20,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert response.visits[1] == response.visits[3] == 0
    assert response.opponent.p_cooperate_after == {
        ("C", "C"): 1.0, ("C", "D"): 0.5, ("D", "C"): 1.0, ("D", "D"): 0.5,
    }  # fmt: skip
    assert response.opponent.opening == 1.0
    # The agent's D before the first round is met once in about half of the games.
    assert 0 < response.visits[2] < 20


def test_an_agent_that_never_answers_keeps_its_uniform_move() -> None:
    response = response_table(
        "tit-for-tat", np.ones(4), np.zeros(4), rounds=5, games=2000, rng=np.random.default_rng(1)
    )
    np.testing.assert_allclose(response.visitation, [0.45, 0.05, 0.05, 0.45], atol=0.025)


def test_a_response_depends_on_the_generator_alone() -> None:
    tables = [
        response_table("random", P_C, P_LEGAL, rounds=3, games=30, rng=np.random.default_rng(seed))
        for seed in (4, 4, 5)
    ]
    assert tables[0].opponent == tables[1].opponent != tables[2].opponent


@pytest.mark.parametrize(
    ("rounds", "games", "text"), [(0, 5, "Seen: rounds 0"), (5, -1, "Seen: games -1")]
)
def test_no_play_gives_no_response(rounds: int, games: int, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        response_table(
            "random", P_C, P_LEGAL, rounds=rounds, games=games, rng=np.random.default_rng(0)
        )


def test_a_policy_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="p_cooperate does not hold one probability for each"):
        response_table(
            "random", np.full(3, 0.5), P_LEGAL, rounds=1, games=1, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("name", OPPONENTS)
def test_every_named_opponent_plays(name: str) -> None:
    assert set(moves(make_player(name, np.random.default_rng(9)), "CDCD")) <= {"C", "D"}
