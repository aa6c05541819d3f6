"""Opponents and exact play against brute force, Monte Carlo and closed forms."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moralscope.core.errors import ConfigError
from moralscope.games import (
    MOVES,
    OPPONENTS,
    PAIRS,
    STATES,
    Opponent,
    get_opponent,
    initial_states,
    transition_matrix,
    visitation,
)

probabilities = st.floats(0, 1)
four = arrays(np.float64, 4, elements=probabilities)
any_opponent = st.builds(
    lambda values: Opponent("drawn", dict(zip(PAIRS, values, strict=True))),
    st.lists(probabilities, min_size=4, max_size=4),
)


def path_frequencies(p_c, p_legal, opponent, steps):
    """Brute force: every path of (legal?, own move, opponent's move), weighted."""
    start = [0.5 * (opponent.p_cooperated_before if o == "C" else 1 - opponent.p_cooperated_before)
             for _, o in PAIRS]  # fmt: skip
    counts = dict.fromkeys(PAIRS, 0.0)
    paths = {(pair,): weight for pair, weight in zip(PAIRS, start, strict=True)}
    for _ in range(steps - 1):
        longer = {}
        for path, weight in paths.items():
            own, _ = path[-1]
            i = PAIRS.index(path[-1])
            q = opponent.p_cooperate_after[path[-1]]
            for answer, reply in product(("C", "D", "illegal"), MOVES):
                chance = {
                    "C": p_legal[i] * p_c[i],
                    "D": p_legal[i] * (1 - p_c[i]),
                    "illegal": 1 - p_legal[i],
                }[answer] * (q if reply == "C" else 1 - q)
                after = (own if answer == "illegal" else answer, reply)
                key = (*path, after)
                longer[key] = longer.get(key, 0.0) + weight * chance
        paths = longer
    for path, weight in paths.items():
        for pair in path:
            counts[pair] += weight / steps
    return np.array([counts[pair] for pair in PAIRS])


def sampled_frequencies(p_c, p_legal, opponent, *, steps, episodes, rng):
    """Monte Carlo, written as an episode is played."""
    counts = np.zeros(4)
    for _ in range(episodes):
        own = "C" if rng.random() < 0.5 else "D"
        other = "C" if rng.random() < opponent.p_cooperated_before else "D"
        for _ in range(steps):
            i = PAIRS.index((own, other))
            counts[i] += 1
            reply = "C" if rng.random() < opponent.p_cooperate_after[(own, other)] else "D"
            if rng.random() < p_legal[i]:
                own = "C" if rng.random() < p_c[i] else "D"
            other = reply
    return counts / counts.sum()


def test_opponents_play_what_their_names_say() -> None:
    for own, other in PAIRS:
        play = {name: o.p_cooperate_after[(own, other)] for name, o in OPPONENTS.items()}
        published = ("tit-for-tat", "always-cooperate", "always-defect", "random")
        assert {name: play[name] for name in published} == {
            "tit-for-tat": float(own == "C"),
            "always-cooperate": 1.0,
            "always-defect": 0.0,
            "random": 0.5,
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tit-for-tat", [0.25, 0.25, 0.25, 0.25]),
        ("random", [0.25, 0.25, 0.25, 0.25]),
        ("always-cooperate", [0.5, 0, 0.5, 0]),
        ("always-defect", [0, 0.5, 0, 0.5]),
    ],
)
def test_first_states(name: str, expected: list[float]) -> None:
    assert initial_states(get_opponent(name)).tolist() == expected


def test_states_are_in_the_order_of_every_axis() -> None:
    assert [state.name for state in STATES] == ["CC", "CD", "DC", "DD"]
    assert STATES[1].own_previous == "C"
    assert STATES[1].opponent_previous == "D"


def test_an_opponent_crosses_a_process_boundary_and_cannot_be_changed() -> None:
    opponent = get_opponent("tit-for-tat")
    again = pickle.loads(pickle.dumps(opponent))  # noqa: S301 (own data)
    assert again == opponent
    assert hash(again) == hash(opponent)
    with pytest.raises(TypeError):
        opponent.p_cooperate_after[("C", "C")] = 0.0  # type: ignore[index]


