"""Rewards by expression: sums, settings, phases, names, and what is refused."""

from __future__ import annotations

import pickle
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import (
    GAMES,
    PAIRS,
    REWARDS,
    Game,
    get_reward,
    pair_round,
    reward_phases,
)

ROUNDS = [
    pair_round(game, now, before)
    for game, now, before in product((GAMES["IPD"], GAMES["BOS"]), PAIRS, PAIRS)
]


def test_a_sum_by_hand() -> None:
    # Defecting together after mutual cooperation: points 1 and 1, the norm is broken.
    seen = pair_round(GAMES["IPD"], ("D", "D"), ("C", "C"))
    assert get_reward("0.5*game + 0.5*utilitarian").value(seen) == 1.5
    assert get_reward("game - 0.3*spite(weight=1)").value(seen) == 1
    assert get_reward("-2*rawlsian - deontological + game").value(seen) == -2 + 3 + 1
    assert get_reward("2*deontological(strict, 1) - game").value(seen) == -3


coefficients = st.integers(-20, 20).map(lambda n: n / 4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(coefficients, st.sampled_from(sorted(REWARDS))), min_size=1, max_size=5),
    st.sampled_from(ROUNDS),
)
def test_sums_are_linear_and_their_names_say_them(parts, seen) -> None:
    expression = " + ".join(f"{c}*{name}" for c, name in parts)
    reward = get_reward(expression)
    expected = sum(c * REWARDS[name].value(seen) for c, name in parts)
    assert reward.value(seen) == pytest.approx(expected, abs=1e-9)
    again = get_reward(reward.name)
    assert again.name == reward.name
    assert again.value(seen) == reward.value(seen)


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("game", "game"),
        ("  1*game ", "game"),
        ("0.50*game  +  utilitarian", "0.5*game + utilitarian"),
        ("game +\n  -1*utilitarian", "game - utilitarian"),
        ("-1*game", "-1*game"),
        ("game - -2*spite", "game + 2*spite"),
        ("1e-5*care( 0.50 )", "1e-05*care(0.5)"),
        ("deontological( norm = any ,penalty=2.0)", "deontological(norm=any, penalty=2)"),
    ],
)
def test_names_are_written_regularly(expression: str, name: str) -> None:
    assert get_reward(expression).name == name


def test_the_built_in_rewards_are_the_expressions_of_their_names() -> None:
    assert list(REWARDS)[:4] == ["game", "deontological", "utilitarian", "hybrid"]
    for name, reward in REWARDS.items():
        assert reward.name == name
        assert [reward.value(r) for r in ROUNDS] == [get_reward(name).value(r) for r in ROUNDS]


def test_a_reward_crosses_a_process_boundary() -> None:
    reward = get_reward("game - 0.5*deontological(norm=any)")
    again = pickle.loads(pickle.dumps(reward))  # noqa: S301 (own data)
    assert again.name == reward.name
    assert [again.value(r) for r in ROUNDS] == [reward.value(r) for r in ROUNDS]


def test_phases_follow_each_other() -> None:
    assert reward_phases("game") == ("game",)
    assert reward_phases("game then deontological") == ("game", "deontological")
    assert reward_phases("1*game  then\n2*spite(1) + game then game") == (
        "game",
        "2*spite(1) + game",
        "game",
    )


@pytest.mark.parametrize(
    ("expression", "problem", "next_step"),
    [
        ("utilitarism", r"no reward of this name. Seen: utilitarism\. Allowed: game, deonto",
         "did you mean 'utilitarian'"),
        ("game + utilitarism(2)", "no reward of this name. Seen: utilitarism", "'utilitarian'"),
        ("game+utilitarian", r"no reward of this name. Seen: game\+utilitarian", "put spaces"),
        ("deontological(penality=2)", "no such setting. Seen: penality in .*: norm, penalty",
         "did you mean 'penalty'"),
        ("spite(1, 2)", "'spite' has no such setting. Seen: 2", "use one of weight"),
        ("game(2)", "'game' has no such setting.*no settings at all", "write game alone"),
        ("spite(1, weight=2)", r"'spite' is given the same setting twice. Seen: weight in spite",
         "remove one"),
        ("deontological(norm=anny)", "'norm' of .* Seen: norm=anny.*: previous, own, any, strict",
         "did you mean 'any'"),
        ("hybrid(3)", "'norm' of the reward 'hybrid' cannot be used. Seen: norm=3", "use one of"),
        ("deontological(penalty=-1)", "'penalty' of .* Seen: penalty=-1.* 0 or more", "correct"),
        ("virtue-kindness(-1)", "'bonus' of the reward .*0 or more", "correct"),
        ("inequity-aversion(beta=-0.1)", "'beta' of the reward .*0 or more", "correct"),
        ("care(weight=inf)", "'weight' of the reward 'care'.*Seen: weight=inf.*finite", "correct"),
        ("spite(nan)", "'weight' of the reward 'spite'.*Seen: weight=nan.*finite", "correct"),
        ("spite(weight=own)", "'weight' of the reward 'spite'.*Seen: weight=own", "correct"),
        ("", "A reward lacks a term. Seen: ''", "add the term"),
        ("game + ", "A reward lacks a term. Seen: 'game [+]'", "add the term"),
        ("game + + game", "A reward lacks a term. Seen: 'game [+] [+] game'", "add the term"),
        ("- game", "A reward lacks a term. Seen: '- game'", "write -1\\* before"),
        ("game+0.5*spite", "coefficient .* is not a number", "spaces around"),
        ("half*game", r"coefficient of a reward's term is not a number. Seen: 'half\*game'",
         r"what stands before \*"),
        ("2*3*game", r"coefficient .* is not a number. Seen: '2\*3\*game'", "correct"),
        ("inf*game", r"coefficient .* is not a number. Seen: 'inf\*game'", "correct"),
        ("*game", r"coefficient .* is not a number. Seen: '\*game'", "correct"),
        ("2*", "This is not a name with settings", "write it like"),
        ("game + spite(1", "This is not a name with settings", "write it like"),
        ("game then spite", "Several phases of training are not one reward. Seen: game then", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_a_reward_is_refused(expression, problem, next_step) -> None:
    with pytest.raises(ConfigError, match=f"{problem}.*Next: .*{next_step}"):
        get_reward(expression)


@pytest.mark.parametrize("expression", ["game then", "then game", "game then then game"])
def test_an_empty_phase_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match="A reward lacks a term. Seen: ''"):
        reward_phases(expression)


def test_a_misspelt_phase_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'game'"):
        reward_phases("spite then gaem")


def test_a_sum_that_is_too_large_to_be_a_number_is_refused() -> None:
    huge = Game("huge", "huge points", {**GAMES["IPD"].payoffs, ("C", "C"): (1e308, 1e308)})
    seen = pair_round(huge, ("C", "C"), ("C", "C"))
    assert get_reward("game").value(seen) == 1e308
    with pytest.raises(ConfigError, match=r"'2\*game' is not a finite number.*game gives 1e\+308"):
        get_reward("2*game").value(seen)
