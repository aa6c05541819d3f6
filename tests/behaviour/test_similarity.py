"""Divergences against scipy's distance and sums by hand; alike and apart where they are."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from moralscope.behaviour.varying.similarity import MARGIN, similarity_table
from moralscope.core.errors import ConfigError, TableError
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.divergences import TOP, apart, jensen_shannon

answer = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda p: sum(p) > 1e-3)


@pytest.fixture(scope="module")
def asked(world: Any) -> pl.DataFrame:
    rows = [
        world.prompt_row(
            "clusters", text, labels, "none", cell, game=game, scenario=f"{game}.{cell}"
        )
        for game, cell in itertools.product(("IPD", "ISH", "ICN", "BOS", "ICD"), world.states)
        for text in ("a", "b")
        for labels in (world.same, world.swapped)
    ]
    return from_rows("prompts", rows)


def moved(world: Any, asked: pl.DataFrame, name: str, nats: float, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return world.decide(
        name, asked, lambda p: world.base_log_odds(p) + nats * float(rng.normal(1.0, 0.2))
    )


def test_divergence_is_the_mean_over_scenarios_of_scipys(world: Any, asked: pl.DataFrame) -> None:
    decisions = pl.concat([moved(world, asked, n, s) for n, s in (("a", 0.0), ("b", 1.5))])
    decisions = decisions.with_columns(
        pl.col("p_positive", "p_negative") * 0.9, legal_mass=pl.lit(0.9)
    )
    table = similarity_table(asked, decisions)
    conform("similarity", table)
    (row,) = table.iter_rows(named=True)
    answers = {
        (d["agent"], d["prompt"]): np.array([d["p_positive"], d["p_negative"], 0.1])
        for d in decisions.iter_rows(named=True)
    }
    js: dict[str, list[float]] = {}
    tv: dict[str, list[float]] = {}
    for p in asked.iter_rows(named=True):
        x, y = answers["a", p["prompt"]], answers["b", p["prompt"]]
        js.setdefault(p["scenario"], []).append(float(jensenshannon(x, y)) ** 2)
        tv.setdefault(p["scenario"], []).append(max(abs(x[0] - y[0]), abs(x[1] - y[1])))
    assert row["divergence"] == pytest.approx(np.mean([np.mean(v) for v in js.values()]))
    assert row["total_variation"] == pytest.approx(np.mean([np.mean(v) for v in tv.values()]))
    assert row["n_scenarios"] == 20
    assert 0.0 < row["low"] < row["divergence"] < row["high"] < TOP
    assert row["divergence"] > MARGIN


def test_agents_a_little_apart_are_alike_and_agents_far_apart_are_not(
    world: Any, asked: pl.DataFrame
) -> None:
    decisions = pl.concat(
        [moved(world, asked, n, s) for n, s in (("a", 0.0), ("near", 0.1), ("far", 2.0))]
    )
    found = {(r["first"], r["second"]): r for r in similarity_table(asked, decisions).to_dicts()}
    assert list(found) == [("a", "near"), ("a", "far"), ("near", "far")]
    assert found["a", "near"]["p_equivalent"] < 0.01
    assert found["a", "near"]["high"] < MARGIN
    assert found["a", "far"]["p_equivalent"] > 0.99
    assert found["a", "far"]["low"] > MARGIN
    # Near to 0 the interval still respects it, and a true divergence of nearly 0 is not negative.
    assert found["a", "near"]["low"] >= 0.0


def test_the_margin_decides_what_is_alike(world: Any, asked: pl.DataFrame) -> None:
    decisions = pl.concat([moved(world, asked, n, s) for n, s in (("a", 0.0), ("b", 0.5))])
    strict, lax = (similarity_table(asked, decisions, margin=m) for m in (0.002, 0.2))
    assert strict["divergence"].equals(lax["divergence"])
    assert strict["p_equivalent"][0] > 0.5
    assert lax["p_equivalent"][0] < 0.01
    assert (strict["margin"][0], lax["margin"][0]) == (0.002, 0.2)


def test_the_same_agent_twice_does_not_diverge(world: Any, asked: pl.DataFrame) -> None:
    twins = pl.concat([moved(world, asked, n, 0.0) for n in ("a", "b")])
    row = similarity_table(asked, twins).row(0, named=True)
    assert (row["divergence"], row["total_variation"], row["low"]) == (0.0, 0.0, None)
    assert row["p_equivalent"] == 0.0


def test_more_prompts_in_a_scenario_are_no_more_units(world: Any, asked: pl.DataFrame) -> None:
    again = asked.with_columns(
        pl.col("prompt", "text", "sha256") + pl.lit(" again"), option_order=pl.lit(1, pl.Int64)
    )
    both = pl.concat([asked, again])

    def leaning(shift: float) -> Any:
        return lambda p: (
            shift + world.base_log_odds({"prompt": str(p["prompt"]).removesuffix(" again")})
        )

    tables = [
        similarity_table(
            p, pl.concat([world.decide("a", p, leaning(0)), world.decide("b", p, leaning(0.7))])
        )
        for p in (asked, both)
    ]
    for column in ("divergence", "low", "high", "p_equivalent", "n_scenarios"):
        assert tables[0][column].to_list() == pytest.approx(tables[1][column].to_list())
    assert tables[0]["divergence"][0] > 0.01


def test_one_scenario_has_no_p(world: Any) -> None:
    asked = from_rows(
        "prompts", [world.prompt_row("mine", "a", world.same, "none", c) for c in world.states[:1]]
    )
    decisions = pl.concat([moved(world, asked, n, s) for n, s in (("a", 0.0), ("b", 1.0))])
    row = similarity_table(asked, decisions).row(0, named=True)
    assert (row["p_equivalent"], row["low"], row["n_scenarios"]) == (None, None, 1)


@settings(max_examples=60, deadline=None)
@given(answer, answer)
def test_divergence_is_symmetric_bounded_and_below_total_variation(
    a: list[float], b: list[float]
) -> None:
    x, y = np.array(a) / sum(a), np.array(b) / sum(b)
    js, tv = float(jensen_shannon(x, y)), float(np.abs(x - y).sum() / 2)
    assert js == pytest.approx(float(jensen_shannon(y, x)), abs=1e-12)
    assert 0.0 <= js <= TOP
    assert float(jensen_shannon(x, x)) == pytest.approx(0.0, abs=1e-12)
    # Lin 1991, theorem 3, and Pinsker's inequality on either side.
    assert tv**2 / 2 - 1e-9 <= js <= tv * math.log(2) + 1e-9


def test_apart_needs_more_than_one_scenario_and_more_than_the_margin() -> None:
    assert apart(np.array([0.3]), 0.01) is None
    assert apart(np.full(5, 0.3), 0.01) == 0.0
    assert apart(np.full(5, 0.003), 0.01) == 1.0
    assert (apart(np.array([0.3, 0.31, 0.33, 0.3]), 0.01) or 0.0) < 0.001
    assert (apart(np.array([0.003, 0.001, 0.004]), 0.01) or 0.0) > 0.9


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.7, math.nan])
def test_an_impossible_margin_is_refused(world: Any, asked: pl.DataFrame, margin: float) -> None:
    decisions = moved(world, asked, "a", 0.0)
    with pytest.raises(ConfigError, match="above 0 and below log 2"):
        similarity_table(asked, decisions, margin=margin)


def test_agents_on_different_prompts_are_refused(world: Any, asked: pl.DataFrame) -> None:
    decisions = pl.concat([moved(world, asked, "a", 0.0), moved(world, asked, "b", 1.0).head(30)])
    with pytest.raises(TableError, match="80 prompts of one and 30 of the other"):
        similarity_table(asked, decisions)
