"""Error rates by simulation: no effect planted, at most the nominal share of claims supported."""

import numpy as np
import polars as pl
import pytest
import synthetic

from moralscope.evidence.claims import make_claims
from moralscope.evidence.statistics.resampling import max_t, permute_labels


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def limit(alpha: float, runs: int) -> float:
    return alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("clusters", [6, 10])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_family_wise_error_of_max_t(clusters: int, tails: str) -> None:
    """Twelve correlated columns of clustered data; some column is rejected in 5% of studies."""
    runs, draw, rejected = 800, rng(clusters), 0
    mix = draw.normal(size=(12, 12)) + 2.0
    for _ in range(runs):
        noise = draw.normal if tails == "normal" else lambda size: draw.standard_t(2, size=size)
        y = noise(size=(clusters, 12)) @ mix
        rejected += bool((max_t(y, draw).p_adjusted <= 0.05).any())
    share = rejected / runs
    assert share <= limit(0.05, runs)
    # The exact test is not timid either: its size is the largest multiple of 2/2^G below .05.
    assert share >= 0.5 * np.floor(0.05 * 2 ** (clusters - 1)) / 2 ** (clusters - 1)


def test_error_of_the_label_permutation() -> None:
    runs, draw = 800, rng(4)
    p = [permute_labels(draw.normal(size=5), draw.normal(size=5), draw)[0] for _ in range(runs)]
    share = float(np.mean(np.array(p) <= 0.05))
    assert 0.02 <= share <= limit(0.05, runs)


def test_studies_without_effect_support_nothing() -> None:
    """End to end: family-wise, 5% of studies may support a change from base; here 40 studies."""
    none = dict.fromkeys(synthetic.EFFECTS, 0.0)
    runs, wrong = 40, 0
    asked, who = synthetic.prompts(8, 1), synthetic.agents()
    for seed in range(runs):
        tables = {
            "agents": who,
            "prompts": asked,
            "decisions": synthetic.decisions(who, asked, rng(seed), none),
        }
        made = make_claims(tables, draws=199)
        change = made.filter(pl.col("id").str.contains(r"^change:[a-z]+$"))
        assert change.height == 4
        wrong += bool((change.get_column("verdict") == "supported").any())
    assert wrong / runs <= limit(0.05, runs)
