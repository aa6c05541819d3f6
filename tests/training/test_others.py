"""Whoever else is at the table does there what its encounter says, and is who it should be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError
from moralscope.games import (
    STATES,
    GroupState,
    PublicGoods,
    get_game,
    get_opponent,
    get_reward,
    meet,
    visits,
)
from moralscope.training.others import (
    Group,
    LongMemory,
    MemoryOne,
    Others,
    agent_folder,
    as_opponent,
    check_opponent,
    effective,
    scripted,
)

Array = NDArray[np.float64]
IPD = get_game("IPD")
GAME = get_reward("game")


def some_policy(states: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 0.6], size=states)


def test_another_agent_is_met_mirrored_and_repeats_its_move_where_its_answer_is_neither() -> None:
    # Rows CC, CD, DC, DD of its own states; columns C, D, neither.
    policy = np.array([[0.5, 0.2, 0.3], [0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7]])
    met = as_opponent("x", policy)
    assert met.name == "x"
    # Keys are (my last move, its last move). It stays with C after its own C: add "neither".
    assert met.p_cooperate_after[("C", "C")] == pytest.approx(0.5 + 0.3)
    assert met.p_cooperate_after[("D", "C")] == pytest.approx(0.1 + 0.4)  # its state: CD
    assert met.p_cooperate_after[("C", "D")] == pytest.approx(0.6)  # its state: DC
    assert met.p_cooperate_after[("D", "D")] == pytest.approx(0.2)
    assert effective(policy, STATES).tolist() == pytest.approx([0.8, 0.5, 0.6, 0.2])


def frequencies(
    others: Others, states: list[object], policy: Array, rounds: int, games: int
) -> tuple[Array, Array]:
    """Shares of states by round, and of contributors' numbers by state, from play at the table.

    The agent draws its own answers here; only the others' moves are those of the table.
    """
    rng = np.random.default_rng(11)
    size = max(getattr(s, "cooperators", 1) for s in states) + 1
    seen = np.zeros((rounds, len(states)))
    moved = np.zeros((len(states), size))
    for number in range(games):
        table = others.sit(policy, 1, number)
        own: Move = "C" if rng.random() < 0.5 else "D"
        before = table.before
        for t in range(rounds):
            at = next(i for i, s in enumerate(states) if is_in(s, own, before))
            seen[t, at] += 1
            moves = table.move(own)
            moved[at, moves.count("C")] += 1
            answer = rng.choice(3, p=policy[at])
            own = own if answer == 2 else "CD"[answer]  # type: ignore[assignment]
            before = moves
    return seen / games, moved


def is_in(state: object, own: Move, before: tuple[Move, ...]) -> bool:
    if isinstance(state, GroupState):
        return (state.own_previous, state.cooperators) == (own, before.count("C"))
    return (state.own_previous, state.opponent_previous) == (own, before[0])  # type: ignore[attr-defined]


def close(share: Array, p: Array, n: Array | int) -> None:
    """Within 4.5 standard errors of probabilities, exactly where they are 0 or 1."""
    error = np.sqrt(p * (1 - p) / np.maximum(n, 1))
    assert (np.abs(share - p) <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("rule", ["copies", "tit-for-tat", "random", "always-defect"])
@pytest.mark.parametrize("players", [2, 4])
def test_a_group_at_the_table_is_the_group_of_the_encounter(rule: str, players: int) -> None:
    game, rounds, games = PublicGoods(players), 3, 1500
    policy = some_policy(2 * players, players)
    others = Group(game, rule, seed=3)
    assert others.reacts == (rule == "copies")
    seen, moved = frequencies(others, list(game.states), policy, rounds, games)
    encounter = others.encounter(GAME, policy, 1)
    if rule not in ("copies", "always-defect"):
        assert (moved[:, 1:-1].sum() > 0) == (players > 2)  # others do differ from each other
    close(seen, visits(encounter, policy, rounds), games)
    # Contributors after each state: the agent's own C adds none to the others'.
    n = moved.sum(1)
    for number in range(players):
        after = [game.states.index(GroupState("C", number))]
        p = encounter.transition[:, 0, after].sum(1)
        close(moved[:, number] / np.maximum(n, 1) * (n > 0), p * (n > 0), n)
    expected = np.arange(players) @ moved.T / np.maximum(n, 1)
    points = np.array([[game.points("C", k), game.points("D", k)] for k in range(players)])
    mean = points[0] + (points[1] - points[0]) * expected[:, None]  # linear in contributors
    met = n > 0
    slack = 4.5 * game.multiplier * game.endowment / np.sqrt(n[met])[:, None]
    assert (np.abs(mean - encounter.rewards[:, :2])[met] < slack).all()


def test_copies_of_a_pair_at_the_table_are_those_of_the_encounter() -> None:
    policy = some_policy(4, 8)
    others = MemoryOne(IPD, None, seed=5)
    assert others.reacts
    seen, moved = frequencies(others, list(STATES), policy, 4, 2500)
    encounter = others.encounter(GAME, policy, 1)
    close(seen, visits(encounter, policy, 4), 2500)
    n = moved.sum(1)
    stays = [policy[0, 2], policy[1, 2], 0.0, 0.0]
    mirrored = [0, 2, 1, 3]  # what I call CD my copy calls DC
    p = np.array([policy[m, 0] + stays[m] for m in mirrored])
    close(moved[:, 1] / n, p, n)
    with pytest.raises(ValueError, match="copies need the agent's policy"):
        others.sit(None, 1, 0)
    with pytest.raises(ValueError, match="copies need the agent's policy"):
        Group(PublicGoods(), "copies", 0).sit(None, 1, 0)


def test_a_response_that_is_played_out_leads_to_the_encounter_of_the_table() -> None:
    expression = "noisy(tit-for-tat, 0.1)"
    policy = some_policy(4, 2)
    estimated = LongMemory(IPD, expression, seed=1).encounter(GAME, policy, 7)
    exact = meet(IPD, GAME, get_opponent(expression))
    # 4,000 moves: each state is met hundreds of times, a share is right within a few percent.
    assert np.abs(estimated.rewards - exact.rewards).max() < 3 * 0.1
    assert np.abs(estimated.transition - exact.transition).max() < 0.1
    assert np.abs(estimated.rewards - exact.rewards).max() > 0  # it did play
    again = LongMemory(IPD, expression, seed=1).encounter(GAME, policy, 7)
    later = LongMemory(IPD, expression, seed=1).encounter(GAME, policy, 8)
    assert (again.rewards == estimated.rewards).all()
    assert (later.rewards != estimated.rewards).any()
    assert not LongMemory(IPD, expression, seed=1).reacts


def test_a_policy_that_never_answers_legally_still_has_a_response() -> None:
    policy = np.tile([0.0, 0.0, 1.0], (4, 1))
    met = LongMemory(IPD, "tit-for-tat", seed=0).encounter(GAME, policy, 1)
    assert np.allclose(met.transition.sum(-1), 1)
    assert met.rewards[:2, 0].tolist() == pytest.approx([3.0, 3.0])  # it repeats C, answered by C


OPPONENTS = ("tit-for-tat", "copies", "noisy(tit-for-tat, 0.3)", "random")


@pytest.mark.parametrize("expression", OPPONENTS)
def test_a_table_depends_on_seed_step_and_group_alone(expression: str) -> None:
    policy = some_policy(4, 4)

    def course(seed: int, step: int, group: int) -> tuple[object, ...]:
        others = scripted(expression, IPD, seed)
        assert others is not None
        table = others.sit(policy, step, group)
        return (table.before, *(table.move("CD"[i % 2]) for i in range(24)))  # type: ignore[arg-type]

    assert course(0, 1, 2) == course(0, 1, 2)
    courses = Counter(
        course(seed, step, group) for seed in (0, 1) for step in (1, 2) for group in range(4)
    )
    # Tit-for-tat draws its opening alone: two courses; others never play the same twice.
    assert len(courses) == (2 if expression == "tit-for-tat" else 16)


def test_who_is_meant() -> None:
    group = PublicGoods(3)
    assert isinstance(scripted("copies", group, 0), Group)
    assert isinstance(scripted("copies", IPD, 0), MemoryOne)
    assert isinstance(scripted("grim", IPD, 0), MemoryOne)
    assert isinstance(scripted("axelrod(Tit For 2 Tats)", IPD, 0), LongMemory)
    assert scripted("learner", IPD, 0) is None
    assert scripted("agent(runs/a)", IPD, 0) is None
    assert agent_folder("agent(runs/a)") == "runs/a"
    assert agent_folder("learner") is None


@pytest.mark.parametrize("expression", ["learner", "agent(x)", "grim", "tit-for-tit"])
def test_a_group_knows_only_its_own_rules(expression: str) -> None:
    with pytest.raises(
        ConfigError,
        match="Nobody plays public goods under this name. Seen: .*copies. Next: ",
    ):
        check_opponent(expression, PublicGoods())


def test_other_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="no opponent of this name.*did you mean 'tit-for-tat'"):
        check_opponent("tit-for-tit", IPD)
    with pytest.raises(ConfigError, match="does not say where it is. Seen: agent. .*FOLDER"):
        agent_folder("agent")
    check_opponent("copies", IPD)
    check_opponent("copies", PublicGoods())
    check_opponent("learner")


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_a_policy_that_always_plays_the_same_opens_like_any_other(p: float) -> None:
    always = np.tile([p, 1 - p, 0.0], (4, 1))
    assert as_opponent("x", always).p_cooperated_before == 0.5
    start = MemoryOne(get_game("IPD"), None, 0).encounter(GAME, always, 1).initial
    assert start == pytest.approx(np.full(4, 0.25))
