"""Base weights in 4 bits: what they stand for, un-merged adapters over them, and traps."""

import sys
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import tiny
import torch
from torch import nn

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import DependencyError, ModelError
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.models.quantised import dequantised, is_four_bit, keep_readable
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import score
from moralscope.models.weights import base_weight, bias_of, effective_weight, in_features, shape_of

# The sixteen numbers of NF4, as printed in appendix E of Dettmers et al. (2023).
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK = 64
SIZES: dict[str, dict[str, int]] = {
    "llama_bias": {"hidden_size": 64, "intermediate_size": 128},
    "gpt2": {"n_embd": 64},
}


@pytest.fixture(scope="module", params=SIZES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    family: str = request.param
    place = tiny.save_base(tmp_path_factory.mktemp(family) / "base", family, **SIZES[family])
    return load_model(locate_model(str(place)), dtype="nf4")


def four_bit_layers(model: nn.Module) -> dict[str, Any]:
    """The layers whose base is in 4 bits, as the model calls them."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in model.named_modules()
        if is_four_bit(module)
    }


def nearest_code(weight: torch.Tensor) -> torch.Tensor:
    """NF4 with exact scales: every weight at the nearest of sixteen numbers times its block's."""
    blocks = weight.double().reshape(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True)
    code = torch.tensor(NF4, dtype=torch.float64)
    index = (blocks[..., None] / scale[..., None] - code).abs().argmin(-1)
    return (code[index] * scale).reshape(weight.shape)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tiny.token_prompts()[0].tokens])).logits


def test_a_4_bit_weight_is_the_nearest_code_times_its_scale(loaded: LoadedModel):
    model: Any = loaded.model
    family = "gpt2" if model.config.model_type == "gpt2" else "llama_bias"
    plain = tiny.tiny_model(family, dtype=torch.float32, **SIZES[family])
    layers = four_bit_layers(loaded.model)
    assert len(layers) == (12 if family == "gpt2" else 21)
    for name, layer in layers.items():
        own = plain.get_submodule(name).weight
        own = own.T.contiguous() if family == "gpt2" else own
        found = base_weight(layer)
        assert (found.dtype, found.shape) == (torch.float32, own.shape)
        assert shape_of(layer) == own.shape
        assert in_features(layer) == own.shape[1]
        expected = nearest_code(own)
        # Scales are stored in 8 bits themselves, which moves a weight by up to a per cent.
        assert (found - expected).abs().max() < 0.015 * expected.abs().max()
        assert (found - own).norm() > 0.05 * own.norm()
        assert torch.equal(bias_of(layer), plain.get_submodule(name).bias)


def test_it_stays_readable_and_exact_after_it_has_been_used(loaded: LoadedModel):
    layers = four_bit_layers(loaded.model)
    before = {name: base_weight(layer) for name, layer in layers.items()}
    first = logits(loaded.model)
    assert torch.equal(logits(loaded.model), first)
    for name, layer in layers.items():
        found = effective_weight(layer)
        assert torch.equal(found, before[name])
        n = found.shape[1]
        with torch.no_grad():
            rows = layer(torch.eye(n)) - layer(torch.zeros(1, n))
        assert (rows.T - found).abs().max() < 1e-5  # float32 arithmetic, not bfloat16


