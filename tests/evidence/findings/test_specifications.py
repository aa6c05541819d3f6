"""Ways of measuring a change that agree or disagree by construction, against scipy and SQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.evidence.claims import make_claims, setting_of
from moralscope.evidence.findings.specifications import specification_findings, ways_to_measure
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.units import checked

NOISE = "not distinguishable from noise"
NOT_IDENTIFIED = "not identified by this design"

NO_GATES = pl.DataFrame(schema={"gate": pl.String, "subject": pl.String, "measured": pl.Float64,
                                "threshold": pl.Float64, "passed": pl.Boolean,
                                "advice": pl.String})  # fmt: skip

Row = dict[str, object]
Effect = Callable[[Row], float]


def study(
    effects: dict[str, Effect], scenarios: int = 12, wordings: int = 2, seed: int = 3
) -> synthetic.Tables:
    """Agents that change from base by an effect of the prompt, in both option orders."""
    rng = np.random.default_rng(seed)
    one = synthetic.prompts(scenarios, wordings).with_columns(option_order=pl.lit(0))
    name, text = pl.col("prompt") + "r", pl.col("text") + " turned"
    turned = one.with_columns(
        prompt=name, text=text, sha256=pl.col("sha256") + "r", option_order=pl.lit(1)
    )
    asked = pl.concat([one, turned])
    who = synthetic.agents(1, tuple(effects))
    nothing = dict.fromkeys(effects, 0.0)
    tables = {"agents": who, "prompts": asked,
              "decisions": synthetic.decisions(who, asked, rng, nothing)}  # fmt: skip
    prompts = {str(row["prompt"]): row for row in asked.iter_rows(named=True)}
    for agent, effect in effects.items():
        by = {prompt: effect(row) for prompt, row in prompts.items()}
        shift = pl.col("prompt").replace_strict(by, return_dtype=pl.Float64)
        shifted = pl.col("log_odds") + shift
        tables = synthetic.set_values(
            tables, "decisions", pl.col("agent") == agent,
            log_odds=shifted, fingerprint_log_odds=shifted + 1e-6,
            p_positive_given_legal=1.0 / (1.0 + (-shifted).exp()),
        )  # fmt: skip
    return tables


def claims(tables: synthetic.Tables, draws: int = 499) -> dict[str, Row]:
    setting = setting_of(tables, draws=draws)
    rows = claim_rows(setting, list(specification_findings(setting)))
    return {str(row["id"]).removeprefix("specifications:"): row for row in rows}


def same(nats: float) -> Effect:
    return lambda _: nats


def by(column: str, level: str, there: float, elsewhere: float) -> Effect:
    return lambda row: there if row[column] == level else elsewhere


def described(tables: synthetic.Tables) -> pl.DataFrame:
    places = tables["prompts"].select("prompt", "labels", "template", "option_order")
    return tables["decisions"].join(places, on="prompt", maintain_order="left")


def recomputed(tables: synthetic.Tables, claim: Row) -> float:
    return float(pl.SQLContext(checked(tables)).execute(str(claim["query"]), eager=True).item())


@pytest.fixture(scope="module")
def mixed() -> synthetic.Tables:
    return study({"game": same(1.5), "kind": same(-1.5), "torn": by("template", "w0", 4.0, -2.0),
                  "still": same(0.0)})  # fmt: skip


@pytest.fixture(scope="module")
def made(mixed: synthetic.Tables) -> dict[str, Row]:
    return claims(mixed)


# What is found


def test_a_change_that_holds_every_way_is_supported(made: dict[str, Row]) -> None:
    row = made["game"]
    assert row["verdict"] == "supported"
    assert (row["estimate"], row["n_units"], row["n_tests"]) == (1.0, 12, 4)
    assert (row["unit"], row["low"]) == ("share of specifications", None)
    assert str(row["statement"]).startswith(
        "In 9 of 9 reasonable specifications game is more inclined to defect than base; 9 show it "
        "by themselves (p below 0.05; adjusted p = .002 for so many): mean log-odds, median "
        "log-odds, probability given a legal answer, labels action1/action2 alone, "
    )
    assert "wording w1 alone, option order 0 alone and 1 more." in str(row["statement"])
    assert made["kind"]["verdict"] == "supported"
    assert "kind is less inclined to defect" in str(made["kind"]["statement"])
    assert made["kind"]["estimate"] == 1.0


def test_wordings_that_disagree_are_named_and_the_mean_says_nothing(made: dict[str, Row]) -> None:
    row = made["torn"]
    assert row["p_adjusted"] < 0.05
    assert row["estimate"] == pytest.approx(8 / 9)
    assert row["verdict"] == NOISE
    reason = str(row["reason"])
    assert reason.startswith("The specifications disagree: torn is more inclined to defect than")
    assert "and less by wording w1 alone, each with p below 0.05 by itself." in reason
    assert "wording w0 alone" in reason.partition(", and less by")[0]
    assert "1 show less" in str(row["statement"])


def test_disagreement_needs_no_fingerprint(mixed: synthetic.Tables) -> None:
    """Specifications that reject on both sides were moved by something; silence may be death."""
    bare = claims(synthetic.without_fingerprints(mixed))
    assert bare["torn"]["verdict"] == NOISE
    assert bare["still"]["verdict"] == NOT_IDENTIFIED
    assert claims(synthetic.kill(mixed, "game"))["game"]["verdict"] == "artefact"


def test_no_change_is_noise(made: dict[str, Row]) -> None:
    assert made["still"]["verdict"] == NOISE
    assert made["still"]["p_adjusted"] > 0.05


def test_a_minority_of_specifications_is_not_enough() -> None:
    """A change in four of sixteen wordings is more than chance, and drowns in everything else."""

    def restless(row: Row) -> float:
        own = np.random.default_rng([1, *str(row["prompt"]).encode()])
        return 3.0 * float(own.normal()) + 3.0 * (row["template"] in ("w0", "w1", "w2", "w3"))

    row = claims(study({"game": restless}, wordings=16, scenarios=20))["game"]
    assert row["p_adjusted"] < 0.05
    assert row["verdict"] == NOISE
    reason = str(row["reason"])
    clear = int(reason.removeprefix("Only ").partition(" of 23 specifications show it by")[0])
    assert 4 <= clear <= 11
    assert reason.endswith("more than half have to.")


def test_changes_within_the_numerical_noise_are_no_changes(mixed: synthetic.Tables) -> None:
    names = mixed["prompts"].get_column("prompt").to_list()
    loud = synthetic.controls(["game"], [], mixed["prompts"]).with_columns(value=pl.lit(1e3))
    tables = {**mixed, "controls": loud.head(len(names))}
    tables["gates"] = NO_GATES
    row = claims(tables)["game"]
    assert (row["p"], row["p_adjusted"]) == (1.0, 1.0)
    assert row["verdict"] == NOT_IDENTIFIED  # without gates nothing is known to be alive
    assert claims({k: v for k, v in tables.items() if k != "controls"})["game"]["p"] < 0.01


# The ways


def test_the_ways_are_those_of_a_plain_count(mixed: synthetic.Tables) -> None:
    d = described(mixed)
    ways = ways_to_measure(d, "torn", "base")
    wide = d.pivot("agent", index=["prompt", "scenario", "labels", "template", "option_order"],
                   values=["log_odds", "p_positive_given_legal"])  # fmt: skip
    expected: dict[str, list[float]] = {measure.name: [] for measure in ways.measures}
    for s in range(12):
        rows = [row for row in wide.iter_rows(named=True) if row["scenario"] == f"s{s}"]
        changes = [(row, row["log_odds_torn"] - row["log_odds_base"]) for row in rows]
        expected["mean log-odds"].append(float(np.mean([x for _, x in changes])))
        expected["median log-odds"].append(float(np.median([x for _, x in changes])))
        expected["probability given a legal answer"].append(float(np.mean(
            [r["p_positive_given_legal_torn"] - r["p_positive_given_legal_base"] for r in rows]
        )))  # fmt: skip
        for column, words in (("labels", "labels"), ("template", "wording"),
                              ("option_order", "option order")):  # fmt: skip
            for level in {row[column] for row in rows}:
                own = [x for row, x in changes if row[column] == level]
                expected[f"{words} {level} alone"].append(float(np.mean(own)))
    for at, measure in enumerate(ways.measures):
        assert ways.values[:, at] == pytest.approx(expected[measure.name], abs=1e-12), measure
    assert len(ways.measures) == 9
    assert ways.left_out == ()


def test_what_some_scenario_lacks_is_left_out_and_named(mixed: synthetic.Tables) -> None:
    last = (pl.col("scenario") == "s11") & (pl.col("template") == "w1")
    gone = mixed["prompts"].filter(last).get_column("prompt").to_list()
    tables = {name: frame if name == "agents" else frame.filter(~pl.col("prompt").is_in(gone))
              for name, frame in mixed.items()}  # fmt: skip
    first = mixed["prompts"].get_column("prompt")[0]
    tables = synthetic.set_values(
        tables, "decisions", (pl.col("agent") == "game") & (pl.col("prompt") == first),
        p_positive_given_legal=pl.lit(None, pl.Float64),
    )  # fmt: skip
    made = claims(tables)
    assert (
        "Left out: probability given a legal answer, undefined on some prompts; wording w1 alone, "
        "not asked in every scenario."
    ) in str(made["game"]["statement"])
    assert "In 7 of 7" in str(made["game"]["statement"])
    assert "wording w1 alone, not asked" in str(made["kind"]["statement"])
    for row in made.values():
        assert recomputed(tables, row) == pytest.approx(row["estimate"], abs=1e-12)


def test_specifications_that_are_one_and_the_same_count_once() -> None:
    """In this study the option order goes with the wording, and labels come in one assignment."""
    tables = synthetic.replicated(1, {"game": 3.0})
    kept = tables["prompts"].filter(pl.col("labels") == synthetic.LABELS[0])
    names = kept.get_column("prompt").to_list()
    tables = {**tables, "prompts": kept,
              "decisions": tables["decisions"].filter(pl.col("prompt").is_in(names))}  # fmt: skip
    statement = str(claims(tables)["game"]["statement"])
    assert "In 4 of 4 reasonable" in statement
    assert (
        "mean log-odds (the same as median log-odds and labels action1/action2 alone), probability "
        "given a legal answer, wording w0 alone (the same as option order 0 alone), wording w1"
    ) in statement


def test_two_ways_are_too_few() -> None:
    tables = synthetic.replicated(1, {"game": 3.0})
    one = (pl.col("labels") == synthetic.LABELS[0]) & (pl.col("template") == "w0")
    kept = tables["prompts"].filter(one)
    names = kept.get_column("prompt").to_list()
    tables = {**tables, "prompts": kept,
              "decisions": tables["decisions"].filter(pl.col("prompt").is_in(names))}  # fmt: skip
    row = claims(tables)["game"]
    assert (row["verdict"], row["p"], row["p_adjusted"]) == (NOT_IDENTIFIED, None, None)
    assert "there are 2 ways to measure it here, and 3 are needed; ask every" in str(row["reason"])
    assert recomputed(tables, row) == row["estimate"]


# The numbers


def test_the_p_is_that_of_every_pattern_of_signs() -> None:
    """Seven scenarios: 128 patterns, each with scipy's t for each specification."""
    tables = study({"game": same(1.0)}, scenarios=7, seed=5)
    y = ways_to_measure(described(tables), "game", "base").values
    patterns = [np.array(signs)[:, None] for signs in itertools.product((1, -1), repeat=7)]
    t = np.array([stats.ttest_1samp(signs * y, 0.0).statistic for signs in patterns])
    rank = [[np.mean(np.abs(t[:, m]) >= abs(v) * (1 - 1e-9)) for m, v in enumerate(row)]
            for row in t]  # fmt: skip
    clear = np.array(rank) < 0.05
    agree = np.maximum((clear & (t > 0)).sum(axis=1), (clear & (t < 0)).sum(axis=1))
    strength = np.abs((t / np.sqrt(6 + t**2)).mean(axis=1))
    as_much = (agree > agree[0]) | ((agree == agree[0]) & (strength >= strength[0] * (1 - 1e-9)))
    row = claims(tables)["game"]
    assert agree[0] > 0
    assert row["p"] == pytest.approx(as_much.mean(), abs=1e-12)
    assert row["p_floor"] == 2 / 2**7


