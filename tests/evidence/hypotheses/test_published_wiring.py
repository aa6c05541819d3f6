"""A published difference of two correlations, tested anew on planted values."""

from __future__ import annotations

import inner_planted
import numpy as np
import polars as pl
import pytest
import synthetic
from published import Claim, ask, recomputed, without
from scipy import stats

from moralscope.core.errors import ConfigError

PAIR = ["L0.h0", "L0.h1"]
ROUNDING = "by no more than rounding or takes fewer than four values"


def pathway(planted: synthetic.Tables, **more: object) -> Claim:
    said: dict[str, object] = {
        "quantity": "pathway_difference",
        "agents": ["game", "utilitarian"],
        "sites": PAIR,
        "tables": ["norms"],
        "published": 1.8,
    }
    return ask(planted, **(said | more))


def column(planted: synthetic.Tables, agent: str, site: str) -> np.ndarray:
    rows = planted["norms"].filter((pl.col("agent") == agent) & (pl.col("site") == site))
    return rows["norm"].to_numpy()


def interactions(planted: synthetic.Tables, n: int = 15) -> pl.DataFrame:
    """Correlations of the planted pair as a paper prints them."""
    rows = [
        {
            "agent": agent,
            "site_a": PAIR[1],
            "site_b": PAIR[0],
            "measure": "pearson",
            "value": float(np.corrcoef(*(column(planted, agent, s) for s in PAIR))[0, 1]),
            "n": n,
        }
        for agent in ("game", "utilitarian")
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def changed() -> synthetic.Tables:
    return inner_planted.tables(flipped=("utilitarian",), hub=True)


def test_a_planted_difference_stands(changed: synthetic.Tables) -> None:
    claim = pathway(changed)
    first, second = (
        float(stats.pearsonr(*(column(changed, agent, site) for site in PAIR)).statistic)
        for agent in ("game", "utilitarian")
    )
    assert claim["verdict"] == "supported"
    assert claim["outcome"] == "confirmed"
    assert claim["estimate"] == pytest.approx(first - second, abs=1e-12)
    assert recomputed(changed, claim) == pytest.approx(first - second, abs=1e-9)
    assert f"it is {first:+.3f} in game and {second:+.3f} in utilitarian" in str(claim["statement"])


def test_it_stands_in_contributions_as_well(changed: synthetic.Tables) -> None:
    claim = pathway(inner_planted.as_attribution(changed), tables=["attribution"])
    assert claim["verdict"] == "supported"
    assert recomputed(inner_planted.as_attribution(changed), claim) == pytest.approx(
        claim["estimate"]
    )


def test_the_other_sign_contradicts(changed: synthetic.Tables) -> None:
    claim = pathway(changed, published=-1.8)
    assert claim["verdict"] == "not distinguishable from noise"
    assert claim["outcome"] == "contradicted"
    assert "the difference has the other sign, +1.8" in str(claim["reason"])


def test_a_difference_that_is_not_there_is_noise() -> None:
    claim = pathway(inner_planted.tables(seed=5), published=0.4)
    assert claim["verdict"] == "not distinguishable from noise"
    assert claim["outcome"] == "open"
    assert "is not more than swapping the agents' labels gives" in str(claim["reason"])


def test_a_difference_set_by_one_scenario_is_not_stable() -> None:
    """Noise everywhere, and one scenario with very large sizes: its sign decides."""
    planted = inner_planted.tables(seed=8, flipped=(), noise=1.0)
    spike = pl.when((pl.col("prompt").str.starts_with("s7w")) & pl.col("site").is_in(PAIR)).then(
        pl.col("norm")
        + pl.when((pl.col("agent") == "utilitarian") & (pl.col("site") == PAIR[1]))
        .then(-60.0)
        .otherwise(60.0)
    )
    spiked = planted["norms"].with_columns(norm=spike.otherwise("norm"))
    claim = pathway({**planted, "norms": spiked})
    assert claim["estimate"] > 1.5
    assert claim["verdict"] == "not distinguishable from noise"
    assert "swapping the agents' labels" in str(claim["reason"])


def test_two_valued_columns_are_an_artefact_of_resolution(changed: synthetic.Tables) -> None:
    """One unit in the last place apart, set by single prompts, as bfloat16 leaves them."""
    first = pl.col("prompt") == "s0w02"
    coarse = changed["norms"].with_columns(
        norm=pl.when((pl.col("agent") == "game") & pl.col("site").is_in(PAIR))
        .then(pl.when(first).then(12.0625).otherwise(12.0))
        .otherwise("norm")
    )
    claim = pathway({**changed, "norms": coarse})
    assert claim["verdict"] == "artefact"
    assert f"resolution (norms game): L0.h0 varies {ROUNDING}" in str(claim["reason"])


def test_copies_are_an_artefact_of_duplication(changed: synthetic.Tables) -> None:
    cloned = synthetic.copy_site(changed, "norms", "L0.h1", ["L1.h0", "L1.h1"])
    claim = pathway(cloned)
    assert claim["verdict"] == "artefact"
    assert "duplicates (norms game): L0.h1 repeats the results of another" in str(claim["reason"])


def test_a_correlation_of_one_is_refused(changed: synthetic.Tables) -> None:
    """The second site writes a multiple of the first: |r| = 1, and z would be infinite."""
    norms = changed["norms"]
    double = norms.filter(pl.col("site") == PAIR[0]).select(
        "prompt", "agent", copy=2.0 * pl.col("norm")
    )
    tied = norms.join(double, on=["prompt", "agent"], how="left").with_columns(
        norm=pl.when((pl.col("site") == PAIR[1]) & (pl.col("agent") == "game"))
        .then("copy")
        .otherwise("norm")
    )
    claim = pathway({**changed, "norms": tied.drop("copy")})
    assert claim["verdict"] == "artefact"
    assert "degenerate correlations (game): |r| of L0.h0 and L0.h1 is 1.0000" in str(
        claim["reason"]
    )


def test_a_dead_agent_is_an_artefact(changed: synthetic.Tables) -> None:
    claim = pathway(synthetic.kill(changed, "utilitarian"))
    assert claim["verdict"] == "artefact"
    assert "liveness (utilitarian)" in str(claim["reason"])


def test_five_scenarios_cannot_carry_it() -> None:
    few = inner_planted.tables(scenarios=5, flipped=("utilitarian",), hub=True)
    claim = pathway(few)
    assert claim["verdict"] == "not identified by this design"
    assert "with 5 scenarios no data can give a p below 0.0625" in str(claim["reason"])


def test_correlations_alone_lack_the_unit(changed: synthetic.Tables) -> None:
    printed = {**without(changed, "norms"), "interactions": interactions(changed)}
    claim = pathway(printed, tables=["interactions"])
    assert claim["verdict"] == "not identified by this design"
    assert "n = 15 counts prompts" in str(claim["reason"])
    assert "the values prompt by prompt (table norms) with their scenarios" in str(claim["reason"])
    r = [row["value"] for row in printed["interactions"].iter_rows(named=True)]
    z = (np.arctanh(r[0]) - np.arctanh(r[1])) / np.sqrt(2.0 / 12.0)
    assert f"z = {z:.2f}" in str(claim["reason"])
    assert recomputed(printed, claim) == pytest.approx(r[0] - r[1])


def test_a_printed_correlation_of_one_is_an_artefact(changed: synthetic.Tables) -> None:
    extreme = interactions(changed).with_columns(
        value=pl.when(pl.col("agent") == "game").then(1.0).otherwise("value")
    )
    claim = pathway({**without(changed, "norms"), "interactions": extreme}, tables=["interactions"])
    assert claim["verdict"] == "artefact"
    assert "degenerate correlations (game)" in str(claim["reason"])


def test_an_undefined_correlation_is_not_zero(changed: synthetic.Tables) -> None:
    undefined = interactions(changed).with_columns(
        value=pl.when(pl.col("agent") == "game").then(None).otherwise("value")
    )
    claim = pathway(
        {**without(changed, "norms"), "interactions": undefined}, tables=["interactions"]
    )
    assert claim["estimate"] is None
    assert "what is undefined is not 0" in str(claim["reason"])


def test_an_unknown_site_is_named_with_its_nearest(changed: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="unknown site 'L0.h7'.*did you mean 'L0.h"):
        pathway(changed, sites=["L0.h0", "L0.h7"])


def test_an_unknown_agent_is_named_with_its_nearest(changed: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="unknown agent 'gmae'.*did you mean 'game'"):
        pathway(changed, agents=["gmae", "utilitarian"])


def test_a_table_that_it_cannot_be_read_from_is_refused(changed: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="pathway_difference is not read from"):
        pathway(changed, tables=["decisions"])


def test_a_missing_table_is_named_with_where_it_comes_from(changed: synthetic.Tables) -> None:
    claim = pathway(without(changed, "norms"))
    assert claim["verdict"] == "not identified by this design"
    assert "the table norms is not there; it comes from a table with agent, prompt" in str(
        claim["reason"]
    )


def test_an_unclear_measure_is_asked_for(changed: synthetic.Tables) -> None:
    two = pl.concat(
        [interactions(changed), interactions(changed).with_columns(measure=pl.lit("spearman"))]
    )
    with pytest.raises(ConfigError, match="does not say which correlation.*add metric"):
        pathway({**without(changed, "norms"), "interactions": two}, tables=["interactions"])


def test_a_pair_without_others_has_no_reliability_and_is_not_named() -> None:
    two = inner_planted.tables(flipped=("utilitarian",), sites=inner_planted.SITES[:2])
    claim = pathway(two)
    assert claim["p_adjusted"] < 0.05
    assert claim["verdict"] == "not distinguishable from noise"
    assert claim["outcome"] == "open"
    assert "(reliability not available, 0.7 is needed to name a pair)" in str(claim["reason"])
