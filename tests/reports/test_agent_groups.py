"""Who is drawn as one, from what, and with which interval?"""

from __future__ import annotations

from collections import defaultdict

import polars as pl
import pytest
from behaviour_reading import GROUP, RUN, TABLES, data, number, over_three, replaced, whole
from synthetic_behaviour import COLOURS
from synthetic_play import SEEDS

from moralscope.core.tables import from_rows
from moralscope.reports.agent_groups import agent_groups, first_pairs, intervals_told, over_seeds
from moralscope.reports.chosen import games_in_order, one_setting
from moralscope.reports.figure import Absent
from moralscope.reports.figure_action_types import training_actions
from moralscope.reports.figure_drift import drift_values, policy_drift
from moralscope.reports.played import played_rounds, window
from moralscope.reports.run import Run

NAMES = tuple(COLOURS)


def with_agents(change: pl.Expr) -> Run:
    return replaced(agents=TABLES["agents"].with_columns(change))


# Groups


def test_seeds_of_one_training_are_one_in_the_place_and_colour_of_the_first() -> None:
    groups = agent_groups(RUN, COLOURS, NAMES)
    assert groups.names == ["base", GROUP, "utilitarian", "deontological", "policy:tit-for-tat"]
    assert groups.sizes[GROUP] == 3
    assert {agent for agent, name in groups.name_of.items() if name == GROUP} == set(SEEDS)
    assert groups.colours[GROUP] == COLOURS["game-seed1"]
    assert groups.colours["base"] == COLOURS["base"]


def test_a_table_that_holds_some_seeds_makes_a_smaller_group() -> None:
    groups = agent_groups(RUN, COLOURS, ["game-seed2", "base"])
    assert groups.names == ["base", "game-seed2"]
    assert groups.sizes == {"base": 1, "game-seed2": 1}


@pytest.mark.parametrize(
    "change",
    [
        pl.lit(1, pl.Int64).alias("training_seed"),
        pl.lit(None, pl.Int64).alias("training_seed"),
        pl.lit(None, pl.String).alias("reward"),
        pl.col("agent").alias("opponent"),
        pl.col("agent").alias("reward"),
    ],
    ids=["one seed", "no seed", "no reward", "opponents differ", "rewards differ"],
)
def test_agents_that_may_differ_in_more_than_a_seed_stay_apart(change: pl.Expr) -> None:
    assert agent_groups(with_agents(change), COLOURS, NAMES).names == list(NAMES)


def test_what_the_training_tells_counts_before_what_the_agents_tell() -> None:
    def row(agent: str, seed: int, step: int, rate: float) -> dict[str, object]:
        return {
            "agent": agent, "training_seed": seed, "step": step, "phase": 1, "reward": "game",
            "visitation": "uniform", "learning_rate": rate, "reward_mean": 0.0,
            "cooperation": 0.5, "legal_mass": 1.0, "kl": 0.0, "kl_coefficient": 0.1, "loss": 0.0,
            "gradient_norm": 1.0, "adapter_norm": 1.0, "seconds": 1.0,
        }  # fmt: skip

    rows = [
        row(agent, i, step, 1e-3 if agent == "game-seed3" else 1e-4)
        for i, agent in enumerate(SEEDS, 1)
        for step in (1, 2)
    ]
    groups = agent_groups(replaced(training=from_rows("training", rows)), COLOURS, NAMES)
    assert groups.names[:3] == ["base", "game (2 seeds)", "game-seed3"]


def test_names_that_share_nothing_are_called_by_their_reward() -> None:
    renamed = {"game-seed1": "alpha", "game-seed2": "beta", "game-seed3": "gamma"}
    run = with_agents(pl.col("agent").replace(renamed))
    colours = {renamed.get(name, name): colour for name, colour in COLOURS.items()}
    assert agent_groups(run, colours, list(colours)).names[1] == "game (3 seeds)"


def test_agents_without_a_colour_get_one_of_their_own() -> None:
    groups = agent_groups(RUN, {"base": "#6b7280"}, ["base", "one", "two"])
    assert groups.names == ["base", "one", "two"]
    assert len(set(groups.colours.values())) == 3


# Intervals


def frame(*rows: tuple[str, str, float | None, float | None, float | None]) -> pl.DataFrame:
    columns = ["agent", "game", "value", "low", "high"]
    return pl.DataFrame(list(rows), schema=columns, orient="row").with_columns(
        pl.col("low", "high").cast(pl.Float64), n=pl.lit(8), unit=pl.lit("texts")
    )


