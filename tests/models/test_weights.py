"""Effective weights: what a projection computes, its un-merged adapter included."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from torch import nn

from moralscope.core.errors import ModelError
from moralscope.models.libraries import renamed_properties_tolerated
from moralscope.models.weights import active_updates, bias_of, effective_weight, in_features


def projection(roster: Any) -> Any:
    return roster.base.model.model.layers[1].self_attn.o_proj


def as_computed(linear: nn.Module, n: int) -> torch.Tensor:
    """The matrix of a linear layer, one unit vector at a time."""
    with torch.no_grad():
        rows = linear(torch.eye(n, dtype=torch.float64)) - linear(
            torch.zeros(1, n, dtype=torch.float64)
        )
    return rows.T


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize("family", ["llama", "llama_bias"])
def test_the_effective_weight_is_what_the_layer_computes(tmp_path: Path, family: str, rslora: bool):
    roster = tiny.tiny_roster(tmp_path, family, settings={"use_rslora": rslora, "rank": 5})
    linear = projection(roster)
    seen: list[torch.Tensor] = []
    for name in ("base", "game", "moral", "base"):
        with roster.speaking(name):
            weight = effective_weight(linear)
            assert torch.allclose(weight, as_computed(linear, 32), atol=1e-12, rtol=0)
            seen.append(weight)
    base, game, moral, again = seen
    assert torch.equal(base, again)
    assert (game - base).abs().max() > 0.01
    assert (game - moral).abs().max() > 0.01
    a, b, scaling = updates_of(roster, "game")
    assert scaling == pytest.approx(10 / 5**0.5 if rslora else 2.0)
    assert torch.allclose(game - base, scaling * b @ a, atol=1e-12, rtol=0)


def updates_of(roster: Any, name: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    with roster.speaking(name):
        (update,) = active_updates(projection(roster))
    return update


def test_the_base_has_no_updates_beside_silent_adapters(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path)
    with roster.speaking("base"):
        assert list(active_updates(projection(roster))) == []
    assert list(active_updates(nn.Linear(2, 2))) == []


def test_biases_and_sizes_are_read_through_the_adapter(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, "llama_bias")
    linear = projection(roster)
    bias = bias_of(linear)
    assert bias is not None
    assert torch.equal(bias, linear.base_layer.bias)
    assert in_features(linear) == 32
    assert bias_of(nn.Linear(2, 2, bias=False)) is None


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_effective_weights_of_any_shape(n_in: int, n_out: int, rank: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(n_in, n_out, bias=False, dtype=torch.float64))
    config = LoraConfig(r=rank, lora_alpha=3, target_modules=["0"], init_lora_weights=False)
    with renamed_properties_tolerated():
        untyped: Any = model
        wrapped = PeftModel(untyped, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    found = effective_weight(model[0])
    assert torch.allclose(found, as_computed(model[0], n_in), atol=1e-10, rtol=0)


def test_narrow_weights_are_widened():
    assert effective_weight(nn.Linear(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_merged_adapter_is_refused(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path)
    linear = projection(roster)
    with roster.speaking("game"):
        linear.merge()
        with pytest.raises(ModelError, match="An adapter is merged into the base weights") as e:
            effective_weight(linear)
        linear.unmerge()
    assert e.value.seen == "game"


def test_what_is_not_linear_is_refused():
    with pytest.raises(ModelError, match="not a plain linear layer") as e:
        effective_weight(nn.Embedding(2, 2))
    assert "Embedding" in str(e.value)
