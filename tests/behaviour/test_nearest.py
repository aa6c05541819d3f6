"""Distances in memory-one space: scripted strategies find themselves, and sums by hand agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.behaviour.varying.nearest import (
    classic_strategies,
    distance,
    jackknife,
    nearest_table,
)
from moralscope.core.errors import TableError
from moralscope.core.tables import conform

OWN_SEAT = {
    "tit-for-tat": (1, 0, 1, 0),
    "always-cooperate": (1, 1, 1, 1),
    "always-defect": (0, 0, 0, 0),
    "random": (0.5, 0.5, 0.5, 0.5),
    "grim": (1, 0, 0, 0),
    "win-stay-lose-shift": (1, 0, 0, 1),
    "generous-tit-for-tat": (1, 2 / 3, 1, 2 / 3),
    "zd-extortion": (6 / 7, 0.5, 5 / 14, 0),
}
"""P(C) after CC, CD, DC, DD, own move first; extortion by Press and Dyson's equation 12 with
chi = 2 and phi = 1/14: 1 - 2 phi, 1 - 7 phi, 5 phi, 0."""

probability = st.floats(0, 1)
policy = st.lists(probability, min_size=4, max_size=4)


def state(prompt: dict[str, Any]) -> int:
    return ["CC", "CD", "DC", "DD"].index(prompt["own_previous"] + prompt["opponent_previous"])


def test_strategies_are_those_of_the_literature_from_their_own_seat() -> None:
    found = classic_strategies()
    assert set(found) == set(OWN_SEAT)
    for name, four in OWN_SEAT.items():
        assert found[name] == pytest.approx(four, abs=1e-12), name


@pytest.mark.parametrize("name", OWN_SEAT)
def test_a_scripted_strategy_is_nearest_to_itself(world: Any, name: str) -> None:
    asked = world.prompts(table_orders=("original",), wordings=())
    table = nearest_table(
        asked, world.follow("script", asked, lambda p: 1 - OWN_SEAT[name][state(p)])
    )
    conform("nearest", table)
    first = table.row(0, named=True)
    assert (first["strategy"], first["rank"], first["low"]) == (name, 1, None)
    assert first["distance"] == pytest.approx(0.0, abs=1e-12)
    assert table["distance"][1] > 0.1
    assert table["rank"].is_sorted()
    assert table["distance"].diff().drop_nulls().min() > -1e-12
    assert table.height == len(OWN_SEAT)


def test_distance_is_of_the_mean_policy_and_its_interval_the_jackknife(world: Any) -> None:
    asked = world.prompts(wordings=())
    decisions = world.decide("base", asked, world.base_log_odds)
    table = nearest_table(asked, decisions)
    given = decisions.join(asked.drop("game", "scenario"), on="prompt")
    each = [
        [
            given.filter(
                pl.col("labels") == labels,
                pl.col("option_order") == first,
                pl.col("table_order") == "original",
                pl.col("own_previous") == cell[0],
                pl.col("opponent_previous") == cell[1],
            )["p_negative"].mean()
            for cell in world.states
        ]
        for labels in (world.same, world.swapped)
        for first in (0, 1)
    ]
    policies = np.array(each)
    q = np.array(OWN_SEAT["tit-for-tat"])
    found = table.filter(pl.col("strategy") == "tit-for-tat").row(0, named=True)
    value = math.sqrt(((policies.mean(0) - q) ** 2).mean())
    assert found["distance"] == pytest.approx(value, abs=1e-12)
    left = [math.sqrt(((np.delete(policies, i, axis=0).mean(0) - q) ** 2).mean()) for i in range(4)]
    error = math.sqrt(3 / 4 * sum((v - np.mean(left)) ** 2 for v in left))
    assert found["low"] == pytest.approx(value - 3.182446 * error, abs=1e-6)
    assert found["high"] == pytest.approx(value + 3.182446 * error, abs=1e-6)
    assert error > 1e-3
    assert found["n_units"] == 4  # rearranged tables are a control


def test_an_answer_that_is_neither_option_repeats_the_last_move(world: Any) -> None:
    """Never legal: the agent stays with its own last move, and no other strategy does."""
    asked = world.prompts(table_orders=("original",), wordings=())
    decisions = world.follow("mute", asked, lambda _: 0.5).with_columns(
        p_positive=pl.lit(0.0), p_negative=pl.lit(0.0), legal_mass=pl.lit(0.0)
    )
    found = nearest_table(asked, decisions)
    stays = np.array([1, 1, 0, 0])
    for row in found.iter_rows(named=True):
        gap = stays - np.array(OWN_SEAT[row["strategy"]])
        assert row["distance"] == pytest.approx(math.sqrt((gap**2).mean()), abs=1e-12)


def test_equal_distances_share_a_rank(world: Any) -> None:
    asked = world.prompts(table_orders=("original",), wordings=())
    table = nearest_table(asked, world.follow("coin", asked, lambda _: 0.5))
    corners = table.filter(pl.col("distance") == 0.5)
    assert corners.height == 5
    assert corners["rank"].n_unique() == 1
    assert table.filter(pl.col("strategy") == "random")["rank"][0] == 1


@settings(max_examples=40, deadline=None)
@given(policy, policy, policy)
def test_distance_is_a_metric_in_the_unit_range(a: Any, b: Any, c: Any) -> None:
    x, y, z = map(np.array, (a, b, c))
    assert 0.0 <= distance(x, y) <= 1.0
    assert distance(x, y) == distance(y, x)
    assert distance(x, x) == 0.0
    assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-12


def test_one_presentation_or_no_spread_has_no_interval() -> None:
    q = np.array(OWN_SEAT["grim"])
    assert jackknife(np.full((1, 4), 0.3), q) is None
    assert jackknife(np.full((5, 4), 0.3), q) is None
    assert jackknife(np.array([[0.3] * 4, [0.4] * 4]), q) is not None


def test_a_missing_state_is_refused(world: Any) -> None:
    asked = world.prompts(table_orders=("original",), wordings=())
    decisions = world.decide("base", asked, world.base_log_odds)
    part = decisions.filter(~pl.col("scenario").eq("IPD.DC"))
    with pytest.raises(TableError, match="no decision after DC"):
        nearest_table(asked, part)
