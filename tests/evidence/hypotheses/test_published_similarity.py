"""Agents that were published as nearly identical."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import synthetic
from published import Claim, ask, recomputed, without
from scipy.spatial.distance import cosine

from moralscope.core.errors import ConfigError

PAIR = ["game", "utilitarian"]


def studied(
    first: float,
    second: float,
    *,
    own: float = 0.05,
    offset: float = 30.0,
    seed: int = 3,
    fingerprint: float = 2.0,
) -> synthetic.Tables:
    """Two agents that move the same random direction by these amounts, on top of a large base.

    Args:
        first: by how much game moves; utilitarian moves by ``second``.
        second: see ``first``.
        own: standard deviation of what each agent has of its own.
        offset: log-odds that all share.
        seed: of the noise.
        fingerprint: by how much both moved when they were trained.
    """
    rng = np.random.default_rng(seed)
    asked = synthetic.prompts(20, 1)
    n = asked.height
    base = offset + rng.normal(0.0, 0.5, n)
    way = rng.normal(0.0, 1.0, n)
    frames = []
    for name, size in (("base", 0.0), ("game", first), ("utilitarian", second)):
        change = size * way + (rng.normal(0.0, own, n) if name != "base" else 0.0)
        frames.append(
            synthetic._answers(name, asked, base + change, trained=False).with_columns(
                fingerprint_log_odds=pl.Series(
                    base + fingerprint * way if name != "base" else [None] * n, dtype=pl.Float64
                )
            )
        )
    who = synthetic.agents().filter(pl.col("agent").is_in(["base", *PAIR]))
    return {"agents": who, "prompts": asked, "decisions": pl.concat(frames)}


def alike(planted: synthetic.Tables, **more: object) -> Claim:
    said: dict[str, object] = {
        "quantity": "similarity",
        "agents": PAIR,
        "tables": ["decisions"],
        "published": 0.9999,
    }
    return ask(planted, **(said | more))


def values(planted: synthetic.Tables, agent: str) -> np.ndarray:
    return planted["decisions"].filter(pl.col("agent") == agent)["log_odds"].to_numpy()


def test_agents_that_learned_the_same_are_equivalent() -> None:
    planted = studied(4.0, 4.0, fingerprint=4.0)
    claim = alike(planted)
    assert claim["verdict"] == "equivalent"
    assert claim["outcome"] == "confirmed"
    apart = np.abs(values(planted, "game") - values(planted, "utilitarian")).mean()
    assert claim["estimate"] == pytest.approx(apart, abs=1e-12)
    assert recomputed(planted, claim) == pytest.approx(apart, abs=1e-9)


def test_the_cosine_of_changes_is_reported_beside_the_raw_one() -> None:
    planted = studied(4.0, 4.0, fingerprint=4.0)
    words = str(alike(planted)["statement"])
    game, other, base = (values(planted, name) for name in ("game", "utilitarian", "base"))
    assert f"the cosine of the raw results is {100 * (1 - cosine(game, other)):.4g}%" in words
    assert f"with base {100 * (1 - cosine(game, base)):.4g}%" in words
    assert f"changes from base {1 - cosine(game - base, other - base):+.3f}" in words


def test_dead_adapters_are_an_artefact_of_liveness() -> None:
    claim = alike(studied(0.01, 0.01, own=0.01))
    assert claim["verdict"] == "artefact"
    assert "liveness (game): Dead or damaged" in str(claim["reason"])


def test_a_likeness_that_is_the_base_s_is_an_artefact_of_the_base() -> None:
    """They move in opposite ways, and the raw cosine is still above .97."""
    planted = studied(4.0, -4.0, fingerprint=4.0)
    alive = planted["decisions"].with_columns(
        fingerprint_log_odds=pl.when(pl.col("agent") == "base").then(None).otherwise("log_odds")
    )
    claim = alike({**planted, "decisions": alive}, published=0.97)
    assert claim["verdict"] == "artefact"
    assert "liveness" not in str(claim["reason"])
    assert "the figure says nothing of what training did" in str(claim["reason"])
    assert "their changes from base have -1.000" in str(claim["reason"])


def test_a_figure_that_does_not_come_out_is_contradicted(sound: synthetic.Tables) -> None:
    claim = alike(sound)
    assert claim["verdict"] == "not distinguishable from noise"
    assert claim["outcome"] == "contradicted"
    assert "more than the margin of" in str(claim["reason"])


def test_without_a_fingerprint_equality_is_not_identified() -> None:
    claim = alike(synthetic.without_fingerprints(studied(4.0, 4.0)))
    assert claim["verdict"] == "not identified by this design"
    assert "liveness could not be checked" in str(claim["reason"])


def test_agents_that_do_nothing_are_equal_for_no_reason() -> None:
    """Nothing was stored to be retained, and nothing moved."""
    claim = alike(synthetic.without_fingerprints(studied(0.01, 0.01)))
    assert claim["verdict"] == "not identified by this design"
    assert "that they are alike shows nothing" in str(claim["reason"])


def test_a_margin_of_its_own_is_used() -> None:
    strict = alike(studied(4.0, 4.0, fingerprint=4.0), margin=0.01)
    assert strict["verdict"] == "not distinguishable from noise"
    assert "more than the margin of 0.01" in str(strict["reason"])


def test_contributions_are_compared_site_by_site(sound: synthetic.Tables) -> None:
    claim = alike(sound, agents=["game", "base"], tables=["attribution"], published=0.7)
    assert claim["outcome"] == "contradicted"
    assert recomputed(sound, claim) == pytest.approx(claim["estimate"], abs=1e-9)


def test_pearson_is_taken_where_it_was_published() -> None:
    planted = studied(4.0, 4.0, fingerprint=4.0)
    r = np.corrcoef(values(planted, "game"), values(planted, "utilitarian"))[0, 1]
    assert f"the pearson of the raw results is {100 * r:.4g}%" in str(
        alike(planted, metric="pearson")["statement"]
    )


def test_without_the_base_nothing_says_what_is_the_base_s(sound: synthetic.Tables) -> None:
    missing = sound["agents"].filter(pl.col("agent") != "base")
    claim = alike({**without(sound, "patching", "controls"), "agents": missing})
    assert claim["verdict"] == "not identified by this design"
    assert "the base is not among the agents" in str(claim["reason"])


def test_two_bases_are_refused(sound: synthetic.Tables) -> None:
    other = sound["agents"].with_columns(
        base=pl.when(pl.col("agent") == "game").then(pl.lit("other")).otherwise("base")
    )
    with pytest.raises(ConfigError, match="agents that have different bases"):
        alike({**sound, "agents": other})


def test_an_unknown_metric_is_refused(sound: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'cosin'.*did you mean 'cosine'"):
        alike(sound, metric="cosin")
