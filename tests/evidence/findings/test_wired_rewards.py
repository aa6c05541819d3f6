"""Rewards that wire agents differently, and seeds that do: only the first is a reward's doing."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import wired_planted

from moralscope.evidence.claims import setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.wired_rewards import wired_reward_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.judged import claim_rows

PLANTED = {"L0.mlp": 0.9, "L2.attn": 0.9}
Tables = dict[str, pl.DataFrame]


def claims(made: Tables) -> dict[str, dict[str, object]]:
    setting = setting_of(made, draws=999)
    return {str(r["id"]): r for r in claim_rows(setting, list(wired_reward_findings(setting)))}


def apart(made: Tables) -> float:
    """The estimate from numpy alone: Fisher z of every pair of sites, agent by agent."""
    z: dict[str, np.ndarray] = {}
    for (agent,), rows in made["norms"].group_by("agent"):
        wide = rows.pivot("site", index="prompt", values="norm").drop("prompt").to_numpy()
        z[str(agent)] = np.arctanh(np.corrcoef(wide.T)[np.triu_indices(wide.shape[1], 1)])
    between, within = [], []
    for (a, one), (b, other) in itertools.combinations(z.items(), 2):
        same = a.split("-")[0] == b.split("-")[0]
        if a.split("-")[1] == b.split("-")[1]:
            continue  # from one seed
        (within if same else between).append(np.sqrt(np.mean((one - other) ** 2)))
    return float(np.mean(between) - np.mean(within))


@pytest.fixture(scope="module")
def different() -> Tables:
    return wired_planted.of_rewards({"game": PLANTED, "utilitarian": {}}, 5)


def test_a_planted_pathway_of_one_reward_is_found(different: Tables) -> None:
    (claim,) = claims(different).values()
    assert claim["id"] == "replicates:wiring"
    assert claim["p"] == pytest.approx(2 / 252)  # the floor of two rewards with five seeds
    assert claim["estimate"] == pytest.approx(apart(different), abs=1e-12)
    # No fingerprint, so liveness is unknown; what was found was found nevertheless.
    assert claim["verdict"] == "supported"
    assert "10 training seeds" in str(claim["statement"])


def test_rewards_that_wire_alike_are_not_told_apart() -> None:
    same = wired_planted.of_rewards({"game": PLANTED, "utilitarian": PLANTED}, 5, seed=2)
    (claim,) = claims(same).values()
    assert float(str(claim["p"])) > 0.05
    assert claim["verdict"] != "supported"


def test_two_seeds_identify_nothing() -> None:
    few = wired_planted.of_rewards({"game": PLANTED, "utilitarian": {}}, 2)
    (claim,) = claims(few).values()
    assert claim["verdict"] == "not identified by this design"
    assert "2, 2 seeds of the 2 rewards cannot carry it" in str(claim["reason"])


def test_the_query_gives_the_estimate(different: Tables) -> None:
    (claim,) = claims(different).values()
    named = pl.DataFrame([claim], infer_schema_length=None)
    found = explain_claim(different, named, judge_gates(different), "replicates:wiring")
    assert found.recomputed == pytest.approx(claim["estimate"], abs=1e-9)
    assert found.units.get_column("unit").n_unique() == 10


def test_seeds_that_are_one_run_are_an_artefact(different: Tables) -> None:
    own = different["norms"].filter(agent="game-0").with_columns(agent=pl.lit("game-1"))
    norms = pl.concat([different["norms"].filter(pl.col("agent") != "game-1"), own])
    (claim,) = claims({**different, "norms": norms}).values()
    assert claim["verdict"] == "artefact"
    assert "game-0 and game-1" in str(claim["reason"])


def test_sizes_and_pushes_are_one_family(different: Tables) -> None:
    pushes = different["norms"].rename({"norm": "projection"})
    found = claims({**different, "projections": pushes})
    assert set(found) == {"replicates:wiring", "replicates:wiring:projection"}
    assert {claim["n_tests"] for claim in found.values()} == {2}
    assert [claim["p_adjusted"] for claim in found.values()] == pytest.approx([4 / 252] * 2)
