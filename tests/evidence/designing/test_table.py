"""What can be asked: units, floors and needs of every question, and the words for them."""

import math

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.core.tables import conform
from moralscope.evidence.claims import make_claims
from moralscope.evidence.designing.table import QUESTIONS, design_table
from moralscope.evidence.verdicts import NOT_IDENTIFIED

TWO = {"game": 2.0, "utilitarian": -1.0}


def row(tables: synthetic.Tables, question: str, subject: str, **chosen: float) -> dict:
    table = design_table(tables, **chosen)
    conform("design", table)
    found = table.filter((pl.col("question") == question) & (pl.col("subject") == subject))
    assert found.height == 1, table.select("question", "subject").rows()
    return found.row(0, named=True)


def scenarios(count: int) -> synthetic.Tables:
    """Behaviour over so many scenarios."""
    rng = np.random.default_rng(1)
    asked, who = synthetic.prompts(count), synthetic.agents()
    answers = synthetic.decisions(who, asked, rng, synthetic.EFFECTS)
    return {"agents": who, "prompts": asked, "decisions": answers}


def t_power(effect: float, units: int, alpha: float) -> float:
    """Simulation-free power of a two-sided one-sample t test, from scipy's noncentral t."""
    critical = stats.t.ppf(1 - alpha / 2, units - 1)
    centre = effect * math.sqrt(units)
    return float(stats.nct.sf(critical, units - 1, centre) + stats.nct.cdf(
        -critical, units - 1, centre
    ))  # fmt: skip


@pytest.mark.parametrize(("count", "identified"), [(2, False), (5, False), (6, True), (14, True)])
def test_checkpoints_need_six_scenarios(count: int, identified: bool) -> None:
    found = row(scenarios(count), "checkpoints", "clusters")
    assert (found["unit"], found["n"], found["needed"]) == ("scenario", count, 6)
    assert found["floor"] == pytest.approx(2.0 / 2.0**count, rel=1e-12)
    assert (found["level"], found["identified"]) == (0.05, identified)
    least = next(g for g in range(6, 99) if t_power(1.0, g, 0.05) >= 0.8)
    assert found["needed_for_power"] == least == 10
    assert (
        f"replicated over {count} scenarios (family clusters, {4 * count} prompts)"
        in (found["sentence"])
    )
    said = "6 scenarios would identify it" in found["sentence"]
    assert said is not identified


def test_five_scenarios_say_what_no_data_could_do() -> None:
    assert row(scenarios(5), "checkpoints", "clusters")["sentence"] == (
        "Claims about these checkpoints are replicated over 5 scenarios (family clusters, 20 "
        "prompts), and no data can give a p below 0.062, and 0.05 is needed. 6 scenarios would "
        "identify it; an effect of one standard deviation over scenarios is found with 80% power "
        "from 10 scenarios on."
    )


def test_many_scenarios_are_bounded_by_the_draws() -> None:
    assert row(scenarios(20), "checkpoints", "clusters")["floor"] == 1e-4
    assert row(scenarios(20), "checkpoints", "clusters", draws=99)["floor"] == 0.01


def test_one_scenario_is_no_replication() -> None:
    found = row(scenarios(1), "checkpoints", "clusters")
    assert (found["n"], found["floor"], found["identified"]) == (1, 1.0, False)
    assert "one scenario is no replication, whatever the number of its prompts" in found["sentence"]


def test_prompts_that_are_not_described_have_no_scenarios() -> None:
    tables = {k: v for k, v in scenarios(8).items() if k != "prompts"}
    found = row(tables, "checkpoints", "all prompts")
    assert (found["n"], found["floor"], found["identified"]) == (0, None, False)
    assert "give the table prompts (prompt, scenario)" in found["sentence"]


