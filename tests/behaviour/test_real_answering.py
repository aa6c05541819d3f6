"""A real model answers as it is scored, and is generated as plain forwards generate it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from moralscope.behaviour.speaking.agreement import agreement_table
from moralscope.behaviour.speaking.answering import sampled_answers
from moralscope.core.agents import AgentSpec
from moralscope.games import structured
from moralscope.models.generating import end_tokens, generate
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster
from moralscope.models.tables import decisions_table, prompts_table

pytestmark = pytest.mark.slow


def test_kept_keys_change_no_probability_by_a_ten_thousandth(real_base: LoadedModel) -> None:
    encoded = encode_all(real_base.tokenizer, list(structured())[::16])
    prompts = [read.tokens for read in encoded for _ in range(2)]
    uniforms = np.random.default_rng(0).random((len(prompts), 8))
    ends = end_tokens(real_base.model, real_base.tokenizer)
    answers = generate(real_base.model, prompts, uniforms, ends=ends)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer.tokens]])
        with torch.no_grad():
            log_p = real_base.model(input_ids=ids).logits[0].double().log_softmax(-1)
        steps = range(len(prompt) - 1, len(prompt) + len(answer.tokens) - 1)
        plain = [float(log_p[at, ids[0, at + 1]]) for at in steps]
        assert answer.log_p == pytest.approx(plain, abs=1e-4)


def test_its_answers_follow_its_log_odds(real_base: LoadedModel) -> None:
    roster = Roster(real_base)
    roster.add(AgentSpec(name="base", base="default"))
    prompts = list(structured())[::4]
    encoded = encode_all(real_base.tokenizer, prompts)
    answers = sampled_answers(roster, "base", prompts, encoded, samples=60, max_new_tokens=1)
    decisions = decisions_table(roster, "base", prompts, encoded)
    row = agreement_table(prompts_table(prompts, encoded), decisions, answers).row(0, named=True)
    assert row["p"] > 0.001
    assert row["low"] < 0.0 < row["high"]
    assert row["legal_observed"] == pytest.approx(row["legal_expected"], abs=0.05)
    assert row["correlation"] > 0.7
    wrong = answers.with_columns(
        pl.col("strict").replace({"positive": "negative", "negative": "positive"})
    )
    found = agreement_table(prompts_table(prompts, encoded), decisions, wrong)
    assert found.row(0, named=True)["p"] < 1e-6
