"""Copies and dead sites add nothing to what is said of flips."""

import polars as pl
import synthetic

from moralscope.evidence.claims import make_claims

PATCHING = ("agents", "prompts", "decisions", "patching", "controls")


def _flips(tables: synthetic.Tables) -> dict[str, object]:
    claims = make_claims({name: tables[name] for name in PATCHING}, draws=199)
    return claims.row(by_predicate=pl.col("id") == "flips:game>utilitarian", named=True)


def _copied(tables: synthetic.Tables, site: str, copies: int) -> synthetic.Tables:
    rows = tables["patching"]
    one = rows.filter(pl.col("site") == site)
    more = [one.with_columns(site=pl.lit(f"L9.h{head}")) for head in range(copies)]
    return {**tables, "patching": pl.concat([rows, *more])}


def test_flips_of_copies_count_once() -> None:
    sound = synthetic.build()
    once, often = _flips(sound), _flips(_copied(sound, "L1.mlp", 7))
    told = str(once["statement"]).split(" single-site", maxsplit=1)[0]
    assert str(often["statement"]).startswith(
        f"{told} single-site patches of game into utilitarian"
    )
    assert " (7 sites left out that are copies or dead) flip " in str(often["statement"])
    assert "left out" not in str(once["statement"])
    assert often["estimate"] == once["estimate"]


def test_zero_flips_of_sites_that_were_never_reached_show_nothing() -> None:
    sound = synthetic.build()
    single = pl.col("site") != "all"
    dead = synthetic.set_values(
        sound, "patching", single, effect=pl.lit(0.0), flipped=pl.lit(value=False),
        patched_log_odds=pl.col("baseline_log_odds"),
    )  # fmt: skip
    row = _flips(dead)
    assert row["verdict"] == "artefact"
    assert "8 sites are dead" in str(row["reason"])
