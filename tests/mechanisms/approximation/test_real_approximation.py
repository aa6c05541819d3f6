"""Approximations on real weights: SmolLM2 in float32, one adapter patched into the base."""

import polars as pl
import pytest
import tiny
from worlds import clean_runs

from moralscope.core.agents import AgentSpec
from moralscope.core.streams import stream
from moralscope.evidence.gates.approximation import rank_by
from moralscope.evidence.gates.judging import judge_gates
from moralscope.games import structured
from moralscope.mechanisms.approximation.tables import (
    agreement_table,
    approximation_table,
    sample_sites,
)
from moralscope.mechanisms.patching.tables import patching_table
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster

pytestmark = pytest.mark.slow


def test_a_small_adapter_is_estimated_well_and_every_method_is_judged(
    real_base: LoadedModel, tmp_path_factory: pytest.TempPathFactory
):
    place = tiny.save_adapter(
        tmp_path_factory.mktemp("adapter"), real_base.model, seed=1, rank=8, size=0.03
    )
    roster = Roster(real_base)
    roster.add(AgentSpec(name="base", base="default"))
    roster.add(AgentSpec(name="game", base="default", adapter=str(place)))
    try:
        prompts = encode_all(real_base.tokenizer, tuple(structured())[::16][:2])
        runs = clean_runs(roster, prompts)
        with roster.speaking("base") as model:
            anatomy = roster.anatomy("base")
            estimates = approximation_table(
                model, anatomy, runs["game"], runs["base"], methods=("attribution_patching", "relp")
            )
            sites = sample_sites(anatomy.sites("head", "attn", "mlp"), 30, stream(0, "sample"))
            exact, _ = patching_table(model, anatomy, runs["game"], runs["base"], sites=sites)
    finally:
        roster._wrapped.unload()
        real_base.model.requires_grad_(requires_grad=False)
    assert estimates.height == 2 * 2 * 30 * 11
    agreement = agreement_table(estimates, exact)
    tangent = agreement.filter(pl.col("method") == "attribution_patching")
    assert tangent.get_column("n").to_list() == [20, 20, 20, 60]
    assert tangent.get_column("pearson").min() > 0.98
    assert tangent.get_column("spearman").min() > 0.95
    gates = judge_gates({"approximations": estimates, "agreement": agreement})
    judged = dict(gates.select("subject", "passed").iter_rows())
    assert judged["attribution_patching game>base"] is True
    # Replacing gradients by relevance is meant for large changes; this one is small.
    assert judged["relp game>base"] is False
    ranked = rank_by(estimates.filter(pl.col("method") == "attribution_patching"), agreement)
    assert ranked.height == 30 * 11
