"""Correlations planted by construction: what changes is found, what does not is left alone."""

from __future__ import annotations

import re

import inner_planted
import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.core.errors import TableError
from moralscope.evidence import wired
from moralscope.evidence.claims import setting_of
from moralscope.evidence.findings.inner import inner_values
from moralscope.evidence.findings.wiring import wiring_findings
from moralscope.evidence.judged import claim_rows


def claims(tables: synthetic.Tables, draws: int = 499) -> dict[str, dict[str, object]]:
    setting = setting_of(tables, draws=draws)
    rows = claim_rows(setting, list(wiring_findings(setting)))
    return {str(row["id"]): row for row in rows}


def correlations(tables: synthetic.Tables, agent: str, first: str, second: str) -> float:
    wide = (
        tables["norms"]
        .filter(pl.col("agent") == agent)
        .pivot("site", index="prompt", values="norm")
    )
    return float(stats.pearsonr(wide[first].to_numpy(), wide[second].to_numpy()).statistic)


def estimate(tables: synthetic.Tables, query: object) -> float:
    return float(pl.SQLContext(dict(tables)).execute(str(query), eager=True)["estimate"][0])


UPPER = np.triu_indices(8, 1)


@pytest.fixture(scope="module")
def changed() -> synthetic.Tables:
    """Utilitarian's site L0.h1 writes against the factor that all others write with."""
    return inner_planted.tables(flipped=("utilitarian",), hub=True)


def test_a_planted_change_is_found_and_its_pair_named(changed: synthetic.Tables) -> None:
    claim = claims(changed)["wiring:game:utilitarian"]
    assert claim["verdict"] == "supported"
    words = str(claim["statement"])
    named = re.search(
        r"stands is that of (\S+) with (\S+), correlated (\S+) in game and (\S+) in util", words
    )
    assert named is not None
    first, second, game, utilitarian = named.groups()
    assert "L0.h1" in (first, second)
    assert game == f"{correlations(changed, 'game', first, second):+.2f}"
    assert utilitarian == f"{correlations(changed, 'utilitarian', first, second):+.2f}"
    assert "the same sign whichever scenario is left out" in words
    assert claim["n_units"] == 20


def test_the_changes_gather_at_the_planted_site() -> None:
    many = inner_planted.tables(
        flipped=("utilitarian",), hub=True, noise=0.8, scenarios=30,
        agents=("game", "utilitarian"), sites=[f"L{i // 4}.h{i % 4}" for i in range(24)],
    )  # fmt: skip
    hub = claims(many)["hub:game:utilitarian"]
    assert hub["verdict"] == "supported"
    assert "L0.h1 is part of 23 of the 23 pairs that stand among all 276" in str(hub["statement"])
    assert hub["estimate"] == 23.0


def test_pairs_of_few_sites_gather_without_a_hub(changed: synthetic.Tables) -> None:
    """Among 8 sites the 7 largest differences of mere noise often share one site."""
    hub = claims(changed)["hub:game:utilitarian"]
    assert "L0.h1 is part of 7 of the 7 pairs that stand among all 28" in str(hub["statement"])
    assert hub["estimate"] == 7.0
    assert hub["verdict"] == "not distinguishable from noise"


def test_pairs_placed_as_noise_places_them_are_no_hub(changed: synthetic.Tables) -> None:
    """The share of noise networks that gather as much, from jackknife influences one by one."""
    setting = setting_of(changed, draws=999)
    (found,) = [e for e in wired.compare_all(setting) if e.agents == ("game", "utilitarian")]
    network = found.network
    assert network is not None
    first, second = (network.inner.columns(agent, network.sites) for agent in network.agents)
    clusters = np.array(network.inner.clusters)
    names = sorted(set(clusters.tolist()))
    without = np.array([
        np.arctanh(np.corrcoef(first[clusters != c].T)[UPPER])
        - np.arctanh(np.corrcoef(second[clusters != c].T)[UPPER])
        for c in names
    ])  # fmt: skip
    influence = without.mean(axis=0) - without
    rng, reached, draws = np.random.default_rng(5), 0, 4_000
    for _ in range(draws):
        drawn = np.abs(rng.choice([-1.0, 1.0], len(names)) @ influence)
        ends = np.array(UPPER)[:, np.argsort(drawn)[-7:]]
        reached += int(np.bincount(ends.ravel()).max() >= 7)
    gathered = network.swap.gathered
    assert gathered is not None
    assert gathered.p == pytest.approx(reached / draws, abs=0.045)