def test_all_but_the_linear_layers_stay_as_they_are(loaded: LoadedModel):
    assert loaded.dtype == "nf4"
    whole = {name for name, p in loaded.model.named_parameters() if p.dtype == torch.float32}
    narrow = {name for name, p in loaded.model.named_parameters() if p.dtype == torch.uint8}
    assert narrow == {f"{name}.weight" for name in four_bit_layers(loaded.model)}
    assert any("embed" in name or "wte" in name for name in whole)
    assert not is_four_bit(loaded.model.get_output_embeddings())
    assert not any(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
@pytest.mark.parametrize("family", SIZES)
def test_adapters_over_4_bits_are_un_merged_and_exact(
    tmp_path: Path, family: str, settings: dict[str, Any]
):
    base = tiny.save_base(tmp_path / "base", family, **SIZES[family])
    roster = Roster(load_model(locate_model(str(base)), dtype="nf4"))
    roster.add(AgentSpec(name="base", base="tiny"))
    alone = logits(roster.base.model)
    plain = tiny.tiny_model(family, dtype=torch.float32, **SIZES[family])
    place = tiny.save_adapter(tmp_path / "game", plain, **settings)
    roster.add(AgentSpec(name="game", base="tiny", adapter=str(place)))
    with roster.speaking("game") as model:
        heard = logits(model)
        for name in four_bit_layers(model):
            layer = model.get_submodule(name)
            weight = effective_weight(layer)
            with torch.no_grad():
                n = weight.shape[1]
                rows = layer(torch.eye(n)) - layer(torch.zeros(1, n))
            assert (rows.T - weight).abs().max() < 1e-5
            assert (weight - base_weight(layer)).abs().max() > 0.01
    with roster.speaking("base") as model:
        assert torch.equal(logits(model), alone)
    assert (heard - alone).abs().max() > 0.05


def test_weights_rearranged_for_a_processor_are_refused():
    layer: Any = bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4")
    with pytest.raises(ModelError, match="A 4-bit weight cannot be read") as e:
        dequantised(layer)
    assert e.value.seen == "it has no scales yet"
    layer.to("cpu")
    whole = dequantised(layer)
    assert keep_readable(nn.Sequential(layer)) == 1
    layer.eval()(torch.zeros(1, 64))
    assert torch.equal(dequantised(layer), whole)
    # What a forward does on processors with bfloat16 instructions, unless it is kept from it.
    pack = bitsandbytes.functional._convert_weight_packed_for_cpu
    layer.weight.data, layer.weight.quant_state = pack(layer.weight.data, layer.weight.quant_state)
    with pytest.raises(ModelError, match="A 4-bit weight cannot be read") as e:
        effective_weight(layer)
    assert e.value.seen == "it was rearranged for this processor"
    assert 'dtype="nf4"' in e.value.remedy


def test_layers_that_the_processor_would_get_wrong_are_refused(tmp_path: Path):
    source = locate_model(str(tiny.save_base(tmp_path)))  # 32 inputs: half a block
    with pytest.raises(ModelError, match="cannot be stored in 4 bits on this device") as e:
        load_model(source, dtype="nf4")
    assert e.value.seen == "model.layers.0.self_attn.q_proj with 32 inputs on cpu"
    layer: Any = bitsandbytes.nn.Linear4bit(96, 4, quant_type="nf4").to("cpu")
    with pytest.raises(ModelError, match="a layer with 96 inputs"):
        effective_weight(layer)


def test_8_bits_are_refused_by_name():
    layer = bitsandbytes.nn.Linear8bitLt(8, 8, has_fp16_weights=False)
    with pytest.raises(ModelError, match="not a plain linear layer") as e:
        effective_weight(layer)
    assert "bitsandbytes.nn.modules.Linear8bitLt" in str(e.value.seen)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = locate_model(str(tiny.save_base(tmp_path, **SIZES["llama_bias"])))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(DependencyError, match="bitsandbytes is not installed") as e:
        load_model(source, dtype="nf4")
    assert e.value.remedy == 'run: pip install "moralscope[quantised]"'
    assert load_model(source).dtype == "float32"


@pytest.mark.slow
def test_the_default_model_in_4_bits_weighs_a_third_and_decides_alike():
    wide, narrow = (load_model(locate_model(), dtype=dtype) for dtype in ("float32", "nf4"))
    prompts = encode_all(wide.tokenizer, tiny.worded_prompts(8))
    assert _size(narrow.model) < 0.35 * _size(wide.model)
    gaps = abs(score(narrow.model, prompts).log_odds - score(wide.model, prompts).log_odds)
    assert 0.01 < gaps.max() < 3
    layer = narrow.model.get_submodule("model.layers.7.mlp.down_proj")
    found = effective_weight(layer)
    own = wide.model.get_submodule("model.layers.7.mlp.down_proj").weight
    assert (found - nearest_code(own)).abs().max() < 0.015 * own.abs().max()
    with torch.no_grad():
        rows = layer(torch.eye(found.shape[1]))
    assert (rows.T - found).abs().max() < 1e-6


def _size(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
