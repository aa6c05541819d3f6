"""The parts of a decoder, found by their description and checked on the live model."""

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from moralscope.core.errors import ModelError
from moralscope.core.site import Site
from moralscope.models.anatomy import FAMILIES, dissect, epsilon, gain, inverse_rms


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_parts_are_those_of_the_model(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    assert anatomy.model_type == model.config.model_type
    assert (anatomy.n_layers, anatomy.n_heads, anatomy.n_kv_heads, anatomy.width) == (
        4 if family == "gemma2" else 3, 4, 2, 32,
    )  # fmt: skip
    assert anatomy.head_dim == (16 if family in ("qwen3", "gemma2") else 8)
    assert anatomy.unembed is model.lm_head
    assert anatomy.embed is model.model.embed_tokens
    assert anatomy.final_norm is model.model.norm
    for block, layer in zip(anatomy.blocks, model.model.layers, strict=True):
        assert (block.layer, block.mlp) == (layer, layer.mlp)
        assert block.out_proj is layer.self_attn.o_proj
        if family == "gemma2":
            assert block.attention_post_norm is layer.post_attention_layernorm
            assert block.mlp_post_norm is layer.post_feedforward_layernorm
        else:
            assert (block.attention_post_norm, block.mlp_post_norm) == (None, None)
    assert anatomy.softcap == (8.0 if family == "gemma2" else None)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_norms_are_recomputed_from_their_parts(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    x = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    by_hand = x * inverse_rms(anatomy.final_norm, x)
    by_hand = by_hand * gain(anatomy.final_norm, unit_offset=anatomy.unit_offset)
    with torch.no_grad(), tiny.never_narrowed():
        assert torch.allclose(anatomy.final_norm(x), by_hand, atol=1e-12, rtol=0)
    assert epsilon(anatomy.final_norm) == model.config.rms_norm_eps


def test_component_sites_are_every_head_and_mlp_in_depth_order():
    sites = dissect(tiny.tiny_model("llama")).component_sites
    assert len(sites) == 3 * (4 + 1)
    assert [str(site) for site in sites[:6]] == [
        "L0.h0", "L0.h1", "L0.h2", "L0.h3", "L0.mlp", "L1.h0",
    ]  # fmt: skip
    assert sites[-1] == Site("mlp", 2)
    assert list(sites) == sorted(sites)


def test_shapes_are_compared():
    small = dissect(tiny.tiny_model("llama"))
    assert small.same_shape(dissect(tiny.tiny_model("llama", seed=9)))
    assert not small.same_shape(dissect(tiny.tiny_model("llama", num_hidden_layers=2)))
    assert not small.same_shape(dissect(tiny.tiny_model("qwen2")))


def test_an_unknown_architecture_is_refused_by_name():
    with pytest.raises(ModelError, match="The architecture 'gpt2' is not supported") as e:
        dissect(tiny.tiny_model("gpt2"))
    assert "GPT2LMHeadModel" in str(e.value)
    assert "gemma2" in e.value.allowed
    assert set(e.value.allowed.split(", ")) == set(FAMILIES)


def test_a_bare_encoder_is_refused():
    with pytest.raises(ModelError, match="This llama model lacks the part 'model'") as e:
        dissect(tiny.tiny_model("llama").model)
    assert "AutoModelForCausalLM" in e.value.remedy


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 8), ("num_hidden_layers", 5), ("head_dim", 4)]
)
def test_weights_of_another_configuration_are_refused(key: str, value: int):
    model = tiny.tiny_model("llama")
    setattr(model.config, key, value)
    with pytest.raises(ModelError, match="not built as its configuration says") as e:
        dissect(model)
    assert "(32, 3)" in str(e.value.seen)


class Centred(nn.Module):
    """A layer norm, which subtracts the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float64))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight)


def test_a_norm_of_another_kind_is_refused():
    model = tiny.tiny_model("llama")
    model.model.norm = Centred(32)
    with pytest.raises(ModelError, match="not a root-mean-square norm") as e:
        dissect(model)
    assert "Centred" in str(e.value)


def test_a_gain_stored_in_the_other_way_is_noticed():
    model = tiny.tiny_model("llama")
    model.config.model_type = "gemma2"
    for layer in model.model.layers:
        layer.post_feedforward_layernorm = layer.input_layernorm
    with pytest.raises(ModelError, match="not a root-mean-square norm"):
        dissect(model)


def test_a_norm_without_an_epsilon_is_refused():
    nameless: Any = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="A norm of this model has no epsilon"):
        epsilon(nameless)


def test_an_adapter_does_not_hide_the_parts(tmp_path: Any):
    roster = tiny.tiny_roster(tmp_path, "gemma2")
    with roster.speaking("game"):
        anatomy = roster.anatomy("game")
    assert anatomy.n_layers == 4
    assert type(anatomy.blocks[0].out_proj).__module__.startswith("peft")
