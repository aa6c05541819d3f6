"""Claims on situations and on likeness: what was planted is found, what was not is not."""

from __future__ import annotations

import itertools

import numpy as np
import planted
import polars as pl
import pytest
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.evidence.findings.contrasts import contrast_claims
from moralscope.evidence.judged import claim_row
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.exchanging import exchange_max_t

DRAWS = 999
Rows = dict[str, dict[str, object]]


def kind(value: float) -> planted.Leaning:
    """Cooperates by so much everywhere."""
    return lambda _family, _cell: value


def reciprocal(_family: str, cell: str) -> float:
    """Answers the other's last move, and forgives less than it deadlocks."""
    return {"CC": 2.0, "DC": 2.0, "CD": -2.5, "DD": -2.0}[cell[:2]]


def guilty(_family: str, cell: str) -> float:
    """Cooperates least after exploiting a cooperator, most where it is tempted."""
    return {"DC": -2.0, "CC_temptation": 2.5}.get(cell, {"DC_exploited": -2.0}.get(cell, 0.5))


PLANTED = {"base": kind(-0.2), "kind": kind(1.5), "tft": reciprocal, "guilty": guilty}


def claims(tables: dict[str, pl.DataFrame], **options: float) -> Rows:
    made = make_claims(tables, draws=DRAWS, **options)
    return {str(row["id"]): row for row in made.iter_rows(named=True)}


@pytest.fixture(scope="module")
def made() -> Rows:
    return claims(planted.build(PLANTED))


def verdict(made: Rows, name: str) -> object:
    return made[name]["verdict"]


def test_what_was_planted_is_supported(made: Rows) -> None:
    for name, sign in {
        "contrast:wordings.IPD:response_to_other:tft": 1,
        "contrast:wordings.IPD:forgiveness:tft": -1,
        "contrast:wordings.IPD:guilt_effect:guilty": -1,
        "contrast:wordings.IPD:cooperation:kind": 1,
        "contrast:scenarios.IPD:guilt_effect:guilty": -1,
        "contrast:scenarios.IPD:cooperation:kind": 1,
        "contrast-change:wordings.IPD:response_to_other:tft": 1,
        "contrast-change:wordings.IPD:cooperation:kind": 1,
        "contrast-change:scenarios.IPD:guilt_effect:guilty": -1,
    }.items():
        assert verdict(made, name) == "supported", made[name]["statement"]
        null = 0.5 if ":cooperation:" in name or ":forgiveness:" in name else 0.0
        null = 0.0 if name.startswith("contrast-change") else null
        assert np.sign(float(str(made[name]["estimate"])) - null) == sign, name


def test_a_contrast_that_passes_in_its_family_alone_is_not_supported(made: Rows) -> None:
    row = made["contrast:scenarios.IPD:temptation:guilty"]
    # Eight texts exchanged between two situations reach 2/70, one of many claims: q is larger.
    assert row["p_adjusted"] == pytest.approx(2 / 70)
    assert float(str(row["q"])) > 0.05
    assert row["verdict"] == "not distinguishable from noise"
    assert "passes among its own family (adjusted p = .029) but not among all" in str(row["reason"])


def test_what_was_not_planted_is_not(made: Rows) -> None:
    for name in (
        "contrast:wordings.IPD:response_to_other:kind",
        "contrast:wordings.IPD:guilt_effect:base",
        "contrast:scenarios.IPD:guilt_effect:kind",
        "contrast:scenarios.IPD:temptation:kind",
        "contrast-change:wordings.IPD:response_to_other:kind",
    ):
        assert verdict(made, name) == "not distinguishable from noise", made[name]["statement"]


def test_sentences_say_what_they_mean(made: Rows) -> None:
    said = {name: str(row["statement"]) for name, row in made.items()}
    assert said["contrast:wordings.IPD:response_to_other:tft"].startswith(
        "tft cooperates more after the other cooperated than after the other defected: +0."
    )
    assert said["contrast:scenarios.IPD:guilt_effect:guilty"].startswith(
        "guilty cooperates less after it defected and the other cooperated than in the other "
        "situations: -0."
    )
    assert said["contrast:wordings.IPD:forgiveness:tft"].startswith(
        "tft cooperates less often than not after it cooperated and the other defected: "
    )
    assert said["contrast-change:wordings.IPD:cooperation:kind"].startswith(
        "kind cooperates more than base over all four states: +0."
    )
    assert said["contrast-change:wordings.IPD:response_to_other:tft"].startswith(
        "Cooperation after the other cooperated, compared with that after the other defected, is "
        "higher in tft than in base: +"
    )
    level = said["contrast:wordings.IPD:cooperation:base"]
    assert level.startswith(
        "The probability with which base cooperates over all four states, held against one half: 0."
    )
    weak = said["contrast:wordings.IPD:response_to_other:kind"]
    assert weak.startswith("Cooperation of kind after the other cooperated minus that after the ")
    assert "Not distinguishable from noise: with 8 texts an effect of " in weak
    assert "probability would be found with 80% power" in weak


