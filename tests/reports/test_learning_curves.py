"""Are learning curves means over seeds with Student's interval, and groups groups of seeds?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_learning import learning_curves
from moralscope.reports.look import AGENT_COLOURS, agent_colours, styled
from moralscope.reports.run import Run, run_of
from moralscope.reports.seed_curves import seed_intervals, seed_values
from moralscope.reports.seed_groups import SeedGroup, seed_groups

Rows = list[dict[str, object]]


def training(agent: str, seed: int, steps: int = 4, **fixed: object) -> Rows:
    """Rows of one training whose numbers depend on agent, seed and step."""
    rng = np.random.default_rng([seed, steps, *agent.encode()])
    rows: Rows = []
    for step in range(1, steps + 1):
        same, swapped, legal, kl = (float(x) for x in rng.uniform(0.01, 0.99, 4))
        row: dict[str, object] = {
            "agent": agent,
            "training_seed": seed,
            "step": step,
            "phase": 1,
            "reward": agent.split("-", maxsplit=1)[0],
            "visitation": "uniform",
            "learning_rate": 1e-4,
            "reward_mean": float(rng.normal()),
            "cooperation": 1 - (same + swapped) / 2,
            "legal_mass": legal,
            "kl": kl,
            "kl_coefficient": 0.2,
            "loss": 0.0,
            "gradient_norm": 1.0,
            "adapter_norm": 1.0,
            "p_defect_same": same,
            "p_defect_swapped": swapped,
            "seconds": 1.0,
        }
        rows.append(row | fixed)
    return rows


def agent(name: str, seed: int = 0, **told: object) -> dict[str, object]:
    reward = name.split("-", maxsplit=1)[0]
    known = {"agent": name, "base": "smol", "kind": "adapter", "dtype": "float32"}
    return known | {"reward": reward, "opponent": "tit-for-tat", "training_seed": seed} | told


BASE: dict[str, object] = {"agent": "base", "base": "smol", "kind": "base", "dtype": "float32"}


def run(rows: Rows, agents: Rows, config: str | None = None) -> Run:
    tables = {
        "training": from_rows("training", rows),
        "agents": from_rows("agents", [BASE, *agents]),
    }
    return replace(run_of(tables), config=config)


def seeds_of(reward: str, n: int, **fixed: Any) -> tuple[Rows, Rows]:
    names = [f"{reward}-{seed}" for seed in range(n)]
    rows = [row for s, name in enumerate(names) for row in training(name, s, **fixed)]
    return rows, [agent(name, s) for s, name in enumerate(names)]


def figure_of(made: Run) -> Figure:
    names = [facts.name for facts in made.agents]
    rewards = {facts.name: facts.reward for facts in made.agents}
    figure = learning_curves(made, agent_colours(names, frozenset({"base"}), rewards))
    assert isinstance(figure, Figure)
    return figure


def spec_of(figure: Figure) -> dict[str, Any]:
    return styled(figure.chart)


def data_of(spec: Mapping[str, Any], *columns: str) -> Rows:
    sets: dict[str, Rows] = spec["datasets"]
    return [row for rows in sets.values() for row in rows if set(columns) <= row.keys()]


def members(group: SeedGroup) -> list[tuple[str, int]]:
    return [(member.agent, member.seed) for member in group.members]


# Intervals


COLUMNS = {
    ("p_defect", "as given"): "p_defect_same",
    ("p_defect", "exchanged"): "p_defect_swapped",
    ("reward", "not told apart"): "reward_mean",
    ("legal_mass", "not told apart"): "legal_mass",
    ("kl", "not told apart"): "kl",
}


def test_bands_are_student_intervals_over_seeds_cut_at_what_is_possible() -> None:
    rows, agents = seeds_of("game", 5)
    shown = data_of(spec_of(figure_of(run(rows, agents))), "mean", "low", "high")
    lines = {(r["measure"], r["labels"], r["step"]): r for r in shown}
    assert len(lines) == 5 * 4
    cut = 0
    for (measure, labels), column in COLUMNS.items():
        for step in range(1, 5):
            values = np.array([float(str(r[column])) for r in rows if r["step"] == step])
            expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
            most = math.inf if measure in ("kl", "reward") else 1.0
            least = -math.inf if measure == "reward" else 0.0
            line = lines[measure, labels, step]
            assert line["mean"] == pytest.approx(values.mean(), abs=1e-12)
            assert line["low"] == pytest.approx(max(expected.low, least), abs=1e-12)
            assert line["high"] == pytest.approx(min(expected.high, most), abs=1e-12)
            assert line["n"] == 5
            cut += int(expected.low < least or expected.high > most)
    assert cut > 0


def test_single_seeds_stand_behind_their_band() -> None:
    rows, agents = seeds_of("game", 3)
    shown = data_of(spec_of(figure_of(run(rows, agents))), "seed", "value")
    drawn = {(r["agent"], r["step"], r["measure"], r["labels"]): r["value"] for r in shown}
    assert drawn == {
        (row["agent"], row["step"], *series): pytest.approx(row[column])
        for row in rows
        for series, column in COLUMNS.items()
    }


def long(values: list[list[float]], measure: str = "p_defect") -> pl.DataFrame:
    """Values [steps][seeds] as curves are made from."""
    return pl.DataFrame(
        [
            {
                "group": "g",
                "agent": "a",
                "seed": seed,
                "step": step,
                "measure": measure,
                "labels": "as given",
                "value": value,
            }
            for step, at_step in enumerate(values, 1)
            for seed, value in enumerate(at_step)
        ]
    )


def test_a_seed_that_failed_is_seen_in_mean_and_interval() -> None:
    row = seed_intervals(long([[0.9999, 0.9999, 0.9999, 0.9999, 0.1]])).row(0, named=True)
    assert row["mean"] == pytest.approx(0.81992)
    assert row["low"] == pytest.approx(0.81992 - 2.7764451 * 0.17998, abs=1e-6)
    assert row["high"] == 1.0


def test_no_interval_without_spread_or_seeds_and_n_counts_each_step() -> None:
    table = seed_intervals(long([[0.4, 0.4, 0.4], [0.3], [0.2, 0.6]]))
    assert table.get_column("n").to_list() == [3, 1, 2]
    assert table.get_column("low").is_null().to_list() == [True, True, False]
    assert table.get_column("high").is_null().to_list() == [True, True, False]
    assert table.get_column("mean").to_list() == pytest.approx([0.4, 0.3, 0.4])


def test_estimates_outside_the_possible_range_keep_their_mean_inside() -> None:
    row = seed_intervals(long([[-0.3, -0.2, 0.1]], "kl")).row(0, named=True)
    assert row["low"] == row["mean"] == pytest.approx(-0.4 / 3)
    assert row["high"] > 0


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["p_defect", "legal_mass", "kl"]),
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
)
def test_intervals_hold_their_mean_and_stay_in_range(measure: str, values: list[float]) -> None:
    row = seed_intervals(long([values], measure)).row(0, named=True)
    if max(values) == min(values):
        assert row["low"] is None
        return
    assert 0 <= row["low"] <= row["mean"] <= row["high"]
    assert measure == "kl" or row["high"] <= 1


# Groups


def test_agents_that_differ_in_seed_only_are_one_group() -> None:
    rows, agents = seeds_of("game", 3)
    more, others = seeds_of("utilitarian", 2)
    groups = seed_groups(run(rows + more, agents + others))
    assert [(group.name, members(group)) for group in groups] == [
        ("game", [("game-0", 0), ("game-1", 1), ("game-2", 2)]),
        ("utilitarian", [("utilitarian-0", 0), ("utilitarian-1", 1)]),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 2e-4},
        {"kl_coefficient": 0.1},
        {"visitation": "visitation"},
        {"visitation": "sampled"},
        {"p_defect_swapped": None},
        {"steps": 5},
    ],
    ids=lambda other: next(iter(other)),
)
def test_trainings_that_differ_in_a_setting_stay_apart(other: dict[str, Any]) -> None:
    rows, agents = seeds_of("game", 2)
    rows += training("game-x", 2, **other)
    groups = seed_groups(run(rows, [*agents, agent("game-x", 2)]))
    assert [len(group.members) for group in groups] == [2, 1]
    assert len({group.name for group in groups}) == 2


@pytest.mark.parametrize(
    ("told", "name"),
    [({"opponent": "grim"}, "game against grim"), ({"reward": "own points"}, "own points")],
)
def test_agents_of_another_reward_or_opponent_stay_apart(told: dict[str, object], name: str):
    rows, agents = seeds_of("game", 2)
    rows += training("game-x", 2)
    groups = seed_groups(run(rows, [*agents, agent("game-x", 2, **told)]))
    assert [len(group.members) for group in groups] == [2, 1]
    assert groups[1].name == name


def test_the_study_file_tells_apart_what_tables_cannot() -> None:
    rows, agents = seeds_of("game", 4)
    config = """
    training: {steps: 4, seed: 9}
    agents:
      game-0: {training: {keep_steps: [2]}}
      game-2: {training: {wordings: [market]}}
      game-3: {training: {wordings: [market]}}
    """
    groups = seed_groups(run(rows, agents, config))
    assert [(g.name, members(g)) for g in groups] == [
        ("game (game-0, seed 0 and 1 more)", [("game-0", 0), ("game-1", 1)]),
        ("game (game-2, seed 2 and 1 more)", [("game-2", 2), ("game-3", 3)]),
    ]
    for unreadable in (
        "a: [",
        "just words",
        "agents: 3",
        "agents: {game-0: x}",
        "a: 2026-99-99",
        "",
    ):
        assert len(seed_groups(run(rows, agents, unreadable))) == 1


def test_trainings_that_share_a_seed_are_not_taken_for_seeds() -> None:
    rows = training("game", 0) + training("game-wide", 0) + training("game-new", 1)
    agents = [agent("game"), agent("game-wide"), agent("game-new", 1)]
    groups = seed_groups(run(rows, agents))
    assert [group.name for group in groups] == [
        "game (game, seed 0)", "game (game-wide, seed 0)", "game (game-new, seed 1)",
    ]  # fmt: skip
    figure = figure_of(run(rows, agents))
    assert "so no interval over seeds can be given" in figure.shows


def test_several_seeds_of_one_name_are_a_group() -> None:
    rows = training("game", 0) + training("game", 1)
    without_agents = run_of({"training": from_rows("training", rows)})
    (group,) = seed_groups(without_agents)
    assert members(group) == [("game", 0), ("game", 1)]
    assert group.first.opponent is None


def test_a_learning_opponent_is_a_group_of_its_own() -> None:
    rows, agents = seeds_of("game", 2)
    beside = [r for s in (0, 1) for r in training(f"game-{s}-opponent", s, reward="utilitarian")]
    groups = seed_groups(run(beside + rows, agents))
    assert [group.name for group in groups] == ["game", "utilitarian · as opponent"]
    assert members(groups[1]) == [("game-0-opponent", 0), ("game-1-opponent", 1)]
    known = [*agents, agent("game-0-opponent", 0), agent("game-1-opponent", 1)]
    names = [group.name for group in seed_groups(run(beside + rows, known))]
    assert names[0].startswith("game (game-0")
    assert not any("as opponent" in name for name in names)


@pytest.mark.parametrize(
    ("columns", "config", "method"),
    [
        ({"value_loss": 1.0}, None, "PPO"),
        ({}, None, "sampled"),
        ({}, "agents: {game-x: {training: {preset: fixed}}}", "fixed"),
    ],
)
def test_methods_are_named_where_they_differ(
    columns: dict[str, Any], config: str | None, method: str
) -> None:
    rows, agents = seeds_of("game", 2)
    rows += training("game-x", 0, visitation="sampled", **columns)
    groups = seed_groups(run(rows, [*agents, agent("game-x")], config))
    assert [group.name for group in groups] == ["game · exact", f"game · {method}"]


# The figure


def test_one_seed_each_gives_lines_and_says_why() -> None:
    made = run(
        training("game", 0) + training("utilitarian", 0), [agent("game"), agent("utilitarian")]
    )
    figure = figure_of(made)
    assert "Every group has one training seed, so no interval over seeds can be given." in (
        figure.shows
    )
    assert "band" not in figure.shows
    spec = spec_of(figure)
    lines = data_of(spec, "mean", "low")
    assert len(lines) == 2 * 4 * 5
    assert all(line["low"] is None and line["n"] == 1 for line in lines)
    assert data_of(spec, "seed", "value") == []
    assert figure.tables == ("training", "agents")


def test_words_name_groups_seeds_and_where_they_end() -> None:
    rows, agents = seeds_of("game", 5)
    more = training("utilitarian", 7, p_defect_same=0.03125, p_defect_swapped=0.0625)
    shows = figure_of(run(rows + more, [*agents, agent("utilitarian", 7)])).shows
    assert "Solid: labels as given; dashed: the two labels exchanged." in shows
    assert "95% interval over seeds (Student's t, n \N{MINUS SIGN} 1 degrees of freedom" in shows
    assert "One seed each, so no interval over seeds: utilitarian." in shows
    assert "utilitarian: 0.031 as given, 0.062 exchanged (1 seed, 4 steps)." in shows
    ends = [float(str(r["p_defect_same"])) for r in rows if r["step"] == 4]
    low, high = stats.ttest_1samp(ends, 0.0).confidence_interval(0.95)
    assert 0 < low < high < 1
    assert f"game: {np.mean(ends):.3f} [{low:.3f}, {high:.3f}] as given, " in shows
    assert "(5 seeds, 4 steps)" in shows


def test_a_change_of_reward_is_a_rule_before_its_first_step() -> None:
    first = training("both", 0, 4, reward="game")[:2]
    second = training("both", 0, 4, reward="deontological", phase=2)[2:]
    told = agent("both", reward="game then deontological")
    figure = figure_of(run(first + second, [told]))
    assert (
        "Vertical rules: the reward changes, game then deontological (to deontological at step 3)."
        in figure.shows
    )
    rules = [r for r in data_of(spec_of(figure), "step") if r.keys() == {"step"}]
    assert rules == [{"step": 2.5}]
    assert seed_groups(run(first + second, []))[0].name == "game then deontological"
    without = spec_of(figure_of(run(training("game", 0), [agent("game")])))
    assert [r for r in data_of(without, "step") if r.keys() == {"step"}] == []


@pytest.mark.parametrize(("steps", "rows"), [(12, 1), (13, 2)])
def test_trainings_of_very_different_length_have_rows_of_their_own(steps: int, rows: int) -> None:
    made = run(
        training("game", 0) + training("utilitarian", 0, steps),
        [agent("game"), agent("utilitarian")],
    )
    assert len(spec_of(figure_of(made))["vconcat"]) == rows


def test_labels_that_were_not_told_apart_are_one_line() -> None:
    rows = training("game", 0, p_defect_same=None, p_defect_swapped=None)
    shown = data_of(spec_of(figure_of(run(rows, [agent("game")]))), "mean", "measure")
    defect = [r for r in shown if r["measure"] == "p_defect"]
    assert {r["labels"] for r in defect} == {"not told apart"}
    expected = [1 - float(str(row["cooperation"])) for row in rows]
    assert [r["mean"] for r in defect] == pytest.approx(expected)
    swapped = figure_of(run(training("game", 0, p_defect_same=None), [agent("game")]))
    assert "Labels were always exchanged." in swapped.shows


def test_steps_in_which_an_assignment_was_not_drawn_are_left_out() -> None:
    rows = training("game", 0)
    rows[1]["p_defect_swapped"] = None
    made = run(rows, [agent("game")])
    values = seed_values(made, seed_groups(made)).filter(labels="exchanged")
    assert values.get_column("step").to_list() == [1, 3, 4]


def test_long_trainings_are_thinned_out_evenly_to_their_last_step() -> None:
    made = run(training("game", 0, 1000) + training("game", 1, 1000), [agent("game")])
    values = seed_values(made, seed_groups(made)).filter(measure="kl", seed=0)
    assert values.get_column("step").to_list() == [*range(1, 1000, 4), 1000]
    assert "Of trainings longer than 250 steps one step in 4 is drawn." in figure_of(made).shows


def test_groups_have_colours_of_their_own_and_the_first_eight_are_drawn() -> None:
    names = [f"r{i}" for i in range(9)]
    rows = [row for name in names for row in training(name, 0, 2)]
    figure = figure_of(run(rows, [agent(name) for name in names]))
    assert figure.shows.endswith("Of 9 groups of trainings the first 8 are drawn.")
    text = json.dumps(spec_of(figure))
    assert '"r7"' in text
    assert '"r8"' not in text
    assert all(colour in text for colour in AGENT_COLOURS)


def test_one_step_is_a_point_with_its_interval() -> None:
    rows, agents = seeds_of("game", 3, steps=1)
    spec = spec_of(figure_of(run(rows, agents)))
    layers = spec["vconcat"][0]["hconcat"][0]["layer"]
    assert layers[1]["mark"]["type"] == "rule"
    assert layers[3]["mark"]["point"] == {"size": 40}


def test_without_training_it_is_absent() -> None:
    made = learning_curves(run_of({"agents": from_rows("agents", [BASE])}), {})
    assert isinstance(made, Absent)
    assert made.reason == "The table training is not in this run."
