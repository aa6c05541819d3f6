"""Changes of correlation beside effects of patched paths: planted relations, and none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import wired_planted
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims, setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.pathways import pathway_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.judged import claim_rows

Tables = dict[str, pl.DataFrame]


def tables(*, related: float, n: int = 20, p: float = 0.001, tiny: bool = False) -> Tables:
    """Pathways whose effects grow with their changes, by so much, and a network with a p."""
    rng = np.random.default_rng(3)
    change = rng.uniform(0.1, 1.0, n)
    effect = np.abs(related * change + 0.05 * rng.normal(size=n)) * (1e-9 if tiny else 1.0)
    rows = [
        {"comparison": "asked", "agent_a": "game", "agent_b": "utilitarian",
         "measure": "norm_correlation", "sender": f"L{i % 5}.attn", "receiver": f"L{5 + i % 7}.mlp",
         "difference": float(c) * (-1) ** i, "survives": i < 4,
         "chosen_as": "survivor" if i < 4 else "random",
         "effect_a_to_b": float(e) * (-1) ** (i // 2), "effect_b_to_a": float(e) * 0.8}
        for i, (c, e) in enumerate(zip(change, effect, strict=True))
    ]  # fmt: skip
    network = {
        "comparison": "asked", "kind": "named", "agent_a": "game", "agent_b": "utilitarian",
        "measure": "norm_correlation", "sites": 24, "pairs": 276, "prompts": 60,
        "prompts_needed": 178, "scenarios": 20, "changed": 30, "distance": 0.3, "p": p,
        "p_adjusted": p, "reliability": 0.8, "surviving": 4,
    }  # fmt: skip
    sound = {k: v for k, v in wired_planted.pair({}).items() if k != "norms"}
    return {
        **sound,
        "pathways": from_rows("pathways", rows),
        "interaction_networks": from_rows("interaction_networks", [network]),
    }


def claim(made: Tables) -> dict[str, object]:
    setting = setting_of(made, draws=1_999)
    (row,) = claim_rows(setting, list(pathway_findings(setting)))
    return row


def test_effects_that_grow_with_changes_are_found() -> None:
    made = tables(related=1.0)
    row = claim(made)
    assert row["id"] == "pathways:game:utilitarian"
    assert row["verdict"] == "supported"
    rows = made["pathways"]
    size = (rows["effect_a_to_b"].abs() + rows["effect_b_to_a"].abs()).to_numpy()
    expected = stats.spearmanr(rows["difference"].abs().to_numpy(), size).statistic
    assert row["estimate"] == pytest.approx(expected, abs=1e-12)
    assert (row["n_units"], row["replicate"]) == (20, "pathways")
    assert "4 of which survive" in str(row["statement"])


def test_effects_of_their_own_are_not() -> None:
    row = claim(tables(related=0.0))
    assert row["verdict"] == "not distinguishable from noise"
    # The published relation, r = .67, would have been seen with so many pathways.
    assert float(str(row["detectable"])) < 0.67


def test_effects_that_follow_noise_mean_nothing() -> None:
    """The relation is there; the network itself is what swapping labels gives as well."""
    row = claim(tables(related=1.0, p=0.6))
    assert row["p_adjusted"] == 0.6
    assert row["verdict"] == "not distinguishable from noise"


def test_smaller_effects_of_larger_changes_contradict_it() -> None:
    made = tables(related=1.0)
    rows = made["pathways"].with_columns(
        effect_a_to_b=1.0 - pl.col("difference").abs(), effect_b_to_a=pl.lit(0.0)
    )
    row = claim({**made, "pathways": rows})
    assert row["estimate"] == pytest.approx(-1.0)
    assert row["verdict"] == "not distinguishable from noise"
    assert "carry smaller effects" in str(row["reason"])


def test_too_few_pathways_have_no_order() -> None:
    row = claim(tables(related=1.0, n=5))
    assert row["verdict"] == "not identified by this design"
    assert "5 pathways have no order to speak of" in str(row["reason"])
    made = tables(related=1.0, n=5)
    claims = make_claims(made, draws=199)
    found = explain_claim(made, claims, judge_gates(made), "pathways:game:utilitarian")
    assert claims.filter(id="pathways:game:utilitarian")["estimate"].to_list() == [None]
    assert found.recomputed is None  # nor does the query state what the claim does not
    assert found.agrees


def test_effects_below_numerical_noise_are_none() -> None:
    made = tables(related=1.0, tiny=True)
    controls = from_rows("controls", [
        {"control": "self", "subject": "game>utilitarian", "prompt": "s0w01", "value": 1e-6}
    ])  # fmt: skip
    row = claim({**made, "controls": controls})
    assert row["verdict"] == "not identified by this design"
    assert "no path has an effect above numerical noise (1e-06 nats)" in str(row["reason"])


def test_networks_that_were_not_tested_leave_it_open() -> None:
    made = tables(related=1.0)
    del made["interaction_networks"]
    row = claim(made)
    assert row["verdict"] == "not identified by this design"
    assert "the networks of the two agents were not tested" in str(row["reason"])


def test_the_query_gives_the_estimate_and_leads_to_the_rows() -> None:
    made = tables(related=0.5)
    claims, gates = make_claims(made, draws=199), judge_gates(made)
    found = explain_claim(made, claims, gates, "pathways:game:utilitarian")
    row = claims.filter(id="pathways:game:utilitarian").row(0, named=True)
    assert found.recomputed == pytest.approx(row["estimate"], abs=1e-12)
    assert found.agrees
    assert found.units.height == found.n_rows == 20
    assert {"difference", "effect_a_to_b", "effect_b_to_a"} <= set(found.first.columns)
