"""Do the closer looks at the inside show what the tables hold, over scenarios?"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from report_reading import spec_rows
from scipy import stats

from moralscope.core.tables import from_rows, read_table
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_components import TOP, component_maps, top_components
from moralscope.reports.figure_consistency import (
    asymmetries,
    asymmetry_maps,
    consistency,
    patching_by_scenario,
    patching_consistency,
)
from moralscope.reports.figure_mlps import by_situation, mlp_contributions
from moralscope.reports.figure_preferences import final_preferences
from moralscope.reports.figures_inside import INSIDE
from moralscope.reports.run import Run, read_run, run_of
from moralscope.reports.scenario_means import over_scenarios

COLOURS = {"base": "#6b7280", "game": "#d55e00", "utilitarian": "#0072b2"}


def rows_of(run: Path, table: str) -> list[dict[str, object]]:
    return list(read_table(table, run / "tables").iter_rows(named=True))


def drawn(made: Figure | Absent) -> Figure:
    assert isinstance(made, Figure), made
    return made


def with_tables(run: Path, **tables: pl.DataFrame) -> Run:
    return run_of({**read_run(run).tables, **tables})


def means_by_scenario(run: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Per agent and site the mean contribution of each scenario, by plain loops."""
    scenario = {row["prompt"]: row["scenario"] for row in rows_of(run, "prompts")}
    stored = [row for row in rows_of(run, "attribution") if row["part"] == "whole"]
    sums = [row for row in stored if row["token"] == -1] or stored
    prompts: dict[tuple[str, str, str], float] = defaultdict(float)
    for row in sums:
        prompts[row["agent"], row["site"], row["prompt"]] += row["contribution"]
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (agent, site, prompt), value in prompts.items():
        found[agent, site][scenario[prompt]].append(value)
    return {
        key: {name: statistics.fmean(values) for name, values in groups.items()}
        for key, groups in found.items()
    }


def test_rankings_are_means_over_scenarios_with_t_intervals(reported: Path) -> None:
    means = means_by_scenario(reported)
    shown = spec_rows(reported, "attribution_top", "agent", "site", "rank", "mean", "low", "high")
    assert shown
    for row in shown:
        values = list(means[row["agent"], row["site"]].values())
        low, high = stats.t.interval(
            0.95, len(values) - 1, statistics.fmean(values), stats.sem(values)
        )
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(
            (statistics.fmean(values), low, high), abs=1e-10
        )
    for agent in COLOURS:
        sizes = sorted(
            (abs(statistics.fmean(v.values())) for (a, _), v in means.items() if a == agent),
            reverse=True,
        )
        own = sorted((row["rank"], abs(row["mean"])) for row in shown if row["agent"] == agent)
        assert [size for _, size in own] == pytest.approx(sizes[:TOP])


def test_maps_hold_every_head_and_mlp_of_every_agent(reported: Path) -> None:
    means = means_by_scenario(reported)
    shown = spec_rows(reported, "attribution_maps", "panel", "layer", "component", "value")
    found = {
        (row["panel"], f"L{row['layer']}.{'mlp' if c == 'MLP' else f'h{c}'}"): row["value"]
        for row in shown
        if (c := row["component"])
    }
    wanted = {
        key: statistics.fmean(v.values())
        for key, v in means.items()
        if ".h" in key[1] or key[1].endswith(".mlp")
    }
    assert found == pytest.approx(wanted)