def test_intervals_over_seeds_are_students_and_others_stay() -> None:
    groups = agent_groups(RUN, COLOURS, NAMES)
    found = over_seeds(
        frame(
            ("game-seed1", "IPD", 0.1, 0.0, 0.2),
            ("game-seed2", "IPD", 0.5, None, None),
            ("game-seed3", "IPD", 0.3, None, None),
            ("base", "IPD", 0.7, 0.6, 0.8),
        ),
        groups,
        ["game"],
        (0.0, 1.0),
    )
    assert found["agent"].to_list() == ["base", GROUP]
    base, game = found.to_dicts()
    assert base == {"agent": "base", "game": "IPD", "value": 0.7, "low": 0.6, "high": 0.8,
                    "n": 8, "unit": "texts"}  # fmt: skip
    mean, low, high = over_three([0.1, 0.5, 0.3], 0.0, 1.0)
    assert low == 0.0
    assert (game["value"], game["low"], game["high"]) == pytest.approx((mean, low, high), rel=1e-9)
    assert (game["n"], game["unit"]) == (3, "training seeds")


def test_one_seed_and_equal_seeds_have_no_interval_and_nulls_do_not_count() -> None:
    groups = agent_groups(RUN, COLOURS, NAMES)
    found = over_seeds(
        frame(
            ("game-seed1", "IPD", 0.1, None, None),
            ("game-seed2", "IPD", None, None, None),
            *((seed, "ISH", 0.25, None, None) for seed in SEEDS),
        ),
        groups,
        ["game"],
    )
    assert [(r["n"], r["value"], r["low"]) for r in found.to_dicts()] == [
        (1, 0.1, None),
        (3, 0.25, None),
    ]
    assert intervals_told(found) == (
        "No value has an interval: each rests on one unit, or its units do not differ."
    )


def test_intervals_are_told_by_unit_and_number() -> None:
    mixed = frame(
        ("a", "IPD", 0.1, 0.0, 0.2), ("a", "ISH", 0.1, 0.0, 0.2), ("b", "IPD", 1, None, None)
    )
    counted = mixed.with_columns(n=pl.Series([4, 8, 1]))
    assert intervals_told(counted) == (
        "Intervals: 95%, over 4 to 8 texts; 1 of 3 values rest on one unit or on units that do "
        "not differ, and have none."
    )
    assert intervals_told(mixed.head(2)) == "Intervals: 95%, over 8 texts."


# What is drawn of a table


def test_games_stand_in_the_order_of_the_package() -> None:
    assert games_in_order(["mine", "ICN", "IPD", "ICN"]) == ["IPD", "ICN", "mine"]


def test_one_setting_prefers_the_published_opponent_and_labels() -> None:
    rows = [
        ("exact", "tit-for-tat", "a/b"),
        ("exact", "random", "a/b"),
        ("exact", "random", "c/d"),
        ("paper", "random", "c/d"),
    ]
    table = pl.DataFrame(rows, schema=["protocol", "opponent_name", "labels"], orient="row")
    chosen, words = one_setting(table)
    assert chosen.rows() == [("exact", "random", "c/d"), ("paper", "random", "c/d")]
    assert words == "against random, labels c/d"
    chosen, words = one_setting(table.filter(pl.col("protocol") == "exact").head(2))
    assert chosen.rows() == [("exact", "random", "a/b")]
    apart = table.filter(~((pl.col("protocol") == "exact") & (pl.col("labels") == "c/d")))
    assert one_setting(apart)[1] == (
        "against random, labels a/b (exact, long run) and c/d (published protocol, sampled)"
    )


# Sampled play


def test_the_move_before_is_that_of_the_round_before() -> None:
    before: dict[tuple[object, ...], str] = {}
    expected: list[tuple[object, ...]] = []
    order = ("agent", "training_seed", "step", "game_number", "round")
    for r in sorted(TABLES["plays"].to_dicts(), key=lambda r: [r[k] for k in order]):
        game = tuple(r[k] for k in order[:4])
        if game in before:
            expected.append((r["agent"], r["training_seed"], r["step"], r["own"], before[game]))
        before[game] = str(r["others"])
    found = played_rounds(RUN)
    assert len(expected) == 4 * 120 * 4
    assert sorted(found.rows()) == sorted(expected)


