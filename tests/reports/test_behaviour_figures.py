"""Do figures of behaviour show the numbers of their tables, and say what they rest on?"""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from xml.etree import ElementTree as ET

import polars as pl
import pytest
import vl_convert
from behaviour_reading import (
    GROUP,
    RUN,
    TABLES,
    data,
    drawn,
    number,
    over_three,
    replaced,
    rows_of,
    whole,
)
from synthetic_behaviour import COLOURS
from synthetic_play import AGENTS, GAMES, SEEDS

from moralscope.reports.figure import Absent
from moralscope.reports.figure_action_types import COLOURS as KINDS
from moralscope.reports.figure_action_types import action_shares
from moralscope.reports.figure_contrasts import behaviour_contrasts
from moralscope.reports.figure_generalisation import generalisation_grid
from moralscope.reports.figure_policy import memory_one
from moralscope.reports.figure_radar import memory_one_radar, state_means
from moralscope.reports.figure_regret import regret_bars
from moralscope.reports.figure_robustness import robustness_grid, variance_split
from moralscope.reports.figures import FIGURES, FURTHER, makers_of
from moralscope.reports.figures_behaviour import BEHAVIOUR
from moralscope.reports.look import styled
from moralscope.reports.run import run_of

# All of them


@pytest.mark.parametrize("entry", BEHAVIOUR, ids=lambda entry: entry[2].__name__)
def test_each_fits_the_page_and_says_what_it_rests_on(entry) -> None:
    _, asked, make = entry
    assert asked(RUN)
    figure = whole(make)
    svg = vl_convert.vegalite_to_svg(styled(figure.chart), allowed_base_urls=[])
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert 300 < float(root.attrib["width"]) <= 900
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert len(texts) > 5
    assert not any(text in {"null", "undefined", "NaN"} for text in texts)
    assert "nan" not in figure.shows.lower().split()
    assert set(figure.tables) - {"prompts"} <= set(TABLES)


@pytest.mark.parametrize("entry", BEHAVIOUR, ids=lambda entry: entry[2].__name__)
def test_an_empty_table_is_named_and_a_missing_one_is_not_mentioned(entry) -> None:
    _, asked, make = entry
    present = whole(make)
    table = present.tables[0]
    absent = make(replaced(**{table: TABLES[table].clear()}), COLOURS)
    assert absent == Absent(
        present.name, present.title, f"The table {table} of this run has no rows."
    )
    missing = make(replaced(**{table: None}), COLOURS)
    assert isinstance(missing, Absent)
    assert missing.reason == f"The table {table} is not in this run."
    assert not asked(replaced(**{table: None}))


def test_a_run_without_tables_of_behaviour_mentions_no_figure_of_it() -> None:
    lean = run_of({name: TABLES[name] for name in ("agents", "policy")})
    assert makers_of(lean) == FIGURES
    assert set(makers_of(RUN)) == {*FIGURES, *(make for _, _, make in BEHAVIOUR)}
    assert set(BEHAVIOUR) <= set(FURTHER)
    names = [whole(make).name for _, _, make in BEHAVIOUR]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("make", [robustness_grid, generalisation_grid])
def test_a_grid_of_more_agents_than_fit_has_tiers(make) -> None:
    name = make(RUN, COLOURS).name
    table = TABLES[name].filter(pl.col("agent") == "base")
    many = pl.concat([table.with_columns(agent=pl.lit(f"agent{i:02}")) for i in range(10)])
    figure = drawn(make(replaced(**{name: many}), COLOURS))
    svg = vl_convert.vegalite_to_svg(styled(figure.chart), allowed_base_urls=[])
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert float(root.attrib["width"]) <= 920
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert all(f"agent{i:02}" in texts for i in range(10))


# Regret and kinds of action


