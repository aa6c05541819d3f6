"""Named hypotheses on studies with known truth: confirmed, contradicted, open, and why."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from moralscope.core.errors import ConfigError
from moralscope.evidence.claims import judge_findings, make_claims, setting_of
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Hypothesis, Named
from moralscope.evidence.hypotheses.judging import hypothesis_findings
from moralscope.evidence.hypotheses.stating import Spread, outside_p, spread_between, within_p

DRAWS = 999
NOT_IDENTIFIED = "not identified by this design"
NOISE = "not distinguishable from noise"
Rows = dict[str, dict[str, object]]


def say(quantity: str, *agents: str, registered: bool = True, **more: object) -> Named:
    """A hypothesis whose name does not matter."""
    words = f"{quantity} {agents} {sorted(more.items())}"
    name = hashlib.sha256(words.encode()).hexdigest()[:8]
    said = {"id": name, "quantity": quantity, "agents": agents, **more}
    return Named(Hypothesis.model_validate(said), registered, "by construction")


def answers(tables: synthetic.Tables, *named: Named) -> list[dict[str, object]]:
    """The claims about hypotheses, in their order, without the exploratory ones."""
    setting = setting_of(tables, draws=DRAWS)
    made = judge_findings(setting, hypothesis_findings(setting, named))
    rows = {row["id"]: row for row in made.iter_rows(named=True)}
    return [rows[f"hypothesis:{one.hypothesis.id}"] for one in named]


BEHAVIOUR = ("agents", "prompts", "decisions")


@pytest.fixture(scope="module")
def acts(sound: synthetic.Tables) -> synthetic.Tables:
    """Decisions alone, with their gates, so that they are judged once."""
    tables = {name: sound[name] for name in BEHAVIOUR}
    return {**tables, "gates": judge_gates(tables)}


@pytest.fixture(scope="module")
def inside(sound: synthetic.Tables) -> synthetic.Tables:
    """Everything, with its gates."""
    return {**sound, "gates": judge_gates(sound)}


def changes(tables: synthetic.Tables, agent: str) -> np.ndarray:
    """Mean change per scenario, by hand."""
    d = tables["decisions"].join(tables["prompts"].select("prompt"), on="prompt")
    wide = d.pivot(on="agent", index=["prompt", "scenario"], values="log_odds")
    per = wide.group_by("scenario").agg((pl.col(agent) - pl.col("base")).mean().alias("d"))
    return per.get_column("d").to_numpy()


def test_a_planted_change_is_confirmed_its_opposite_contradicted_and_none_stays_open(
    acts: synthetic.Tables,
) -> None:
    up, down, other, none = answers(
        acts,
        say("change", "game", direction="above"),
        say("change", "game", direction="below"),
        say("change", "deontological", direction="differs"),
        say("change", "hybrid", direction="above"),
    )
    assert (up["verdict"], up["outcome"]) == ("supported", "confirmed")
    assert "lies above zero, as hypothesis" in str(up["statement"])
    assert (down["verdict"], down["outcome"]) == (NOISE, "contradicted")
    assert "does not hold as stated: the number lies on the other side (+2.9" in str(down["reason"])
    assert (other["verdict"], other["outcome"]) == ("supported", "confirmed")
    assert (none["verdict"], none["outcome"]) == (NOISE, "open")
    assert "with 20 scenarios an effect of" in str(none["reason"])
    assert up["estimate"] == pytest.approx(changes(acts, "game").mean(), abs=1e-12)
    assert {row["n_tests"] for row in (up, down, other, none)} == {4}


def test_the_p_of_a_hypothesis_is_that_of_the_exploratory_claim(acts: synthetic.Tables) -> None:
    made = make_claims(acts, draws=DRAWS, hypotheses=[say("change", "hybrid", direction="above")])
    rows = {str(row["id"]).partition(":")[0]: row for row in made.iter_rows(named=True)
            if row["id"] == "change:hybrid" or str(row["id"]).startswith("hypothesis")}  # fmt: skip
    named, found = rows["hypothesis"], rows["change"]
    assert named["p"] == found["p"] == named["p_adjusted"]
    assert (named["estimate"], named["low"]) == (
        found["estimate"],
        pytest.approx(found["low"], abs=0.1),
    )
    assert (named["registered"], found["registered"]) == (True, False)
    assert named["q"] is None
    assert found["outcome"] is None


def test_equivalence_needs_a_margin_and_a_live_agent(acts: synthetic.Tables) -> None:
    y = changes(acts, "hybrid")
    wide, narrow, far, default = answers(
        acts,
        say("change", "hybrid", margin=0.6),
        say("change", "hybrid", margin=0.12),
        say("change", "game", margin=0.6),
        say("change", "game", direction="zero"),
    )
    assert (wide["verdict"], wide["outcome"]) == ("equivalent", "confirmed")
    low, high = DescrStatsW(y).ttost_mean(-0.6, 0.6)[1:]
    assert wide["p"] == pytest.approx(
        stats.ttest_1samp(np.abs(y.mean()) / y.mean() * y, 0.6, alternative="greater").pvalue,
        abs=1e-10,
    )
    assert max(low[1], high[1]) < 0.01
    assert (narrow["verdict"], narrow["outcome"]) == (NOISE, "open")
    assert "whether it lies within 0.12 nats is not settled" in str(narrow["reason"])
    assert (far["verdict"], far["outcome"]) == (NOISE, "contradicted")
    assert "lies further away than 0.6 nats (+2.9" in str(far["reason"])
    assert default["outcome"] == "contradicted"
    blind = synthetic.without_fingerprints({k: acts[k] for k in BEHAVIOUR})
    unknown, effect = answers(
        blind, say("change", "hybrid", margin=0.6), say("change", "game", direction="above")
    )
    assert (unknown["verdict"], unknown["outcome"]) == (NOT_IDENTIFIED, "open")
    assert "liveness could not be checked" in str(unknown["reason"])
    assert (effect["verdict"], effect["outcome"]) == ("supported", "confirmed")
    dead = synthetic.kill({k: acts[k] for k in BEHAVIOUR}, "game")
    (still,) = answers(dead, say("change", "game", margin=0.6))
    assert (still["verdict"], still["outcome"]) == ("artefact", "open")


def test_one_sided_tests_against_statsmodels(rng_values: tuple[np.ndarray, np.ndarray]) -> None:
    y, z = rng_values
    n, error = len(y), y.std(ddof=1) / np.sqrt(len(y))
    spread = Spread(float(y.mean()), float(error), n - 1)
    p, _, _ = DescrStatsW(y).ttost_mean(-0.5, 0.5)
    assert within_p(spread, 0.5) == pytest.approx(p, abs=1e-10)
    sign = np.sign(y.mean())
    greater = stats.ttest_1samp(sign * y, 0.1, alternative="greater").pvalue
    assert outside_p(spread, 0.1) == pytest.approx(greater, abs=1e-10)
    both = spread_between(y, z)
    assert both is not None
    welch = stats.ttest_ind(y, z + 0.4, equal_var=False, alternative="less")
    assert within_p(Spread(both.deviation, both.error, both.degrees), 0.4) == pytest.approx(
        max(
            welch.pvalue,
            stats.ttest_ind(y, z - 0.4, equal_var=False, alternative="greater").pvalue,
        ),
        abs=1e-10,
    )
    assert within_p(Spread(0.1, 0.0, 3), 0.2) == 0.0
    assert outside_p(Spread(0.1, 0.0, 3), 0.2) == 1.0


@pytest.fixture
def rng_values() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0.1, 0.6, 15), rng.normal(0.0, 1.0, 9)


def test_holm_over_the_registered_ones_alone(acts: synthetic.Tables) -> None:
    named = [
        say("change", agent, direction=direction, registered=agent != "utilitarian")
        for agent in ("game", "deontological", "utilitarian", "hybrid")
        for direction in ("above", "differs")
    ]
    rows = answers(acts, *named)
    first = [row for row in rows if row["registered"]]
    assert len(first) == 6
    expected = multipletests([row["p"] for row in first], method="holm")[1]
    assert [row["p_adjusted"] for row in first] == pytest.approx(list(expected), abs=1e-10)
    late = [row for row in rows if not row["registered"]]
    assert all(row["q"] is not None and row["p_adjusted"] == row["p"] for row in late)


def test_two_agents_and_one_label_assignment(acts: synthetic.Tables) -> None:
    apart, same, swapped = answers(
        acts,
        say("difference", "game", "hybrid", direction="above"),
        say("difference", "deontological", "utilitarian", margin=5.0),
        say("change", "game", direction="above", labels=synthetic.LABELS[1]),
    )
    assert apart["outcome"] == same["outcome"] == swapped["outcome"] == "confirmed"
    assert same["verdict"] == "equivalent"
    assert f"under the labels {synthetic.LABELS[1]}" in str(swapped["statement"])
    exploratory = make_claims(acts, draws=DRAWS).filter(
        pl.col("id") == f"change:game:{synthetic.LABELS[1]}"
    )
    assert swapped["estimate"] == pytest.approx(exploratory["estimate"].item(), abs=1e-12)
    aside = (
        acts["prompts"]
        .head(1)
        .with_columns(
            prompt=pl.lit("x"), family=pl.lit("other"), labels=pl.lit("up/down"), sha256=pl.lit("x")
        )
    )
    wider = {**acts, "prompts": pl.concat([acts["prompts"], aside])}
    (never,) = answers(wider, say("change", "game", direction="above", labels="up/down"))
    assert never["verdict"] == NOT_IDENTIFIED
    assert "not asked the prompts that claims rest on under the labels" in str(never["reason"])
    with pytest.raises(ConfigError, match="unknown label assignment 'a/b'"):
        answers(acts, say("change", "game", direction="above", labels="a/b"))


def test_a_reward_needs_training_seeds(acts: synthetic.Tables) -> None:
    (single,) = answers(acts, say("reward_change", rewards=["game"], direction="above"))
    assert (single["verdict"], single["outcome"]) == (NOT_IDENTIFIED, "open")
    assert "6 seeds with this reward would identify it" in str(single["reason"])
    many = synthetic.replicated(7, {"game": 3.0, "utilitarian": -3.0})
    many["gates"] = judge_gates(many)
    up, down, apart, alike, near = answers(
        many,
        say("reward_change", rewards=["game"], direction="above"),
        say("reward_change", rewards=["utilitarian"], direction="above"),
        say("reward_difference", rewards=["game", "utilitarian"], direction="above"),
        say("reward_difference", rewards=["game", "utilitarian"], margin=1.0),
        say("reward_difference", rewards=["game", "utilitarian"], margin=9.0),
    )
    assert up["p"] == pytest.approx(2 / 2**7)
    assert apart["p"] == pytest.approx(2 / 3432)  # 14 over 7
    assert apart["outcome"] == "confirmed"
    assert alike["outcome"] == "contradicted"
    assert near["outcome"] == "confirmed"
    assert down["p"] == pytest.approx(2 / 2**7)
    # Five hypotheses: seven seeds reach .0156, and Holm's first step asks for .01.
    assert (up["verdict"], up["outcome"]) == (NOT_IDENTIFIED, "open")
    assert "with 7 training seeds no data can give a p below 0.0156" in str(up["reason"])
    alone, wrong = (
        answers(many, say("reward_change", rewards=[reward], direction="above"))[0]
        for reward in ("game", "utilitarian")
    )
    assert (alone["verdict"], alone["outcome"]) == ("supported", "confirmed")
    assert wrong["outcome"] == "contradicted"
    with pytest.raises(ConfigError, match="unknown reward 'gam'.*did you mean 'game'"):
        answers(many, say("reward_change", rewards=["gam"], direction="above"))


def test_sites_that_are_named_are_tested_alone(inside: synthetic.Tables) -> None:
    pair = ("game", "utilitarian")
    rows = answers(
        inside,
        say("patch_effect", *pair, sites=["L1.mlp"], direction="below"),
        say("patch_effect", *pair, sites=["L1.mlp", "L0.h1"], direction="below"),
        say("patch_effect", *pair, sites=["all"], direction="above"),
        say("patch_effect", *pair, sites=["L0.h0"], margin=0.3),
        say("symmetric_effect", *pair, sites=["L1.mlp"], direction="below"),
        say("asymmetry", *pair, sites=["L1.mlp"], direction="zero"),
        say("attribution_change", "game", sites=["L1.mlp", "L1.h2"], direction="below"),
        say("attribution_change", "game", sites=["L0.h0"], direction="zero"),
    )
    assert [row["outcome"] for row in rows] == [
        "confirmed", "confirmed", "contradicted", "confirmed", "confirmed", "confirmed",
        "confirmed", "confirmed",
    ]  # fmt: skip
    patching = inside["patching"].filter(pl.col("source") == "game")
    per = patching.join(inside["prompts"].select("prompt", "scenario"), on="prompt")
    wanted = per.filter(pl.col("site").is_in(["L1.mlp", "L0.h1"]))
    by_hand = wanted.group_by("scenario").agg(pl.col("effect").mean())["effect"].to_numpy()
    assert rows[1]["estimate"] == pytest.approx(by_hand.mean(), abs=1e-12)
    assert rows[1]["n_units"] == 20
    assert "of L1.mlp and L0.h1" not in str(rows[0]["statement"])
    assert "L1.mlp and L0.h1" in str(rows[1]["statement"])
    assert "is zero, within the default margin" in str(rows[5]["statement"])


def test_every_query_reproduces_its_estimate_in_layers(inside: synthetic.Tables) -> None:
    pair = ("game", "utilitarian")
    rows = answers(
        inside,
        say("change", "game", direction="above"),
        say("patch_effect", *pair, sites=["L1.mlp", "L0.h1"], direction="below"),
        say("asymmetry", *pair, sites=["L1.mlp", "L0.h1"], direction="zero"),
        say("symmetric_effect", *pair, sites=["L1.mlp"], direction="below"),
        say("attribution_change", "game", sites=["L1.mlp", "L1.h2"], direction="below"),
    )
    context = pl.SQLContext(inside)
    for row in rows:
        query = str(row["query"])
        assert context.execute(query, eager=True).item() == pytest.approx(row["estimate"], abs=1e-9)
        head = query.rpartition("SELECT AVG(value) AS estimate FROM unit_means")[0]
        units = context.execute(f"{head} SELECT * FROM unit_means", eager=True)  # noqa: S608
        assert units.height == row["n_units"]
        evidence = context.execute(f"{head} SELECT * FROM evidence_rows", eager=True)  # noqa: S608
        assert evidence.height >= units.height
        assert {"unit", "value"} <= set(evidence.columns)


def test_a_named_site_that_is_a_copy_dead_or_rounding_is_an_artefact(
    sound: synthetic.Tables,
) -> None:
    part = {k: sound[k] for k in (*BEHAVIOUR, "patching", "controls")}
    cloned = synthetic.copy_site(part, "patching", "L1.mlp", ["L1.h0"])
    (copy,) = answers(cloned, say("patch_effect", "game", "utilitarian", sites=["L1.mlp"],
                                  direction="below"))  # fmt: skip
    assert (copy["verdict"], copy["outcome"]) == ("artefact", "open")
    assert "L1.mlp has the same results as another site" in str(copy["reason"])
    at = pl.col("site") == "L0.h0"
    unreached = synthetic.set_values(part, "patching", at, effect=pl.lit(0.0))
    (dead,) = answers(unreached, say("patch_effect", "game", "utilitarian", sites=["L0.h0"],
                                     margin=1.0))  # fmt: skip
    assert dead["verdict"] == "artefact"
    assert "dead sites: L0.h0 is exactly zero on every prompt" in str(dead["reason"])
    (sane,) = answers(unreached, say("patch_effect", "game", "utilitarian", sites=["L1.mlp"],
                                     direction="below"))  # fmt: skip
    assert sane["outcome"] == "confirmed"


def test_flips_and_what_was_learned(inside: synthetic.Tables) -> None:
    some, none, move, wrong, unclear = answers(
        inside,
        say("flips", "game", "utilitarian", direction="above"),
        say("flips", "game", "utilitarian", direction="zero"),
        say("learned", "game", learned="move"),
        say("learned", "deontological", learned="move"),
        say("learned", "hybrid", learned="move"),
    )
    assert (some["verdict"], some["outcome"]) == ("supported", "confirmed")
    assert (none["verdict"], none["outcome"]) == (NOISE, "contradicted")
    assert "such patches exist, in 100.0% of scenarios" in str(none["reason"])
    assert (move["verdict"], move["outcome"]) == ("supported", "confirmed")
    assert wrong["outcome"] == "contradicted"
    assert "the control says label, not move" in str(wrong["reason"])
    assert unclear["outcome"] == "open"


def test_no_flips_where_the_full_swap_flips_and_where_it_does_not(sound: synthetic.Tables) -> None:
    part = {k: sound[k] for k in (*BEHAVIOUR, "patching", "controls")}
    single = pl.col("site") != "all"
    still = synthetic.set_values(part, "patching", single, flipped=pl.lit(value=False))
    zero, some = answers(
        still,
        say("flips", "game", "utilitarian", direction="zero"),
        say("flips", "game", "utilitarian", direction="above"),
    )
    assert (zero["verdict"], zero["outcome"]) == ("supported", "confirmed")
    assert some["outcome"] == "open"
    everywhere = synthetic.set_values(
        part, "patching", pl.lit(value=True), flipped=pl.lit(value=False)
    )
    (blunt,) = answers(everywhere, say("flips", "game", "utilitarian", direction="zero"))
    assert (blunt["verdict"], blunt["outcome"]) == (NOT_IDENTIFIED, "open")
    assert "swapping everything flips nothing either" in str(blunt["reason"])


@pytest.mark.parametrize(
    ("quantity", "agents", "more", "words"),
    [
        ("change", ["gmae"], {}, "unknown agent 'gmae'.*did you mean 'game'"),
        ("change", ["base"], {}, "asks how a base changed"),
        ("patch_effect", ["game", "utilitarian"], {"sites": ["L1.h7"]},
         "unknown site 'L1.h7'.*did you mean 'L1.h"),
        ("attribution_change", ["game"], {"sites": ["L9.mlp"]}, "unknown site 'L9.mlp'"),
        ("contrast", ["game"], {"contrast": "guilt"}, "unknown contrast 'guilt'"),
        ("contrast", ["game"], {"contrast": "guilt_effect", "game": "PD"}, "unknown game 'PD'"),
    ],
)  # fmt: skip
def test_what_the_tables_do_not_know_is_an_error(
    inside: synthetic.Tables, quantity: str, agents: list[str], more: Rows, words: str
) -> None:
    tables = inside if quantity != "contrast" else inside | {"prompts": stated(inside["prompts"])}
    with pytest.raises(ConfigError, match=words):
        answers(tables, say(quantity, *agents, direction="above", **more))


@pytest.mark.parametrize(
    ("drop", "said", "words"),
    [
        ("decisions", ("change", ["game"], {}), "it comes from the stages decide-AGENT"),
        ("patching", ("patch_effect", ["game", "utilitarian"], {"sites": ["L1.mlp"]}),
         "stages patch-SOURCE>TARGET"),
        ("attribution", ("attribution_change", ["game"], {"sites": ["L1.mlp"]}), "explain-AGENT"),
        ("decisions", ("reward_change", [], {"rewards": ["game"]}), "decide-AGENT"),
        ("decisions", ("contrast", ["game"], {"contrast": "forgiveness"}), "decide-AGENT"),
        ("", ("patch_effect", ["base", "game"], {"sites": ["L1.mlp"]}),
         "no sweep base>game; it comes from the stage patch-base>game"),
        ("", ("attribution_change", ["hybrid"], {"sites": ["L1.mlp"]}), "no attribution of hybrid"),
    ],
)  # fmt: skip
def test_what_was_not_measured_is_not_identified_and_says_where_it_comes_from(
    inside: synthetic.Tables, drop: str, said: tuple[str, list[str], Rows], words: str
) -> None:
    tables = {name: table for name, table in inside.items() if name != drop}
    quantity, agents, more = said
    (row,) = answers(tables, say(quantity, *agents, direction="above", **more))
    assert (row["verdict"], row["outcome"]) == (NOT_IDENTIFIED, "open")
    assert words in str(row["reason"])
    assert row["estimate"] is None


def test_undefined_log_odds_leave_a_hypothesis_untested(acts: synthetic.Tables) -> None:
    first = (pl.col("agent") == "game") & (pl.col("prompt") == acts["prompts"]["prompt"][0])
    tables = {k: acts[k] for k in BEHAVIOUR}
    holed = synthetic.set_values(tables, "decisions", first, log_odds=pl.lit(None, pl.Float64))
    (row,) = answers(holed, say("difference", "hybrid", "game", direction="below"))
    assert row["verdict"] in (NOT_IDENTIFIED, "artefact")
    assert "1 of 80 log-odds of game are undefined" in str(row["reason"])


def stated(prompts: pl.DataFrame) -> pl.DataFrame:
    """The same prompts as texts of the family ``wordings``, each asked in four states."""
    number = pl.col("scenario").str.slice(1).cast(pl.Int64)
    return prompts.with_columns(
        family=pl.lit("wordings"),
        template=pl.format("t{}", number // 4),
        own_previous=pl.when(number % 4 < 2).then(pl.lit("C")).otherwise(pl.lit("D")),
        opponent_previous=pl.when(number % 2 == 0).then(pl.lit("C")).otherwise(pl.lit("D")),
    )


def test_contrasts_are_those_of_the_exploratory_claims() -> None:
    asked = stated(synthetic.prompts(scenarios=40))
    rng = np.random.default_rng(5)
    who = synthetic.agents()
    state = pl.col("own_previous") + pl.col("opponent_previous")
    made = synthetic.decisions(who, asked, rng, synthetic.EFFECTS).join(
        asked.select("prompt", cell=state), on="prompt"
    )
    # Defects where the other did, whatever it did itself.
    kinder = made.with_columns(
        p_positive_given_legal=pl.when(pl.col("agent") == "game")
        .then(pl.when(pl.col("cell").str.ends_with("D")).then(0.9).otherwise(0.1))
        .otherwise("p_positive_given_legal")
    ).drop("cell")
    tables = {"agents": who, "prompts": asked, "decisions": kinder}
    tables["gates"] = judge_gates(tables)
    reciprocal, forgiving, more, alike, elsewhere = answers(
        tables,
        say("contrast", "game", contrast="response_to_other", direction="above"),
        say("contrast", "game", contrast="forgiveness", direction="above"),
        say("contrast", "game", "base", contrast="response_to_other", direction="above"),
        say("contrast", "game", contrast="response_to_self", margin=0.1),
        say("contrast", "game", contrast="temptation", direction="above"),
    )
    assert reciprocal["estimate"] == pytest.approx(0.8)
    assert reciprocal["outcome"] == more["outcome"] == "confirmed"
    assert forgiving["estimate"] == pytest.approx(0.1)
    assert forgiving["outcome"] == "contradicted"
    assert "lies above one half" in str(forgiving["statement"])
    assert alike["outcome"] == "confirmed"
    assert elsewhere["verdict"] == NOT_IDENTIFIED
    assert "no family of the prompts has the contrast temptation" in str(elsewhere["reason"])
    claims = make_claims(tables, draws=DRAWS)
    same = claims.filter(pl.col("id") == "contrast:wordings.IPD:response_to_other:game")
    assert same["estimate"].item() == pytest.approx(reciprocal["estimate"])
    assert same["p"].item() == reciprocal["p"]