def test_the_prompt_tells_the_move_before_where_it_is_on_record() -> None:
    plays = TABLES["plays"].head(5)
    prompts = pl.DataFrame({"prompt": ["trained"], "opponent_previous": ["D"]})
    run = Run(RUN.path, {"plays": plays, "prompts": prompts}, None, None, None, (), RUN.agents)
    assert played_rounds(run)["opponent_previous"].to_list() == ["D"] * 5


def test_play_among_more_than_two_is_left_out() -> None:
    crowd = TABLES["plays"].with_columns(others=pl.lit("CD"))
    for make in (training_actions, policy_drift):
        made = make(replaced(plays=crowd), COLOURS)
        assert isinstance(made, Absent)
        assert "last move" in made.reason


def test_windows_are_equal_and_hold_enough() -> None:
    rounds = pl.DataFrame({"agent": ["a"] * 100, "step": [1 + i // 2 for i in range(100)]})
    middles = rounds.with_columns(m=window(50, 20)).group_by("m").len().sort("m")
    assert middles["m"].to_list() == [5.5, 15.5, 25.5, 35.5, 45.5]
    assert middles["len"].to_list() == [20] * 5
    few = rounds.with_columns(m=window(50, 200))
    assert few["m"].unique().to_list() == [25.5]


def test_shares_of_each_window_are_counted_over_seeds() -> None:
    shown = data(whole(training_actions), "step", "kind", "share")
    totals: dict[tuple[object, object], float] = defaultdict(float)
    for r in shown:
        totals[r["agent"], r["step"]] += number(r["share"])
    assert list(totals.values()) == pytest.approx([1.0] * len(totals))
    assert {agent for agent, _ in totals} == {GROUP, "utilitarian"}
    first = min(number(step) for agent, step in totals if agent == GROUP)
    width = round(2 * first - 1)
    own = [r for r in played_rounds(RUN).to_dicts() if r["agent"] in SEEDS and r["step"] <= width]
    illegal = sum(r["own"] == "illegal" for r in own) / len(own)
    assert illegal > 0.1
    part = next(r for r in shown if (r["agent"], r["step"], r["kind"]) == (GROUP, first, "illegal"))
    assert part["share"] == pytest.approx(illegal)
    assert "Of 2400 decisions 480 are left out" in whole(training_actions).shows


def test_drift_is_the_share_of_cooperation_among_legal_answers() -> None:
    rounds = played_rounds(RUN).filter(pl.col("own") != "illegal")
    values = drift_values(rounds).to_dicts()
    last = max(r["step"] for r in values if r["agent"] == "utilitarian")
    gap = min(last - r["step"] for r in values if r["agent"] == "utilitarian" and r["step"] < last)
    own = [
        r["own"] == "C"
        for r in rounds.to_dicts()
        if r["agent"] == "utilitarian"
        and r["opponent_previous"] == "D"
        and r["step"] > last - gap / 2
    ]
    found = next(
        r for r in values if (r["agent"], r["step"], r["after"]) == ("utilitarian", last, "D")
    )
    assert found["value"] == pytest.approx(sum(own) / len(own))
    figure = whole(policy_drift)
    drawn_last = {
        r["after"]: r for r in data(figure, "after", "value") if (r["agent"], r["step"]) == (
            "utilitarian", last)}  # fmt: skip
    assert drawn_last["the other defected"]["value"] == found["value"]
    assert f"{found['value']:.3f} after D" in figure.shows
    banded = [r for r in data(figure, "after", "value") if r["agent"] == GROUP]
    assert all(r["unit"] == "training seeds" for r in banded)
    assert any(r["low"] is not None for r in banded)


def test_of_pairs_of_seeds_the_first_is_drawn_and_the_others_are_told() -> None:
    one, two, three = SEEDS
    pairs = [
        ("base", one), ("base", two), (one, "utilitarian"), ("base", three),
        (two, "utilitarian"), ("base", "utilitarian"),
    ]  # fmt: skip
    drawn, told = first_pairs(RUN, COLOURS, pairs)
    assert drawn == [("base", one), (one, "utilitarian"), ("base", "utilitarian")]
    assert told == " Not drawn, but in the table: 3 pairs of other seeds."
    assert first_pairs(RUN, COLOURS, pairs[:1]) == (pairs[:1], "")