def test_regret_bars_are_points_and_shares_of_the_published_range() -> None:
    shown = {
        (r["agent"], r["protocol"], r["game"], r["kind"]): r
        for r in data(whole(regret_bars), "kind", "value", "low")
    }
    table = [r for r in rows_of("regret") if r["opponent_name"] == "random"]
    keys = ("protocol", "game", "kind")
    assert len(shown) == 5 * (2 * 6 + 2 * 5)
    for r in table:
        factor = 1 / 12 if r["kind"] == "utilitarian" else 1.0
        found = [
            number(other["regret"]) * factor
            for other in table
            if other["agent"] in SEEDS and all(other[k] == r[k] for k in keys)
        ]
        if r["agent"] in SEEDS:
            bar = shown[GROUP, r["protocol"], r["game"], r["kind"]]
            expected = over_three(found, 0.0, math.inf)
            assert (bar["n"], bar["unit"]) == (3, "training seeds")
        else:
            bar = shown[r["agent"], r["protocol"], r["game"], r["kind"]]
            expected = tuple(number(r[c]) * factor for c in ("regret", "low", "high"))
        assert (bar["value"], bar["low"], bar["high"]) == pytest.approx(expected, rel=1e-9)


def test_regret_says_its_setting_units_and_largest_bars() -> None:
    figure = whole(regret_bars)
    assert "against random, labels action3/action4" in figure.shows
    assert "over 8 presentations, over 10 episodes and over 3 training seeds." in figure.shows
    assert f"Largest: deontological 1.51 ({GROUP}, " in figure.shows


def test_regret_of_nothing_and_of_an_undefined_range_is_drawn() -> None:
    table = TABLES["regret"].with_columns(
        regret=pl.when(pl.col("game") == "IPD").then(0.0).otherwise("regret"),
        low=pl.when(pl.col("game") == "IPD").then(None).otherwise("low"),
        high=pl.when(pl.col("game") == "IPD").then(None).otherwise("high"),
        regret_normalised_published=pl.when(pl.col("game") == "IPD")
        .then(None)
        .otherwise("regret_normalised_published"),
    )
    shown = data(regret_bars(replaced(regret=table), COLOURS), "kind", "value", "low")
    none = [r for r in shown if r["game"] == "IPD"]
    assert [(r["value"], r["low"]) for r in none] == [(0.0, None)] * len(none)
    assert len(none) == 5 * 2 * 2


def test_only_what_was_met_is_named() -> None:
    table = TABLES["regret"].filter(pl.col("opponent_name") == "tit-for-tat")
    figure = drawn(regret_bars(replaced(regret=table), COLOURS))
    assert "against tit-for-tat, labels" in figure.shows
    assert {r["protocol"] for r in data(figure, "kind", "value", "low")} == {"exact"}


def test_kinds_of_action_stack_to_one_and_illegal_ones_are_one_kind() -> None:
    parts = data(whole(action_shares), "kind", "start", "end")
    bars: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for part in parts:
        bars.setdefault((part["agent"], part["protocol"], part["game"]), []).append(part)
    assert len(bars) == 5 * (6 + 5)
    table = {
        (r["agent"], r["protocol"], r["game"], r["own"], r["opponent_previous"]): r
        for r in rows_of("action_shares")
    }
    for (agent, protocol, game), bar in bars.items():
        ends = {part["kind"]: part for part in bar}
        assert set(ends) == set(KINDS)
        stacked = [ends[kind] for kind in KINDS]
        assert stacked[0]["start"] == pytest.approx(0)
        for before, after in pairwise(stacked):
            assert before["end"] == pytest.approx(number(after["start"]))
        assert stacked[-1]["end"] == pytest.approx(1)
        if agent == "utilitarian":
            row = table[agent, protocol, game, "C", "D"]
            part = ends["C|D"]
            assert number(part["end"]) - number(part["start"]) == pytest.approx(row["share"])
            assert number(part["from_"]) - number(part["start"]) == pytest.approx(row["low"])
            illegal = sum(
                number(table[agent, protocol, game, "illegal", before]["share"]) for before in "CD"
            )
            assert ends["illegal"]["value"] == pytest.approx(illegal)
            assert ends["illegal"]["low"] is None


def test_no_illegal_answer_is_said() -> None:
    table = TABLES["action_shares"].with_columns(
        share=pl.when(pl.col("own") == "illegal").then(0.0).otherwise("share")
    )
    shows = drawn(action_shares(replaced(action_shares=table), COLOURS)).shows
    assert shows.endswith("No answer was illegal.")


# Contrasts, robustness, generalisation


