"""Where a lens settles: sequences made by hand, the definition by brute force, known intervals."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.api import OLS
from statsmodels.stats.weightstats import DescrStatsW

from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.mechanisms.lens.stabilisation import (
    compare,
    compare_agent,
    settled_from,
    sign_depth,
    stabilisation_tables,
)

Array = NDArray[np.float64]


def places(depths: int) -> list[tuple[int, str]]:
    return [((d - 1) // 2, "embed" if d == 0 else ("mlp", "attn")[d % 2]) for d in range(depths)]


def lens_of(agents: dict[str, dict[str, list[float]]], *, later: bool = False) -> pl.DataFrame:
    """A lens table; with ``later``, also a token after the branch of the opposite sign."""
    return from_rows(
        "lens",
        [
            {
                "agent": agent,
                "prompt": prompt,
                "token": token,
                "is_branch": token == 0,
                "layer": layer,
                "sublayer": sublayer,
                "logit_diff": -9.0 * value if token else value,
            }
            for agent, prompts in agents.items()
            for prompt, values in prompts.items()
            for token in range(1 + later)
            for (layer, sublayer), value in zip(places(len(values)), values, strict=True)
        ],
    )


def controls_of(agent: str, drawn: dict[str, Array], prompts: list[str]) -> pl.DataFrame:
    """A table of controls from arrays ``(prompts, draws, depths)``."""
    return from_rows(
        "lens_controls",
        [
            {
                "agent": agent,
                "prompt": prompt,
                "control": control,
                "draw": draw,
                "layer": layer,
                "sublayer": sublayer,
                # What is compared is the product.
                "logit_diff": float(values[index, draw, depth]) / (1 + draw),
                "scale": 1.0 + draw,
            }
            for control, values in drawn.items()
            for index, prompt in enumerate(prompts)
            for draw in range(values.shape[1])
            for depth, (layer, sublayer) in enumerate(places(values.shape[2]))
        ],
    )


@pytest.mark.parametrize(
    ("readings", "depth"),
    [
        ([1.0, 2.0, 3.0, 0.5, 2.0], 0.0),
        ([-1.0, 2.0, 3.0, 0.5, 2.0], 0.5),
        ([1.0, 2.0, -3.0, 0.5, 2.0], 1.5),
        ([1.0, 2.0, 3.0, -0.5, 2.0], 2.0),
        ([-1.0, -2.0, 3.0, -0.5, -2.0], 1.5),
        ([1.0, 2.0, 0.0, 0.5, 2.0], 1.5),
        ([1.0, 2.0, 3.0, 0.5, 0.0], None),
    ],
)
def test_the_sign_is_settled_where_it_stays(readings: list[float], depth: float | None):
    assert sign_depth(np.array(readings)) == depth
    assert sign_depth(-np.array(readings)) == depth


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_a_condition_is_settled_from_the_first_depth_after_which_it_never_fails(holds: list[bool]):
    starts = [d for d in range(len(holds)) if all(holds[d:])]
    assert settled_from(holds) == (starts[0] / 2 if starts else None)


def test_depths_of_prompts_and_their_mean_over_scenarios():
    """Two prompts of one scenario count as one unit; the interval is Student's over three."""
    rows = {
        "a": [1.0, 1.0, 1.0, 1.0, 1.0],  # 0
        "b": [-1.0, -1.0, 1.0, 1.0, 1.0],  # 1
        "c": [1.0, 1.0, 1.0, 1.0, -1.0],  # 2
        "d": [1.0, 1.0, 1.0, -1.0, -1.0],  # 1.5
        "e": [1.0, 1.0, 1.0, 1.0, 0.0],  # none
    }
    scenarios = {"a": "s", "b": "s", "c": "t", "d": "u", "e": "v"}
    lens = lens_of({"game": rows, "alone": {"a": rows["a"], "b": rows["b"]}}, later=True)
    # Rows may come in any order.
    by_prompt, summary = stabilisation_tables(lens.sample(fraction=1.0, shuffle=True, seed=2),
                                              scenarios, seed=1)  # fmt: skip
    found = by_prompt.filter(agent="game").sort("prompt")
    assert found["depth"].to_list() == [0.0, 1.0, 2.0, 1.5, None]
    assert found["final_logit_diff"].to_list() == [1.0, 1.0, -1.0, -1.0, 0.0]
    assert found["scenario"].to_list() == list(scenarios.values())
    (row,) = summary.filter(agent="game").rows(named=True)
    means = [0.5, 2.0, 1.5]
    assert row["depth"] == pytest.approx(np.mean(means))
    assert (row["low"], row["high"]) == pytest.approx(DescrStatsW(means).tconfint_mean())
    assert (row["n_scenarios"], row["n_prompts"]) == (3, 4)
    assert row["beyond_random_pairs"] is row["beyond_unrelated_prompts"] is None
    (one,) = summary.filter(agent="alone").rows(named=True)
    assert (one["depth"], one["low"], one["high"], one["n_scenarios"]) == (0.5, None, None, 1)


