"""Policy and cooperation tables against plain loops and scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import stats

from moralscope.behaviour import cooperation_table, policy_table
from moralscope.core.errors import TableError
from moralscope.core.tables import conform, from_rows

TIT_FOR_TAT = {"C": 0.0, "D": 1.0}


def test_scripted_policies_have_their_exact_tables(world: Any) -> None:
    prompts = world.prompts()
    decisions = pl.concat(
        [
            world.follow("tit-for-tat", prompts, lambda p: TIT_FOR_TAT[p["opponent_previous"]]),
            world.follow("always-defect", prompts, lambda _: 1.0),
            world.follow("random", prompts, lambda _: 0.5),
        ]
    )
    policy = policy_table(prompts, decisions)
    expected = {
        "tit-for-tat": lambda row: float(row["opponent_previous"] == "C"),
        "always-defect": lambda _: 0.0,
        "random": lambda _: 0.5,
    }
    assert policy.height == 3 * 2 * (4 + 3) * 4
    for row in policy.iter_rows(named=True):
        assert row["p_cooperate"] == expected[row["agent"]](row)
        assert row["log_odds"] is None
        assert row["legal_mass"] == 1.0


def test_a_cell_is_the_mean_over_its_orders(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.decide("base", prompts, world.base_log_odds)
    policy = policy_table(prompts, decisions)
    for row in policy.iter_rows(named=True):
        members = [
            p
            for p in prompts.iter_rows(named=True)
            if all(
                p[key] == row[key]
                for key in (
                    "family",
                    "template",
                    "labels",
                    "table_order",
                    "own_previous",
                    "opponent_previous",
                )
            )
        ]
        values = [world.base_log_odds(p) for p in members]
        cooperating = [1 / (1 + math.exp(v)) for v in values]
        assert row["n_prompts"] == len(members) == (2 if row["family"] == "structured" else 1)
        assert row["log_odds"] == pytest.approx(math.fsum(values) / len(values), abs=1e-12)
        assert row["p_cooperate"] == pytest.approx(math.fsum(cooperating) / len(values), abs=1e-12)


def test_prompts_without_a_state_and_narratives_are_left_out(world: Any) -> None:
    rows = [
        world.prompt_row("structured", "matrix", world.same, "original", ("C", "D")),
        world.prompt_row("user", "mine", world.same, "none", (None, None), game="user"),
        world.prompt_row("scenarios", "CC_temptation", world.same, "none", ("C", "C")),
    ]
    prompts = from_rows("prompts", rows)
    policy = policy_table(prompts, world.decide("base", prompts, world.base_log_odds))
    assert policy.get_column("family").to_list() == ["structured"]


def test_one_null_among_log_odds_makes_the_cell_null(world: Any) -> None:
    rows = [
        world.prompt_row("structured", "matrix", world.same, "original", ("C", "C"), order=order)
        for order in (0, 1)
    ]
    decisions = from_rows(
        "decisions",
        [
            world.decision_row("mixed", rows[0], 1.5, 0.8),
            world.decision_row("mixed", rows[1], None, 0.2),
        ],
    )
    (row,) = policy_table(from_rows("prompts", rows), decisions).iter_rows(named=True)
    assert row["log_odds"] is None
    assert row["p_cooperate"] == pytest.approx(0.5)


def test_cooperation_equals_scipy_over_scenarios(world: Any) -> None:
    rng = np.random.default_rng(3)
    rows, made, by_scenario = [], [], {}
    for index, state in enumerate(world.states):
        for template in ("table", "prose")[: 1 + index % 2]:  # unbalanced on purpose
            for order in (0, 1):
                prompt = world.prompt_row(
                    "clusters", template, world.same, "none", state, order=order, game="ISH"
                )
                p = float(rng.uniform(0.3, 0.5))
                rows.append(prompt)
                made.append(world.decision_row("agent", prompt, 0.0, p, legal=0.9))
                by_scenario.setdefault(prompt["scenario"], []).append(1 - p)
    table = cooperation_table(from_rows("prompts", rows), from_rows("decisions", made))
    (row,) = table.iter_rows(named=True)
    means = [float(np.mean(values)) for values in by_scenario.values()]
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert row["p_cooperate"] == pytest.approx(np.mean(means), abs=1e-12)
    assert row["low"] == pytest.approx(interval.low, abs=1e-12)
    assert row["high"] == pytest.approx(interval.high, abs=1e-12)
    assert (row["n_scenarios"], row["n_prompts"]) == (4, len(rows))
    assert row["legal_mass"] == pytest.approx(0.9)


def test_one_scenario_or_no_spread_has_no_interval(world: Any) -> None:
    prompts = from_rows(
        "prompts",
        [world.prompt_row("structured", "matrix", world.same, "original", ("C", "C"))],
    )
    one = cooperation_table(prompts, world.decide("base", prompts, world.base_log_odds))
    prompts = world.prompts()
    steady = cooperation_table(prompts, world.follow("always-defect", prompts, lambda _: 1.0))
    assert steady.get_column("n_scenarios").to_list() == [4, 4]
    assert steady.get_column("p_cooperate").to_list() == [0.0, 0.0]
    for table in (one, steady):
        assert table.select("low", "high").null_count().row(0) == (table.height, table.height)


@settings(max_examples=40, deadline=None)
@given(chances=st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=2, max_size=4))
def test_intervals_lie_in_the_unit_range_around_the_mean(world: Any, chances: list[float]) -> None:
    rows = [
        world.prompt_row("clusters", "table", world.same, "none", state, game="BOS")
        for state, _ in zip(world.states, chances, strict=False)
    ]
    decisions = from_rows(
        "decisions",
        [world.decision_row("a", p, None, c) for p, c in zip(rows, chances, strict=True)],
    )
    (row,) = cooperation_table(from_rows("prompts", rows), decisions).iter_rows(named=True)
    if len(set(chances)) == 1:
        assert (row["low"], row["high"]) == (None, None)
        return
    tolerance = 1e-12
    assert 0 <= row["low"] <= row["p_cooperate"] + tolerance
    assert row["p_cooperate"] - tolerance <= row["high"] <= 1
    half = stats.t.ppf(0.975, len(rows) - 1) * stats.sem([1 - c for c in chances])
    assert row["low"] == pytest.approx(max(0, row["p_cooperate"] - half), abs=1e-9)
    assert row["high"] == pytest.approx(min(1, row["p_cooperate"] + half), abs=1e-9)


def test_tables_do_not_depend_on_the_order_of_rows(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.decide("base", prompts, world.base_log_odds)
    shuffled = decisions.sample(fraction=1.0, shuffle=True, seed=5)
    for table in (policy_table, cooperation_table):
        plain, mixed = table(prompts, decisions), table(prompts.reverse(), shuffled)
        assert_frame_equal(plain, mixed, check_row_order=False, abs_tol=1e-12)


def test_tables_follow_their_schemas(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.follow("random", prompts, lambda _: 0.5)
    assert_frame_equal(
        conform("policy", policy_table(prompts, decisions)), policy_table(prompts, decisions)
    )
    empty = decisions.clear()
    assert policy_table(prompts, empty).is_empty()
    assert cooperation_table(prompts, empty).is_empty()


def test_a_decision_on_an_unknown_prompt_is_refused(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.decide("base", prompts, world.base_log_odds)
    with pytest.raises(TableError, match="on a prompt that the table 'prompts' does not have"):
        policy_table(prompts.tail(-1), decisions)


def test_tables_that_disagree_about_a_scenario_are_refused(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.decide("base", prompts, world.base_log_odds)
    moved = decisions.with_columns(scenario=pl.lit("elsewhere"))
    with pytest.raises(TableError, match="disagree about the scenario of a prompt"):
        cooperation_table(prompts, moved)