def test_contrasts_are_those_of_the_table_a_panel_per_family_and_game() -> None:
    figure = whole(behaviour_contrasts)
    shown = {(r["agent"], r["panel"], r["row"]): r for r in data(figure, "panel", "row", "value")}
    panels = {panel for _, panel, _ in shown}
    assert panels == {
        "IPD · wordings", "IPD · scenarios", "IPD · structured", "ISH · structured",
        "ICN · structured", "BOS · structured",
    }  # fmt: skip
    assert figure.shows.endswith(" Shown: 6 of 8 pairs of game and family.")
    for r in rows_of("contrasts"):
        if r["agent"] in SEEDS or f"{r['game']} · {r['family']}" not in panels:
            continue
        row = str(r["contrast"]).replace("-", " ")
        dot = shown[r["agent"], f"{r['game']} · {r['family']}", row]
        assert (dot["value"], dot["low"], dot["high"]) == (r["estimate"], r["low"], r["high"])
    assert "over 8 wordings, over 4 texts and over 3 training seeds" in figure.shows
    clear = sum(number(r["low"]) > 0 or number(r["high"]) < 0 for r in shown.values())
    assert 0 < clear < len(shown)
    assert f"{clear} of {len(shown)} intervals exclude 0; the largest is +0." in figure.shows


def test_contrasts_that_are_all_unclear_say_so() -> None:
    table = TABLES["contrasts"].with_columns(low=pl.lit(-0.9), high=pl.lit(0.9))
    run = replaced(contrasts=table.filter(~pl.col("agent").is_in(SEEDS)))
    shows = drawn(behaviour_contrasts(run, COLOURS)).shows
    assert shows.endswith("0 of 104 intervals exclude 0. Shown: 6 of 8 pairs of game and family.")


def test_robustness_shows_every_level_of_every_factor() -> None:
    figure = whole(robustness_grid)
    shown = {(r["agent"], r["factor"], r["row"]): r for r in data(figure, "factor", "row", "value")}
    table = list(rows_of("robustness"))
    assert len(shown) == len(table) - 2 * len(table) // 7
    for r in table:
        if r["agent"] not in SEEDS:
            assert shown[r["agent"], r["factor"], r["level"]]["value"] == r["p_cooperate"]
    assert "Least legal mass: 0.20 (base, chat template off)." in figure.shows
    base = [r for r in table if r["agent"] == "base"]
    spans = {
        f: max(number(r["p_cooperate"]) for r in base if r["factor"] == f)
        - min(number(r["p_cooperate"]) for r in base if r["factor"] == f)
        for f in {r["factor"] for r in base}
    }
    widest = max(spans, key=lambda f: spans[f])
    words = str(widest).replace("_", " ")
    assert f"base {spans[widest]:.2f} ({words})" in figure.shows


def test_variance_adds_interactions_up_and_names_who_does_not_vary() -> None:
    table = TABLES["variance"].with_columns(
        share=pl.when(pl.col("agent") == "policy:tit-for-tat").then(None).otherwise("share")
    )
    figure = drawn(variance_split(replaced(variance=table), COLOURS))
    shown = {(r["agent"], r["part"]): r for r in data(figure, "part", "value", "low")}
    own = {r["factor"]: number(r["share"]) for r in rows_of("variance") if r["agent"] == "base"}
    main = ("wording", "order", "label", "state")
    for factor in main:
        assert shown["base", factor]["value"] == pytest.approx(own[factor])
        assert shown["base", factor]["low"] is not None
    rest = sum(share for factor, share in own.items() if factor not in {*main, "total"})
    assert shown["base", "interactions"]["value"] == pytest.approx(rest)
    assert shown["base", "interactions"]["low"] is None
    assert "No variance at all: policy:tit-for-tat." in figure.shows
    assert "over 8 wordings" in figure.shows