def test_bad_opponents_are_refused() -> None:
    with pytest.raises(ConfigError, match="after every state"):
        Opponent("short", {("C", "C"): 1.0})
    with pytest.raises(ConfigError, match=r"not a probability. Seen: 1\.5"):
        Opponent("keen", dict.fromkeys(PAIRS, 1.5))
    with pytest.raises(ConfigError, match="not a probability. Seen: nan"):
        Opponent("lost", dict.fromkeys(PAIRS, float("nan")))
    with pytest.raises(ConfigError, match="did you mean 'tit-for-tat'"):
        get_opponent("tit-for-tatt")


@settings(max_examples=30)
@given(four, four, any_opponent, st.integers(1, 5))
def test_visitation_equals_the_sum_over_paths(p_c, p_legal, opponent, steps) -> None:
    exact = visitation(p_c, p_legal, opponent, steps)
    np.testing.assert_allclose(exact, path_frequencies(p_c, p_legal, opponent, steps), atol=1e-12)


@given(four, four, any_opponent, st.integers(1, 50))
def test_visitation_is_a_distribution(p_c, p_legal, opponent, steps) -> None:
    frequencies = visitation(p_c, p_legal, opponent, steps)
    assert frequencies.shape == (4,)
    assert (frequencies >= 0).all()
    assert frequencies.sum() == pytest.approx(1, abs=1e-12)


@given(four, four, any_opponent)
def test_rows_of_the_transition_matrix_are_distributions(p_c, p_legal, opponent) -> None:
    matrix = transition_matrix(p_c, p_legal, opponent)
    assert (matrix >= -1e-15).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", OPPONENTS)
def test_visitation_agrees_with_sampled_play(name: str) -> None:
    rng = np.random.default_rng(20)
    p_c, p_legal = np.array([0.9, 0.2, 0.6, 0.3]), np.array([0.95, 0.5, 0.8, 0.7])
    opponent = OPPONENTS[name]
    sampled = sampled_frequencies(p_c, p_legal, opponent, steps=5, episodes=4000, rng=rng)
    np.testing.assert_allclose(visitation(p_c, p_legal, opponent), sampled, atol=0.02)


def test_an_agent_that_never_answers_keeps_its_last_move_while_the_opponent_moves() -> None:
    nothing = np.zeros(4)
    # Tit-for-tat copies the frozen own move from the second round on.
    v = visitation(np.ones(4), nothing, OPPONENTS["tit-for-tat"], steps=5)
    np.testing.assert_allclose(v, [0.45, 0.05, 0.05, 0.45])


def test_always_cooperating_against_tit_for_tat_in_closed_form() -> None:
    ones = np.ones(4)
    v = visitation(ones, ones, OPPONENTS["tit-for-tat"], steps=5)
    # Round 1 uniform; round 2 own C, other's reply uniform; from round 3 on mutual cooperation.
    np.testing.assert_allclose(v, np.array([0.25 + 0.5 + 3, 0.25 + 0.5, 0.25, 0.25]) / 5)


def test_rounding_errors_of_float32_probabilities_are_accepted() -> None:
    ones = np.ones(4)
    tft = OPPONENTS["tit-for-tat"]
    v = visitation(ones + 2e-7, ones + 2e-7, tft)
    np.testing.assert_array_equal(v, visitation(ones, ones, tft))


@pytest.mark.parametrize(
    "bad", [np.full(4, 1.1), np.full(4, -0.1), np.full(4, np.nan), np.ones(3), np.ones((4, 1))]
)
def test_bad_probabilities_are_refused(bad) -> None:
    tft = OPPONENTS["tit-for-tat"]
    with pytest.raises(ConfigError, match="p_cooperate does not hold one probability for each"):
        visitation(bad, np.ones(4), tft)
    with pytest.raises(ConfigError, match="p_legal does not hold one probability for each state"):
        visitation(np.ones(4), bad, tft)


def test_an_episode_without_rounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="An episode has no rounds. Seen: steps 0"):
        visitation(np.ones(4), np.ones(4), OPPONENTS["random"], steps=0)