def test_many_scenarios_get_a_bootstrap_that_each_agent_draws_by_itself():
    rng = np.random.default_rng(4)
    rows = {f"p{i}": rng.normal(0.3, 1.0, 13).tolist() for i in range(24)}
    scenarios = {name: name for name in rows}
    _, both = stabilisation_tables(lens_of({"x": rows, "game": rows}), scenarios, seed=3)
    _, alone = stabilisation_tables(lens_of({"game": rows}), scenarios, seed=3)
    assert both.filter(agent="game").equals(alone)
    (row,) = alone.rows(named=True)
    depths = [sign_depth(np.array(v)) for v in rows.values()]
    low, high = DescrStatsW(depths).tconfint_mean()
    assert row["depth"] == pytest.approx(np.mean(depths))
    # The further end of Student's interval and a bootstrap-t, which lies near it and is not it.
    further = (low - row["low"], row["high"] - high)
    assert all(-1e-9 <= end < 0.5 * (high - low) for end in further)
    assert max(further) > 1e-6


def by_hand(curves: Array) -> tuple[Array, Array]:
    """The 95% range of one more draw at each depth, from a regression on a constant."""
    ends = [
        OLS(column, np.ones(len(column))).fit().get_prediction([1.0]).conf_int(obs=True)[0]
        for column in curves.T
    ]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def test_random_pairs_are_treated_as_the_decision_is():
    rng = np.random.default_rng(7)
    values, drawn = rng.normal(size=(4, 7)), rng.normal(size=(4, 12, 7))
    found = compare(values, "random_pair", drawn)
    assert found is not None
    curves = np.array(
        [np.mean([math.copysign(1.0, d[k, -1]) * d[k] for d in drawn], axis=0) for k in range(12)]
    )
    low, high = by_hand(curves)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    decision = np.mean([math.copysign(1.0, v[-1]) * v for v in values], axis=0)
    assert found.decision == pytest.approx(decision)
    # The decision itself, taken for a pair, would be one of the curves.
    again = compare(values, "random_pair", np.stack([values, values], 1))
    assert again is not None
    assert again.low == pytest.approx(found.decision)
    assert again.high == pytest.approx(found.decision)
    assert not again.beyond.any()


def test_unrelated_prompts_are_aligned_with_the_decision_they_control():
    rng = np.random.default_rng(8)
    values, drawn = rng.normal(size=(4, 7)), rng.normal(size=(4, 10, 7))
    assert set(np.sign(values[:, -1])) == {-1.0, 1.0}
    found = compare(values, "unrelated_prompt", drawn)
    assert found is not None
    curves = np.array(
        [
            np.mean(
                [math.copysign(1.0, v[-1]) * d[k] for v, d in zip(values, drawn, strict=True)],
                axis=0,
            )
            for k in range(10)
        ]
    )
    low, high = by_hand(curves)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)


def test_one_draw_gives_no_range():
    assert compare(np.ones((2, 5)), "random_pair", np.ones((2, 1, 5))) is None


