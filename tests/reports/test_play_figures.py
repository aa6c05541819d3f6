"""Do figures of play, populations and side effects show the numbers of their tables?"""

from __future__ import annotations

import statistics

import polars as pl
import pytest
from behaviour_reading import (
    GROUP,
    TABLES,
    data,
    drawn,
    number,
    replaced,
    rows_of,
    whole,
)
from synthetic_behaviour import COLOURS
from synthetic_play import AGENTS, GAMES, SEEDS, STRATEGIES

from moralscope.reports.figure import Absent
from moralscope.reports.figure_exploiting import exploitability, price_of_morality
from moralscope.reports.figure_play import cooperation_in_play, cross_play, payoffs_in_play
from moralscope.reports.figure_populations import (
    OTHERS,
    fixation,
    population_dynamics,
    population_lines,
    standings,
    thinned,
)
from moralscope.reports.figure_side_effects import metric_agreement, side_effects
from moralscope.reports.figure_similarity import similarity_matrix
from moralscope.reports.look import styled

# Play


def test_heat_maps_hold_the_rows_of_play_without_noise() -> None:
    for make, column in ((cooperation_in_play, "cooperation"), (payoffs_in_play, "payoff")):
        shown = {(r["panel"], r["x"], r["y"]): r for r in data(whole(make), "panel", "x", "cell")}
        table = [r for r in rows_of("play") if r["other_kind"] == "strategy" and r["noise"] == 0.0]
        assert len(shown) == len(table) == 7 * 8 * 6
        for r in table:
            cell = shown[r["agent"], r["other"], r["game"]]
            assert cell["value"] == r[column]
            assert cell["cell"] == f"{number(r[column]):.2f}"
            half = (number(r["high"]) - number(r["low"])) / 2
            assert cell["note"] == ("" if column == "cooperation" else f"±{half:.2f}")


def test_cross_play_has_agents_at_both_sides() -> None:
    figure = whole(cross_play)
    shown = {(r["panel"], r["x"], r["y"]): r["value"] for r in data(figure, "panel", "x", "cell")}
    assert len(shown) == 6 * 7 * 7
    row = next(
        r for r in rows_of("play")
        if (r["agent"], r["other"], r["game"]) == ("base", "utilitarian", "ICN")
    )  # fmt: skip
    assert shown["ICN", "utilitarian", "base"] == row["payoff"]
    assert "±: half the 95% interval over 4 presentations, at most 0.10." in figure.shows


def test_cross_play_of_one_agent_has_a_column_for_each_it_met() -> None:
    lone = TABLES["play"].filter(pl.col("agent") == "base")
    spec = styled(drawn(cross_play(replaced(play=lone), COLOURS)).chart)["spec"]
    assert isinstance(spec, dict)
    x = spec["layer"][0]["encoding"]["x"]
    assert x["sort"] == list(AGENTS)
    assert spec["width"] >= 20 * len(AGENTS)


def test_play_against_nobody_of_a_kind_says_so() -> None:
    only = TABLES["play"].filter(pl.col("other_kind") == "strategy")
    made = cross_play(replaced(play=only), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "The table play has no rows against other agents."
    some = TABLES["play"].filter(pl.col("other_kind") == "agent")
    for make in (cooperation_in_play, payoffs_in_play):
        made = make(replaced(play=some), COLOURS)
        assert isinstance(made, Absent)
        assert made.reason == "The table play has no rows against strategies."


def test_more_strategies_than_fit_are_counted_and_one_presentation_has_no_interval() -> None:
    table = TABLES["play"].filter(
        (pl.col("other_kind") == "strategy") & (pl.col("other") == "grim")
    )
    many = pl.concat([table.with_columns(other=pl.lit(f"s{i}")) for i in range(20)])
    lone = many.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))
    figure = drawn(payoffs_in_play(replaced(play=lone), COLOURS))
    assert "Of 20 strategies the first 14 are shown." in figure.shows
    assert "There is one presentation, or no spread between them, so no interval." in figure.shows
    assert {r["note"] for r in data(figure, "panel", "x", "cell")} == {""}
    assert len({r["x"] for r in data(figure, "panel", "x", "cell")}) == 14


