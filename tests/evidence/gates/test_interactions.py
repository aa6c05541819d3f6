"""Correlations that have no value, and those that are 1 because a column has two values."""

import itertools

import numpy as np
import polars as pl
import pytest
import synthetic
from gating import gate
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.gates.interactions import norm_columns
from moralscope.evidence.gates.judging import judge_gates

Sites = dict[str, np.ndarray]
NAMES = [f"s{s}w{w}{labels}" for s in range(10) for w in range(2) for labels in "12"]


def sizes(**planted: np.ndarray) -> Sites:
    """Six components on forty prompts in ten scenarios, all as they should be."""
    rng = np.random.default_rng(3)
    drawn: Sites = {f"L{k}.mlp": rng.normal(5.0, 1.0, len(NAMES)) for k in range(6)}
    return {**drawn, **{name.replace("_", "."): values for name, values in planted.items()}}


def norms(sites: Sites, agent: str = "game") -> pl.DataFrame:
    return from_rows("norms", [
        {"agent": agent, "prompt": name, "site": site, "norm": float(x)}
        for site, values in sites.items() for name, x in zip(NAMES, values, strict=True)
    ])  # fmt: skip


def interactions(sites: Sites, undefined: float | None = None, measure: str = "pearson") -> object:
    rows = []
    for a, b in itertools.combinations(sites, 2):
        flat = np.ptp(sites[a]) == 0.0 or np.ptp(sites[b]) == 0.0
        r = undefined if flat else float(stats.pearsonr(sites[a], sites[b]).statistic)
        rows.append({"agent": "game", "site_a": a, "site_b": b, "measure": measure, "value": r,
                     "n": len(NAMES)})  # fmt: skip
    rows += [{**rows[0], "site_a": a, "site_b": a, "value": 1.0} for a in sites]
    return from_rows("interactions", rows)


def test_sound_correlations_pass_with_their_diagonal() -> None:
    tables = {"norms": norms(sizes()), "interactions": interactions(sizes())}
    asked = synthetic.prompts()
    gates = judge_gates({**tables, "prompts": asked})
    assert gates.filter(pl.col("passed").ne_missing(True)).height == 0
    subjects = {(row["gate"], row["subject"]) for row in gates.iter_rows(named=True)}
    assert {
        ("undefined values", "interactions game"), ("degenerate correlations", "interactions game"),
        ("degenerate correlations", "norms game"), ("dead channel", "norms game"),
        ("duplicates", "norms game"), ("resolution", "norms game"),
    } <= subjects  # fmt: skip


@pytest.mark.parametrize("with_norms", [True, False])
def test_undefined_correlations_that_are_zero_are_caught(with_norms: bool) -> None:
    sites = sizes(L2_mlp=np.full(len(NAMES), 5.0))
    tables: dict[str, object] = {"interactions": interactions(sites, undefined=0.0)}
    if with_norms:
        tables["norms"] = norms(sites)
    row = gate(tables, "undefined values", "interactions game")
    assert (row["measured"], row["passed"]) == (5.0, False)
    assert "5 of 15 correlations have a number where they can have none, such as 0 for" in str(
        row["advice"]
    )
    assert "not available and never 0. Store it as null" in str(row["advice"])


def test_undefined_correlations_that_are_null_are_counted_and_kept() -> None:
    sites = sizes(L2_mlp=np.full(len(NAMES), 5.0))
    tables = {"norms": norms(sites), "interactions": interactions(sites, undefined=None)}
    row = gate(tables, "undefined values", "interactions game")
    assert (row["measured"], row["passed"]) == (0.0, True)
    assert row["advice"] == "5 of 15 correlations are undefined and kept so."
    assert gate(tables, "dead channel", "norms game")["measured"] == 1.0


def test_zeros_of_ranks_and_of_rounded_figures_may_be_values() -> None:
    sites = sizes(L2_mlp=np.full(len(NAMES), 5.0))
    ranks = {"interactions": interactions(sites, 0.0, measure="spearman")}
    assert gate(ranks, "undefined values", "interactions game")["passed"] is True
    table = interactions(sites, 0.0)
    rounded = {"interactions": table.with_columns(pl.col("value").round(2))}
    assert gate(rounded, "undefined values", "interactions game")["passed"] is True