def test_a_bias_of_stem_and_labels_is_not_the_decision():
    """Early readings are the labels' alone; the questions only speak from layer 1's MLP on."""
    rng = np.random.default_rng(5)
    label = np.array([2.0, 2.2, 2.1, 2.3, 2.2, 2.4, 2.3])
    own = np.array([0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 5.0])
    rows = {f"p{i}": (label + own * (1 + 0.1 * i)).tolist() for i in range(4)}
    rows |= {f"q{i}": (-label - own * (1 + 0.1 * i)).tolist() for i in range(4)}
    side = np.array([1.0] * 4 + [-1.0] * 4)
    noise = 0.2 * rng.normal(size=(1, 10, 7)) * (np.arange(7) > 0)
    unrelated = side[:, None, None] * (label + noise)
    pairs = 0.5 * rng.normal(size=(8, 40, 7)) + rng.normal(size=(1, 40, 1))
    drawn = {"unrelated_prompt": unrelated, "random_pair": pairs}
    lens = lens_of({"game": rows, "base": rows}, later=True)
    controls = controls_of("game", drawn, list(rows))
    scenarios = {name: name for name in rows}
    _, summary = stabilisation_tables(lens, scenarios, seed=1, controls=controls)
    game, base = (
        summary.row(by_predicate=pl.col("agent") == a, named=True) for a in ("game", "base")
    )
    assert game["depth"] == 0.0
    assert game["low"] is game["high"] is None
    assert game["beyond_unrelated_prompts"] == 2.0
    compared = compare_agent(lens, controls, "game")
    # Equal but for rounding is not beyond: at the embedding every draw reads the same.
    assert compared["unrelated_prompt"].high[0] == pytest.approx(2.0)
    assert not compared["unrelated_prompt"].beyond[:4].any()
    later = compared["random_pair"].beyond
    assert game["beyond_random_pairs"] == next(d / 2 for d in range(7) if later[d:].all())
    assert game["beyond_controls"] == max(2.0, game["beyond_random_pairs"])
    assert base["depth"] == 0.0
    assert base["beyond_controls"] is base["beyond_random_pairs"] is None


def test_a_decision_that_ends_within_its_controls_is_never_beyond_them():
    rng = np.random.default_rng(6)
    rows = {"a": [5.0, 5.0, 5.0, 5.0, 0.1], "b": [5.0, 5.0, 5.0, 5.0, 0.2]}
    controls = controls_of("game", {"random_pair": rng.normal(size=(2, 30, 5))}, list(rows))
    scenarios = {"a": "a", "b": "b"}
    _, summary = stabilisation_tables(lens_of({"game": rows}), scenarios, seed=1, controls=controls)
    assert summary["beyond_random_pairs"].to_list() == [None]
    assert summary["beyond_controls"].to_list() == [None]
    assert compare_agent(lens_of({"game": rows}), controls, "game")["random_pair"].beyond[:4].all()


def test_tables_that_do_not_fit_are_refused():
    rows = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]}
    lens = lens_of({"game": rows})
    with pytest.raises(TableError, match="'b' has no scenario.*scenarios of 1 prompts"):
        stabilisation_tables(lens, {"a": "s"}, seed=1)
    scenarios = {"a": "s", "b": "t"}
    with pytest.raises(TableError, match="do not cover the same depths.*'a'.*of 3 depths"):
        stabilisation_tables(lens[1:], scenarios, seed=1)
    part = controls_of("game", {"random_pair": np.ones((1, 4, 3))}, ["a"])
    with pytest.raises(TableError, match="controls of 'game' do not fit.*1 prompts, 4 curves of 3"):
        stabilisation_tables(lens, scenarios, seed=1, controls=part)
    deep = controls_of("game", {"random_pair": np.ones((2, 4, 5))}, ["a", "b"])
    with pytest.raises(TableError, match="do not fit.*8 curves of 5 depths.*3 depths"):
        stabilisation_tables(lens, scenarios, seed=1, controls=deep)
    uneven = controls_of("game", {"random_pair": np.ones((2, 4, 3))}, ["a", "b"])[:-3]
    with pytest.raises(TableError, match="do not fit.*2 prompts, 7 curves"):
        stabilisation_tables(lens, scenarios, seed=1, controls=uneven)
