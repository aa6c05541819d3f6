"""Opposite effects sold as asymmetry, and zero flips sold as robustness."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import synthetic
from published import Claim, ask, recomputed

from moralscope.core.errors import ConfigError

PAIR = ["game", "utilitarian"]


def patched(ahead: dict[str, float], back: dict[str, float], seed: int = 1) -> synthetic.Tables:
    """A study whose single sites have these effects in the two directions."""
    rng = np.random.default_rng(seed)
    sound = synthetic.build()
    frames = []
    for source, target, effects in ((*PAIR, ahead), (*reversed(PAIR), back)):
        rows = synthetic.sweep(source, target, sound["prompts"], rng)
        planted = pl.col("site").replace_strict(
            {site: synthetic.SITE_EFFECTS.get(site, 0.0) for site in synthetic.SITES},
            default=None, return_dtype=pl.Float64,
        )  # fmt: skip
        wanted = pl.col("site").replace_strict(effects, default=None, return_dtype=pl.Float64)
        shift = (wanted - planted).fill_null(0.0)
        frames.append(
            rows.with_columns(
                effect=pl.col("effect") + shift, patched_log_odds=pl.col("patched_log_odds") + shift
            ).with_columns(
                flipped=pl.col("baseline_log_odds").sign() != pl.col("patched_log_odds").sign(),
                margin=pl.col("patched_log_odds") * pl.col("baseline_log_odds").sign(),
            )
        )
    return {**sound, "patching": pl.concat(frames)}


STRONG = dict(zip(synthetic.SITES, (0.5, -0.4, 0.3, -0.6, 0.7, -0.3, 0.4, -0.8), strict=True))


def share(planted: synthetic.Tables, published: float = 0.78) -> Claim:
    return ask(planted, quantity="asymmetry_share", agents=PAIR, published=published)


def test_opposite_signs_of_a_symmetric_model_are_an_artefact() -> None:
    planted = patched(STRONG, {site: -value for site, value in STRONG.items()})
    claim = share(planted)
    assert claim["verdict"] == "artefact"
    assert "opposite signs are symmetry, not asymmetry" in str(claim["reason"])
    assert "a linear model gives them at 100% of sites, noise at 50%, here they are at 100%" in str(
        claim["reason"]
    )
    assert claim["estimate"] == 1.0
    assert recomputed(planted, claim) == 1.0


def test_a_planted_asymmetry_stands() -> None:
    """Both directions move the log-odds the same way at every site."""
    claim = share(patched(STRONG, STRONG), 1.0)
    assert claim["verdict"] == "supported"
    assert claim["estimate"] == 0.0


def test_a_smaller_share_stands_where_that_many_sites_are_asymmetric() -> None:
    half = {site: value if i < 4 else -value for i, (site, value) in enumerate(STRONG.items())}
    assert share(patched(STRONG, half), 0.5)["verdict"] == "supported"
    more = share(patched(STRONG, half), 0.75)
    assert more["verdict"] == "not distinguishable from noise"
    assert "the asymmetry differs from zero in 4 of 8 sites, not in 6" in str(more["reason"])


def test_what_was_not_found_is_told_where_liveness_is_not_known() -> None:
    """The verdict speaks of liveness; the reader is told the figure all the same."""
    half = {site: value if i < 4 else -value for i, (site, value) in enumerate(STRONG.items())}
    claim = share(synthetic.without_fingerprints(patched(STRONG, half)), 0.75)
    assert claim["verdict"] == "not identified by this design"
    assert str(claim["reason"]).startswith(
        "It was not found as stated: the asymmetry differs from zero in 4 of 8 sites, not in 6; "
        "but liveness could not be checked"
    )


def test_sites_without_effect_are_noise() -> None:
    nothing = dict.fromkeys(synthetic.SITES, 0.0)
    claim = share(patched(nothing, nothing, seed=4), 1.0)
    assert claim["verdict"] == "not distinguishable from noise"


def test_the_share_is_of_distinct_sites() -> None:
    planted = synthetic.copy_site(
        patched(STRONG, {s: -v for s, v in STRONG.items()}), "patching", "L0.h0", ["L0.h1", "L0.h2"]
    )
    claim = share(planted)
    assert "of 6 distinct sites 100% have opposite signs" in str(claim["statement"])


def test_one_direction_alone_has_no_asymmetry(sound: synthetic.Tables) -> None:
    one = {**sound, "patching": sound["patching"].filter(pl.col("source") == "game")}
    claim = share(one)
    assert claim["verdict"] == "not identified by this design"
    assert "there is no sweep utilitarian>game; both directions are needed" in str(claim["reason"])


@pytest.mark.parametrize("figure", [0.0, 78.0])
def test_a_figure_that_is_no_share_is_refused(sound: synthetic.Tables, figure: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        share(sound, figure)


def flips(planted: synthetic.Tables, **more: object) -> Claim:
    return ask(planted, **({"quantity": "zero_flips", "agents": PAIR, "published": 0} | more))


def quiet(full_swap_flips: bool) -> synthetic.Tables:
    """No single site flips anything; the full swap does, or does not either."""
    small = dict.fromkeys(synthetic.SITES, 0.05)
    planted = patched(small, small)
    baseline = pl.col("baseline_log_odds") + (0.0 if full_swap_flips else 9.0)
    rows = (
        planted["patching"]
        .with_columns(baseline_log_odds=baseline)
        .with_columns(patched_log_odds=pl.col("baseline_log_odds") + pl.col("effect"))
    )
    flipped = (pl.col("baseline_log_odds") > 0.0) != (pl.col("patched_log_odds") > 0.0)
    return {**planted, "patching": rows.with_columns(flipped=flipped)}


def test_zero_flips_below_a_working_full_swap_stand_with_their_bound() -> None:
    claim = flips(quiet(full_swap_flips=True))
    assert claim["verdict"] == "supported"
    assert claim["high"] == pytest.approx(1.0 - 0.05 ** (1.0 / 20.0))
    assert "the full swap flips 80 of 80 prompts" in str(claim["statement"])
    assert "with 95% confidence at most 13.9% of scenarios have one" in str(claim["statement"])


def test_zero_flips_below_a_full_swap_that_flips_nothing_say_nothing() -> None:
    claim = flips(quiet(full_swap_flips=False))
    assert claim["verdict"] == "not identified by this design"
    assert "swapping everything flips nothing either" in str(claim["reason"])


def test_zero_flips_without_a_full_swap_say_nothing() -> None:
    planted = quiet(full_swap_flips=True)
    single = planted["patching"].filter(pl.col("site") != "all")
    claim = flips({**planted, "patching": single})
    assert "without the full swap (site all)" in str(claim["reason"])


def test_flips_that_are_there_contradict(sound: synthetic.Tables) -> None:
    claim = flips(sound)
    assert claim["outcome"] == "contradicted"
    assert "such patches exist, in 100.0% of scenarios" in str(claim["reason"])


def test_a_dead_agent_flips_nothing() -> None:
    claim = flips(synthetic.kill(quiet(full_swap_flips=True), "game"))
    assert claim["verdict"] == "artefact"
    assert "liveness (game)" in str(claim["reason"])


def test_another_number_than_zero_is_refused(sound: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="is about zero flips and has another number"):
        flips(sound, published=3)
