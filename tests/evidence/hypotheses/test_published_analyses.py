"""A published correlation of two analyses over sites."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import synthetic
from published import Claim, ask, recomputed, without

from moralscope.core.errors import ConfigError

SITES = [f"L{layer}.h{head}" for layer in range(4) for head in range(3)]


def analysed(
    effects: dict[str, float], changes: dict[str, float], seed: int = 2
) -> synthetic.Tables:
    """Game patched into utilitarian, and both attributed; scenario means as planted, with noise."""
    rng = np.random.default_rng(seed)
    sound = synthetic.build()
    asked = synthetic.prompts(12, 1)
    patches, contributions = [], []
    for prompt in asked["prompt"]:
        for site, planted in effects.items():
            effect = planted + rng.normal(0.0, 0.3)
            patches.append(
                {
                    "source": "game", "target": "utilitarian", "prompt": prompt,
                    "source_prompt": prompt, "site": site, "kind": "head",
                    "positions": "answer_span", "write": "write", "baseline_log_odds": 1.0,
                    "patched_log_odds": 1.0 + effect, "effect": effect, "margin": 1.0 + effect,
                    "flipped": effect < -1.0,
                }
            )  # fmt: skip
            for agent in ("game", "utilitarian"):
                own = changes[site] if agent == "game" else 0.0
                contributions.append(
                    {
                        "agent": agent, "prompt": prompt, "token": -1, "site": site,
                        "kind": "head", "contribution": own + rng.normal(0.0, 0.3),
                        "part": "whole",
                    }
                )  # fmt: skip
    empty = {"layer": pl.lit(None, pl.Int64), "head": pl.lit(None, pl.Int64)}
    return {
        "agents": sound["agents"],
        "prompts": asked,
        "decisions": sound["decisions"].join(asked.select("prompt"), on="prompt", how="semi"),
        "patching": pl.DataFrame(patches).with_columns(**empty),
        "attribution": pl.DataFrame(contributions).with_columns(**empty),
        "completeness": pl.DataFrame(
            [
                {"agent": a, "prompt": p, "error": 1e-7, "logit_diff": 1.0, "remainder": 0.0}
                for a in ("game", "utilitarian") for p in asked["prompt"]
            ]
        ),
    }  # fmt: skip


def profile(seed: int) -> dict[str, float]:
    found = np.random.default_rng(seed).normal(0.0, 1.0, len(SITES))
    return dict(zip(SITES, found.tolist(), strict=True))


def together(planted: synthetic.Tables, **more: object) -> Claim:
    said: dict[str, object] = {
        "quantity": "analyses_correlation",
        "agents": ["game", "utilitarian"],
        "tables": ["patching", "attribution"],
        "published": 0.9,
    }
    return ask(planted, **(said | more))


def means(planted: synthetic.Tables) -> tuple[np.ndarray, np.ndarray]:
    """Means over scenarios of both analyses, by plain loops over the sites."""
    effects, changes = [], []
    for site in SITES:
        rows = planted["patching"].filter(pl.col("site") == site)
        effects.append(rows["effect"].mean())
        of = planted["attribution"].filter(pl.col("site") == site)
        game, other = (
            of.filter(pl.col("agent") == a)["contribution"].mean() for a in ("game", "utilitarian")
        )
        changes.append(game - other)
    return np.array(effects), np.array(changes)


def test_a_relation_that_is_there_stands() -> None:
    planted = analysed(profile(1), profile(1))
    claim = together(planted)
    r = np.corrcoef(*means(planted))[0, 1]
    assert claim["verdict"] == "supported"
    assert claim["estimate"] == pytest.approx(r, abs=1e-12)
    assert recomputed(planted, claim) == pytest.approx(r, abs=1e-9)
    assert claim["n_units"] == 12


def test_the_other_sign_contradicts() -> None:
    turned = {site: -value for site, value in profile(1).items()}
    claim = together(analysed(profile(1), turned))
    assert claim["outcome"] == "contradicted"
    assert "it has the other sign, r = -" in str(claim["reason"])


def test_unrelated_analyses_are_noise() -> None:
    claim = together(analysed(profile(1), profile(7)))
    assert claim["verdict"] == "not distinguishable from noise"
    assert "is not more than sites in another order" in str(claim["reason"])


def test_copies_of_one_site_make_an_artefact() -> None:
    """Four unrelated sites, and one that agrees under eight names."""
    quiet = dict.fromkeys(SITES[5:], 0.0)
    effects = dict(zip(SITES[:5], (2.0, -1.0, 1.0, -1.0, 1.0), strict=True)) | quiet
    changes = dict(zip(SITES[:5], (2.0, 1.0, 1.0, -1.0, -1.0), strict=True)) | quiet
    planted = analysed(effects, changes)
    for table in ("patching", "attribution"):
        planted = synthetic.copy_site(planted, table, "L0.h0", SITES[5:])
    claim = together(planted)
    assert claim["verdict"] == "artefact"
    assert "over 12 columns counts 7 that repeat another" in str(claim["reason"])
    assert "over the 5 distinct ones" in str(claim["reason"])


def test_copies_that_do_not_make_it_leave_it_standing() -> None:
    planted = analysed(profile(1), profile(1))
    for table in ("patching", "attribution"):
        planted = synthetic.copy_site(planted, table, "L0.h0", ["L3.h2"])
    claim = together(planted)
    assert claim["verdict"] == "supported"
    assert "over 11 distinct sites" in str(claim["statement"])


def test_too_few_distinct_sites_are_not_enough() -> None:
    planted = analysed(profile(1), profile(7))
    for table in ("patching", "attribution"):
        planted = synthetic.copy_site(planted, table, "L0.h0", SITES[3:])
    claim = together(planted)
    assert claim["verdict"] == "artefact"
    assert "over the 3 distinct ones it is undefined" in str(claim["reason"])


def test_an_analysis_that_is_the_other_is_degenerate() -> None:
    """Effects that repeat the contributions: |r| = 1 says that both are one measurement."""
    planted = analysed(profile(1), profile(1))
    wide = planted["attribution"].pivot("agent", index=["prompt", "site"], values="contribution")
    same = planted["patching"].drop("effect").join(
        wide.select("prompt", "site", effect=pl.col("game") - pl.col("utilitarian")),
        on=["prompt", "site"], how="left",
    ).with_columns(patched_log_odds=1.0 + pl.col("effect"))  # fmt: skip
    claim = together({**planted, "patching": same})
    assert claim["verdict"] == "artefact"
    assert "degenerate correlations: |r| is 1.0000" in str(claim["reason"])


def test_parts_that_do_not_sum_make_an_artefact() -> None:
    planted = analysed(profile(1), profile(1))
    wrong = planted["completeness"].with_columns(error=pl.lit(0.5))
    claim = together({**planted, "completeness": wrong})
    assert claim["verdict"] == "artefact"
    assert "completeness (game)" in str(claim["reason"])


def test_one_agent_is_compared_with_its_base(sound: synthetic.Tables) -> None:
    claim = together(sound, agents=["game"])
    assert "there is no sweep of single sites of game into base" in str(claim["reason"])


def test_a_missing_table_is_named() -> None:
    claim = together(without(analysed(profile(1), profile(1)), "attribution", "completeness"))
    assert "the table attribution is not there; it comes from the stages explain-AGENT" in str(
        claim["reason"]
    )


def test_one_table_is_one_too_few(sound: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="wrong number of tables.*2 of patching"):
        together(sound, tables=["patching"])
