"""Claims on studies with known truth: what was planted is found, and every fault is named."""

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats
from statsmodels.stats.power import TTestPower

from moralscope.core.errors import ConfigError, TableError
from moralscope.core.tables import conform
from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.judging import judge_gates

DRAWS = 999
NOT_IDENTIFIED = "not identified by this design"
NOISE = "not distinguishable from noise"


def claims(tables: synthetic.Tables, **options: float) -> dict[str, dict[str, object]]:
    table = make_claims(tables, draws=DRAWS, **options)
    return {str(row["id"]): row for row in table.iter_rows(named=True)}


def only(tables: synthetic.Tables, *names: str) -> synthetic.Tables:
    return {name: tables[name] for name in names}


BEHAVIOUR = ("agents", "prompts", "decisions")
PATCHING = (*BEHAVIOUR, "patching", "controls")


@pytest.fixture(scope="module")
def made(sound: synthetic.Tables) -> dict[str, dict[str, object]]:
    return claims(sound)


def verdicts(made: dict[str, dict[str, object]], prefix: str) -> dict[str, object]:
    return {name: row["verdict"] for name, row in made.items() if name.startswith(prefix)}


def test_the_table_conforms_and_is_complete(sound: synthetic.Tables) -> None:
    table = make_claims(sound, draws=DRAWS)
    conform("claims", table)
    counts = table.group_by(pl.col("id").str.split(":").list.first()).len()
    assert dict(counts.iter_rows()) == {
        "change": 12, "labels": 4, "difference": 6, "alike": 11, "learned": 3, "reward": 4,
        "rewards": 6, "patching": 2, "flips": 2, "effect": 1, "asymmetry": 1, "attribution": 1,
        "specifications": 4, "replicates": 1, "label": 2,
    }  # fmt: skip


def test_no_tables_no_claims() -> None:
    assert make_claims({}).height == 0


