"""The same weights computed otherwise: what must stay, what may move, and that all is put back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from moralscope.core.errors import ModelError
from moralscope.core.tables import from_rows
from moralscope.models.replicas import other_kernel, replica_rows, round_weights, under_kernel
from moralscope.models.scoring import score


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_another_kernel_gives_the_same_answers_on_the_prompt_tree(family: str) -> None:
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(forms="several")
    was = model.config._attn_implementation
    before = score(model, prompts).log_odds
    kernel = other_kernel(model)
    assert {was, kernel} == {"sdpa", "eager"}
    ran: list[str] = []
    with under_kernel(model, str(kernel)):
        ran.append(model.config._attn_implementation)
        after = score(model, prompts).log_odds
    assert ran == [kernel]
    assert model.config._attn_implementation == was
    assert np.abs(after - before).max() < 1e-10
    assert np.ptp(before) > 0.1


def test_another_kernel_is_really_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the sums differ in their last digits, and fused attention is not called."""
    model = tiny.tiny_model(dtype=torch.float32)
    prompts = tiny.token_prompts()
    before = score(model, prompts).log_odds

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("fused attention was called")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    with under_kernel(model, "eager"):
        after = score(model, prompts).log_odds
    assert 0.0 < np.abs(after - before).max() < 1e-4


def test_the_kernel_comes_back_whatever_happens() -> None:
    model = tiny.tiny_model()
    with pytest.raises(KeyboardInterrupt), under_kernel(model, "eager"):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == "sdpa"


def test_a_soft_cap_of_attention_is_known_to_plain_attention_alone() -> None:
    model = tiny.tiny_model("gemma2")
    model.set_attn_implementation("eager")
    assert model.config.attn_logit_softcapping is not None
    assert other_kernel(model) is None


def test_a_model_that_keeps_its_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.tiny_model()
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda *_: None)
    with (
        pytest.raises(ModelError, match="cannot change its attention kernel.*kernel: false"),
        under_kernel(model, "eager"),
    ):
        pass


def test_rounded_weights_are_those_of_a_narrow_copy_in_wide_arithmetic() -> None:
    model = tiny.tiny_model(dtype=torch.float32)
    prompts = tiny.token_prompts()
    before = score(model, prompts).log_odds
    narrow = copy.deepcopy(model)
    stored = {name: value.bfloat16() for name, value in model.state_dict().items()}
    narrow.load_state_dict(stored)  # into float32 again; only weights are stored
    expected = score(narrow, prompts).log_odds
    assert round_weights(model, torch.bfloat16) > 1000
    found = score(model, prompts).log_odds
    assert np.array_equal(found, expected)
    assert np.abs(found - before).max() > 1e-3
    assert next(model.parameters()).dtype == torch.float32
    assert round_weights(model, torch.bfloat16) == 0


def test_what_is_undefined_is_null_in_the_table() -> None:
    prompts = tiny.token_prompts(2)
    rows = replica_rows(
        "base", prompts, np.array([1.0, np.nan]), np.array([np.nan, 2.0]), how=("kernel", "eager")
    )
    table = from_rows("replicas", rows)
    assert table["log_odds"].to_list() == [None, 2.0]
    assert table["reference_log_odds"].to_list() == [1.0, None]
    assert table.select("agent", "change", "setting").unique().rows() == [
        ("base", "kernel", "eager")
    ]