def test_the_count_is_that_of_correlations_computed_one_by_one(changed: synthetic.Tables) -> None:
    claim = claims(changed)["wiring:game:utilitarian"]
    sites = inner_planted.SITES
    apart = sum(
        abs(
            np.arctanh(correlations(changed, "game", a, b))
            - np.arctanh(correlations(changed, "utilitarian", a, b))
        )
        > 0.3
        for i, a in enumerate(sites)
        for b in sites[i + 1 :]
    )
    assert claim["estimate"] == apart


def test_the_queries_recompute_the_estimates(changed: synthetic.Tables) -> None:
    for claim in claims(changed).values():
        assert estimate(changed, claim["query"]) == claim["estimate"]


def test_agents_that_are_wired_alike_are_not_told_apart() -> None:
    found = claims(inner_planted.tables(seed=5))
    assert {str(claim["verdict"]) for claim in found.values()} == {"not distinguishable from noise"}
    assert "no single pair stands" in str(found["wiring:base:game"]["statement"])


def test_equal_agents_are_called_different_no_more_often_than_allowed() -> None:
    """Twenty studies of two agents wired alike, at level .05: four or more have p < .02."""
    agents = ("base", "game")
    rejected = sum(
        claims(inner_planted.tables(seed, agents=agents, sites=inner_planted.SITES[:6]), 99)[
            "wiring:base:game"
        ]["verdict"]
        == "supported"
        for seed in range(100, 120)
    )
    assert rejected < 4


def test_pairs_of_agents_are_corrected_by_holm_over_their_kind(changed: synthetic.Tables) -> None:
    """Named: one pair. With the base: two, so that the smaller p counts twice."""
    setting = setting_of(changed, draws=499)
    found = {f.id: f for f in wiring_findings(setting) if f.id.startswith("wiring")}
    named = found["wiring:game:utilitarian"]
    assert (named.p_adjusted, named.tests, named.family) == (named.p, 1, "1 comparison")
    pair = [found["wiring:base:game"], found["wiring:base:utilitarian"]]
    small, large = sorted(pair, key=lambda f: f.p or 0.0)
    assert small.p_adjusted == pytest.approx(min(1.0, 2.0 * (small.p or 0.0)))
    assert large.p_adjusted == pytest.approx(max(small.p_adjusted or 0.0, large.p or 0.0))
    assert {f.family for f in pair} == {"2 comparisons of an agent with its base"}


def test_five_scenarios_are_too_few_for_any_p() -> None:
    found = claims(inner_planted.tables(scenarios=5, flipped=("utilitarian",), hub=True))
    claim = found["wiring:game:utilitarian"]
    assert claim["verdict"] == "not identified by this design"
    assert "with 5 scenarios no data can give a p below 0.125" in str(claim["reason"])


def test_sites_that_are_copies_of_one_measurement_make_no_network(
    changed: synthetic.Tables,
) -> None:
    cloned = synthetic.copy_site(changed, "norms", "L0.h0", list(inner_planted.SITES[1:]))
    claim = claims(cloned)["wiring:game:utilitarian"]
    assert claim["verdict"] == "artefact"
    assert "7 that repeat another" in str(claim["reason"])


def test_rounded_and_dead_sites_are_left_out(changed: synthetic.Tables) -> None:
    coarse = changed["norms"].with_columns(
        norm=pl.when(pl.col("site") == "L0.h2")
        .then(pl.col("norm").round(0))
        .when(pl.col("site") == "L1.mlp")
        .then(0.0)
        .otherwise("norm")
    )
    # Two values only, whatever the rest: the spread is fine and the resolution is not.
    coarse = coarse.with_columns(
        norm=pl.when(pl.col("site") == "L0.h2").then((pl.col("norm") > 12.0).cast(pl.Float64) + 1.0)
        .otherwise("norm")
    )  # fmt: skip
    inner = inner_values({**changed, "norms": coarse}, "norms", ["game", "utilitarian"])
    assert inner is not None
    assert set(inner.sites) - set(inner.sound(["game", "utilitarian"])) == {"L0.h2", "L1.mlp"}
    claim = claims({**changed, "norms": coarse})["wiring:game:utilitarian"]
    assert "15 pairs of 6 sites" in str(claim["statement"])


def test_agents_on_different_prompts_are_refused(changed: synthetic.Tables) -> None:
    part = changed["norms"].filter(~((pl.col("agent") == "game") & (pl.col("prompt") == "s3w01")))
    with pytest.raises(TableError, match="'game' and 'utilitarian' were not measured on the same"):
        claims({**changed, "norms": part})


