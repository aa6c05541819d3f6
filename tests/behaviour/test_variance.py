"""The split of the variance, against statsmodels, brute force and planted causes."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from moralscope.behaviour.varying.variance import FACTORS, components, variance_table
from moralscope.core.decision import PromptSet
from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.games import MIRRORED, structured, wordings
from moralscope.games.asking.robustness import crossed_wordings

PAIR = "action1/action2"


def described(world: Any, prompts: PromptSet) -> pl.DataFrame:
    rows = [
        world.prompt_row(
            p.family,
            p.template,
            p.labels,
            p.table_order,
            (p.own_previous, p.opponent_previous),
            order=p.option_order,
            game=p.game,
        )
        | {"prompt": p.name, "answer_order": p.answer_order}
        for p in prompts
    ]
    return from_rows("prompts", rows)


@pytest.fixture(scope="module")
def asked(world: Any) -> pl.DataFrame:
    return described(world, crossed_wordings())


def first(p: dict[str, Any]) -> str:
    """The move that the question names first."""
    labels = p["labels"].split("/")
    return "CD"[labels.index(sorted(labels)[p["option_order"]])]


def with_first(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.Series("first", [first(p) for p in rows.iter_rows(named=True)]))


def decided(world: Any, asked: pl.DataFrame, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    shift = {template: rng.normal() for template in asked["template"].unique(maintain_order=True)}

    def log_odds(p: dict[str, Any]) -> float:
        label = 1.0 if p["labels"] == PAIR else -1.0
        state = 0.7 * (p["opponent_previous"] == "D") - 0.4 * (p["own_previous"] == "D")
        interaction = label * (0.3 * (first(p) == "D") + shift[p["template"]])
        return 0.8 * label + state + shift[p["template"]] + interaction + rng.normal(0, 0.3)

    return world.decide("agent", asked, log_odds)


def by_factor(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["factor"]: row for row in table.iter_rows(named=True)}


def test_the_split_equals_statsmodels_of_both_types(world: Any, asked: pl.DataFrame) -> None:
    decisions = decided(world, asked)
    joined = with_first(decisions.join(asked, on="prompt"))
    frame = pd.DataFrame(
        {
            "y": joined["log_odds"].to_numpy(),
            "wording": joined["template"].to_list(),
            "order": joined["first"].to_list(),
            "label": joined["labels"].to_list(),
            "state": (joined["own_previous"] + joined["opponent_previous"]).to_list(),
        }
    )
    model = ols("y ~ (C(wording) + C(order) + C(label) + C(state)) ** 2", frame).fit()
    found = by_factor(variance_table(asked, decisions))
    assert found["total"]["variance"] == pytest.approx(np.var(frame["y"]), rel=1e-12)
    for kind in (1, 2):
        squares = anova_lm(model, typ=kind)["sum_sq"] / len(frame)
        assert len(squares) == 11
        for name, expected in squares.items():
            plain = str(name).replace("C(", "").replace(")", "").replace("Residual", "rest")
            assert found[plain]["variance"] == pytest.approx(expected, rel=1e-8), (kind, name)
    shares = [row["share"] for name, row in found.items() if name != "total"]
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)
    assert found["total"]["share"] == 1.0
    assert [found[f]["levels"] for f in FACTORS] == [8, 2, 2, 4]
    assert found["wording:state"]["levels"] == 32
    assert {row["n_prompts"] for row in found.values()} == {128}


def test_total_shares_are_sobol_indices_by_brute_force(world: Any, asked: pl.DataFrame) -> None:
    """1 - Var(E[y | all other factors]) / Var(y), over all pairs of levels."""
    decisions = decided(world, asked)
    joined = with_first(decisions.join(asked, on="prompt")).with_columns(
        state=pl.col("own_previous") + pl.col("opponent_previous")
    )
    columns = {"wording": "template", "order": "first", "label": "labels", "state": "state"}
    found = by_factor(variance_table(asked, decisions))
    y = joined["log_odds"].to_numpy()
    for factor, column in columns.items():
        others = [c for c in columns.values() if c != column]
        left = joined.group_by(others).agg(pl.col("log_odds").mean())["log_odds"].to_numpy()
        first = joined.group_by(column).agg(pl.col("log_odds").mean())["log_odds"].to_numpy()
        assert found[factor]["total_share"] == pytest.approx(1 - np.var(left) / np.var(y))
        assert found[factor]["share"] == pytest.approx(np.var(first) / np.var(y))
    assert found["wording:label"]["total_share"] is None


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (3, 2, 2, 4), elements=st.floats(-50, 50)))
def test_components_partition_the_variance(values: np.ndarray) -> None:
    found = components(values)
    assert len(found) == 15
    assert min(found.values()) >= 0.0
    assert sum(found.values()) == pytest.approx(np.var(values), rel=1e-9, abs=1e-9)
    axes = range(4)
    for subset in (s for n in range(1, 5) for s in combinations(axes, n)):
        # Variance of the conditional mean is the sum over everything within the subset.
        mean = values.mean(axis=tuple(a for a in axes if a not in subset))
        within = sum(v for other, v in found.items() if set(other) <= set(subset))
        assert within == pytest.approx(np.var(mean), rel=1e-9, abs=1e-9)


def test_intervals_are_jackknife_over_wordings(world: Any, asked: pl.DataFrame) -> None:
    decisions = decided(world, asked)
    found = by_factor(variance_table(asked, decisions))
    names = asked["template"].unique(maintain_order=True).to_list()
    left = []
    for name in names:
        fewer = asked.filter(pl.col("template") != name)
        kept = decisions.filter(pl.col("prompt").is_in(fewer["prompt"].to_list()))
        left.append({k: r["share"] for k, r in by_factor(variance_table(fewer, kept)).items()})
    for factor, row in found.items():
        if factor == "total":
            assert row["low"] is None
            continue
        shares = np.array([one[factor] for one in left])
        reach = [row["share"]]
        for scale, back in ((lambda x: x, lambda x: x), (special.logit, special.expit)):
            error = np.sqrt(7 / 8 * np.sum((scale(shares) - scale(shares).mean()) ** 2))
            half = stats.t.ppf(0.975, 7) * error
            centre = scale(row["share"])
            pseudo = np.mean([8 * centre - 7 * one for one in scale(shares)])
            centres = (centre,) if back(0.3) == 0.3 else (centre, pseudo)
            reach += [back(c + side) for c in centres for side in (-half, half)]
        assert len(reach) == 7
        assert row["low"] == pytest.approx(max(0.0, min(reach)), abs=1e-9)
        assert row["high"] == pytest.approx(min(1.0, max(reach)), abs=1e-9)
    label = (
        decisions.join(asked, on="prompt")
        .group_by("template", "labels")
        .agg(pl.col("log_odds").mean())
    )
    same = {t: v for t, name, v in label.iter_rows() if name == PAIR}
    other = {t: v for t, name, v in label.iter_rows() if name != PAIR}
    differences = [same[t] - other[t] for t in names]
    half = stats.t.ppf(0.975, 7) * stats.sem(differences)
    assert found["label"]["effect"] == pytest.approx(np.mean(differences))
    assert found["label"]["effect_low"] == pytest.approx(np.mean(differences) - half)
    assert found["label"]["effect_high"] == pytest.approx(np.mean(differences) + half)
    assert found["state"]["effect"] is None


def drawn(rng: np.random.Generator, wordings: int) -> np.ndarray:
    """Wordings from a population in which they lean, and lean to labels and states differently."""
    own = rng.normal(0, 0.7, (wordings, 1, 1, 1))
    to_label = rng.normal(0, 0.8, (wordings, 1, 1, 1)) * np.array([1, -1]).reshape(1, 1, 2, 1)
    to_state = rng.normal(0, 0.3, (wordings, 1, 1, 4))
    order = np.array([0.2, -0.2]).reshape(1, 2, 1, 1)
    label = np.array([0.5, -0.5]).reshape(1, 1, 2, 1)
    state = np.array([0.6, -0.2, 0.1, -0.5]).reshape(1, 1, 1, 4)
    rest = rng.normal(0, 0.3, (wordings, 2, 2, 4))
    return own + to_label + to_state + order + label + state + rest


def test_intervals_hold_the_share_of_the_population_of_wordings(
    world: Any, asked: pl.DataFrame
) -> None:
    """Coverage of 94%: no factor falls below what 200 draws at 94% reach but one time in 1000."""
    rng = np.random.default_rng(11)
    truth = components(drawn(rng, 100_000))
    total = sum(truth.values())
    axes = ["wording", "order", "label", "state"]
    names = {":".join(axes[i] for i in s): v / total for s, v in truth.items() if len(s) < 3}
    axes_of_draws = ("template", "first", "labels", "own_previous", "opponent_previous")
    rows = with_first(asked).sort(axes_of_draws).drop("first")
    prompts = {name: i for i, name in enumerate(rows["prompt"])}
    answers = [drawn(rng, 8).ravel() for _ in range(200)]
    decisions = pl.concat(
        world.decide(f"draw{k}", rows, lambda p, x=x: x[prompts[p["prompt"]]])
        for k, x in enumerate(answers)
    )
    found = variance_table(rows, decisions)
    for name, share in names.items():
        these = found.filter(factor=name)
        held = ((these["low"] <= share) & (share <= these["high"])).sum()
        assert these.height == 200
        assert held >= stats.binom.ppf(0.001, 200, 0.94), (name, held)


@pytest.mark.parametrize(
    ("cause", "factor"),
    [
        (lambda p: 2.0 * (p["labels"] == PAIR), "label"),
        (lambda p: 2.0 * (first(p) == "D"), "order"),
        (lambda p: 2.0 * (p["own_previous"] == p["opponent_previous"]), "state"),
        (lambda p: float(len(p["template"])), "wording"),
        # Which word comes first by the alphabet says nothing of a move.
        (lambda p: 2.0 * (p["option_order"] == 1), "order:label"),
    ],
)
def test_a_planted_cause_has_all_of_the_variance(
    world: Any, asked: pl.DataFrame, cause: Any, factor: str
) -> None:
    found = by_factor(variance_table(asked, world.decide("agent", asked, cause)))
    assert found[factor]["share"] == pytest.approx(1.0, abs=1e-12)
    for name in FACTORS:
        total = found[name]["total_share"]
        assert total == pytest.approx(1.0 if name in factor.split(":") else 0.0, abs=1e-12)
    if factor in ("label", "order"):
        assert found[factor]["effect"] == pytest.approx(2.0)


def test_scripted_policies_are_split_by_their_probabilities(
    world: Any, asked: pl.DataFrame
) -> None:
    copy = world.follow("tft", asked, lambda p: 1.0 * (p["opponent_previous"] == "D"))
    flat = world.follow("always", asked, lambda _: 0.3)
    found = variance_table(asked, pl.concat([copy, flat]))
    assert found["agent"].unique(maintain_order=True).to_list() == ["tft", "always"]
    first = by_factor(found.filter(agent="tft"))
    assert first["state"]["variance"] == first["total"]["variance"] == 0.25
    assert first["state"]["share"] == 1.0
    second = by_factor(found.filter(agent="always"))
    for row in second.values():
        assert row["share"] is row["low"] is row["total_share"] is None
        assert row["variance"] == pytest.approx(0.0, abs=1e-30)


def test_mirrors_orders_and_other_labels_are_no_part_of_the_design(
    world: Any, asked: pl.DataFrame
) -> None:
    more = [
        *structured(),
        *structured(table_order="rows"),
        *structured(("X", "Y")),
        *wordings(names=MIRRORED),
    ]
    known = set(asked["prompt"].to_list())
    extra = described(world, PromptSet(tuple(p for p in more if p.name not in known)))
    wide = pl.concat([asked, extra])
    decisions = decided(world, asked)
    others = world.decide("agent", extra, lambda _: 9.0)
    assert variance_table(wide, pl.concat([decisions, others])).equals(
        variance_table(asked, decisions)
    )


# Sets that have no single split


def test_sets_that_are_not_balanced_are_refused(world: Any, asked: pl.DataFrame) -> None:
    decisions = decided(world, asked)
    gone = asked.filter(pl.col("template") == "rounds")["prompt"][2]
    with pytest.raises(TableError, match="no prompt with wording rounds.*; 1 are missing"):
        variance_table(asked, decisions.filter(pl.col("prompt") != gone))
    uncrossed = described(world, wordings())
    with pytest.raises(TableError, match="not fully crossed"):
        variance_table(uncrossed, decided(world, uncrossed))
    twice = asked.head(1).with_columns(prompt=pl.lit("again"))
    both = pl.concat([asked, twice])
    with pytest.raises(TableError, match="again repeats wording structured, order C first"):
        variance_table(both, decided(world, both))
    one = asked.filter(pl.col("template") == "rounds")
    with pytest.raises(TableError, match="one wording only"):
        variance_table(one, decided(world, one))
    with pytest.raises(TableError, match="no crossed set of wordings"):
        variance_table(asked, decisions, labels="X/Y")


def test_log_odds_on_some_prompts_only_are_refused(world: Any, asked: pl.DataFrame) -> None:
    decisions = decided(world, asked).with_columns(
        log_odds=pl.when(pl.int_range(pl.len()) > 0).then("log_odds")
    )
    with pytest.raises(TableError, match="'agent' has log-odds on some prompts only.*1 of 128"):
        variance_table(asked, decisions)


def test_few_wordings_give_no_interval_of_shares(world: Any, asked: pl.DataFrame) -> None:
    two = asked.filter(pl.col("template").is_in(["rounds", "bullets"]))
    assert two.height == 32 == len(list(product(range(2), range(2), range(2), range(4))))
    found = by_factor(variance_table(two, decided(world, two)))
    assert found["label"]["share"] > 0
    assert found["label"]["low"] is None
    assert found["label"]["effect_low"] is not None


def test_an_agent_without_a_legal_answer_has_no_figures(world: Any, asked: pl.DataFrame) -> None:
    sound, gone = decided(world, asked), pl.int_range(pl.len()) == 3
    silent = sound.with_columns(
        pl.when(gone).then(0.0).otherwise(name).alias(name)
        for name in ("p_positive", "p_negative", "legal_mass")
    ).with_columns(
        pl.when(~gone).then(name).alias(name) for name in ("log_odds", "p_positive_given_legal")
    )
    both = pl.concat([silent.with_columns(agent=pl.lit("mute")), sound])
    found = variance_table(asked, both)
    (row,) = found.filter(agent="mute").iter_rows(named=True)
    assert (row["factor"], row["variance"], row["share"]) == ("total", None, None)
    assert found.filter(agent="agent").equals(variance_table(asked, sound))
