"""A claim that names a site needs sites that would come out alike on other scenarios."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import synthetic
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from moralscope.evidence.claims import make_claims
from moralscope.evidence.findings.sites import run_site_test
from moralscope.evidence.ledger import Setting
from moralscope.evidence.units import Units
from moralscope.evidence.verdicts import NOISE, SUPPORTED, Standing, verdict

SCENARIOS, SITES = 20, 6


def study(means: np.ndarray, spread: float, seed: int = 3) -> synthetic.Tables:
    """A sweep whose sites have these mean effects, each scenario with effects of its own."""
    rng = np.random.default_rng(seed)
    asked, who = synthetic.prompts(SCENARIOS), synthetic.agents()
    swept = synthetic.sweep("game", "utilitarian", asked, rng)
    scenario = dict(asked.select("prompt", "scenario").iter_rows())
    sites = swept.get_column("site").unique(maintain_order=True).to_list()[:SITES]
    own = {
        (site, name): mean + rng.normal(0.0, spread)
        for site, mean in zip(sites, means, strict=True)
        for name in sorted(set(scenario.values()))
    }
    kept = swept.filter(pl.col("site").is_in([*sites, "all"]))
    effect = [
        old if site == "all" else own[site, scenario[prompt]] + rng.normal(0.0, 1e-3)
        for site, prompt, old in kept.select("site", "prompt", "effect").iter_rows()
    ]
    kept = kept.with_columns(effect=pl.Series(effect)).with_columns(
        patched_log_odds=pl.col("baseline_log_odds") + pl.col("effect")
    )
    return {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, synthetic.EFFECTS),
        "patching": kept.with_columns(
            margin=pl.col("patched_log_odds") * pl.col("baseline_log_odds").sign(),
            flipped=pl.col("patched_log_odds").sign() != pl.col("baseline_log_odds").sign(),
        ),
    }


def claim(tables: synthetic.Tables) -> dict[str, object]:
    made = make_claims(tables, draws=999)
    return made.filter(pl.col("id") == "patching:game>utilitarian").row(0, named=True)


def test_sites_that_stand_apart_are_named() -> None:
    row = claim(study(np.array([-1.5, 0.8, 0.2, 0.0, 0.0, 0.0]), 0.3))
    assert row["verdict"] == SUPPORTED
    assert "reliability of the profile over sites 0.9" in str(row["test"])


def test_no_site_is_named_where_all_do_the_same() -> None:
    """Every site has an effect beyond doubt, and which is the largest is chance."""
    row = claim(study(np.full(SITES, -1.5), 0.5))
    assert row["p_adjusted"] == pytest.approx(0.001)
    assert row["verdict"] == NOISE
    assert "Which site it is would not come out again" in str(row["reason"])
    assert "a claim that names a site needs 0.7" in str(row["reason"])


def test_components_are_those_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(7, 4)) + 0.7 * rng.normal(size=4) + rng.normal(size=(7, 1))
    units = Units(tuple("abcdefg"), ("L0.h0", "L0.h1", "L1.mlp", "L2.mlp"), values)
    setting = Setting({}, {}, 0.05, 0, 99, None)
    found = run_site_test(setting, "any", units, 0.0).components
    frame = pd.DataFrame(
        {
            "y": values.ravel(),
            "scenario": np.repeat(np.arange(7), 4).astype(str),
            "site": np.tile(np.arange(4), 7).astype(str),
        }
    )
    table = anova_lm(ols("y ~ site + scenario", frame).fit())
    square = table["sum_sq"] / table["df"]
    assert found is not None
    assert found.residual == pytest.approx(square["Residual"], abs=1e-10)
    assert found.site == pytest.approx((square["site"] - square["Residual"]) / 7, abs=1e-10)
    assert found.prompt == pytest.approx((square["scenario"] - square["Residual"]) / 4, abs=1e-10)


def test_a_single_site_needs_no_reliability() -> None:
    units = Units(("a", "b", "c"), ("L0.mlp",), np.array([[1.0], [1.2], [0.9]]))
    found = run_site_test(Setting({}, {}, 0.05, 0, 99, None), "any", units, 0.0)
    assert found.reliability is None


@pytest.mark.parametrize("alive", [True, None])
def test_what_is_not_reliable_is_not_supported_and_not_equivalent(alive: bool | None) -> None:
    seen = Standing(
        gate_failed=False, identified=True, rejects=True, above_noise=True, alive=alive,
        equivalent=True, reliable=False,
    )  # fmt: skip
    assert verdict(seen) == NOISE