def test_agents_with_different_sites_are_refused(changed: synthetic.Tables) -> None:
    part = changed["norms"].filter(~((pl.col("agent") == "game") & (pl.col("site") == "L1.mlp")))
    with pytest.raises(TableError, match="not measured on the same sites.*'L1.mlp'"):
        claims({**changed, "norms": part})


def test_scenario_means_weigh_every_prompt_of_a_scenario_alike(changed: synthetic.Tables) -> None:
    inner = inner_values(changed, "norms", ["game"])
    assert inner is not None
    expected = (
        changed["norms"]
        .filter((pl.col("agent") == "game") & (pl.col("site") == "L1.h0"))
        .join(changed["prompts"], on="prompt")
        .group_by("scenario", maintain_order=True)
        .agg(pl.col("norm").mean())["norm"]
        .to_numpy()
    )
    assert np.allclose(inner.means("game", ["L1.h0"])[:, 0], expected, atol=1e-12)


def test_very_many_pairs_are_compared_with_the_base_alone(
    changed: synthetic.Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired, "MANY", 50)
    setting = setting_of(changed, draws=99)
    found = [f.id for f in wiring_findings(setting) if f.id.startswith("wiring")]
    assert found == ["wiring:base:game", "wiring:base:utilitarian"]


def test_only_what_the_study_compares_is_compared(
    changed: synthetic.Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired, "MANY", 1)
    chosen = inner_planted.comparisons(("named", "game", "utilitarian"))
    twice = inner_planted.comparisons(("named", "game", "utilitarian"), name="again")
    other = inner_planted.comparisons(("base", "base", "game"), tested=False)
    setting = setting_of({**changed, "comparisons": pl.concat([chosen, twice, other])}, draws=99)
    found = [f for f in wiring_findings(setting) if f.id.startswith("wiring")]
    assert [(f.id, f.tests) for f in found] == [("wiring:game:utilitarian", 1)]


def test_two_seeds_of_one_reward_say_so(changed: synthetic.Tables) -> None:
    seeds = inner_planted.comparisons(("replicate", "game", "utilitarian"))
    claim = claims({**changed, "comparisons": seeds})["wiring:game:utilitarian"]
    assert "this is how far apart training seeds lie" in str(claim["statement"])
    assert "1 comparison of two seeds of one reward" in str(claim["statement"])


def test_pushes_along_the_decision_make_a_network_of_their_own(changed: synthetic.Tables) -> None:
    """Sizes wired alike, pushes not: the one is left alone, the other found."""
    alike = inner_planted.tables(seed=5)
    both = {**alike, "projections": inner_planted.as_projections(changed)}
    found = claims({**both, "comparisons": inner_planted.comparisons(inner_planted.NAMED)})
    assert set(found) == {
        "wiring:game:utilitarian",
        "hub:game:utilitarian",
        "wiring:game:utilitarian:projection",
        "hub:game:utilitarian:projection",
    }
    assert found["wiring:game:utilitarian"]["verdict"] == "not distinguishable from noise"
    pushes = found["wiring:game:utilitarian:projection"]
    assert pushes["verdict"] == "supported"
    assert pushes["n_tests"] == 2
    assert estimate(both, pushes["query"]) == pushes["estimate"]


def test_heads_are_not_compared_with_their_own_whole(changed: synthetic.Tables) -> None:
    """An attention sub-layer beside its heads: sub-layers alone are the network."""
    whole = {"L0.h0": "L0.attn", "L1.h0": "L1.attn"}
    more = changed["norms"].filter(pl.col("site").is_in(list(whole)))
    named = more.with_columns(
        pl.col("site").replace_strict(whole), norm=pl.col("norm") * 1.1
    )  # fmt: skip
    rows = pl.concat([changed["norms"], named])
    found = claims({**changed, "norms": rows, "comparisons": inner_planted.comparisons(
        inner_planted.NAMED)})  # fmt: skip
    assert "pairs of 4 sites" in str(found["wiring:game:utilitarian"]["statement"])


def test_more_comparisons_draw_more_swaps_so_that_each_can_be_found() -> None:
    """Forty networks of one kind, twenty scenarios: the floor must pass Holm's first step."""
    assert 2.0 / (wired.swaps_for(40, 0.05) + 1) < 0.05 / 40
    assert wired.swaps_for(1, 0.05) == wired.SWAPS


def test_prompts_that_power_demands() -> None:
    """Two-sided .05 and power .8, from the normal distribution itself."""
    wanted = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert wired.prompts_needed(0.3) == int(np.ceil(2.0 * (wanted / 0.3) ** 2 + 3.0)) == 178