def test_measures_that_are_no_correlations_are_left_alone() -> None:
    table = interactions(sizes(), measure="mutual_information").with_columns(value=pl.lit(3.0))
    assert judge_gates({"interactions": table}).height == 0


def test_two_valued_columns_with_a_correlation_of_one_are_degenerate() -> None:
    one_prompt = np.where(np.arange(len(NAMES)) == 4, 1.0078125, 1.0)
    sites = sizes(L1_mlp=one_prompt, L4_mlp=3.0 * one_prompt)
    tables = {"norms": norms(sites), "interactions": interactions(sites)}
    row = gate(tables, "degenerate correlations", "interactions game")
    assert (row["measured"], row["passed"]) == (9.0, False)
    assert "9 of 15 correlations are degenerate: 1 have |r| above 0.999" in str(row["advice"])
    assert "(such as 1 for L1.mlp and L4.mlp)" in str(row["advice"])
    row = gate(tables, "degenerate correlations", "norms game")
    assert (row["measured"], row["passed"]) == (2.0, False)
    assert "2 of 6 components (L1.mlp, L4.mlp)" in str(row["advice"])
    assert gate(tables, "resolution", "norms game")["passed"] is False
    alone = {"interactions": tables["interactions"]}
    assert gate(alone, "degenerate correlations", "interactions game")["measured"] == 1.0


def test_a_column_that_one_scenario_moves_is_degenerate() -> None:
    """The prompts of scenario 3 take values of their own; without it nothing varies."""
    above, around = np.full(len(NAMES), 2.0), np.full(len(NAMES), 2.0)
    above[12:16] = 3.0, 4.5, 6.0, 2.5
    around[12:16] = 1.0, 1.5, 3.0, 2.5
    two_scenarios = np.where(np.arange(len(NAMES)) == 30, 9.0, above)
    sites = sizes(L1_mlp=above, L3_mlp=around, L4_mlp=two_scenarios)
    tables = {"norms": norms(sites), "prompts": synthetic.prompts()}
    found = norm_columns(tables)["game"]
    assert found.constant == frozenset()
    assert found.degenerate == {"L1.mlp", "L3.mlp"}
    assert norm_columns({"norms": norms(sites)})["game"].degenerate == frozenset()


def test_leaving_out_scenarios_equals_trying_every_one() -> None:
    """Columns that deviate in up to six prompts of one to three scenarios, up, down or both."""
    rng = np.random.default_rng(0)
    scenario = np.array([name.split("w")[0] for name in NAMES])
    sites: Sites = {}
    for k in range(150):
        x = np.full(len(NAMES), 1.0)
        places = rng.choice(10, rng.integers(1, 4), replace=False)
        there = rng.choice(np.flatnonzero(np.isin(scenario, [f"s{p}" for p in places])), 4)
        x[there] += rng.choice([1.0, -1.0]) * rng.random(4) + rng.integers(0, 2) * rng.normal(
            size=4
        )
        sites[f"L{k}.mlp"] = x
    few = {site for site, x in sites.items() if len(np.unique(x)) < 4}
    alone = {
        site
        for site, x in sites.items()
        if any(np.ptp(x[scenario != s]) == 0.0 for s in np.unique(scenario))
    }
    assert 10 < len(alone - few) < 140
    tables = {"norms": norms(sites), "prompts": synthetic.prompts()}
    assert norm_columns(tables)["game"].degenerate == few | alone


def test_pushes_are_judged_as_sizes_are() -> None:
    """A component that pushes in one scenario alone, and one that never does."""
    alone = np.where(np.arange(len(NAMES)) < 4, np.linspace(1.0, 2.0, len(NAMES)), 0.0)
    sites = sizes(L2_mlp=alone, L3_mlp=np.zeros(len(NAMES)))
    table = norms(sites).rename({"norm": "projection"})
    tables = {"projections": table, "prompts": synthetic.prompts()}
    row = gate(tables, "degenerate correlations", "projections game")
    assert (row["passed"], row["measured"]) == (False, 2.0)
    assert "2 of 6 components (L2.mlp, L3.mlp)" in str(row["advice"])
    assert gate(tables, "dead sites", "projections game")["passed"] is False
    assert gate(tables, "duplicates", "projections game")["passed"] is True