def test_holm_over_agents(made: dict[str, Row]) -> None:
    ordered = sorted(float(str(row["p"])) for row in made.values())
    highest, expected = 0.0, []
    for rank, p in enumerate(ordered):
        highest = max(highest, min(1.0, (4 - rank) * p))
        expected.append(highest)
    assert sorted(row["p_adjusted"] for row in made.values()) == pytest.approx(expected)


def test_five_scenarios_identify_nothing() -> None:
    row = claims(study({"game": same(2.0)}, scenarios=5))["game"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert "no data can give a p below 0.0625" in str(row["reason"])


def test_queries_recompute_the_share(mixed: synthetic.Tables, made: dict[str, Row]) -> None:
    for name, row in made.items():
        assert recomputed(mixed, row) == pytest.approx(row["estimate"], abs=1e-12), name


def test_without_a_base_nothing_is_claimed(mixed: synthetic.Tables) -> None:
    alone = {name: frame.filter(pl.col("agent") != "base") if "agent" in frame.columns else frame
             for name, frame in mixed.items()}  # fmt: skip
    assert claims(alone) == {}
    assert claims({}) == {}


def test_they_are_among_all_claims(mixed: synthetic.Tables) -> None:
    ids = make_claims(mixed, draws=99).get_column("id").to_list()
    assert "specifications:torn" in ids


def test_a_change_that_is_none_is_rarely_claimed() -> None:
    """Scenario means symmetric about zero, in one agent: the level holds."""
    runs, wrong = 150, 0
    for seed in range(runs):
        tables = study({"game": same(0.0)}, scenarios=8, wordings=2, seed=100 + seed)
        setting = setting_of({**tables, "gates": NO_GATES}, draws=99)
        (finding,) = specification_findings(setting)
        wrong += finding.p is not None and finding.p <= 0.05
    assert 0 < wrong / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