def test_without_agents_nobody_is_compared() -> None:
    tables = {k: v for k, v in scenarios(8).items() if k != "agents"}
    found = row(tables, "checkpoints", "clusters")
    assert (found["n"], found["identified"]) == (8, False)
    assert "give the table agents" in found["sentence"]
    assert design_table(tables, questions=["reward", "pair of rewards", "seeds"]).is_empty()
    alone = {**scenarios(8), "agents": synthetic.agents().head(1)}
    assert "names no trained agent" in row(alone, "checkpoints", "clusters")["sentence"]


def test_no_tables_no_questions() -> None:
    assert design_table({}).is_empty()
    assert design_table({"agents": synthetic.agents().head(1)}).is_empty()


@pytest.mark.parametrize("seeds", [1, 4, 5, 7])
def test_rewards_are_identified_where_claims_about_them_are(seeds: int) -> None:
    tables = synthetic.replicated(seeds, TWO)
    claims = {c["id"]: c for c in make_claims(tables, draws=99).iter_rows(named=True)}
    for reward in TWO:
        found = row(tables, "reward", reward)
        assert (found["n"], found["level"], found["needed"]) == (seeds, 0.025, 7)
        assert found["floor"] == pytest.approx(min(1.0, 2.0 / 2.0**seeds), rel=1e-12)
        barred = claims[f"reward:{reward}"]["verdict"] == NOT_IDENTIFIED
        assert found["identified"] is not barred
        assert found["floor"] == pytest.approx(claims[f"reward:{reward}"]["p_floor"])
    pair = row(tables, "pair of rewards", "game against utilitarian")
    assert (pair["n"], pair["level"], pair["needed"]) == (seeds, 0.05, 5)
    assert pair["floor"] == pytest.approx(2.0 / math.comb(2 * seeds, seeds), rel=1e-12)
    claim = claims["rewards:game:utilitarian"]
    assert pair["identified"] is not (claim["verdict"] == NOT_IDENTIFIED)
    assert pair["floor"] == pytest.approx(claim["p_floor"])


def test_power_for_rewards_is_that_of_two_groups() -> None:
    tables = synthetic.replicated(1, TWO)
    assert row(tables, "reward", "game")["needed_for_power"] == next(
        s for s in range(7, 99) if t_power(1.0, s, 0.025) >= 0.8
    )
    found = row(tables, "pair of rewards", "game against utilitarian")["needed_for_power"]

    def power(seeds: int) -> float:
        critical = stats.t.ppf(0.975, 2 * seeds - 2)
        centre = math.sqrt(seeds / 2)
        return float(stats.nct.sf(critical, 2 * seeds - 2, centre))

    assert found == next(s for s in range(5, 99) if power(s) >= 0.8) == 17


def test_one_seed_cannot_carry_a_claim_about_a_reward() -> None:
    found = row(synthetic.replicated(1, TWO), "reward", "game")["sentence"]
    assert "training seeds, of which there is 1: it cannot carry one, whatever these" in found
    assert "7 seeds would identify it" in found
    pair = row(synthetic.replicated(3, TWO), "pair of rewards", "game against utilitarian")
    assert "3 each: permuting the rewards over them gives no p below 0.1" in pair["sentence"]
    assert "5 seeds per reward would identify it" in pair["sentence"]


def test_seeds_that_are_not_recorded_count_as_one() -> None:
    tables = synthetic.replicated(5, TWO)
    tables["agents"] = tables["agents"].with_columns(training_seed=pl.lit(None, pl.Int64))
    found = row(tables, "reward", "game")
    assert (found["n"], found["identified"]) == (1, False)
    assert (
        "(the training_seed of 5 agents is not recorded, so together they count as one)"
        in (found["sentence"])
    )


def test_agents_without_reward_or_base_are_named() -> None:
    tables = scenarios(8)
    unnamed = tables["agents"].with_columns(
        reward=pl.when(pl.col("agent") == "hybrid").then(None).otherwise("reward")
    )
    found = row({**tables, "agents": unnamed}, "reward", "not recorded")
    assert (found["n"], found["identified"]) == (0, False)
    assert "The reward of 1 trained agent (hybrid) is not recorded" in found["sentence"]
    orphan = tables["agents"].with_columns(
        base=pl.when(pl.col("agent") == "hybrid").then(pl.lit("other")).otherwise("base")
    )
    found = row({**tables, "agents": orphan}, "reward", "hybrid without base")
    assert (
        "hybrid, trained with the hybrid reward, cannot be compared with a base"
        in (found["sentence"])
    )


