"""Networks as tables: planted changes survive, and pathways are chosen as they should be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import wired_planted
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import setting_of
from moralscope.evidence.wired import compare_all
from moralscope.evidence.wired_tables import (
    changes_table,
    choose_pathways,
    interactions_table,
    networks_table,
    pathways_table,
)

PLANTED = {"L1.mlp": 0.95, "L3.attn": 0.95}


def compared(tables: dict[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    setting = setting_of(tables, draws=1_999)
    found = compare_all(setting)
    return networks_table(setting, found, 0.3), changes_table(setting, found)


@pytest.fixture(scope="module")
def planted() -> dict[str, pl.DataFrame]:
    """One pathway of the first agent's, of eight sub-layers."""
    return wired_planted.pair(PLANTED)


@pytest.fixture(scope="module")
def tables(planted: dict[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return compared(planted)


def test_the_planted_pathway_survives_alone(tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    networks, changes = tables
    assert changes.height == 8 * 7 // 2
    (row,) = changes.filter("survives").rows(named=True)
    assert (row["site_a"], row["site_b"]) == ("L1.mlp", "L3.attn")
    assert row["difference"] == pytest.approx(row["correlation_a"] - row["correlation_b"])
    (network,) = networks.rows(named=True)
    assert (network["surviving"], network["sites"], network["pairs"]) == (1, 8, 28)
    assert (network["kind"], network["comparison"]) == ("named", "asked")


@pytest.mark.parametrize(("other", "survives"), [(0.125, False), (0.16, True)])
def test_pairs_that_are_nearly_one_in_both_agents_do_not_survive(
    other: float, survives: bool
) -> None:
    """Two sites share all but a little, and a little less in one agent: significant, and small."""
    rng = np.random.default_rng(0)
    asked, _ = wired_planted.writes({}, scenarios=400)
    prompts = asked["prompt"].to_list()
    n, parts = len(prompts), []
    shared, third = rng.normal(size=n), rng.normal(size=n)
    for agent, own in (("game", 0.10), ("utilitarian", other)):
        sites = {"L1.mlp": shared, "L2.mlp": shared + rng.normal(0.0, own, n), "L3.mlp": third}
        parts += [
            pl.DataFrame({"prompt": prompts, "agent": agent, "site": site, "norm": 5.0 + values})
            for site, values in sites.items()
        ]
    made = {**wired_planted.pair({}), "prompts": asked, "norms": pl.concat(parts)}
    del made["decisions"]
    _, changes = compared(made)
    (row,) = changes.filter(site_a="L1.mlp", site_b="L2.mlp").rows(named=True)
    apart = np.arctanh(row["correlation_a"]) - np.arctanh(row["correlation_b"])
    assert row["p_adjusted"] < 0.05
    assert row["stable"]
    assert (apart > 0.3, row["survives"]) == (survives, survives)


def test_without_the_plant_nothing_survives() -> None:
    networks, changes = compared(wired_planted.pair({}))
    assert not changes["survives"].any()
    assert networks["surviving"].to_list() == [0]
    assert networks["p_adjusted"].item() > 0.05


def test_distance_and_count_are_those_of_the_correlations(
    planted: dict[str, pl.DataFrame], tables: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    networks, changes = tables
    apart: list[float] = []
    for row in changes.iter_rows(named=True):
        z: list[float] = []
        for agent in ("game", "utilitarian"):
            wide = planted["norms"].filter(agent=agent).pivot("site", index="prompt", values="norm")
            a, b = wide[row["site_a"]].to_numpy(), wide[row["site_b"]].to_numpy()
            z.append(float(np.arctanh(stats.pearsonr(a, b).statistic)))
        apart.append(z[0] - z[1])
    assert networks["distance"].item() == pytest.approx(float(np.sqrt(np.mean(np.square(apart)))))
    assert networks["changed"].item() == sum(abs(d) > 0.3 for d in apart)


def test_agents_that_compute_the_same_have_no_distance() -> None:
    planted = wired_planted.pair(PLANTED)
    own = planted["norms"].filter(agent="game")
    same = pl.concat([own, own.with_columns(agent=pl.lit("utilitarian"))])
    networks, changes = compared({**planted, "norms": same})
    assert networks["distance"].item() == 0.0
    assert changes["difference"].abs().max() == 0.0
    assert not changes["survives"].any()
    assert networks["p_adjusted"].item() == 1.0


def test_correlations_with_a_constant_component_are_null(planted: dict[str, pl.DataFrame]) -> None:
    norms = planted["norms"].with_columns(
        norm=pl.when(pl.col("site") == "L2.attn").then(5.0).otherwise("norm")
    )
    found = interactions_table({**planted, "norms": norms}).filter(agent="game")
    touched = found.filter((pl.col("site_a") == "L2.attn") | (pl.col("site_b") == "L2.attn"))
    assert touched.height == 7
    assert touched["value"].null_count() == 7
    assert found["value"].null_count() == 7
    _, changes = compared({**planted, "norms": norms})
    assert "L2.attn" not in {*changes["site_a"], *changes["site_b"]}


def test_a_table_of_heads_leaves_their_wholes_out(planted: dict[str, pl.DataFrame]) -> None:
    heads = planted["norms"].with_columns(pl.col("site").str.replace("attn", "h0"))
    more = heads.filter(pl.col("site").str.ends_with("h0"))
    both = {**planted, "norms": pl.concat([planted["norms"], more])}
    layers = interactions_table(both)
    assert not layers["site_a"].str.contains("h0").any()
    with_heads = interactions_table(both, heads=True)
    assert not with_heads["site_a"].str.contains("attn").any()
    assert with_heads.height == layers.height


def test_survivors_are_followed_and_as_many_random_ones(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    chosen = choose_pathways(tables[1], np.random.default_rng(0), count=3)
    assert chosen["chosen_as"].to_list() == ["survivor", "random", "random", "random"]
    assert chosen.row(0, named=True)["sender"] == "L1.mlp"
    assert chosen.select("sender", "receiver").n_unique() == 4


def test_a_null_is_looked_at_as_well() -> None:
    _, changes = compared(wired_planted.pair({}))
    chosen = choose_pathways(changes, np.random.default_rng(0), count=3)
    assert chosen["chosen_as"].to_list() == ["largest"] * 3 + ["random"] * 3
    sizes = changes["difference"].abs().sort(descending=True).to_list()
    assert chosen["difference"].abs().to_list()[:3] == sizes[:3]


@pytest.mark.parametrize("parallel", [False, True])
def test_senders_come_before_receivers(
    tables: tuple[pl.DataFrame, pl.DataFrame], parallel: bool
) -> None:
    """All of them: 28 pairs, four of which share a layer and are deaf to each other in parallel."""
    chosen = choose_pathways(tables[1], np.random.default_rng(0), count=99, parallel=parallel)
    assert chosen.height == (24 if parallel else 28)
    same = chosen.filter(pl.col("sender").str.slice(0, 2) == pl.col("receiver").str.slice(0, 2))
    assert same.height == (0 if parallel else 4)
    assert same["sender"].str.ends_with("attn").all()


def test_effects_are_means_over_scenarios_in_each_direction() -> None:
    prompts = pl.DataFrame({"prompt": ["p", "q", "r"], "scenario": ["s", "s", "t"]})
    rows = [
        {"source": a, "target": b, "prompt": p, "source_prompt": p, "sender": "L0.mlp",
         "receiver": "L1.attn", "positions": "answer_span", "write": "write",
         "baseline_log_odds": 0.0, "patched_log_odds": e, "effect": e}
        for a, b, effects in (("x", "y", (1.0, 3.0, 6.0)), ("y", "x", (-1.0, -1.0, 0.0)))
        for p, e in zip("pqr", effects, strict=True)
    ]  # fmt: skip
    chosen = pl.DataFrame({
        "comparison": ["c"], "agent_a": ["x"], "agent_b": ["y"], "measure": ["norm_correlation"],
        "sender": ["L0.mlp"], "receiver": ["L1.attn"], "difference": [0.5], "survives": [True],
        "chosen_as": ["survivor"],
    })  # fmt: skip
    found = pathways_table(chosen, from_rows("edges", rows), prompts).row(0, named=True)
    assert (found["effect_a_to_b"], found["effect_b_to_a"]) == (4.0, -0.5)


def test_nothing_compared_gives_empty_tables(planted: dict[str, pl.DataFrame]) -> None:
    networks, changes = compared({k: v for k, v in planted.items() if k != "norms"})
    assert networks.is_empty()
    chosen = choose_pathways(changes, np.random.default_rng(0), count=3)
    assert chosen.is_empty()
    assert interactions_table({"prompts": planted["prompts"]}).is_empty()
