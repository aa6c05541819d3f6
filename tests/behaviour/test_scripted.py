"""Scripted policies answer as their strategies do, from their own seat."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from moralscope.behaviour.scripted import scripted_decisions, scripted_policy
from moralscope.core.decision import Decision, Message, Option, Prompt
from moralscope.core.errors import ConfigError
from moralscope.core.tables import conform
from moralscope.games import clusters, get_public_goods, public_goods_prompts, scenarios, structured

# P(C) after CC, CD, DC, DD with the strategy's OWN last move first, from the literature.
OWN_SEAT = {
    "always-cooperate": (1, 1, 1, 1),
    "always-defect": (0, 0, 0, 0),
    "tit-for-tat": (1, 0, 1, 0),
    "grim": (1, 0, 0, 0),
    "win-stay-lose-shift": (1, 0, 0, 1),
    "random": (0.5, 0.5, 0.5, 0.5),
    # Press and Dyson's equation 12 with T, R, P, S = 4, 3, 1, 0, chi = 2 and phi = 1/14.
    "zd-extortion(2)": (1 - 2 / 14, 1 - 7 / 14, 5 / 14, 0),
    "noisy(tit-for-tat, 0.1)": (0.9, 0.1, 0.9, 0.1),
    "bully": (0, 1, 0, 1),
    "alternator": (0, 0, 1, 1),
    # Written from the seat of who faces it: the middle two change places.
    "memory-one(0.9, 0.2, 0.6, 0.1)": (0.9, 0.6, 0.2, 0.1),
}


def bare(**changes: object) -> Prompt:
    decision = Decision(
        (Message("user", "x"),), "", Option("defect", ("b",)), Option("cooperate", ("a",))
    )
    plain = Prompt("p", decision, "IPD", "IPD", "unrelated", "t", "a/b")
    return dataclasses.replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def cooperation(expression: str, *prompts: Prompt) -> list[float]:
    named = [dataclasses.replace(p, name=f"{i} {p.name}") for i, p in enumerate(prompts)]
    found = scripted_decisions("policy:x", expression, named)
    return found.get_column("p_negative").to_list()


@pytest.mark.parametrize("expression", OWN_SEAT)
def test_a_strategy_answers_each_state_from_its_own_seat(expression: str) -> None:
    prompts = [*structured(), *scenarios(), *clusters()]
    decisions = scripted_decisions("policy:it", expression, prompts)
    assert decisions.equals(conform("decisions", decisions))
    assert decisions.get_column("prompt").to_list() == [p.name for p in prompts]
    expected = [
        OWN_SEAT[expression][2 * (p.own_previous == "D") + (p.opponent_previous == "D")]
        for p in prompts
    ]
    np.testing.assert_allclose(decisions.get_column("p_negative"), expected, atol=1e-15)
    np.testing.assert_allclose(1 - decisions.get_column("p_positive"), expected, atol=1e-15)
    assert decisions.get_column("p_positive_given_legal").equals(
        decisions.get_column("p_positive").alias("p_positive_given_legal")
    )
    assert decisions.get_column("legal_mass").to_list() == [1.0] * len(prompts)
    assert decisions.select(pl.col("log_odds", "fingerprint_log_odds").null_count()).row(0) == (
        len(prompts),
        len(prompts),
    )


def test_without_a_memory_the_opening_is_answered() -> None:
    nothing = bare()
    assert cooperation("grim", nothing) == [1.0]
    assert cooperation("suspicious-tit-for-tat", nothing) == [0.0]
    assert cooperation("tit-for-tat", nothing) == [0.5]
    assert cooperation("always-defect", nothing) == [0.0]
    assert cooperation("memory-one(.1, .2, .3, .4, opening=.7)", nothing) == [0.7]


def test_half_a_memory_is_averaged_over_the_other_half() -> None:
    expression = "memory-one(.8, .2, .4, .1)"  # own seat: CC .8, CD .4, DC .2, DD .1
    told = [
        bare(opponent_previous="C"),
        bare(opponent_previous="D"),
        bare(own_previous="C"),
        bare(own_previous="D"),
    ]
    expected = [(0.8 + 0.2) / 2, (0.4 + 0.1) / 2, (0.8 + 0.4) / 2, (0.2 + 0.1) / 2]
    np.testing.assert_allclose(cooperation(expression, *told), expected, atol=1e-15)


def test_in_a_group_one_of_the_others_is_answered() -> None:
    game = get_public_goods("public-goods(players=4)")
    prompts = list(public_goods_prompts(game))
    assert {p.others_cooperated for p in prompts} == {0, 1, 2, 3}
    answers = cooperation("tit-for-tat", *prompts)
    assert answers == [pytest.approx((p.others_cooperated or 0) / 3) for p in prompts]
    grim = cooperation("grim", *prompts)
    expected = [(p.own_previous == "C") * (p.others_cooperated or 0) / 3 for p in prompts]
    assert grim == [pytest.approx(value) for value in expected]


def test_a_longer_memory_than_a_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs more memory than a prompt holds") as caught:
        scripted_decisions("policy:x", "tit-for-two-tats", list(structured()))
    assert caught.value.seen == "tit-for-two-tats, which looks at the last 2 rounds"
    assert "meet it as an opponent" in caught.value.remedy
    with pytest.raises(ConfigError, match="There is no classical strategy of this name"):
        scripted_policy("learner")


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ConfigError, match="There is no classical strategy of this name") as caught:
        scripted_decisions("policy:x", "tit-for-tatt", list(structured()))
    assert caught.value.remedy == "did you mean 'tit-for-tat'"
