"""Planted differences are placed where they are, and nothing is placed where there is none."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import synthetic
from cascade_planted import LEVELS, PRIMARY, study
from scipy import stats

from moralscope.core.tables import conform, from_rows
from moralscope.evidence.claims import make_claims, setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.cascade import cascade_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.synthesis import cascade
from moralscope.evidence.synthesis.cascade import cascade_table
from moralscope.evidence.synthesis.comparing import questions_of
from moralscope.evidence.synthesis.likeness import difference
from moralscope.evidence.synthesis.outcomes import (
    AS_LARGE,
    BETWEEN,
    INDISTINGUISHABLE,
    outcomes,
)
from moralscope.evidence.synthesis.scale import study_of

SEEDS = {"deontological": 5, "utilitarian": 5}

Row = dict[str, object]


def rewards(table: pl.DataFrame) -> dict[str, Row]:
    """The rows about two rewards that claims rest on, by level."""
    found = {row["level"]: row for row in table.filter(kind="rewards").iter_rows(named=True)
             if PRIMARY[row["level"]] == row["measure"]}  # fmt: skip
    assert set(found) <= set(LEVELS)
    return found


def claims(tables: synthetic.Tables, **settings: object) -> dict[str, Row]:
    """Claims of the cascade alone, by id."""
    setting = setting_of(tables, draws=99, **settings)
    return {str(row["id"]): row for row in claim_rows(setting, list(cascade_findings(setting)))}


@pytest.fixture(scope="module")
def null() -> synthetic.Tables:
    return study(SEEDS)


@pytest.mark.parametrize("planted", LEVELS)
def test_a_planted_difference_is_placed_at_its_level(planted: str) -> None:
    tables = study(SEEDS, (planted,))
    made, rows = claims(tables), rewards(cascade_table(tables))
    for level in LEVELS:
        claim, row = made[f"cascade:frameworks:{level}"], rows[level]
        if level != planted:
            assert claim["verdict"] in ("equivalent", "not distinguishable from noise")
            assert row["answer"] == INDISTINGUISHABLE
            continue
        assert claim["verdict"] == "supported"
        assert claim["p_adjusted"] == row["p_adjusted"] == pytest.approx(2 / 252)
        assert (claim["n_units"], claim["replicate"], claim["n_tests"]) == (10, "training seeds", 6)
        assert row["answer"] in ("between", AS_LARGE)
        assert "lie further apart than training seeds of one reward do" in str(claim["statement"])
        assert float(str(row["low"])) > 0.0


def test_without_a_plant_nothing_is_placed(null: synthetic.Tables) -> None:
    assert {row["answer"] for row in rewards(cascade_table(null)).values()} == {INDISTINGUISHABLE}
    assert "supported" not in {row["verdict"] for row in claims(null).values()}


def test_null_studies_keep_the_level() -> None:
    """Two hundred studies of two levels; the attainable size of five seeds is 12/252."""
    runs, rejected = 200, 0
    kept = study(SEEDS, scenarios=1, levels=("behaviour", "weights"))
    (question,) = questions_of(kept)
    for run in range(runs):
        rng = np.random.default_rng(run)
        own = {name: rng.standard_t(3, 4) for name in ("base", *question.agents)}
        rows = [
            {"agent_a": a, "agent_b": b, "layer": 0, "module": "m", "cosine": None,
             "inner": float(own[a] @ own[b]), "norm_a": float(np.linalg.norm(own[a])),
             "norm_b": float(np.linalg.norm(own[b])), "distance": None, "reach": None}
            for a, b in itertools.combinations(question.agents, 2)
        ]  # fmt: skip
        odds = [own[agent].sum() for agent in kept["decisions"]["agent"]]
        tables = {
            **kept,
            "update_distances": pl.DataFrame(rows, infer_schema_length=None),
            "decisions": kept["decisions"].with_columns(log_odds=pl.Series(odds)),
        }
        found = list(outcomes(study_of(tables), question, alpha=0.05, seed=0, draws=99))
        assert sum(one.test is not None for one in found) == 2
        rejected += any(one.answer(0.05) not in (INDISTINGUISHABLE, None) for one in found)
        for one in (each for each in found if each.test is not None):
            whole, interval = difference(one) or (0.0, None)
            assert interval is not None
            # Where relabelling often gives as much, the interval reaches down to nothing.
            assert float(one.test.p[one.at]) < 0.06 or interval[0] <= 0.0, (run, whole)
    size = 12 / 252
    assert 0 < rejected / runs <= size + 3 * math.sqrt(size * (1 - size) / runs)


def test_the_scale_runs_from_seeds_to_fine_tuning(null: synthetic.Tables) -> None:
    table = cascade_table(null)
    assert conform("cascade", table).equals(table)
    for row in rewards(table).values():
        own = table.filter(level=row["level"], measure=row["measure"])
        apart = {kind: own.filter(kind=kind)["distance"] for kind in ("named", "base", "replicate")}
        assert [len(apart[kind]) for kind in apart] == [25, 10, 20]
        floor, control = float(np.median(apart["replicate"])), apart["base"].mean()
        pairs = zip(own.filter(kind="named")["agent_a"], own.filter(kind="named")["agent_b"],
                    apart["named"], strict=True)  # fmt: skip
        crossing = [d for a, b, d in pairs if a[-1] != b[-1]]
        assert len(crossing) == 20
        assert row["distance"] == pytest.approx(np.mean(crossing), abs=1e-12)
        assert row["floor"] == pytest.approx(floor, abs=1e-12)
        assert row["floor_high"] == apart["replicate"].max()
        assert row["control"] == pytest.approx(control, abs=1e-12)
        expected = (float(str(row["distance"])) - floor) / (control - floor)
        assert row["relative"] == pytest.approx(expected, abs=1e-12)
    ends = table.filter(pl.col("kind") == "base", pl.col("measure").is_in(list(PRIMARY.values())))
    assert ends["relative"].mean() == pytest.approx(1.0, abs=0.1)


def test_intervals_of_rewards_leave_out_seeds(null: synthetic.Tables) -> None:
    table = cascade_table(null)
    row = rewards(table)["weights"]
    own = table.filter(level="weights", measure="update", kind="named")
    own = own.filter(pl.col("agent_a").str.tail(1) != pl.col("agent_b").str.tail(1))
    agents = sorted({*own["agent_a"], *own["agent_b"]})
    left = []
    for agent in agents:
        rest = own.filter(pl.col("agent_a") != agent, pl.col("agent_b") != agent)
        left.append((rest["distance"].mean() - row["floor"]) / (row["control"] - row["floor"]))
    error = math.sqrt(9 / 10 * np.sum((np.array(left) - np.mean(left)) ** 2))
    half = stats.t.ppf(0.975, 9) * error
    assert row["low"] == pytest.approx(row["relative"] - half, abs=1e-10)
    assert row["high"] == pytest.approx(row["relative"] + half, abs=1e-10)


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ((0.6, 1.2), AS_LARGE),
        ((1.1, 1.3), AS_LARGE),
        ((0.2, 0.9), BETWEEN),
        ((0.05, 1.9), BETWEEN),
        ((0.05, 2.9), BETWEEN),
    ],
)
def test_an_interval_from_end_to_end_makes_nothing_as_large_as_fine_tuning(
    interval: tuple[float, float], answer: str
) -> None:
    made = study(SEEDS, ("behaviour",), levels=("behaviour",))
    (question,) = questions_of(made)
    found = next(outcomes(study_of(made), question, alpha=0.05, seed=0, draws=99))
    assert found.p_adjusted is not None
    assert found.p_adjusted < 0.05
    wide = replace(found, relative=sum(interval) / 2.0, interval=interval)
    assert wide.answer(0.05) == answer


def test_a_wide_interval_is_said_to_leave_open_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(SEEDS, ("behaviour",), levels=("behaviour",))
    (question,) = questions_of(made)
    found = next(outcomes(study_of(made), question, alpha=0.05, seed=0, draws=99))
    wide = replace(found, relative=0.6, interval=(0.1, 1.1))
    monkeypatch.setattr(cascade, "outcomes", lambda *_, **__: iter([wide]))
    (row,) = cascade_table(made).filter(kind="rewards").to_dicts()
    assert row["answer"] == BETWEEN
    assert str(row["reason"]).endswith("the interval is too wide to tell how far.")


def test_intervals_of_agents_leave_out_scenarios_at_both_ends_of_the_scale() -> None:
    tables = study({"deontological": 2, "utilitarian": 1}, levels=("behaviour",))
    (row,) = cascade_table(tables).filter(kind="named", agent_a="deontological-0").to_dicts()
    means = (
        tables["decisions"].group_by("agent", "scenario", maintain_order=True)
        .agg(pl.col("log_odds").mean()).pivot(on="agent", index="scenario", values="log_odds")
    )  # fmt: skip

    def relative(kept: pl.DataFrame) -> float:
        def apart(a: str, b: str) -> float:
            return float(np.sqrt(((kept[a] - kept[b]) ** 2).mean()))

        named = ("deontological-0", "utilitarian-0")
        floor = apart("deontological-0", "deontological-1")
        control = np.mean([apart("base", agent) for agent in named])
        return float((apart(*named) - floor) / (control - floor))

    whole = relative(means)
    left = np.array([relative(means.filter(pl.col("scenario") != s)) for s in means["scenario"]])
    error = math.sqrt(7 / 8 * ((left - left.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 7) * error
    assert row["relative"] == pytest.approx(whole, abs=1e-10)
    assert (row["low"], row["high"]) == pytest.approx((whole - half, whole + half), abs=1e-10)


def test_every_claim_is_recomputed_from_the_tables(null: synthetic.Tables) -> None:
    made = make_claims(null, draws=99)
    own = made.filter(pl.col("id").str.starts_with("cascade:"))
    assert own["id"].to_list() == [f"cascade:frameworks:{level}" for level in LEVELS]
    tables = {**null, "cascade": cascade_table(null)}
    gates = judge_gates(null)
    for name in own["id"]:
        told = explain_claim(tables, made, gates, name)
        assert told.agrees, name
        assert told.n_rows == 40
        assert told.units.height == 40


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"deontological": 4, "utilitarian": 5}, "4 seeds of deontological and 5 seeds of"),
        ({"deontological": 1, "utilitarian": 2}, "1 seed of deontological and 2 seeds of"),
    ],
)
def test_too_few_seeds_identify_nothing(seeds: dict[str, int], said: str) -> None:
    tables = study(seeds, ("behaviour",), levels=("behaviour", "weights"))
    for claim in claims(tables).values():
        assert claim["verdict"] == "not identified by this design"
        assert said in str(claim["reason"])
        assert "; 5 seeds of each would" in str(claim["reason"])
    for row in rewards(cascade_table(tables)).values():
        assert row["answer"] is None
        assert str(row["reason"]).startswith("Not identified by this design: ")


def test_without_a_second_seed_there_is_no_floor() -> None:
    alone = tables = study({"deontological": 1, "utilitarian": 1}, levels=("behaviour", "weights"))
    made = claims(tables)
    assert list(made) == ["cascade:frameworks:behaviour", "cascade:frameworks:weights"]
    assert {row["verdict"] for row in made.values()} == {"not identified by this design"}
    found = {row["level"]: row for row in cascade_table(alone).filter(kind="named").to_dicts()
             if row["measure"] in PRIMARY.values()}  # fmt: skip
    for row in found.values():
        assert (row["floor"], row["relative"], row["answer"]) == (None, None, None)
        assert "so there is no noise floor; train a second seed" in row["reason"]
        assert "Both began from the same seed" in row["reason"]
    base = tables["decisions"].filter(agent="base")
    replicas = base.select("agent", "prompt", reference_log_odds="log_odds").with_columns(
        change=pl.lit("dtype"), setting=pl.lit("bfloat16"),
        log_odds=pl.col("reference_log_odds") + 0.01,
    )  # fmt: skip
    again = cascade_table({**alone, "replicas": replicas})
    (row,) = again.filter(kind="named", level="behaviour").to_dicts()
    assert (row["floor_kind"], row["answer"]) == ("numerical", None)
    assert row["floor"] == pytest.approx(0.01, abs=1e-9)
    assert row["relative"] > 0.0
    assert "only the rounding of another number format" in row["reason"]
    (row,) = again.filter(kind="named", measure="update").to_dicts()
    assert row["floor"] is None


def compare(*pairs: tuple[str, str, str, str]) -> pl.DataFrame:
    names = ["comparison", "kind", "agent_a", "agent_b"]
    return pl.DataFrame(pairs, schema=names, orient="row").with_columns(tested=pl.lit(value=True))


def test_two_seeds_of_one_reward_give_no_claim() -> None:
    pairs = compare(
        ("twins", "named", "game-0", "game-1"),
        ("base", "base", "base", "game-0"), ("base", "base", "base", "game-1"),
        ("seeds", "replicate", "game-0", "game-2"), ("seeds", "replicate", "game-1", "game-2"),
    )  # fmt: skip
    tables = study({"game": 3}, comparisons=pairs)
    made = claims(tables)
    assert {row["verdict"] for row in made.values()} == {"not identified by this design"}
    assert all("two agents are one draw" in str(row["reason"]) for row in made.values())
    table = cascade_table(tables).filter(kind="named")
    assert set(table["answer"]) <= {INDISTINGUISHABLE, "between"}


def identical(tables: synthetic.Tables) -> synthetic.Tables:
    """The second agent has every number of the first."""
    found = dict(tables)
    for name in ("decisions", "attribution", "completeness", "attention", "norms"):
        rest = tables[name].filter(pl.col("agent") != "game-1")
        twin = tables[name].filter(agent="game-0").with_columns(agent=pl.lit("game-1"))
        found[name] = pl.concat([rest, twin])
    same = (pl.col("agent_a") == "game-0") & (pl.col("agent_b") == "game-1")
    lengths = pl.col("norm_a")
    found["update_distances"] = tables["update_distances"].with_columns(
        norm_b=pl.when(same).then(lengths).otherwise("norm_b"),
        inner=pl.when(same).then(lengths**2).otherwise("inner"),
    )
    found["representation_pairs"] = tables["representation_pairs"].with_columns(
        distance=pl.when(same).then(0.0).otherwise("distance"),
        change_cosine=pl.when(same).then(1.0).otherwise("change_cosine"),
    )
    return found


def test_two_identical_agents_are_equivalent_at_every_level() -> None:
    pairs = compare(
        ("twins", "named", "game-0", "game-1"),
        ("base", "base", "base", "game-0"), ("base", "base", "base", "game-1"),
    )  # fmt: skip
    tables = identical(study({"game": 2}, comparisons=pairs))
    tables["agents"] = tables["agents"].with_columns(
        training_seed=pl.when(pl.col("kind") == "base").then(None).otherwise(0)
    )
    made = claims(tables)
    assert set(made) == {f"cascade:twins:{level}" for level in LEVELS}
    for row in made.values():
        assert (row["estimate"], row["verdict"]) == (0.0, "equivalent"), row["reason"]
    named = cascade_table(tables).filter(kind="named")
    assert named["distance"].to_list() == [0.0] * named.height
    bare = synthetic.without_fingerprints(tables)
    assert {row["verdict"] for row in claims(bare).values()} == {"not identified by this design"}


def test_likeness_of_two_agents_is_students_test_of_left_out_scenarios() -> None:
    pairs = compare(
        ("near", "named", "game-0", "game-1"),
        ("base", "base", "base", "game-0"), ("base", "base", "base", "game-1"),
    )  # fmt: skip
    tables = study({"game": 2}, comparisons=pairs, levels=("behaviour",))
    base = tables["decisions"].filter(agent="base").select("prompt", b="log_odds")
    rng = np.random.default_rng(2)
    near = tables["decisions"].filter(agent="game-0").with_columns(agent=pl.lit("game-1"))
    scenarios = near["scenario"].to_list()
    noise = dict(zip(dict.fromkeys(scenarios), rng.normal(0, 0.15, 8), strict=True))
    x = near["log_odds"] + pl.Series([noise[s] for s in scenarios])
    near = near.with_columns(log_odds=x, fingerprint_log_odds=x)
    rest = tables["decisions"].filter(pl.col("agent") != "game-1")
    setting = setting_of({**tables, "decisions": pl.concat([rest, near])})
    (found,) = cascade_findings(setting)
    wide = pl.concat([rest, near]).group_by("scenario", "agent", maintain_order=True).agg(
        pl.col("log_odds").mean()
    ).pivot(on="agent", index="scenario", values="log_odds")  # fmt: skip

    def left(kept: pl.DataFrame) -> float:
        def apart(a: str, b: str) -> float:
            return float(np.sqrt(((kept[a] - kept[b]) ** 2).mean()))

        return apart("game-0", "game-1") - 0.05 * (
            apart("base", "game-0") + apart("base", "game-1")
        )

    values = np.array([left(wide.filter(pl.col("scenario") != s)) for s in wide["scenario"]])
    error = math.sqrt(7 / 8 * ((values - values.mean()) ** 2).sum())
    assert found.equivalence_p == pytest.approx(stats.t.sf(-left(wide) / error, 7), abs=1e-10)
    assert found.estimate == pytest.approx(np.sqrt(np.mean(np.array(list(noise.values())) ** 2)))
    assert base.height


def test_seeds_that_are_copies_are_an_artefact() -> None:
    tables = study(SEEDS, levels=("weights", "behaviour"))
    same = (pl.col("agent_a") == "utilitarian-0") & (pl.col("agent_b") == "utilitarian-1")
    tables["update_distances"] = tables["update_distances"].with_columns(
        norm_b=pl.when(same).then("norm_a").otherwise("norm_b"),
        inner=pl.when(same).then(pl.col("norm_a") ** 2).otherwise("inner"),
    )
    made = claims(tables)
    assert made["cascade:frameworks:weights"]["verdict"] == "artefact"
    said = "utilitarian-0 and utilitarian-1 are the same at this level"
    assert said in str(made["cascade:frameworks:weights"]["reason"])
    assert made["cascade:frameworks:behaviour"]["verdict"] != "artefact"


def test_a_level_that_lacks_a_pair_is_left_out_of_the_family() -> None:
    tables = study(SEEDS, ("behaviour",), levels=("weights", "behaviour"))
    gap = (pl.col("agent_a") == "utilitarian-0") & (pl.col("agent_b") == "utilitarian-1")
    tables["update_distances"] = tables["update_distances"].filter(~gap)
    made = claims(tables)
    assert made["cascade:frameworks:behaviour"]["n_tests"] == 1
    row = made["cascade:frameworks:weights"]
    assert (row["verdict"], row["p"]) == ("not identified by this design", None)
    assert "1 of 45 pairs of their agents were not measured" in str(row["reason"])


def test_comparisons_by_many_names_about_two_rewards_are_one_question() -> None:
    tables = study(SEEDS, levels=("behaviour",))
    named = pl.col("kind") == "named"
    each = pl.concat_str("agent_a", "agent_b", separator="-")
    one_by_one = tables["comparisons"].with_columns(
        comparison=pl.when(named).then(each).otherwise("comparison")
    )
    made = claims({**tables, "comparisons": one_by_one})
    assert set(made) == {"cascade:deontological-utilitarian:behaviour"}
    assert made["cascade:deontological-utilitarian:behaviour"]["n_units"] == 10
    composed = tables["agents"].with_columns(
        reward=pl.col("reward").replace("utilitarian", "0.5*care + 0.5*rawlsian")
    )
    (name,) = claims({**tables, "agents": composed, "comparisons": one_by_one})
    assert name == "cascade:deontological-0.5*care+0.5*rawlsian:behaviour"
    suggested = {name: frame for name, frame in tables.items() if name != "comparisons"}
    assert cascade_table(suggested).filter(kind="rewards").height == 1
    assert claims(suggested) == {}


def test_agents_of_one_run_count_once() -> None:
    tables = study({"deontological": 5, "utilitarian": 6}, levels=("weights",))
    twice = pl.col("agent") == "utilitarian-5"
    tables["agents"] = tables["agents"].with_columns(
        training_seed=pl.when(twice).then(4).otherwise("training_seed")
    )
    assert claims(tables)["cascade:frameworks:weights"]["n_units"] == 10


def test_fine_tuning_below_the_floor_leaves_no_scale() -> None:
    tables = study(SEEDS, levels=("behaviour",))
    base = tables["decisions"].filter(agent="base").select("prompt", b="log_odds")
    rng = np.random.default_rng(0)
    joined = tables["decisions"].join(base, on="prompt", maintain_order="left")
    faint = joined.with_columns(
        log_odds=pl.when(pl.col("agent") == "base").then("b").otherwise(
            pl.col("b") + pl.Series(rng.normal(0, 1, joined.height)))
    ).drop("b")  # fmt: skip
    row = rewards(cascade_table({**tables, "decisions": faint}))["behaviour"]
    assert (row["relative"], row["answer"]) == (None, None)
    assert "no further from the base than two seeds lie apart" in str(row["reason"])
    assert f"Relabelling the seeds gives p = {row['p_adjusted']:.2g}" in str(row["reason"])


def test_nothing_compared_is_no_row() -> None:
    tables = study(SEEDS, levels=("behaviour",))
    nobody = {**tables, "comparisons": from_rows("comparisons", [])}
    assert cascade_table(nobody).height == 0
    assert list(cascade_findings(setting_of(nobody))) == []
