"""A published number of sites with an effect, counted anew."""

from __future__ import annotations

import polars as pl
import pytest
import synthetic
from published import Claim, ask, recomputed, without

from moralscope.core.errors import ConfigError

PLANTED = len(synthetic.SITE_EFFECTS)


def count(planted: synthetic.Tables, published: float, **more: object) -> Claim:
    said: dict[str, object] = {
        "quantity": "significant_count",
        "agents": ["game", "utilitarian"],
        "tables": ["patching"],
        "published": published,
    }
    return ask(planted, **(said | more))


def test_a_number_that_is_there_stands(sound: synthetic.Tables) -> None:
    claim = count(sound, PLANTED)
    assert claim["verdict"] == "supported"
    assert claim["estimate"] == PLANTED
    assert recomputed(sound, claim) == PLANTED
    assert f"corrected for all 8 distinct sites, {PLANTED} stand" in str(claim["statement"])


def test_fewer_than_are_there_stand_as_well(sound: synthetic.Tables) -> None:
    assert count(sound, 1)["verdict"] == "supported"


def test_more_than_are_there_do_not_stand(sound: synthetic.Tables) -> None:
    claim = count(sound, PLANTED + 2)
    assert claim["verdict"] == "not distinguishable from noise"
    assert f"{PLANTED} of 8 distinct sites stand, not {PLANTED + 2}" in str(claim["reason"])


def test_copies_make_an_artefact_and_are_counted(sound: synthetic.Tables) -> None:
    """One effective site under four names: six columns pass, three measurements."""
    cloned = synthetic.copy_site(sound, "patching", "L1.mlp", ["L0.h0", "L0.h2", "L1.h0"])
    claim = count(cloned, 6)
    assert claim["verdict"] == "artefact"
    assert claim["estimate"] == 3
    assert (
        "duplicates: of the 6 columns that could be counted 3 are copies of another measurement; "
        "3 distinct, resolved sites remain" in str(claim["reason"])
    )


def test_copies_that_explain_nothing_leave_it_noise(sound: synthetic.Tables) -> None:
    """A copy of a site without effect cannot have been counted: noise, not an artefact."""
    cloned = synthetic.copy_site(sound, "patching", "L0.h0", ["L0.h2"])
    assert count(cloned, 5)["verdict"] == "not distinguishable from noise"


def test_rounded_columns_make_an_artefact(sound: synthetic.Tables) -> None:
    """Norms in two values, one step apart in nearly every prompt: significant by rows."""
    asked = sound["prompts"]
    rows = []
    for index, site in enumerate(synthetic.SITES):
        for agent, step in (("base", 0.0), ("game", 0.0625)):
            for at, prompt in enumerate(asked["prompt"]):
                rows.append(
                    {
                        "agent": agent,
                        "prompt": prompt,
                        "site": site,
                        "norm": 12.0 + (step if (at + index) % 9 else 0.0),
                    }
                )
    planted = {**without(sound, "patching", "attribution"), "norms": pl.DataFrame(rows)}
    claim = count(planted, 8, agents=["game"], tables=["norms"])
    assert claim["verdict"] == "artefact"
    assert "8 vary by no more than rounding; 0 distinct, resolved sites remain" in str(
        claim["reason"]
    )
    assert claim["estimate"] == 0
    assert recomputed(planted, claim) == 0


def test_one_agent_is_compared_with_its_base(sound: synthetic.Tables) -> None:
    claim = count(sound, PLANTED, agents=["game"], tables=["attribution"])
    assert claim["verdict"] == "supported"
    assert "the contributions of game minus those of base" in str(claim["statement"])


def test_rows_as_units_are_reported_beside_it(sound: synthetic.Tables) -> None:
    """Four prompts in each of twenty scenarios: by rows, columns without effect pass too."""
    naive = str(count(sound, PLANTED)["statement"])
    passing = int(naive.split("uncorrected ")[1].split(" of ", maxsplit=1)[0])
    assert passing > PLANTED


def test_a_dead_agent_has_no_count(sound: synthetic.Tables) -> None:
    assert "liveness (game)" in str(count(synthetic.kill(sound, "game"), 3)["reason"])


def test_three_scenarios_cannot_carry_any_number(sound: synthetic.Tables) -> None:
    kept = sound["prompts"].filter(pl.col("scenario").is_in(["s0", "s1", "s2"]))
    few = {
        name: frame.join(kept.select("prompt"), on="prompt", how="semi")
        if "prompt" in frame.columns
        else frame
        for name, frame in without(sound, "controls").items()
    }
    claim = count(few, 3)
    assert claim["verdict"] == "not identified by this design"
    assert "no data can give a p below 0.25" in str(claim["reason"])


@pytest.mark.parametrize("figure", [0.0, 2.5, -3.0])
def test_a_figure_that_is_no_count_is_refused(sound: synthetic.Tables, figure: float) -> None:
    with pytest.raises(ConfigError, match="a whole number, 1 or more"):
        count(sound, figure)


def test_a_sweep_that_is_not_there_is_not_identified(sound: synthetic.Tables) -> None:
    claim = count(sound, 3, agents=["game", "hybrid"])
    assert claim["verdict"] == "not identified by this design"
    assert "there is no sweep of single sites of game into hybrid" in str(claim["reason"])


def test_two_tables_are_one_too_many(sound: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="wrong number of tables"):
        count(sound, 3, tables=["patching", "attribution"])
