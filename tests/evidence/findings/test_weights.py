"""What is claimed of weights: planted directions are found, and unrelated updates claim nothing."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import scipy.stats
import synthetic
import weights_planted
from statsmodels.stats.multitest import multipletests
from weights_planted import study

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import judge_findings, setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.weights import weight_findings
from moralscope.evidence.gates.judging import judge_gates

Tables = synthetic.Tables
Row = dict[str, object]

SUPPORTED, NOISE = "supported", "not distinguishable from noise"
NOT_IDENTIFIED, ARTEFACT = "not identified by this design", "artefact"


def claims(tables: Tables, draws: int = 999, *, explained: bool = False) -> dict[str, Row]:
    setting = setting_of(tables, draws=draws)
    made = judge_findings(setting, list(weight_findings(setting)))
    gates = judge_gates(tables)
    for claim in made.get_column("id").to_list() if explained else ():
        walked = explain_claim(setting.tables, made, gates, claim)
        assert walked.agrees, claim
        if walked.claim["estimate"] is not None:
            assert walked.n_rows > 0, claim
            if not claim.startswith("weights:"):
                assert walked.units.n_unique("unit") == walked.claim["n_units"], claim
    return {str(row["id"]): row for row in made.iter_rows(named=True)}


@pytest.fixture(scope="module")
def plain() -> dict[str, Row]:
    return claims(study())


@pytest.fixture(scope="module")
def planted() -> dict[str, Row]:
    return claims(study(rewards=True, along=True, layers=True, same_seeds=True), explained=True)


def said(found: dict[str, Row], start: str) -> set[object]:
    return {row["verdict"] for name, row in found.items() if name.startswith(start)}


def test_unrelated_updates_claim_no_more_than_that_there_are_some(plain: dict[str, Row]) -> None:
    supported = {name for name, row in plain.items() if row["verdict"] == SUPPORTED}
    assert supported == {name for name in plain if name.startswith("update:")}
    assert len(supported) == 10
    for start in ("writes:", "reads:", "overlap:", "weights:", "moved:layers"):
        assert said(plain, start) == {NOISE}, start
    assert [name for name in plain if name.startswith(("overlap", "weights"))] == [
        "overlap:rewards:outputs", "overlap:rewards:inputs",
        "overlap:seeds:outputs", "overlap:seeds:inputs",
        "weights:game:utilitarian",
    ]  # fmt: skip


def test_what_was_planted_is_found_and_nothing_else(planted: dict[str, Row]) -> None:
    for side in ("writes", "reads"):
        assert said(planted, f"{side}:game") == {SUPPORTED}
        assert said(planted, f"{side}:utilitarian") == {NOISE}
    # One reward's seeds share what they write; that of the other reward is another.
    assert planted["overlap:seeds:outputs"]["verdict"] == SUPPORTED
    assert planted["overlap:seeds:inputs"]["verdict"] == NOISE
    assert planted["overlap:rewards:outputs"]["verdict"] == NOISE
    assert planted["weights:game:utilitarian"]["verdict"] == SUPPORTED
    assert planted["moved:layers"]["verdict"] == SUPPORTED


def test_what_all_agents_share_is_no_matter_of_rewards() -> None:
    found = claims(study(common=True))
    assert found["overlap:rewards:outputs"]["verdict"] == SUPPORTED
    assert found["overlap:seeds:outputs"]["verdict"] == SUPPORTED
    assert said(found, "overlap:seeds:inputs") == {NOISE}
    assert said(found, "weights:") == {NOISE}


# Numbers by hand


def test_an_update_is_described_by_its_norm(planted: dict[str, Row]) -> None:
    tables = study(rewards=True, along=True, layers=True, same_seeds=True)
    rows = tables["update_norms"].filter(pl.col("agent") == "game-1")
    norm = rows.get_column("norm").to_numpy()
    row = planted["update:game-1"]
    assert row["estimate"] == pytest.approx(np.linalg.norm(norm) / (20 * np.sqrt(48)), rel=1e-12)
    top = rows.row(int(norm.argmax()), named=True)
    assert f"L{top['layer']}.{top['module']}." in str(row["statement"])
    assert "in 48 of 48 linear layers (median effective rank 3)" in str(row["statement"])
    assert row["gates"] == "liveness (game-1): passed; update (game-1): passed"


def test_shares_are_held_against_the_same_random_tokens_in_all_agents() -> None:
    tables = study(along=True)
    found = claims(tables)
    rows, controls = tables["update_directions"], tables["update_controls"]
    scores = {}
    for agent, side in itertools.product(
        rows["agent"].unique(maintain_order=True), ("writes", "reads")
    ):
        own = rows.filter((pl.col("agent") == agent) & (pl.col("side") == side))
        square = own["norm"].to_numpy() ** 2
        share = (square * own["share"].to_numpy()).sum() / square.sum()
        drawn = controls.filter((pl.col("agent") == agent) & (pl.col("side") == side))["share"]
        every = np.array([share, *drawn])
        scores[f"{side}:{agent}"] = scipy.stats.zscore(every)
        row = found[f"{side}:{agent}"]
        assert row["estimate"] == pytest.approx(share - drawn.to_numpy().mean(), abs=1e-12)
        assert row["p"] == pytest.approx(np.mean(every >= share - 1e-12))
        assert (row["n_units"], row["replicate"]) == (199, "random token pairs")
        assert row["p_floor"] == 0.005
    largest = np.max(list(scores.values()), axis=0)
    for name, score in scores.items():
        assert found[name]["p_adjusted"] == pytest.approx(np.mean(largest >= score[0] - 1e-12))
        assert found[name]["n_tests"] == 20
    assert found["writes:game-0"]["p_adjusted"] == 0.005


def test_overlaps_count_layers_beyond_their_own_null() -> None:
    tables = study(rewards=True)
    found = claims(tables)
    table = tables["update_overlap"]
    tested = tables["comparisons"].filter(pl.col("tested") & (pl.col("kind") != "base"))
    p = {}
    for name, side in itertools.product(("rewards", "seeds"), ("outputs", "inputs")):
        pairs = tested.filter(pl.col("comparison") == name).select("agent_a", "agent_b").rows()
        values, each = [], []
        for a, b in pairs:
            rows = table.filter(
                (pl.col("agent_a") == a) & (pl.col("agent_b") == b) & (pl.col("side") == side)
            )
            hits = int((rows["overlap"] > rows["null_high"]).sum())
            each.append(scipy.stats.binom(48, 0.025).sf(hits - 1))
            values.append((rows["overlap"] - rows["expected"]).to_numpy())
        row = found[f"overlap:{name}:{side}"]
        assert row["estimate"] == pytest.approx(np.mean(values), abs=1e-12)
        p[f"overlap:{name}:{side}"] = min(1.0, 2 * float(np.mean(each)))
        assert row["p"] == pytest.approx(p[f"overlap:{name}:{side}"], rel=1e-9)
        assert row["n_units"] == 48
    adjusted = multipletests(list(p.values()), method="holm")[1]
    for name, value in zip(p, adjusted, strict=True):
        assert found[name]["p_adjusted"] == pytest.approx(value, rel=1e-9)
    assert "8 pairs of agents write overlap by" in str(found["overlap:seeds:outputs"]["statement"])


def by_hand(tables: Tables, starts: bool) -> tuple[float, float]:
    """Difference of means between and within rewards, and its exact p; loops over everything."""
    who = {r["agent"]: r for r in tables["agents"].iter_rows(named=True) if r["reward"]}
    apart = {}
    for a, b in itertools.combinations(who, 2):
        pair = (pl.col("agent_a") == a) & (pl.col("agent_b") == b)
        rows = tables["update_overlap"].filter(pair & (pl.col("side") == "outputs"))
        apart[a, b] = 1.0 - float(rows["overlap"].mean())
        if starts and who[a]["training_seed"] == who[b]["training_seed"]:
            del apart[a, b]

    def difference(first: set[str]) -> float:
        same = [v for (a, b), v in apart.items() if (a in first) == (b in first)]
        other = [v for (a, b), v in apart.items() if (a in first) != (b in first)]
        return float(np.mean(other) - np.mean(same))

    names = list(who)
    observed = difference(set(names[: len(names) // 2]))
    drawn = [difference(set(c)) for c in itertools.combinations(names, len(names) // 2)]
    return observed, float(np.mean(np.array(drawn) >= observed - 1e-12))


@pytest.mark.parametrize("same_seeds", [False, True])
def test_rewards_are_told_from_seeds_by_every_relabelling(same_seeds: bool) -> None:
    tables = study(rewards=True, same_seeds=same_seeds)
    found = claims(tables)
    row = found["weights:game:utilitarian"]
    observed, p = by_hand(tables, same_seeds)
    assert row["estimate"] == pytest.approx(observed, abs=1e-12)
    assert row["p"] == row["p_adjusted"] == pytest.approx(p, abs=1e-12)
    assert (row["n_units"], row["replicate"]) == (10, "training seeds")
    left = "5 of 45 pairs began from the same seed and are left out"
    assert (left in str(row["statement"])) == same_seeds
    assert "whole updates have a mean cosine of" in str(row["statement"])


def test_pairs_with_one_reach_are_left_out_whatever_their_seeds() -> None:
    tables = study(3, rewards=True)
    near = (pl.col("agent_a") == "game-0") & (pl.col("agent_b") == "utilitarian-2")
    tables["update_distances"] = tables["update_distances"].with_columns(
        reach=pl.when(near).then(0.98).otherwise("reach")
    )
    row = claims(tables)["weights:game:utilitarian"]
    assert "1 of 15 pairs began from the same seed" in str(row["statement"])


# What cannot be said


def test_too_few_seeds_identify_nothing_and_say_how_many_would() -> None:
    found = claims(study(3, rewards=True), explained=True)
    row = found["weights:game:utilitarian"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert row["p"] is None
    assert "3 and 3 of them cannot carry it; 4 seeds of each reward would" in str(row["statement"])
    alone = claims(study(1, rewards=True))
    assert said(alone, "weights:") == set()
    assert "overlap:rewards:outputs" in alone


def test_an_update_of_zero_refutes_what_rests_on_it() -> None:
    tables = study(along=True)
    zero = pl.col("agent") == "game-0"
    tables["update_norms"] = tables["update_norms"].with_columns(
        norm=pl.when(zero).then(0.0).otherwise("norm"),
        rank=pl.when(zero).then(0).otherwise("rank"),
    )
    found = claims(tables)
    for name in ("update:game-0", "writes:game-0", "overlap:rewards:outputs", "moved:layers"):
        assert found[name]["verdict"] == ARTEFACT, name
        assert "is the base under another name" in str(found[name]["statement"])
    assert found["update:game-1"]["verdict"] == SUPPORTED


def test_dead_agents_are_artefacts() -> None:
    found = claims(synthetic.kill(study(along=True), "game-0"))
    assert found["writes:game-0"]["verdict"] == ARTEFACT
    assert found["writes:game-1"]["verdict"] == SUPPORTED


def test_patches_that_are_missing_or_few_layers_leave_the_coincidence_open() -> None:
    tables = study(2, layers=True)
    bare = {name: frame for name, frame in tables.items() if name != "patching"}
    assert "moved:layers" not in claims(bare)
    into_base = tables["patching"].with_columns(source="target", target="source")
    back = claims({**tables, "patching": into_base})["moved:layers"]
    there = claims(tables)["moved:layers"]
    assert back["estimate"] == there["estimate"]
    few = tables["patching"].filter(pl.col("layer") < 5)
    row = claims({**tables, "patching": few}, explained=True)["moved:layers"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert row["estimate"] is None
    elsewhere = tables["patching"].with_columns(target=pl.format("{} again", "target"))
    assert "moved:layers" not in claims({**tables, "patching": elsewhere})


def test_the_coincidence_is_spearmans_over_layers() -> None:
    tables = study(2, layers=True)
    row = claims(tables)["moved:layers"]
    expected = []
    for agent in ("game-0", "game-1", "utilitarian-0", "utilitarian-1"):
        norms, effects = [], []
        for layer in range(weights_planted.LAYERS):
            at = (pl.col("agent") == agent) & (pl.col("layer") == layer)
            norms.append(np.linalg.norm(tables["update_norms"].filter(at)["norm"].to_numpy()))
            patched = tables["patching"].filter(
                (pl.col("target") == agent) & (pl.col("layer") == layer)
            )
            means = patched.group_by("site").agg(pl.col("effect").mean())["effect"]
            effects.append(means.abs().sum())
        expected.append(scipy.stats.spearmanr(norms, effects).statistic)
    assert row["estimate"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert row["n_units"] == weights_planted.LAYERS
    assert row["p_floor"] == 1 / 48


def test_without_comparisons_the_agents_roles_say_what_is_compared() -> None:
    tables = study(2, rewards=True)
    del tables["comparisons"]
    found = claims(tables)
    assert "overlap:seeds:outputs" in found
    assert "overlap:game-0-utilitarian-1:inputs" in found


def test_several_axes_have_claims_of_their_own() -> None:
    tables = study(1)
    for name in ("update_directions", "update_controls"):
        other = tables[name].with_columns(axis=pl.lit("a/b"))
        tables[name] = pl.concat([tables[name], other])
    assert {"writes:game-0:1/2", "reads:game-0:a/b"} <= set(claims(tables))


def test_agents_without_an_update_have_no_share() -> None:
    tables = study(1)
    bare = tables["update_directions"].with_columns(share=pl.lit(None, pl.Float64))
    found = claims({**tables, "update_directions": bare})
    assert said(found, "writes:") == set()
    nothing = claims(
        {"agents": tables["agents"], "update_overlap": from_rows("update_overlap", [])}
    )
    assert nothing == {}
