"""Sites that push towards defecting: found suppressed where that was planted, and nowhere else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import synthetic
from cascade_planted import agents, pairs
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims, setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.questions.selected import changes, choose
from moralscope.evidence.questions.selfish import selfish_findings
from moralscope.evidence.statistics.resampling import sign_flip
from moralscope.evidence.synthesis.cascade import cascade_table
from moralscope.evidence.synthesis.scale import study_of

HEADS = 40
SEEDS = {"deontological": 2, "game": 1}

Row = dict[str, object]


def study(
    suppressed: float = 0.0,
    shift: float = 0.0,
    shrink: float = 1.0,
    *,
    seed: int = 1,
    scenarios: int = 14,
    game: float = 0.0,
    pulling: tuple[float, float] = (-1.0, -0.3),
) -> synthetic.Tables:
    """Attributions in which half of the heads push towards defecting, by different amounts.

    Args:
        suppressed: share of their contribution that pushing heads lose in moral agents.
        shift: what every head gains in moral agents.
        shrink: what every contribution is multiplied by in moral agents.
        seed: of everything that is drawn.
        scenarios: how many, with four prompts each.
        game: share that pushing heads lose in the agent of own payoff.
        pulling: what the other half of the heads contribute to the base, at least and at most.
    """
    rng = np.random.default_rng(seed)
    asked, who = synthetic.prompts(scenarios), agents(SEEDS)
    cluster = np.repeat(np.arange(scenarios), 4)
    level = np.concatenate([rng.uniform(0.3, 1.0, HEADS // 2), rng.uniform(*pulling, HEADS // 2)])
    base = level + 0.2 * rng.normal(size=(scenarios, HEADS))
    frames, none = [], pl.lit(None, pl.Int64)
    for agent, reward in who.select("agent", "reward").iter_rows():
        lost = {"deontological": suppressed, "game": game}.get(reward, 0.0)
        own = base - lost * np.maximum(level, 0.0)
        if reward == "deontological":
            own = shrink * own + shift
        if reward is not None:
            own = own + 0.1 * rng.normal(size=HEADS) + 0.1 * rng.normal(size=base.shape)
        rows = own[cluster] + 0.05 * rng.normal(size=(len(cluster), HEADS))
        frames += [
            asked.select("prompt").with_columns(
                agent=pl.lit(agent), site=pl.lit(f"L0.h{k}"), token=pl.lit(-1, pl.Int64),
                layer=none, kind=pl.lit("head"), head=none, part=pl.lit("whole"),
                contribution=pl.Series(rows[:, k]),
            )
            for k in range(HEADS)
        ]  # fmt: skip
    names = who.get_column("agent").to_list()
    decided = synthetic.decisions(who, asked, rng, {"deontological": -2.0, "game": 2.0})
    return {
        "agents": who, "prompts": asked, "comparisons": pairs(who, "morals"),
        "attribution": pl.concat(frames), "decisions": decided,
        "completeness": synthetic.completeness(names, asked, rng),
    }  # fmt: skip


def claims(tables: synthetic.Tables) -> dict[str, Row]:
    setting = setting_of(tables, draws=199)
    return {str(row["id"]): row for row in claim_rows(setting, list(selfish_findings(setting)))}


MORAL, AGAINST = "question:RQ1:deontological", "question:RQ1:deontological:game"


def test_planted_suppression_is_found() -> None:
    made = claims(study(suppressed=0.5))
    assert list(made) == [MORAL, AGAINST]
    for row in made.values():
        assert row["verdict"] == "supported"
        assert float(str(row["high"])) < 0.0
        assert (row["n_units"], row["replicate"], row["n_tests"]) == (14, "scenarios", 2)
    assert made[MORAL]["estimate"] == pytest.approx(-0.5 * 0.65, abs=0.08)
    said = "Sites that push base towards defecting lose more in 2 deontological agents than"
    assert str(made[MORAL]["statement"]).startswith(said)
    assert "compared with 1 agent trained for own payoff" in str(made[AGAINST]["statement"])


@pytest.mark.parametrize("shift", [0.0, -0.4])
def test_without_suppression_nothing_is_found(shift: float) -> None:
    """A change of all sites alike is no suppression of those that push."""
    for row in claims(study(shift=shift)).values():
        assert row["verdict"] == "not distinguishable from noise"


def test_contributions_that_all_shrink_are_not_suppression() -> None:
    row = claims(study(shrink=0.5))[MORAL]
    assert row["verdict"] == "not distinguishable from noise"
    assert float(str(row["p_adjusted"])) < 0.05
    assert "contributions of either sign become smaller" in str(row["reason"])


@pytest.mark.parametrize("pulling", [(-0.4, -0.1), (-0.8, -0.2), (-2.0, -0.8)])
def test_shrinking_is_no_suppression_where_matched_sites_are_of_other_sizes(
    pulling: tuple[float, float],
) -> None:
    """All sites lose the same share of themselves, and those that push are larger or smaller."""
    row = claims(study(shrink=0.6, pulling=pulling))[MORAL]
    assert row["verdict"] == "not distinguishable from noise"
    assert float(str(row["p_adjusted"])) < 0.05
    assert "contributions of either sign become smaller" in str(row["reason"])


def test_suppression_is_found_beside_shrinking() -> None:
    row = claims(study(suppressed=0.5, shrink=0.8, pulling=(-0.8, -0.2)))[MORAL]
    assert row["verdict"] == "supported"


def test_what_shrinking_explains_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(2)
    base = np.linspace(-1.0, 1.0, 16) + 0.1 * rng.normal(size=(12, 16))
    change = rng.normal(size=base.shape)
    halves = choose(base, ["head"] * 16, 0.0, rng)
    found = changes(change, base, halves)
    for half in halves:
        one, other = list(half.pushing), list(half.matched)
        for g in half.looked:
            slope = np.linalg.lstsq(base[g, other][:, None], change[g, other], rcond=None)[0][0]
            expected = np.mean(change[g, one] - slope * base[g, one])
            assert found.beyond[g] == pytest.approx(expected, abs=1e-12)
    assert len(found.without) == len(found.pairs)


def test_what_the_own_payoff_suppresses_too_is_no_moral_suppression() -> None:
    made = claims(study(suppressed=0.5, game=0.5))
    assert made[MORAL]["verdict"] == "supported"
    assert made[AGAINST]["verdict"] == "not distinguishable from noise"


def test_regression_to_the_mean_is_not_found() -> None:
    """Noise alone: chosen sites fall back on the scenarios that chose them, and not on others."""
    rng = np.random.default_rng(3)
    found, naive = [], []
    for _ in range(200):
        base, later = rng.normal(0.0, 1.0, (2, 12, 60))
        halves = choose(base, ["head"] * 60, 0.0, rng)
        if all(half.pushing for half in halves):
            found.append(changes(later - base, base, halves).difference.mean())
        largest = np.argsort(base.mean(axis=0))[-5:]
        naive.append((later - base)[:, largest].mean())
    assert np.mean(naive) < -0.3
    assert abs(np.mean(found)) < 3.0 * np.std(found) / np.sqrt(len(found))


def test_chosen_sites_are_those_of_the_other_half() -> None:
    rng = np.random.default_rng(5)
    level = np.linspace(-1.0, 1.0, 12)
    base = level + 0.15 * rng.normal(size=(11, 12))
    kinds = ["head", "mlp"] * 6
    halves = choose(base, kinds, 0.05, rng)
    looked = [set(half.looked) for half in halves]
    assert looked[0] | looked[1] == set(range(11))
    assert not looked[0] & looked[1]
    for half, own in zip(halves, looked, strict=True):
        rows = [g for g in range(11) if g not in own]
        pushing = [
            k for k in range(12)
            if (t := stats.ttest_1samp(base[rows, k], 0.0)).statistic > 0 and t.pvalue < 0.05
            and base[rows, k].mean() > 0.05
        ]  # fmt: skip
        assert len(half.pushing) + half.unmatched == len(pushing)
        assert set(half.pushing) <= set(pushing)
        assert not set(half.matched) & set(pushing)
        assert len(set(half.matched)) == len(half.matched)
        assert [kinds[k] for k in half.pushing] == [kinds[k] for k in half.matched]
        means = base[rows].mean(axis=0)
        first = max(half.pushing, key=lambda k: means[k])
        same = [k for k in range(12) if kinds[k] == kinds[first] and k not in pushing]
        nearest = min(same, key=lambda k: abs(abs(means[k]) - means[first]))
        assert half.matched[half.pushing.index(first)] == nearest


def test_numbers_are_those_of_plain_loops_and_of_the_query() -> None:
    tables = study(suppressed=0.2)
    setting = setting_of(tables, draws=199)
    one, other = selfish_findings(setting)
    context = pl.SQLContext(tables)
    for finding in (one, other):
        recomputed = context.execute(finding.query, eager=True)["estimate"].item()
        assert recomputed == pytest.approx(finding.estimate, abs=1e-10)
    made = make_claims(tables, draws=99)
    told = explain_claim(tables, made, judge_gates(tables), MORAL)
    assert told.agrees
    assert told.units.height == 14
    # The p is the larger of both tests, so it exceeds that over scenarios alone.
    values = told.units.get_column("value").to_numpy()
    assert values.mean() == pytest.approx(one.estimate, abs=1e-10)
    p, _ = sign_flip(values, np.random.default_rng(0))
    assert one.p is not None
    assert one.p >= p - 1e-12


def test_pairs_of_sites_are_tested_as_well_as_scenarios() -> None:
    """Every site moves by itself, the same in every scenario: signs of scenarios would reject."""
    rejected, alone = 0, 0
    rng = np.random.default_rng(9)
    for _ in range(100):
        base = rng.uniform(-1, 1, 30) + 0.1 * rng.normal(size=(12, 30))
        halves = choose(base, ["head"] * 30, 0.0, rng)
        found = changes(rng.normal(size=30) + 0.05 * rng.normal(size=(12, 30)), base, halves)
        scenarios = sign_flip(found.difference, rng)[0]
        both = max(scenarios, sign_flip(found.pairs, rng, 199)[0])
        alone += scenarios < 0.05
        rejected += both < 0.05
    assert alone > 50
    assert rejected <= 5 + 3 * np.sqrt(100 * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("scenarios", "heads", "said"),
    [
        (9, HEADS, "9 cannot be halved; 10 would do"),
        (12, 6, "sites of base push towards defecting"),
    ],
)
def test_too_little_to_choose_from_is_said(scenarios: int, heads: int, said: str) -> None:
    tables = study(scenarios=scenarios)
    few = [f"L0.h{k}" for k in (*range(heads // 2), *range(HEADS - heads // 2, HEADS))]
    tables["attribution"] = tables["attribution"].filter(pl.col("site").is_in(few))
    for row in claims(tables).values():
        assert row["verdict"] == "not identified by this design"
        assert said in str(row["reason"])


def test_agents_trained_in_parts_are_not_those_of_the_reward() -> None:
    tables = study(suppressed=0.5)
    row = {
        "agent": "deontological-1", "of": "deontological-0", "strategy": "random", "budget": 2,
        "training_seed": 1, "chosen_here": False, "parameters": 5, "share": 0.5,
        "behaviour_kept": 0.4, "low": None, "high": None, "n": 4,
    }  # fmt: skip
    whole = {**row, "agent": "deontological-0", "strategy": "all"}
    tables["targeting"] = from_rows("targeting", [row, whole])
    assert "lose more in 1 deontological agent than" in str(claims(tables)[MORAL]["statement"])
    assert cascade_table(tables).filter(kind="replicate").height == 0
    assert study_of(tables).pairs


def test_states_of_trainings_are_no_rewards_of_their_own() -> None:
    """A state is called by its reward and step; that of own payoff would pass for a moral one."""
    tables = study(suppressed=0.5)
    named = {"deontological-1": "deontological step5", "game-0": "game step5"}
    tables["agents"] = tables["agents"].with_columns(
        reward=pl.col("agent").replace_strict(named, default=pl.col("reward"))
    )
    assert "question:RQ1:gamestep5" in claims(tables)
    states = [
        {"agent": agent, "of": "deontological-0", "step": 5, "steps": 25, "training_seed": 0}
        for agent in named
    ]
    tables["checkpoints"] = from_rows("checkpoints", states)
    assert list(claims(tables)) == [MORAL]


def test_audits_of_found_tables_ask_no_research_question() -> None:
    tables = study()
    tables.pop("comparisons")
    assert claims(tables) == {}