def test_equal_seeds_give_equal_claims(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    assert make_claims(part, draws=199).equals(make_claims(part, draws=199))
    assert not make_claims(part, draws=199).equals(make_claims(part, draws=199, seed=1))


def test_queries_survive_quotes_in_names(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    rename = pl.col("agent").replace("game", "o'game' OR '1'='1")
    quoted = {n: t.with_columns(rename) if "agent" in t.columns else t for n, t in part.items()}
    for row in make_claims(quoted, draws=199).iter_rows(named=True):
        found = pl.SQLContext(quoted).execute(row["query"], eager=True)
        assert found.item() == pytest.approx(row["estimate"], abs=1e-9), row["id"]


# Behaviour


def test_planted_changes_are_recovered(made: dict[str, dict[str, object]]) -> None:
    assert [made[f"change:{a}"]["verdict"] for a in synthetic.EFFECTS] == [
        "supported", "supported", "supported", NOISE,
    ]  # fmt: skip
    for agent, effect in synthetic.EFFECTS.items():
        row = made[f"change:{agent}"]
        assert row["low"] - 0.15 < effect < row["high"] + 0.15
        assert (row["unit"], row["n_units"]) == ("nats", 20)
    assert "game is more inclined to defect than base" in str(made["change:game"]["statement"])
    assert "less inclined" in str(made["change:utilitarian"]["statement"])
    assert "would be found with 80% power" in str(made["change:hybrid"]["statement"])
    assert "liveness (game): passed" in str(made["change:game"]["gates"])


def test_estimate_is_the_mean_of_scenario_means() -> None:
    """With unequal numbers of prompts per scenario the mean over rows would be another number."""
    tables = only(synthetic.build(), *BEHAVIOUR)
    dropped = ["s0w01", "s0w02", "s0w11", "s1w01", "s1w02"]
    tables = {n: t.filter(~pl.col("prompt").is_in(dropped)) if "prompt" in t.columns else t
              for n, t in tables.items()}  # fmt: skip
    d = tables["decisions"]
    own = {a: d.filter(pl.col("agent") == a) for a in ("game", "base")}
    change = own["game"].select("scenario", x=own["game"]["log_odds"] - own["base"]["log_odds"])
    means = [g["x"].mean() for _, g in change.group_by("scenario")]
    row = claims(tables)["change:game"]
    assert row["estimate"] == pytest.approx(np.mean(means), rel=1e-12)
    assert abs(float(str(row["estimate"])) - float(str(change["x"].mean()))) > 1e-3
    assert row["n_units"] == 20


def test_labels_keep_their_sign(made: dict[str, dict[str, object]]) -> None:
    assert verdicts(made, "labels:") == {
        "labels:game": "supported",
        "labels:deontological": "supported",
        "labels:utilitarian": "supported",
        "labels:hybrid": NOISE,
    }
    parts = [f"change:deontological:{labels}" for labels in synthetic.LABELS]
    weakest = min(abs(float(str(made[p]["estimate"]))) for p in parts)
    row = made["labels:deontological"]
    assert row["estimate"] == pytest.approx(weakest)
    assert row["p_adjusted"] == max(made[p]["p_adjusted"] for p in parts)
    assert row["low"] < row["estimate"] < row["high"]
    undecided = [made[f"change:hybrid:{labels}"]["p_adjusted"] for labels in synthetic.LABELS]
    assert undecided[0] != undecided[1]
    assert made["labels:hybrid"]["p_adjusted"] == max(undecided)


def test_the_detectable_effect_is_that_of_the_corrected_level(
    sound: synthetic.Tables, made: dict[str, dict[str, object]]
) -> None:
    d = sound["decisions"]
    own = {a: d.filter(pl.col("agent") == a) for a in ("hybrid", "base")}
    change = own["base"].select("scenario", x=own["hybrid"]["log_odds"] - own["base"]["log_odds"])
    spread = np.std([g["x"].mean() for _, g in change.group_by("scenario")], ddof=1)
    power = TTestPower().solve_power(nobs=20, alpha=0.05 / 4, power=0.8, alternative="two-sided")
    words = f"with 20 scenarios an effect of {float(power) * spread:.3g} nats would be found"
    assert words in str(made["change:hybrid"]["statement"])


def test_wordings_that_disagree_are_told(sound: synthetic.Tables) -> None:
    """An agent that goes by place changes one way in one wording and the other way in the next."""
    asked = sound["prompts"].select("prompt", "template", "labels")
    d = sound["decisions"].join(asked, on="prompt")
    place = pl.when(pl.col("template") == "w0").then(3.0).otherwise(-2.4)
    word = pl.when(pl.col("labels") == synthetic.LABELS[0]).then(2.0).otherwise(-2.0)
    placed = d.with_columns(
        pl.when(pl.col("agent") == "hybrid")
        .then(pl.col(c) + place + word).otherwise(pl.col(c)).alias(c)
        for c in ("log_odds", "fingerprint_log_odds")
    )  # fmt: skip
    own = {a: placed.filter(pl.col("agent") == a) for a in ("hybrid", "base")}
    changes = own["hybrid"].with_columns(m=own["hybrid"]["log_odds"] - own["base"]["log_odds"])
    means = dict(changes.group_by("template").agg(pl.col("m").mean()).iter_rows())
    told = f"{means['w0']:+.3g} nats in w0, {means['w1']:+.3g} nats in w1"
    kept = placed.drop("template", "labels")
    made = claims({**only(sound, "agents", "prompts"), "decisions": kept})
    said = {name: str(row["statement"]) for name, row in made.items()}
    assert f"The wordings disagree: {told}." in said["change:hybrid"]
    assert "disagree" in said[f"change:hybrid:{synthetic.LABELS[0]}"]
    assert "disagree" not in said["change:game"]
    assert (
        f"but the wordings disagree by themselves ({told}), so that neither the label nor the "
        "option explains it alone." in said["labels:hybrid"]
    )


def test_a_label_learner_is_seen(sound: synthetic.Tables) -> None:
    """A change that reverses when labels are swapped: no change overall, a label all the same."""
    d = sound["decisions"].join(sound["prompts"].select("prompt", "labels"), on="prompt")
    sign = pl.when(pl.col("labels") == synthetic.LABELS[0]).then(1.0).otherwise(-1.0)
    swapped = d.with_columns(
        pl.when(pl.col("agent") == "hybrid")
        .then(pl.col(c) + 2.0 * sign).otherwise(pl.col(c)).alias(c)
        for c in ("log_odds", "fingerprint_log_odds")
    ).drop("labels")  # fmt: skip
    made = claims({**only(sound, "agents", "prompts"), "decisions": swapped})
    row = made["labels:hybrid"]
    assert row["verdict"] == "supported"
    assert "reverses when the labels are swapped" in str(row["statement"])
    assert "it follows the label more than the option" in str(row["statement"])
    assert row["estimate"] < 0
    assert made["change:hybrid"]["verdict"] == NOISE
    assert made[f"change:hybrid:{synthetic.LABELS[0]}"]["verdict"] == "supported"


@pytest.mark.parametrize("keep", ["one assignment", "unbalanced"])
def test_labels_without_both_assignments_are_not_identified(
    sound: synthetic.Tables, keep: str
) -> None:
    one = pl.col("labels") == synthetic.LABELS[0]
    kept = one if keep == "one assignment" else one | (pl.col("scenario") != "s3")
    asked = sound["prompts"].filter(kept)
    part = {"agents": sound["agents"], "prompts": asked, "decisions": sound["decisions"]}
    row = claims(part)["labels:game"]
    assert row["verdict"] == NOT_IDENTIFIED
    reason = "one assignment of labels only" if keep == "one assignment" else "some scenarios"
    assert reason in str(row["statement"])


def test_differences_between_agents(made: dict[str, dict[str, object]]) -> None:
    row = made["difference:game:utilitarian"]
    assert row["verdict"] == "supported"
    assert row["estimate"] == pytest.approx(5.5, abs=0.6)
    own = [float(str(made[f"change:{a}"]["estimate"])) for a in ("game", "utilitarian")]
    assert row["estimate"] == pytest.approx(own[0] - own[1])


def test_a_dead_adapter_is_an_artefact_and_not_an_equivalence(sound: synthetic.Tables) -> None:
    made = claims(synthetic.kill(only(sound, *PATCHING), "game"))
    for name in ("change:game", "difference:game:hybrid", "labels:game", "reward:game",
                 "patching:game>utilitarian", "flips:utilitarian>game"):  # fmt: skip
        assert made[name]["verdict"] == "artefact", name
        assert "Artefact: liveness (game): Dead or damaged" in str(made[name]["statement"])
    assert made["change:utilitarian"]["verdict"] == "supported"


def test_practically_equal_agents_are_equivalent_only_if_alive(sound: synthetic.Tables) -> None:
    d = sound["decisions"]
    twin = d.filter(pl.col("agent") == "game").with_columns(
        agent=pl.lit("hybrid"),
        log_odds=pl.col("log_odds") + (pl.col("prompt").hash(3) % 9 - 4.0) * 0.002,
    )
    tables = only(sound, "agents", "prompts")
    tables["decisions"] = pl.concat([d.filter(pl.col("agent") != "hybrid"), twin])
    row = claims(tables)["difference:game:hybrid"]
    assert row["verdict"] == "equivalent"
    assert "Equivalent to zero within a margin of" in str(row["statement"])
    assert claims(tables, margin=1e-4)["difference:game:hybrid"]["verdict"] == NOISE
    bare = claims(synthetic.without_fingerprints(tables))
    assert bare["difference:game:hybrid"]["verdict"] == NOT_IDENTIFIED
    assert "a dead agent looks the same" in str(bare["difference:game:hybrid"]["statement"])
    assert bare["change:game"]["verdict"] == "supported"
    assert "Liveness could not be checked" in str(bare["change:game"]["statement"])


def test_the_default_margin_is_a_tenth_of_the_base(sound: synthetic.Tables) -> None:
    d = sound["decisions"]
    base = d.filter(pl.col("agent") == "base").get_column("log_odds").to_numpy()
    tenth = 0.1 * np.abs(base).mean()
    flat = d.filter(pl.col("agent") == "game").with_columns(
        agent=pl.lit("hybrid"), log_odds=pl.col("log_odds") + (pl.col("prompt").hash(3) % 5) * 1e-3,
    )  # fmt: skip
    tables = only(sound, "agents", "prompts")
    tables["decisions"] = pl.concat([d.filter(pl.col("agent") != "hybrid"), flat])
    statement = str(claims(tables)["difference:game:hybrid"]["statement"])
    assert f"margin of {tenth:.3g} nats" in statement


def test_rounded_log_odds_are_an_artefact(sound: synthetic.Tables) -> None:
    step = pl.when(pl.col("prompt").hash(1) % 2 == 0).then(8.0).otherwise(8.0625)
    coarse = synthetic.set_values(
        only(sound, *BEHAVIOUR), "decisions", pl.col("agent") == "game",
        log_odds=step, fingerprint_log_odds=step,
    )  # fmt: skip
    row = claims(coarse)["change:game"]
    assert row["verdict"] == "artefact"
    assert "resolution (game): Rounding" in str(row["statement"])


def test_an_effect_below_the_noise_floor_is_never_supported(sound: synthetic.Tables) -> None:
    d = sound["decisions"]
    faint = d.filter(pl.col("agent") == "base").with_columns(
        agent=pl.lit("hybrid"), fingerprint_log_odds=pl.col("log_odds") + 0.1,
        log_odds=pl.col("log_odds") + 0.1 + (pl.col("prompt").hash(3) % 5) * 1e-3,
    )  # fmt: skip
    tables = only(sound, "agents", "prompts")
    tables["decisions"] = pl.concat([d.filter(pl.col("agent") != "hybrid"), faint])
    above = claims(tables, margin=0.01)["change:hybrid"]
    assert above["verdict"] == "supported"
    tables["controls"] = sound["controls"].with_columns(
        value=pl.when(pl.col("subject") == "hybrid").then(0.2).otherwise("value")
    )
    # The gate fails as well at this size; judge the rule alone by declaring it passed.
    tables["gates"] = judge_gates(tables).with_columns(passed=pl.lit(True))
    below = claims(tables, margin=0.01)["change:hybrid"]
    assert below["verdict"] == NOISE
    assert "does not exceed the numerical noise floor of 0.2 nats" in str(below["statement"])


@pytest.mark.parametrize(("scenarios", "verdict"), [(5, NOT_IDENTIFIED), (6, "supported")])
def test_too_few_scenarios_cannot_reach_significance(
    sound: synthetic.Tables, scenarios: int, verdict: str
) -> None:
    names = [f"s{i}" for i in range(scenarios)]
    part = only(sound, *BEHAVIOUR)
    cut = {n: t.filter(pl.col("scenario").is_in(names)) if "scenario" in t.columns else t
           for n, t in part.items()}  # fmt: skip
    row = claims(cut)["change:game"]
    assert row["p_floor"] == 2 / 2**scenarios
    assert row["verdict"] == verdict
    if verdict == NOT_IDENTIFIED:
        assert "no data can give a p below 0.0625, and 0.05 is needed" in str(row["statement"])


def test_one_scenario_is_not_identified(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    cut = {n: t.filter(pl.col("scenario") == "s0") if "scenario" in t.columns else t
           for n, t in part.items()}  # fmt: skip
    row = claims(cut)["change:game"]
    assert (row["verdict"], row["low"], row["n_units"]) == (NOT_IDENTIFIED, None, 1)


def test_scenarios_that_share_a_text_are_an_artefact(sound: synthetic.Tables) -> None:
    first = sound["prompts"].row(0, named=True)
    across = synthetic.set_values(
        only(sound, *BEHAVIOUR), "prompts", pl.col("prompt") == "s3w01",
        text=pl.lit(first["text"]), sha256=pl.lit(first["sha256"]),
    )  # fmt: skip
    row = claims(across)["change:game"]
    assert row["verdict"] == "artefact"
    assert "duplicates (scenarios)" in str(row["statement"])


def test_agents_with_different_prompts_are_refused(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    hole = (pl.col("agent") == "game") & (pl.col("prompt") == "s2w01")
    part["decisions"] = part["decisions"].filter(~hole)
    with pytest.raises(TableError, match="'game' and 'base' were not measured on the same"):
        make_claims(part)


def test_undefined_log_odds_are_never_dropped(sound: synthetic.Tables) -> None:
    hole = (pl.col("agent") == "game") & (pl.col("prompt") == "s2w01")
    part = synthetic.set_values(
        only(sound, *BEHAVIOUR), "decisions", hole, log_odds=pl.lit(None, pl.Float64)
    )
    made = claims(part)
    row = made["change:game"]
    assert row["estimate"] is None
    assert row["verdict"] in ("not identified by this design", "artefact")
    kinds = ("labels", "difference")
    assert not [name for name in made if "game" in name and name.partition(":")[0] in kinds]
    nan = synthetic.set_values(
        only(sound, *BEHAVIOUR), "decisions", hole, log_odds=pl.lit(float("nan"))
    )
    with pytest.raises(TableError, match="not finite in column 'log_odds'"):
        make_claims(nan)


def test_scripted_policies_make_no_claims(sound: synthetic.Tables) -> None:
    scripted = synthetic.set_values(
        only(sound, *BEHAVIOUR), "decisions", pl.col("agent") == "hybrid",
        log_odds=pl.lit(None, pl.Float64),
    )  # fmt: skip
    made = claims(scripted)
    assert not [name for name in made if "hybrid" in name]
    assert made["change:game"]["verdict"] == "supported"


def test_a_family_of_the_users_own_is_used(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    part["prompts"] = part["prompts"].with_columns(family=pl.lit("mine"), game=pl.lit("user"))
    part["decisions"] = part["decisions"].with_columns(game=pl.lit("user"))
    row = claims(part)["change:game"]
    assert "inclined to choose the positive option" in str(row["statement"])
    assert "family = 'mine'" in str(row["query"])


def test_agents_without_a_base_are_compared_with_each_other(sound: synthetic.Tables) -> None:
    part = only(sound, *BEHAVIOUR)
    part["agents"] = part["agents"].filter(pl.col("kind") != "base")
    made = claims(part)
    between = {n for n in claims(sound) if n.startswith(("difference:", "alike:"))}
    assert set(made) == {name for name in between if ":base:" not in name}
    # Without the base there is no liveness either: differences may stand, absences may not.
    assert made["difference:game:utilitarian"]["verdict"] == "supported"
    assert made["difference:deontological:utilitarian"]["verdict"] == NOT_IDENTIFIED


def test_prompts_that_are_not_described_make_no_claims(sound: synthetic.Tables) -> None:
    stranger = sound["prompts"].with_columns(prompt=pl.lit("x") + pl.col("prompt"))
    made = make_claims({**sound, "prompts": stranger}, draws=DRAWS)
    assert set(made.get_column("id").str.split(":").list.first().to_list()) == {"learned"}


# Rewards


def test_one_seed_identifies_no_reward(made: dict[str, dict[str, object]]) -> None:
    for name, verdict in {**verdicts(made, "reward:"), **verdicts(made, "rewards:")}.items():
        assert verdict == NOT_IDENTIFIED, name
    assert "8 seeds with this reward would identify it" in str(made["reward:game"]["statement"])
    pair = str(made["rewards:game:utilitarian"]["statement"])
    assert "one training seed each cannot carry one; 5 seeds per reward" in pair
    assert made["rewards:game:utilitarian"]["p"] is None


def test_five_seeds_identify_a_difference_between_rewards() -> None:
    made = claims(synthetic.replicated(5, {"game": 2.0, "utilitarian": -1.0}))
    row = made["rewards:game:utilitarian"]
    assert row["verdict"] == "supported"
    assert row["p"] == pytest.approx(2 / 252)
    assert row["p_floor"] == pytest.approx(2 / 252)
    assert row["estimate"] == pytest.approx(3.0, abs=0.6)
    assert row["low"] < row["estimate"] < row["high"]
    assert row["n_units"] == 10
    # One reward against base: five seeds reach .0625 at best.
    assert made["reward:game"]["verdict"] == NOT_IDENTIFIED
    assert "7 seeds with this reward" in str(made["reward:game"]["statement"])


def test_seven_seeds_identify_the_effect_of_one_reward() -> None:
    made = claims(synthetic.replicated(7, {"game": 3.0, "utilitarian": -3.0}))
    assert made["reward:game"]["verdict"] == "supported"
    assert made["reward:game"]["p"] == pytest.approx(2 / 2**7)
    # Holm's first step over two rewards doubles the first; the second may not be smaller.
    assert made["reward:game"]["p_adjusted"] == pytest.approx(4 / 2**7)
    assert made["reward:game"]["n_tests"] == 2
    assert made["reward:utilitarian"]["verdict"] == "supported"
    assert made["rewards:game:utilitarian"]["verdict"] == "supported"


def test_four_seeds_are_too_few_and_equal_rewards_do_not_differ() -> None:
    four = claims(synthetic.replicated(4, {"game": 2.0, "utilitarian": -1.0}))
    assert four["rewards:game:utilitarian"]["verdict"] == NOT_IDENTIFIED
    same = claims(synthetic.replicated(5, {"game": 1.0, "utilitarian": 1.0}, seed=3))
    row = same["rewards:game:utilitarian"]
    assert row["verdict"] == NOISE
    assert "an effect of" in str(row["statement"])


def test_rewards_of_different_bases_stay_apart() -> None:
    one = synthetic.replicated(5, {"game": 2.0, "utilitarian": -1.0})
    rename = {n: t.with_columns(agent=pl.lit("big ") + pl.col("agent"))
              for n, t in one.items() if "agent" in t.columns}  # fmt: skip
    rename["agents"] = rename["agents"].with_columns(base=pl.lit("big"))
    both = {n: pl.concat([one[n], rename[n]]) for n in rename}
    made = claims({**both, "prompts": one["prompts"]})
    assert made["rewards:game:utilitarian:base"]["verdict"] == "supported"
    assert made["rewards:game:utilitarian:big base"]["verdict"] == "supported"
    assert made["reward:game:base"]["estimate"] == made["reward:game:big base"]["estimate"]
    assert not [name for name in made if name.startswith("rewards:game:game")]


# Patching and attribution


def test_planted_sites_are_found(made: dict[str, dict[str, object]]) -> None:
    row = made["patching:game>utilitarian"]
    assert row["verdict"] == "supported"
    assert "3 of 8 distinct sites of utilitarian have an effect" in str(row["statement"])
    assert "the largest of these is L1.mlp" in str(row["statement"])
    assert row["estimate"] == pytest.approx(-1.2, abs=0.1)
    assert "% of the full swap's -2" in str(row["statement"])
    assert row["n_units"] == 20
    where = made["attribution:game"]
    assert where["verdict"] == "supported"
    assert "largest of these changes is at L1.mlp" in str(where["statement"])
    assert where["estimate"] == pytest.approx(-1.2, abs=0.1)


def test_the_interval_of_the_chosen_site_is_simultaneous(
    sound: synthetic.Tables, made: dict[str, dict[str, object]]
) -> None:
    rows = sound["patching"].filter(
        (pl.col("source") == "game") & (pl.col("site") == "L1.mlp")
    ).join(sound["prompts"].select("prompt", "scenario"), on="prompt")  # fmt: skip
    y = [g["effect"].mean() for _, g in rows.group_by("scenario")]
    single = stats.ttest_1samp(y, 0.0).confidence_interval(0.95)
    bonferroni = stats.ttest_1samp(y, 0.0).confidence_interval(1 - 0.05 / 8)
    row = made["patching:game>utilitarian"]
    low, high = row["low"], row["high"]
    assert (low + high) / 2 == pytest.approx(sum(y) / len(y))
    # Wider than one site's interval, and no wider than Bonferroni's but for Monte-Carlo error.
    assert single.high - single.low < high - low
    assert high - low == pytest.approx(bonferroni.high - bonferroni.low, rel=0.05)


def test_effect_and_asymmetry_are_signed(made: dict[str, dict[str, object]]) -> None:
    """Opposite effects both ways are an effect of full size and no asymmetry at all."""
    effect, asymmetry = made["effect:game<>utilitarian"], made["asymmetry:game<>utilitarian"]
    assert effect["verdict"] == "supported"
    assert effect["estimate"] == pytest.approx(-1.2, abs=0.1)
    assert asymmetry["verdict"] == NOISE
    assert abs(float(str(asymmetry["estimate"]))) < 0.1


def test_equal_effects_both_ways_are_asymmetry_and_no_effect(sound: synthetic.Tables) -> None:
    rng = np.random.default_rng(2)
    both = [synthetic.sweep(*pair, sound["prompts"], rng)
            for pair in (("game", "utilitarian"), ("utilitarian", "game"))]  # fmt: skip
    made = claims({**only(sound, *PATCHING), "patching": pl.concat(both)})
    assert made["asymmetry:game<>utilitarian"]["verdict"] == "supported"
    assert made["asymmetry:game<>utilitarian"]["estimate"] == pytest.approx(-1.2, abs=0.1)
    assert made["effect:game<>utilitarian"]["verdict"] == NOISE


def test_a_cloned_site_is_not_located(sound: synthetic.Tables) -> None:
    copies = ["L1.h0", "L1.h1", "L1.h2"]
    cloned = synthetic.copy_site(sound, "patching", "L1.mlp", copies)
    row = claims(only(cloned, *PATCHING))["patching:game>utilitarian"]
    assert row["verdict"] == "artefact"
    assert "4 sites are clones" in str(row["statement"])
    elsewhere = synthetic.copy_site(sound, "patching", "L0.h0", ["L0.h2"])
    row = claims(only(elsewhere, *PATCHING))["patching:game>utilitarian"]
    assert row["verdict"] == "supported"
    assert "of 7 distinct sites" in str(row["statement"])
    assert "duplicates (patching game>utilitarian): failed" in str(row["gates"])


def test_a_dead_sweep_is_an_artefact(sound: synthetic.Tables) -> None:
    dead = synthetic.set_values(
        only(sound, *PATCHING), "patching", pl.col("site") != "all", effect=pl.lit(0.0)
    )
    row = claims(dead)["patching:game>utilitarian"]
    assert row["verdict"] == "artefact"
    assert row["estimate"] is None
    assert "8 sites are dead" in str(row["statement"])


def test_a_dead_attribution_is_an_artefact(sound: synthetic.Tables) -> None:
    dead = synthetic.set_values(
        sound, "attribution", pl.col("agent") == "game", contribution=pl.lit(0.0)
    )
    assert claims(dead)["attribution:game"]["verdict"] == "artefact"


def test_a_site_that_is_dead_both_ways_is_left_out(sound: synthetic.Tables) -> None:
    part = synthetic.set_values(
        only(sound, *PATCHING), "patching", pl.col("site") != "all", effect=pl.lit(0.0)
    )
    for name in ("effect:game<>utilitarian", "asymmetry:game<>utilitarian"):
        row = claims(part)[name]
        assert (row["verdict"], row["estimate"]) == ("artefact", None)


def test_the_margin_of_attribution_noise_is_its_error(sound: synthetic.Tables) -> None:
    """Without a completeness table nothing is known of the error, and the gate says so."""
    bare = only(sound, "agents", "prompts", "attribution")
    row = claims(bare)["attribution:game"]
    assert row["verdict"] == "supported"
    assert "completeness (game): not available" in str(row["gates"])


def test_rounded_sites_are_left_out(sound: synthetic.Tables) -> None:
    two_values = pl.when(pl.col("prompt") == "s0w01").then(-4.03125).otherwise(-4.0)
    rounded = synthetic.set_values(
        sound, "attribution", (pl.col("site") == "L0.h0") & (pl.col("agent") == "game"),
        contribution=two_values,
    )  # fmt: skip
    row = claims(rounded)["attribution:game"]
    assert "of 7 distinct sites" in str(row["statement"])
    assert "L1.mlp" in str(row["statement"])


def test_sites_below_the_noise_floor_have_no_effect(sound: synthetic.Tables) -> None:
    """Planted are 1.2, 0.4 and 0.2 nats; a floor of 0.3 leaves two of them, one of 2 none."""
    for floor, verdict, count in ((0.3, "supported", "2 of 8"), (2.0, NOISE, "Of 8")):
        part = synthetic.set_values(
            only(sound, *PATCHING), "controls", pl.col("subject") == "utilitarian",
            value=pl.lit(floor),
        )  # fmt: skip
        # The gate fails as well at this size; judge the rule alone by declaring it passed.
        part["gates"] = judge_gates(part).with_columns(passed=pl.lit(True))
        row = claims(part)["patching:game>utilitarian"]
        assert row["verdict"] == verdict
        assert str(row["statement"]).startswith(count)


def test_attribution_below_its_own_error_is_no_effect(sound: synthetic.Tables) -> None:
    """An error of 0.3 nats passes the gate where the logit difference is large enough."""
    coarse = synthetic.set_values(
        sound, "completeness", pl.col("agent") == "base",
        error=pl.lit(0.3), logit_diff=pl.lit(10_000.0),
    )  # fmt: skip
    statement = str(claims(coarse)["attribution:game"]["statement"])
    assert statement.startswith("In 2 of 8 distinct sites")


@pytest.mark.parametrize("agent", ["game", "base"])
def test_parts_that_do_not_sum_are_an_artefact(sound: synthetic.Tables, agent: str) -> None:
    broken = synthetic.set_values(
        sound, "completeness", pl.col("agent") == agent, error=pl.lit(0.3)
    )
    row = claims(broken)["attribution:game"]
    assert row["verdict"] == "artefact"
    assert f"completeness ({agent}): The parts miss" in str(row["statement"])


def test_a_patch_that_is_not_a_no_op_is_an_artefact(sound: synthetic.Tables) -> None:
    loud = synthetic.set_values(
        only(sound, *PATCHING), "controls", pl.col("subject") == "utilitarian", value=pl.lit(0.01)
    )
    row = claims(loud)["patching:game>utilitarian"]
    assert row["verdict"] == "artefact"
    assert "noise floor (self-patch utilitarian)" in str(row["statement"])


def flips(sound: synthetic.Tables, shrink: float, swap_flips: bool) -> dict[str, object]:
    """The flips claim after single effects are shrunk; the full swap flips all or nothing."""
    small = pl.col("effect") * shrink
    part = synthetic.set_values(
        only(sound, *PATCHING), "patching", pl.col("site") != "all",
        effect=small, patched_log_odds=pl.col("baseline_log_odds") + small, flipped=pl.lit(False),
    )  # fmt: skip
    part = synthetic.set_values(
        part, "patching", pl.col("site") == "all", flipped=pl.lit(swap_flips)
    )
    return claims(part)["flips:game>utilitarian"]


def test_zero_flips_under_a_live_ceiling_are_bounded(sound: synthetic.Tables) -> None:
    row = flips(sound, 0.1, swap_flips=True)
    assert row["verdict"] == "supported"
    assert (row["estimate"], row["low"]) == (0.0, 0.0)
    assert row["high"] == pytest.approx(1 - 0.05 ** (1 / 20))
    assert "at most 13.9% of scenarios" in str(row["statement"])
    assert "the full swap flips 80 of 80 prompts" in str(row["statement"])


def test_zero_flips_under_a_dead_ceiling_say_nothing(sound: synthetic.Tables) -> None:
    row = flips(sound, 0.1, swap_flips=False)
    assert row["verdict"] == NOT_IDENTIFIED
    assert "swapping everything flips nothing either" in str(row["statement"])


def test_zero_flips_without_fingerprint_are_not_identified(sound: synthetic.Tables) -> None:
    row = flips(synthetic.without_fingerprints(sound), 0.1, swap_flips=True)
    assert row["verdict"] == NOT_IDENTIFIED


def test_zero_flips_without_full_swap_are_not_identified(sound: synthetic.Tables) -> None:
    part = only(sound, *PATCHING)
    part["patching"] = (
        part["patching"].filter(pl.col("site") != "all").with_columns(flipped=pl.lit(False))
    )
    row = claims(part)["flips:game>utilitarian"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert "without the full swap" in str(row["statement"])


def test_flips_are_counted_per_scenario(
    sound: synthetic.Tables, made: dict[str, dict[str, object]]
) -> None:
    rows = sound["patching"].filter(
        (pl.col("source") == "game") & (pl.col("site") != "all") & pl.col("flipped")
    )
    row = made["flips:game>utilitarian"]
    assert str(row["statement"]).startswith(f"{rows.height} of 640 single-site patches")
    scenarios = rows.join(sound["prompts"], on="prompt").get_column("scenario").n_unique()
    assert row["estimate"] == scenarios / 20


def test_cross_prompt_patches_are_left_to_others(sound: synthetic.Tables) -> None:
    part = only(sound, *PATCHING)
    crossed = (
        part["patching"]
        .filter(pl.col("source") == "game")
        .with_columns(source_prompt=pl.lit("elsewhere"))
    )
    both = claims({**part, "patching": pl.concat([part["patching"], crossed])})
    assert both.keys() == claims(part).keys()
    assert both["patching:game>utilitarian"] == claims(part)["patching:game>utilitarian"]


# Label, layout or move


def test_what_was_learned_becomes_a_claim(made: dict[str, dict[str, object]]) -> None:
    assert verdicts(made, "learned:") == {
        "learned:game": "supported", "learned:deontological": "supported", "learned:hybrid": NOISE,
    }  # fmt: skip
    row = made["learned:game"]
    assert str(row["statement"]).startswith("game learned the move.")
    assert "Unit: memory-one states, n = 4." in str(row["statement"])
    assert (row["n_units"], row["estimate"], row["low"]) == (4, 3.0, 2.5)


def test_undecided_without_fingerprint_is_not_identified(sound: synthetic.Tables) -> None:
    made = claims(synthetic.without_fingerprints(sound))
    assert made["learned:hybrid"]["verdict"] == NOT_IDENTIFIED
    assert made["learned:game"]["verdict"] == "supported"
    assert claims(synthetic.kill(sound, "game"))["learned:game"]["verdict"] == "artefact"


def test_what_was_learned_without_the_control_table_has_no_estimate(
    sound: synthetic.Tables,
) -> None:
    row = claims(only(sound, *BEHAVIOUR, "learned"))["learned:game"]
    assert (row["estimate"], row["n_units"], row["verdict"]) == (None, 0, NOT_IDENTIFIED)
    assert "transfer table of the control is not there" in str(row["statement"])


# Bad settings


@pytest.mark.parametrize(
    ("options", "text"),
    [({"alpha": 0.0}, "level is out of range"), ({"alpha": 1.5}, "level is out of range"),
     ({"draws": 19}, "Too few random draws"), ({"margin": 0.0}, "margin must be positive")],
)  # fmt: skip
def test_bad_settings(options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_claims({}, **options)