@pytest.mark.parametrize(("seeds", "floor", "identified"), [
    (3, 1 / 10, False), (4, 1 / 35, True), (7, 1 / 1716, True),
])  # fmt: skip
def test_seeds_against_rewards_need_four(seeds: int, floor: float, identified: bool) -> None:
    """Floors counted by hand: 2/C(6,3), 2/C(8,4), 2/C(14,7)."""
    found = row(synthetic.replicated(seeds, TWO), "seeds", "base")
    assert found["floor"] == pytest.approx(floor, rel=1e-12)
    assert (found["needed"], found["identified"]) == (4, identified)
    assert ("4 seeds per reward would identify it" in found["sentence"]) is not identified


def test_few_seeds_do_not_do_however_many_rewards_or_however_weak_the_level() -> None:
    """Floors below the level are not enough: three seeds of four rewards, four of one at .2."""
    found = row(synthetic.replicated(3, synthetic.EFFECTS), "seeds", "base")
    ways = math.factorial(12) // math.factorial(3) ** 4
    assert found["floor"] == pytest.approx(24 / ways, rel=1e-12)
    assert found["identified"] is False
    assert "3 of each reward or more: 4 or more are asked for" in found["sentence"]
    alone = row(synthetic.replicated(4, {"game": 1.0}), "reward", "game", alpha=0.2)
    assert (alone["floor"], alone["needed"], alone["identified"]) == (0.125, 5, False)


def test_wordings_are_fixed_effects_until_six_were_asked() -> None:
    found = row(scenarios(8), "wordings", "clusters")
    assert (found["n"], found["needed"], found["identified"]) == (2, 6, False)
    assert (
        "The 2 wordings of each scenario of the family clusters are fixed effects"
        in (found["sentence"])
    )
    assert "6 wordings would be a sample of wordings" in found["sentence"]
    asked = synthetic.prompts(3, wordings=6)
    found = row({"prompts": asked}, "wordings", "clusters")
    assert (found["n"], found["identified"]) == (6, True)
    assert (
        "6 wordings of each scenario of the family clusters count as a sample"
        in (found["sentence"])
    )


def test_texts_of_one_scenario_each_are_no_wordings_of_any() -> None:
    asked = synthetic.prompts(9, wordings=1).with_columns(template=pl.col("prompt"))
    asked = asked.filter(pl.col("prompt").str.ends_with("1"))
    found = row({"prompts": asked}, "wordings", "clusters")
    assert found["n"] == 1
    assert (
        "The wording of each scenario of the family clusters is a fixed effect"
        in (found["sentence"])
    )


def test_sites_are_tested_together_over_scenarios(sound: synthetic.Tables) -> None:
    found = row(sound, "sites", "patching game>utilitarian")
    assert (found["n"], found["level"], found["identified"]) == (20, 0.05, True)
    assert found["sentence"].startswith(
        "8 sites of patching game>utilitarian are tested together over 20 scenarios"
    )
    least = next(g for g in range(6, 99) if t_power(1.0, g, 0.05 / 8) >= 0.8)
    assert found["needed_for_power"] == least
    assert f"from {least} scenarios on, corrected for 8 sites." in found["sentence"]
    subjects = design_table(sound, questions=["sites"]).get_column("subject").to_list()
    assert subjects == [
        "patching game>utilitarian", "patching utilitarian>game", "attribution base",
        "attribution game",
    ]  # fmt: skip


def test_a_question_that_is_not_judged_is_refused() -> None:
    with pytest.raises(EvidenceError, match="Designs are not judged.*did you mean 'sites'"):
        design_table({}, questions=["site"])
    assert set(QUESTIONS) >= {"checkpoints", "reward", "wordings", "sites"}