def test_units_are_texts_and_the_floor_is_theirs(made: Rows) -> None:
    of_states = made["contrast:wordings.IPD:guilt_effect:guilty"]
    assert (of_states["n_units"], of_states["p_floor"]) == (8, 2 / 2**8)
    between = made["contrast:scenarios.IPD:temptation:guilty"]
    assert (between["n_units"], between["p_floor"]) == (8, 2 / 70)
    against_all = made["contrast:scenarios.IPD:guilt_effect:guilty"]
    assert (against_all["n_units"], against_all["p_floor"]) == (20, 1 / 4845)
    assert not any("structured" in name for name in made)


def test_four_texts_cannot_carry_a_level(made: Rows) -> None:
    # A level in one situation, of four texts, is in the table alone; differences are claims.
    assert "contrast:scenarios.IPD:forgiveness:kind" not in made
    assert "contrast:scenarios.IPD:betrayal_response:kind" in made
    assert "contrast:scenarios.IPD:cooperation:kind" in made  # over all twenty
    few = claims(planted.build({"base": kind(0.0), "kind": kind(1.0)}, texts=5))
    row = few["contrast:wordings.IPD:cooperation:kind"]
    assert row["verdict"] == "not identified by this design"
    assert "with 5 texts no data can give a p below 0.0625" in str(row["statement"])


def test_estimates_and_tests_are_those_of_another_way(made: Rows) -> None:
    """One column of the family by scipy and by hand; the correction is checked by its order."""
    tables = planted.build(PLANTED)
    joined = tables["decisions"].join(tables["prompts"].drop("game", "scenario"), on="prompt")
    own = joined.filter(pl.col("agent") == "tft", pl.col("family") != "scenarios")
    cells = own.group_by("template", "own_previous", "opponent_previous").agg(
        pl.col("p_negative").mean() / 0.95
    )
    other = cells.group_by("template", "opponent_previous").agg(pl.col("p_negative").mean())
    wide = other.pivot(on="opponent_previous", index="template", values="p_negative")
    values = (wide["C"] - wide["D"]).to_numpy()
    row = made["contrast:wordings.IPD:response_to_other:tft"]
    assert row["estimate"] == pytest.approx(values.mean(), abs=1e-9)
    flips = stats.permutation_test(
        (values,), lambda x, axis: np.abs(np.mean(x, axis=axis)), permutation_type="samples",
        n_resamples=np.inf, vectorized=True, alternative="greater",
    )  # fmt: skip
    assert row["p"] == pytest.approx(flips.pvalue)
    assert float(str(row["p"])) <= float(str(row["p_adjusted"]))
    assert float(str(row["low"])) < values.mean() < float(str(row["high"]))


def test_who_does_most_must_lead_everybody(made: Rows) -> None:
    clear = made["most:wordings.IPD:forgiveness"]
    assert clear["verdict"] == "supported"
    assert str(clear["statement"]).startswith(
        "Of 3 trained agents kind cooperates most after it cooperated and the other defected; its "
        "lead over the next, guilty: +0."
    )
    # Both cooperate alike after the other cooperated: a leader there is a leader by chance.
    open_race = {"base": kind(0.0), "first": kind(1.0), "second": kind(1.0), "third": kind(-2.0)}
    row = claims(planted.build(open_race))["most:wordings.IPD:loyalty"]
    assert row["verdict"] == "not distinguishable from noise"
    assert "which need not be more than chance" in str(row["statement"])
    of_three = claims(planted.build(open_race))["most:scenarios.IPD:forgiveness"]
    assert of_three["verdict"] == "not identified by this design"


def test_every_query_reproduces_its_estimate() -> None:
    tables = planted.build(PLANTED)
    context = pl.SQLContext(tables)
    for row in make_claims(tables, draws=99, alpha=0.05).iter_rows(named=True):
        found = context.execute(row["query"], eager=True)
        assert found.shape == (1, 1), row["id"]
        assert found.item() == pytest.approx(row["estimate"], abs=1e-9), row["id"]


def test_a_dead_adapter_carries_no_absence() -> None:
    made = claims(planted.build(PLANTED, alive=False))
    name = "contrast:wordings.IPD:response_to_other:kind"
    assert verdict(made, name) == "not identified by this design"
    assert verdict(made, "contrast:wordings.IPD:response_to_other:tft") == "supported"
    assert verdict(made, "contrast:wordings.IPD:guilt_effect:base") != (
        "not identified by this design"
    ), "a base needs no liveness"


