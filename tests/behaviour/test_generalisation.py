"""Cooperation by game, labels and table order, against means taken one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from moralscope.behaviour.varying.generalisation import generalisation_table
from moralscope.core.tables import conform, from_rows


@pytest.fixture(scope="module")
def asked(world: Any) -> pl.DataFrame:
    rows = [
        world.prompt_row("structured", "matrix", labels, table, cell, order=order, game=game)
        for game in ("IPD", "ISH")
        for labels in (world.same, world.swapped)
        for table in ("original", "rows")
        for cell in world.states
        for order in (0, 1)
    ]
    rows += [world.prompt_row("wordings", "duel", world.same, "none", c) for c in world.states]
    return from_rows("prompts", rows)


def test_every_way_of_asking_has_its_own_mean_and_change(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.learner(move=1.0, label=0.7, noise=0.1).decisions(asked)
    table = generalisation_table(asked, decisions, world.agents("agent"))
    conform("generalisation", table)
    assert table.height == 2 * 2 * 2 * 2
    given = decisions.join(asked.drop("game", "scenario"), on="prompt")
    before = given.filter(pl.col("agent") == "base").select("prompt", before="log_odds")
    for row in table.iter_rows(named=True):
        here = given.filter(
            pl.col("family") == "structured",
            *(pl.col(k) == row[k] for k in ("agent", "game", "labels", "table_order")),
        )
        assert here.height == 8
        assert row["p_cooperate"] == pytest.approx(here["p_negative"].mean(), abs=1e-12)
        assert row["low"] < row["p_cooperate"] < row["high"]
        assert row["n_states"] == 4
        moved = here.join(before, on="prompt")
        if row["agent"] == "base":
            assert row["change_log_odds"] is None
        else:
            change = (moved["log_odds"] - moved["before"]).mean()
            assert row["change_log_odds"] == pytest.approx(change, abs=1e-12)
            planted = 1.0 + 0.7 * (1 if row["labels"] == world.same else -1)
            assert row["change_log_odds"] == pytest.approx(planted, abs=0.2)


def test_a_scripted_policy_cooperates_the_same_in_every_game(
    world: Any, asked: pl.DataFrame
) -> None:
    decisions = world.follow("tft", asked, lambda p: float(p["opponent_previous"] == "D"))
    agents = from_rows(
        "agents", [{"agent": "tft", "base": "tft", "kind": "policy", "dtype": "none"}]
    )
    table = generalisation_table(asked, decisions, agents)
    assert table["p_cooperate"].to_list() == [0.5] * 8
    assert table["change_log_odds"].null_count() == 8
    always = generalisation_table(asked, world.follow("all", asked, lambda _: 0.0), agents)
    assert always["p_cooperate"].to_list() == [1.0] * 8
    assert always["low"].null_count() == 8


def test_an_undefined_log_odds_makes_the_change_null_and_nothing_else(
    world: Any, asked: pl.DataFrame
) -> None:
    decisions = world.learner(move=1.0).decisions(asked)
    one = asked["prompt"][0]
    gone = (pl.col("prompt") == one) & (pl.col("agent") == "agent")
    broken = decisions.with_columns(log_odds=pl.when(~gone).then(pl.col("log_odds")))
    table = generalisation_table(asked, broken, world.agents("agent"))
    whole = generalisation_table(asked, decisions, world.agents("agent"))
    here = (
        (pl.col("agent") == "agent")
        & (pl.col("game") == "IPD")
        & (pl.col("labels") == world.same)
        & (pl.col("table_order") == "original")
    )
    assert table.filter(here)["change_log_odds"].to_list() == [None]
    assert table.filter(~here).equals(whole.filter(~here))
    assert table["p_cooperate"].equals(whole["p_cooperate"])


def test_the_order_of_prompts_does_not_matter(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.learner(move=1.0).decisions(asked)
    agents = world.agents("agent")
    shuffled = asked.sample(fraction=1.0, shuffle=True, seed=1)
    key = ["agent", "game", "labels", "table_order"]
    a = generalisation_table(asked, decisions, agents).sort(key)
    b = generalisation_table(shuffled, decisions.reverse(), agents).sort(key)
    assert np.allclose(a["p_cooperate"], b["p_cooperate"])
    assert np.allclose(a["high"], b["high"])