def test_exploitability_and_the_best_response_in_words() -> None:
    figure = whole(exploitability)
    shown = {(r["agent"], r["panel"]): r for r in data(figure, "panel", "row", "value")}
    most = max(rows_of("exploitability"), key=lambda r: number(r["exploitability"]))
    assert most["best_response"] == "DDDD"
    said = f"Most: {number(most['exploitability']):.2f} ({most['agent']}, {most['game']}), "
    assert f"{said}by playing D after CC, D after CD, D after DC, D after DD" in figure.shows
    for r in rows_of("exploitability"):
        if r["agent"] not in SEEDS:
            assert shown[r["agent"], r["game"]]["value"] == r["exploitability"]


def test_prices_are_points_of_agents_and_seeds_are_averaged() -> None:
    figure = whole(price_of_morality)
    shown = {
        (r["agent"], r["game"], r["other"]): (r["given_up"], r["joint_gained"])
        for r in data(figure, "given_up", "joint_gained")
    }
    assert len(shown) == 5 * 6 * len(STRATEGIES)
    seeds = [
        r for r in rows_of("price_of_morality")
        if r["agent"] in SEEDS and (r["game"], r["other"]) == ("BOS", "grim")
    ]  # fmt: skip
    assert shown[GROUP, "BOS", "grim"] == pytest.approx(
        tuple(statistics.fmean(number(r[c]) for r in seeds) for c in ("given_up", "joint_gained"))
    )
    own = [r for r in rows_of("price_of_morality") if r["agent"] == "utilitarian"]
    given = statistics.fmean(number(r["given_up"]) for r in own)
    assert f"utilitarian {given:.2f} for +" in figure.shows


# Populations


def test_standings_keep_every_agent_and_the_first_players() -> None:
    figure = whole(standings)
    shown = data(figure, "player", "score")
    for game in GAMES:
        players = {r["player"] for r in shown if r["game"] == game}
        table = [r for r in rows_of("standings") if r["game"] == game]
        first = {r["player"] for r in table if number(r["rank"]) <= 14}
        assert players == first | set(AGENTS)
    ranks = [number(r["rank"]) for r in rows_of("standings") if r["player"] == "base"]
    assert f"base {min(ranks):.0f} to {max(ranks):.0f}" in figure.shows
    assert "Shown: the first 14 of 33 players and every agent." in figure.shows


def test_population_lines_keep_shares_whole() -> None:
    rows = TABLES["dynamics"]
    lines, leaders = population_lines(rows, AGENTS)
    assert len(leaders) == 4
    assert set(lines["player"].unique()) == {*AGENTS, *leaders, OTHERS}
    totals = lines.group_by("game", "time").agg(pl.col("share").sum())
    assert totals["share"].to_list() == pytest.approx([1.0] * totals.height)
    peaks = {
        player: number(rows.filter(pl.col("player") == player)["share"].max())
        for player in STRATEGIES
    }
    assert set(leaders) == set(sorted(STRATEGIES, key=lambda p: -peaks[p])[:4])
    shows = whole(population_dynamics).shows
    last = rows.filter((pl.col("game") == "ICN") & (pl.col("time") == 40.0)).sort("share")
    assert f"ICN {last['player'][-1]} ({last['share'][-1]:.2f})" in shows


def test_long_paths_are_thinned_out_evenly_up_to_their_end() -> None:
    times = [float(t) for t in range(101)]
    rows = pl.DataFrame({"game": ["IPD"] * 101, "player": ["a"] * 101, "time": times, "share": 1.0})
    assert thinned(rows)["time"].to_list() == [*times[::3], 100.0]
    assert thinned(rows.head(40)).height == 40