def test_mlps_are_averaged_over_the_prompts_of_a_situation(reported: Path) -> None:
    state = {
        row["prompt"]: f"{row['own_previous']}{row['opponent_previous']}"
        for row in rows_of(reported, "prompts")
    }
    stored = [r for r in rows_of(reported, "attribution") if r["part"] == "whole"]
    sums = [row for row in stored if row["token"] == -1] or stored
    found: dict[tuple[str, int, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in sums:
        if row["kind"] == "mlp":
            found[row["agent"], row["layer"], state[row["prompt"]]][row["prompt"]] += row[
                "contribution"
            ]
    shown = {
        (agent, layer, situation): value
        for agent, layer, situation, value in by_situation(read_run(reported)).iter_rows()
    }
    assert shown == pytest.approx({k: statistics.fmean(v.values()) for k, v in found.items()})


def test_preferences_are_mean_log_odds_of_the_prompts_looked_into(reported: Path) -> None:
    looked = {row["prompt"] for row in rows_of(reported, "lens")}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows_of(reported, "decisions"):
        if row["prompt"] in looked:
            found[row["agent"], row["scenario"]].append(row["log_odds"])
    shown = spec_rows(reported, "final_preferences", "agent", "scenario", "value")
    assert {(r["agent"], r["scenario"]): r["value"] for r in shown} == pytest.approx(
        {key: statistics.fmean(values) for key, values in found.items()}
    )
    figure = drawn(final_preferences(read_run(reported), COLOURS))
    above = sum(statistics.fmean(values) > 0 for values in found.values())
    assert f"In {above} of {len(found)} cells" in figure.shows


def test_scenario_maps_show_the_largest_sites_of_each_direction(reported: Path) -> None:
    scenario = {row["prompt"]: row["scenario"] for row in rows_of(reported, "prompts")}
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows_of(reported, "patching"):
        if row["kind"] in ("head", "mlp"):
            pair = f"{row['source']} into {row['target']}"
            found[pair, row["site"], scenario[row["prompt"]]].append(row["effect"])
    shown = spec_rows(reported, "patching_scenarios", "pair", "site", "scenario", "value")
    assert shown
    for row in shown:
        mean = statistics.fmean(found[row["pair"], row["site"], row["scenario"]])
        assert row["value"] == pytest.approx(mean)


def test_agreement_counts_scenarios_with_the_sign_of_the_mean() -> None:
    effects = pl.DataFrame(
        [("p", "a", s, v) for s, v in zip("wxyz", (1.0, 2.0, -0.5, 0.0), strict=True)]
        + [("p", "b", s, -1.0) for s in "wxyz"],
        schema=["pair", "site", "scenario", "value"],
        orient="row",
    )
    found = {row[1]: row[2:] for row in consistency(effects).iter_rows()}
    assert found == {"a": (0.625, 0.5, 4), "b": (-1.0, 1.0, 4)}


def directions(asymmetry: float) -> pl.DataFrame:
    rows = [
        {
            "agent_a": "base", "prompt_a": f"p{i}", "agent_b": "game", "prompt_b": f"p{i}",
            "site": site, "positions": "answer_span", "write": write,
            "effect_a_to_b": 1.0, "effect_b_to_a": 2 * asymmetry - 1.0,
            "symmetric": 1.0 - asymmetry, "asymmetry": asymmetry + i * 0.5,
        }
        for i in (-1, 0, 1)
        for site in ("L0.h1", "L1.mlp", "L1.attn")
        for write in ("write", "z")
    ]  # fmt: skip
    return from_rows("directions", rows)


def test_asymmetry_is_read_from_one_way_of_patching(reported: Path) -> None:
    found = asymmetries(directions(0.8))
    assert found.select("site", "layer", "head", "kind").rows() == [
        ("L0.h1", 0, 1, "head"), ("L1.mlp", 1, None, "mlp"), ("L1.attn", 1, None, "other"),
    ]  # fmt: skip
    assert found.get_column("value").to_list() == pytest.approx([0.8] * 3)
    figure = drawn(asymmetry_maps(with_tables(reported, directions=directions(0.8)), COLOURS))
    assert "base and game 2 of 2" in figure.shows
    small = drawn(asymmetry_maps(with_tables(reported, directions=directions(0.1)), COLOURS))
    assert "base and game 0 of 2" in small.shows


@pytest.mark.parametrize("make", [make for _, _, make in INSIDE], ids=lambda make: make.__name__)
def test_each_names_what_it_lacks(make: object, reported: Path) -> None:
    assert callable(make)
    absent = make(run_of({}), COLOURS)
    assert isinstance(absent, Absent)
    assert "is not in this run" in absent.reason
    assert all(not asked(run_of({})) for _, asked, _ in INSIDE)
    makers = (top_components, component_maps, mlp_contributions, final_preferences)
    if make in (*makers, patching_by_scenario, patching_consistency):
        figure = drawn(make(read_run(reported), COLOURS))
        assert figure.topic in ("lens", "attribution", "patching")
        assert len(figure.does_not_show) > 60


def test_means_over_scenarios_weigh_scenarios_alike() -> None:
    rows = pl.DataFrame(
        {"site": ["a"] * 5 + ["b"], "scenario": ["x", "x", "x", "y", "z", "x"],
         "value": [1.0, 2.0, 3.0, 8.0, 5.0, 4.0]}
    )  # fmt: skip
    first, second = over_scenarios(rows, ("site",)).iter_rows(named=True)
    low, high = stats.t.interval(0.95, 2, 5.0, stats.sem([2.0, 8.0, 5.0]))
    assert (first["mean"], first["low"], first["high"]) == pytest.approx((5.0, low, high))
    assert math.isclose(first["sd"], 3.0)
    assert first["n"] == 3
    assert (second["mean"], second["sd"], second["low"], second["high"]) == (4.0, None, None, None)
