"""A repeated game as a decision process equals playing it out, game by game."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games import (
    GAMES,
    ILLEGAL_PENALTY,
    STATES,
    Encounter,
    GroupState,
    PublicGoods,
    State,
    answer_values,
    decision_values,
    get_game,
    get_opponent,
    get_reward,
    meet,
    meet_group,
    round_of,
    visits,
)

ROUNDS = 3
Policy = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def random_policy(states: int, seed: int = 0) -> Policy:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 0.4], size=states)


def played_out(
    game: str, reward: str, opponent: str, policy: Policy, discount: float
) -> tuple[Policy, Policy, float]:
    """Every course of a game, one by one: visits by round, worth of answers, expected return."""
    who, what = get_opponent(opponent), get_reward(reward)
    seen = np.zeros((ROUNDS, 4))
    worth = np.zeros((ROUNDS, 4, 3))
    total = 0.0
    p_start = who.p_cooperated_before
    for own, other in product("CD", repeat=2):
        start = 0.5 * (p_start if other == "C" else 1 - p_start)
        for answers in product((0, 1, 2), repeat=ROUNDS):
            for replies in product("CD", repeat=ROUNDS):
                p, last = start, (own, other)
                gained, course = [], []
                for answer, reply in zip(answers, replies, strict=True):
                    q = who.p_cooperate_after[last]  # type: ignore[index]
                    s = [x.name for x in STATES].index("".join(last))
                    p *= policy[s, answer] * (q if reply == "C" else 1 - q)
                    course.append((s, answer))
                    if answer == 2:
                        gained.append(ILLEGAL_PENALTY)
                        last = (last[0], reply)
                    else:
                        move = "CD"[answer]
                        state = State(*last)  # type: ignore[arg-type]
                        at = round_of(get_game(game), state, move, (reply,))  # type: ignore[arg-type]
                        gained.append(what.value(at))
                        last = (move, reply)
                if p == 0:
                    continue
                for t, (s, answer) in enumerate(course):
                    seen[t, s] += p
                    to_go = sum(discount**k * g for k, g in enumerate(gained[t:]))
                    worth[t, s, answer] += p * to_go
                total += p * sum(discount**k * g for k, g in enumerate(gained))
    return seen, worth, total


@pytest.mark.parametrize(
    ("game", "reward", "opponent"),
    [
        ("IPD", "game", "tit-for-tat"),
        ("BOS", "hybrid", "random"),
        ("ISH", "utilitarian", "always-defect"),
        ("IPD", "deontological", "always-cooperate"),
    ],
)
def test_a_two_player_game_equals_all_its_courses(game: str, reward: str, opponent: str) -> None:
    policy = random_policy(4)
    encounter = meet(get_game(game), get_reward(reward), get_opponent(opponent))
    seen, worth, total = played_out(game, reward, opponent, policy, 0.7)
    d = visits(encounter, policy, ROUNDS)
    q = answer_values(encounter, policy, ROUNDS, 0.7)
    assert np.allclose(d, seen, atol=1e-12)
    expected = d[:, :, None] * policy * q
    assert np.allclose(expected, worth, atol=1e-12)
    assert float((encounter.initial[:, None] * policy * q[0]).sum()) == pytest.approx(total)


def test_the_gradient_of_the_return_is_that_of_the_policy_gradient_theorem() -> None:
    encounter = meet(get_game("IPD"), get_reward("hybrid"), get_opponent("tit-for-tat"))
    logits = np.random.default_rng(3).normal(size=(4, 3))

    def policy(values: Policy) -> Policy:
        e = np.exp(values)
        return e / e.sum(1, keepdims=True)

    def mean_return(values: Policy) -> float:
        p = policy(values)
        d = visits(encounter, p, ROUNDS)
        return float((d[:, :, None] * p * encounter.rewards).sum()) / ROUNDS

    p = policy(logits)
    weight, value = decision_values(
        encounter, p, weighting="visitation", horizon="reward-to-go", rounds=ROUNDS, discount=1.0
    )
    direct = weight[:, None] * value
    exact = p * (direct - (p * direct).sum(1, keepdims=True))  # through the softmax
    for place in np.ndindex(4, 3):
        moved = [logits.copy(), logits.copy()]
        moved[0][place] += 1e-5
        moved[1][place] -= 1e-5
        slope = (mean_return(moved[0]) - mean_return(moved[1])) / 2e-5
        assert slope == pytest.approx(exact[place], abs=1e-8)
    bandit = decision_values(
        encounter, p, weighting="visitation", horizon="bandit", rounds=ROUNDS, discount=1.0
    )
    assert not np.allclose(bandit[1], value)


def test_uniform_weights_average_over_states_and_rounds() -> None:
    encounter = meet(get_game("ICN"), get_reward("game"), get_opponent("random"))
    policy = random_policy(4, 5)
    weight, value = decision_values(
        encounter, policy, weighting="uniform", horizon="reward-to-go", rounds=ROUNDS, discount=0.5
    )
    assert weight.tolist() == [0.25] * 4
    assert np.allclose(value, answer_values(encounter, policy, ROUNDS, 0.5).mean(0))
    _, bandit = decision_values(
        encounter, policy, weighting="uniform", horizon="bandit", rounds=ROUNDS, discount=0.5
    )
    assert (bandit == encounter.rewards).all()
    assert (bandit[:, 2] == ILLEGAL_PENALTY).all()


def test_a_state_that_play_never_meets_has_no_weight_and_finite_values() -> None:
    encounter = meet(get_game("IPD"), get_reward("game"), get_opponent("always-cooperate"))
    weight, value = decision_values(
        encounter,
        random_policy(4),
        weighting="visitation",
        horizon="reward-to-go",
        rounds=4,
        discount=1.0,
    )
    assert weight[[1, 3]].tolist() == [0.0, 0.0]
    assert np.isfinite(value).all()


def group_by_hand(game: PublicGoods, policy: Policy, reward: str) -> tuple[Policy, Policy]:
    """Copies of one policy in a group, every joint move one by one."""
    states = list(game.states)
    n = game.players
    rewards = np.zeros((len(states), 2))
    transition = np.zeros((len(states), 3, len(states)))
    for s, state in enumerate(states):
        last = ("C",) * state.cooperators + ("D",) * (n - 1 - state.cooperators)
        everyone = (state.own_previous, *last)
        cooperates = []
        for j in range(1, n):
            seen = sum(m == "C" for i, m in enumerate(everyone) if i != j)
            p = policy[states.index(GroupState(everyone[j], seen))]  # type: ignore[arg-type]
            cooperates.append(p[0] + p[2] * (everyone[j] == "C"))
        for moves in product("CD", repeat=n - 1):
            chance = float(
                np.prod([q if m == "C" else 1 - q for m, q in zip(moves, cooperates, strict=True)])
            )
            k = moves.count("C")
            for a, own in enumerate("CD"):
                total = k + (own == "C")
                share = game.multiplier * game.endowment * total / n
                points = [share + (game.endowment if m == "D" else 0) for m in (own, *moves)]
                gained = {"game": points[0], "utilitarian": sum(points)}[reward]
                rewards[s, a] += chance * gained
                after = states.index(GroupState(own, k))  # type: ignore[arg-type]
                transition[s, a, after] += chance
        stays: Move = state.own_previous
        transition[s, 2] = transition[s, "CD".index(stays)]
    return rewards, transition


@pytest.mark.parametrize("reward", ["game", "utilitarian"])
@pytest.mark.parametrize("players", [2, 4])
def test_a_group_of_copies_equals_every_joint_move(players: int, reward: str) -> None:
    game = PublicGoods(players, 5.0, 1.6)
    policy = random_policy(2 * players, players)
    stays = np.array([s.own_previous == "C" for s in game.states])
    p_others = policy[:, 0] + policy[:, 2] * stays
    encounter = meet_group(game, get_reward(reward), p_others)
    rewards, transition = group_by_hand(game, policy, reward)
    assert np.allclose(encounter.rewards[:, :2], rewards, atol=1e-12)
    assert np.allclose(encounter.transition, transition, atol=1e-12)
    assert (encounter.rewards[:, 2] == ILLEGAL_PENALTY).all()
    assert encounter.initial.sum() == pytest.approx(1.0)


@given(
    st.sampled_from(sorted(GAMES)),
    st.sampled_from(["game", "utilitarian", "hybrid"]),
    st.sampled_from(["tit-for-tat", "random", "always-defect"]),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_probabilities_stay_probabilities(game: str, reward: str, who: str, seed: int) -> None:
    encounter = meet(get_game(game), get_reward(reward), get_opponent(who))
    policy = random_policy(4, seed)
    assert np.allclose(encounter.transition.sum(-1), 1)
    assert np.allclose(visits(encounter, policy, 6).sum(1), 1)
    weight, _ = decision_values(
        encounter, policy, weighting="visitation", horizon="bandit", rounds=6, discount=1.0
    )
    assert weight.sum() == pytest.approx(1.0)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="parts of an encounter.*meet or meet_group"):
        Encounter(np.zeros((4, 2)), np.zeros((4, 3, 4)), np.zeros(4))
    with pytest.raises(ConfigError, match="not one of this game's.*GroupState in Game"):
        round_of(get_game("IPD"), GroupState("C", 1), "C", ("D",))