def test_variance_without_any_is_absent() -> None:
    table = TABLES["variance"].with_columns(share=pl.lit(None, pl.Float64))
    made = variance_split(replaced(variance=table), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "No agent's decisions vary over the prompts of a crossed design."


def test_generalisation_shows_every_game_label_and_order() -> None:
    figure = whole(generalisation_grid)
    shown = {
        (r["agent"], r["game"], r["row"], r["kind"]): r["value"]
        for r in data(figure, "game", "row", "kind")
    }
    assert len(shown) == 5 * len(GAMES) * 9
    for r in rows_of("generalisation"):
        if r["agent"] not in SEEDS:
            key = (r["agent"], r["game"], r["labels"], r["table_order"])
            assert shown[key] == r["p_cooperate"]
    assert "Legal mass is at least 0.96." in figure.shows


@pytest.mark.parametrize(
    ("make", "name"), [(robustness_grid, "robustness"), (generalisation_grid, "generalisation")]
)
def test_what_has_no_legal_answer_is_counted_and_not_drawn(make, name: str) -> None:
    base = pl.col("agent") == "base"
    null = pl.lit(None, pl.Float64)
    table = TABLES[name].with_columns(
        pl.when(base).then(null).otherwise(c).alias(c) for c in ("p_cooperate", "low", "high")
    )
    figure = drawn(make(replaced(**{name: table}), COLOURS))
    out = table.filter(base).height
    assert figure.shows.endswith(
        f" Not drawn, for want of a legal answer: {out} of {table.height} rows."
    )
    assert "base" not in {r["agent"] for r in data(figure, "row", "value", "agent")}
    assert "Not drawn" not in whole(make).shows
    made = make(replaced(**{name: table.filter(base)}), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == f"No row of the table {name} has a legal answer."


# Shapes of policies


def test_state_means_have_their_range_over_label_assignments() -> None:
    policy = TABLES["policy"].filter((pl.col("game") == "IPD") & (pl.col("agent") == "base"))
    found = {r["state"]: r for r in state_means(policy).iter_rows(named=True)}
    assert set(found) == {"CC", "CD", "DC", "DD"}
    values = [
        number(r["p_cooperate"])
        for r in policy.iter_rows(named=True)
        if (r["own_previous"], r["opponent_previous"]) == ("D", "C")
    ]
    assert len(values) == 4
    assert found["DC"]["value"] == pytest.approx(statistics.fmean(values))
    assert (found["DC"]["low"], found["DC"]["high"]) == (min(values), max(values))
    assert min(values) < max(values)


def test_the_shape_of_tit_for_tat_is_the_upper_left_quarter() -> None:
    figure = whole(memory_one_radar)
    corners = {
        r["corner"]: (r["x"], r["y"])
        for r in data(figure, "corner", "x", "panel")
        if r["agent"] == "policy:tit-for-tat"
    }
    assert [corners[i] for i in range(5)] == [(0, 1), (0, 0), (0, 0), (-1, 0), (0, 1)]
    panels = {r["panel"] for r in data(figure, "corner", "x", "panel")}
    rank = [r for r in rows_of("nearest") if r["rank"] == 1 and r["game"] == "IPD"]
    nearest = {r["agent"]: r["strategy"] for r in rank}
    assert f"base\nnearest: {nearest['base']}" in panels
    assert any(str(panel).startswith(f"{GROUP}\nnearest: ") for panel in panels)
    assert len(panels) == 5
    for agent in AGENTS:
        assert f"{agent} {nearest[agent]} (distance 0." in figure.shows
    assert "Dashed: base." in figure.shows


def test_a_shape_needs_its_policy() -> None:
    made = memory_one_radar(replaced(policy=None), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "The table policy is not in this run."
    other = TABLES["policy"].with_columns(game=pl.lit("ICN"))
    made = memory_one_radar(replaced(policy=other), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "The table policy has no game of the table nearest."


def test_a_policy_that_is_undefined_in_some_state_has_no_shape() -> None:
    silent = (pl.col("agent") == "utilitarian") & (pl.col("own_previous") == "D")
    table = TABLES["policy"].with_columns(
        p_cooperate=pl.when(silent).then(None).otherwise("p_cooperate")
    )
    figure = drawn(memory_one_radar(replaced(policy=table), COLOURS))
    assert figure.shows.endswith(" No legal answer in some state, so no shape: utilitarian.")
    assert "utilitarian" not in {r["agent"] for r in data(figure, "corner", "x", "panel")}
    made = memory_one_radar(replaced(policy=table.filter(silent)), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "No agent has a legal answer in every state of IPD."


def test_a_memory_one_cell_without_a_legal_answer_is_a_dash() -> None:
    silent = (pl.col("agent") == "utilitarian") & (pl.col("own_previous") == "D")
    table = TABLES["policy"].with_columns(
        p_cooperate=pl.when(silent).then(None).otherwise("p_cooperate")
    )
    figure = drawn(memory_one(replaced(policy=table), COLOURS))
    cells = {
        str(r["cell"])
        for r in data(figure, "cell", "note")
        if r["agent"] == "utilitarian" and r["own_previous"] == "D"
    }
    assert cells == {"\N{EN DASH}"}
    assert "null" not in vl_convert.vegalite_to_svg(styled(figure.chart), allowed_base_urls=[])