def test_fixation_is_over_chance() -> None:
    figure = whole(fixation)
    shown = {(r["panel"], r["x"], r["y"]): r for r in data(figure, "panel", "x", "cell")}
    above = 0
    for r in rows_of("fixation"):
        cell = shown[r["game"], r["resident"], r["invader"]]
        assert cell["value"] == pytest.approx(number(r["fixation"]) * 50)
        above += number(r["fixation"]) > 0.02
    assert figure.shows.endswith(f"It does in {above} of {len(shown)} cells.")


def test_fixation_has_the_agents_as_invaders() -> None:
    more = TABLES["fixation"].with_columns(
        invader=pl.col("invader").replace("deontological", "grim")
    )
    figure = drawn(fixation(replaced(fixation=more), COLOURS))
    assert {r["y"] for r in data(figure, "panel", "x", "cell")} == set(AGENTS) - {"deontological"}
    assert figure.shows.endswith("Strategies as invaders (1) are in the table.")


# Alike, side effects, agreement


def test_similarity_is_mirrored_and_marks_pairs_that_are_alike() -> None:
    figure = whole(similarity_matrix)
    shown = {(r["panel"], r["x"], r["y"]): r for r in data(figure, "panel", "x", "cell")}
    assert len(shown) == 2 * 7 * 6
    alike = 0
    for r in rows_of("similarity"):
        one = shown[r["family"], r["second"], r["first"]]
        assert shown[r["family"], r["first"], r["second"]]["value"] == one["value"]
        assert one["value"] == r["divergence"]
        assert str(one["cell"]).endswith(" =") == (number(r["p_equivalent"]) < 0.05)
        alike += number(r["p_equivalent"]) < 0.05
    assert 0 < alike < 42
    assert f"Alike: {alike} of 42 pairs." in figure.shows


def test_side_effects_are_changes_and_values_where_two_models_are_compared() -> None:
    table = TABLES["side_effects"].with_columns(
        change=pl.when(pl.col("measure") == "kl").then(None).otherwise("change"),
        base=pl.when(pl.col("measure") == "kl").then(None).otherwise("base"),
    )
    figure = drawn(side_effects(replaced(side_effects=table), COLOURS))
    shown = {(r["agent"], r["panel"]): r["value"] for r in data(figure, "panel", "row", "value")}
    assert {agent for agent, _ in shown} == {GROUP, "utilitarian", "deontological"}
    for r in table.filter(pl.col("agent") == "utilitarian").iter_rows(named=True):
        expected = r["value"] if r["measure"] == "kl" else r["change"]
        panel = next(p for _, p in shown if str(p).endswith(f"({r['unit']})") and (
            expected == shown["utilitarian", p]))  # fmt: skip
        assert shown["utilitarian", panel] == expected
    assert all(
        r["low"] is None or number(r["low"]) >= 0
        for r in data(figure, "panel", "row", "low")
        if str(r["panel"]).startswith("KL")
    )
    only = table.filter(pl.col("agent") == "base")
    made = side_effects(replaced(side_effects=only), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "The table side_effects has no agent beside the base."


def test_agreement_is_sampled_minus_scored_and_counts_what_has_no_legal_answer() -> None:
    figure = whole(metric_agreement)
    shown = {
        (r["agent"], r["panel"], r["row"]): r["value"]
        for r in data(figure, "panel", "row", "value")
    }
    assert ("base", "strict parser", "unrelated") not in shown
    assert ("base", "tolerant parser", "unrelated") in shown
    for r in rows_of("metric_agreement"):
        if r["agent"] not in SEEDS and r["observed"] is not None:
            key = (r["agent"], f"{r['parser']} parser", r["family"])
            difference = number(r["observed"]) - number(r["expected"])
            assert shown[key] == pytest.approx(difference, abs=1e-12)
    assert (
        "refutes agreement at 0.05 in 0 of 35 rows. In 1 of 36 rows no answer was legal."
        in figure.shows
    )
    none = TABLES["metric_agreement"].with_columns(observed=pl.lit(None, pl.Float64))
    made = metric_agreement(replaced(metric_agreement=none), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "No sampled answer of the table metric_agreement was legal."