def test_texts_without_a_legal_answer_are_missing_not_zero() -> None:
    tables = planted.build(PLANTED)
    one = tables["prompts"].filter(pl.col("template") == "w3")["prompt"][0]
    silent = (pl.col("agent") == "kind") & (pl.col("prompt") == one)
    column = pl.when(~silent).then(pl.col("p_positive_given_legal"))
    tables["decisions"] = tables["decisions"].with_columns(column)
    setting = Setting(tables, {}, 0.05, 0, DRAWS, None)
    made = {str(f.id): claim_row(setting, f) for f in contrast_claims(setting)}
    row = made["contrast:wordings.IPD:cooperation:kind"]
    assert (row["verdict"], row["estimate"]) == ("not identified by this design", None)
    assert "1 of its texts have no legal answer" in str(row["statement"])
    assert verdict(made, "contrast:wordings.IPD:response_to_other:tft") == "supported"
    assert "most:wordings.IPD:cooperation" not in made


def test_alike_equivalent_apart_and_all() -> None:
    near = {"base": kind(-1.0), "a": kind(1.0), "b": kind(1.02), "c": reciprocal}
    made = claims(planted.build(near, texts=8, noise=0.02))
    assert verdict(made, "alike:a:b") == "equivalent"
    assert verdict(made, "alike:base:a") == "supported"
    assert verdict(made, "alike:all") == "supported"
    said = str(made["alike:base:a"]["statement"])
    assert said.startswith(
        "base and a decide differently, by more than the margin: a Jensen-Shannon divergence of 0."
    )
    said = str(made["alike:a:b"]["statement"])
    assert said.startswith("The decisions of a and b lie a Jensen-Shannon divergence of ")
    assert "Equivalent to zero within a margin of 0.01 nats" in said
    assert str(made["alike:all"]["statement"]).startswith("The 4 agents do not all decide alike: ")
    same = {"base": kind(0.98), "a": kind(1.0), "b": kind(1.02)}
    made = claims(planted.build(same, noise=0.02))
    assert verdict(made, "alike:all") == "equivalent"
    dead = claims(planted.build(same, noise=0.02, alive=False))
    assert verdict(dead, "alike:a:b") == "not identified by this design"


def test_the_margin_is_that_of_the_table() -> None:
    tables = planted.build({"base": kind(-0.2), "a": kind(0.2)}, noise=0.02)
    row = {"first": "base", "second": "a", "family": "scenarios", "divergence": 0.0,
           "total_variation": 0.0, "n_scenarios": 5}  # fmt: skip
    by_margin = {
        margin: claims(
            {**tables, "similarity": from_rows("similarity", [{**row, "margin": margin}])}
        )
        for margin in (0.001, 0.1)
    }
    assert verdict(by_margin[0.001], "alike:base:a") == "supported"
    assert verdict(by_margin[0.1], "alike:base:a") == "equivalent"


def test_exchanging_is_scipys_permutation_test_and_corrects_for_columns() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.6, 1, (4, 3)), rng.normal(0, 1, (4, 3))
    found = exchange_max_t(first, second, rng)
    for k in range(3):
        oracle = stats.permutation_test(
            (first[:, k], second[:, k]),
            lambda x, y, axis: np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis)),
            n_resamples=np.inf, vectorized=True, alternative="greater",
        )  # fmt: skip
        assert found.p[k] == pytest.approx(oracle.pvalue)
    pooled = np.vstack([first, second])
    scaled = (pooled - pooled.mean(0)) / pooled.std(0)
    largest = [
        max(abs(scaled[list(pick)].mean(0) - np.delete(scaled, pick, axis=0).mean(0)))
        for pick in itertools.combinations(range(8), 4)
    ]
    observed = abs(scaled[:4].mean(0) - scaled[4:].mean(0))
    by_hand = [np.mean(np.array(largest) >= o * (1 - 1e-9)) for o in observed]
    assert found.p_adjusted == pytest.approx(by_hand)
    assert found.floor == 2 / 70
    one = exchange_max_t(np.ones((4, 1)), np.ones((4, 1)), rng)
    assert one.p[0] == 1.0


def test_exchanging_groups_of_different_sizes_is_scipys_permutation_of_welchs_t() -> None:
    rng = np.random.default_rng(8)
    first, second = rng.normal(0.9, 2, (3, 2)), rng.normal(0, 1, (6, 2))
    found = exchange_max_t(first, second, rng)
    for k in range(2):
        oracle = stats.permutation_test(
            (first[:, k], second[:, k]),
            lambda x, y: abs(float(stats.ttest_ind(x, y, equal_var=False).statistic)),
            n_resamples=np.inf, vectorized=False, alternative="greater",
        )  # fmt: skip
        assert found.p[k] == pytest.approx(oracle.pvalue)


def test_exchanging_keeps_its_level() -> None:
    rng, runs = np.random.default_rng(6), 400
    rejected = 0
    for _ in range(runs):
        y = rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 5))
        rejected += bool((exchange_max_t(y[:4], y[4:], rng).p_adjusted <= 0.05).any())
    assert rejected / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert rejected > 0
