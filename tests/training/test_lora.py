"""Adapters: they start at the base, leave it untouched, and are saved as PEFT reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moralscope.games import structured
from moralscope.models.libraries import (
    peft,
    renamed_properties_tolerated,
    safetensors_torch,
    transformers,
)
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.scoring import score
from moralscope.training.config import LoraSettings
from moralscope.training.lora import adapted, save_adapter, trainable

SETTINGS = LoraSettings(rank=4, alpha=8.0)


def weights(base: LoadedModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in base.model.state_dict().items()}


def assert_untouched(base: LoadedModel, before: dict[str, Tensor]) -> None:
    now = base.model.state_dict()
    assert list(now) == list(before)
    assert all(torch.equal(now[k], before[k]) for k in before)
    assert not any(p.requires_grad for p in base.model.parameters())


def drawn(base: LoadedModel, seed: int) -> dict[str, Tensor]:
    with adapted(base, SETTINGS, seed) as wrapped:
        return {k: p.detach().clone() for k, p in trainable(wrapped).items()}


def test_an_adapter_starts_exactly_at_the_base(base: LoadedModel) -> None:
    encoded = encode_all(base.tokenizer, tuple(structured()))
    before = score(base.model, encoded)
    with adapted(base, SETTINGS, 0):
        now = score(base.model, encoded)
    assert (now.log_p_positive == before.log_p_positive).all()
    assert (now.log_p_negative == before.log_p_negative).all()


def test_factors_stand_beside_every_linear_layer_but_the_unembedding(base: LoadedModel) -> None:
    linear = {
        name
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    factors = drawn(base, 0)
    beside = {k.removeprefix("base_model.model.").split(".lora_")[0] for k in factors}
    assert beside == linear
    assert len(factors) == 2 * len(linear)


def test_a_is_uniform_within_its_bounds_and_b_is_zero(base: LoadedModel) -> None:
    for name, value in drawn(base, 3).items():
        if ".lora_B." in name:
            assert not value.any()
        else:
            bound = 1 / math.sqrt(value.shape[1])
            assert value.abs().max() <= bound
            assert value.std() == pytest.approx(bound / math.sqrt(3), rel=0.25)
            assert abs(float(value.mean())) < 0.25 * bound


def test_the_draw_is_the_seeds(base: LoadedModel) -> None:
    first, again, other = drawn(base, 1), drawn(base, 1), drawn(base, 2)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first if ".lora_A." in k)
    shapes: dict[tuple[int, ...], list[Tensor]] = {}
    for name, value in first.items():
        if ".lora_A." in name:
            shapes.setdefault(tuple(value.shape), []).append(value)
    for same in shapes.values():  # no two layers start alike
        assert not any(torch.equal(same[0], value) for value in same[1:])


def test_the_base_leaves_as_it_entered(base: LoadedModel) -> None:
    before = weights(base)
    with adapted(base, SETTINGS, 0) as wrapped:
        with torch.no_grad():
            for parameter in trainable(wrapped).values():
                parameter.add_(1.0)
        frozen = [p for n, p in wrapped.named_parameters() if ".lora_" not in n]
        assert frozen
        assert not any(p.requires_grad for p in frozen)
    assert_untouched(base, before)


def test_the_base_leaves_as_it_entered_after_an_error(base: LoadedModel) -> None:
    before = weights(base)

    def break_off() -> None:
        with adapted(base, SETTINGS, 0) as wrapped:
            with torch.no_grad():
                for parameter in trainable(wrapped).values():
                    parameter.add_(1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert_untouched(base, before)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_saved_adapter_is_read_by_peft_alone(
    base: LoadedModel, tmp_path: Path, rslora: bool
) -> None:
    encoded = encode_all(base.tokenizer, tuple(structured()))
    settings = LoraSettings(rank=4, alpha=8.0, rslora=rslora)
    generator = torch.Generator().manual_seed(5)
    with adapted(base, settings, 0) as wrapped:
        with torch.no_grad():
            for parameter in trainable(wrapped).values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        here = score(base.model, encoded).log_odds
        save_adapter(wrapped, tmp_path, base.source.name)
    assert abs(here - score(base.model, encoded).log_odds).max() > 0.01
    plain = transformers.AutoModelForCausalLM.from_pretrained(str(base.source.folder))
    with renamed_properties_tolerated():
        loaded = peft.PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    there = score(loaded.get_base_model(), encoded).log_odds
    assert abs(here - there).max() < 1e-5


def test_what_is_saved_is_what_peft_expects(base: LoadedModel, tmp_path: Path) -> None:
    with adapted(base, SETTINGS, 0) as wrapped:
        save_adapter(wrapped, tmp_path, "some/base")
        kept = {k: p.detach().clone() for k, p in trainable(wrapped).items()}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8.0, "LORA")
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["inference_mode"] is True
    saved = safetensors_torch.load_file(str(tmp_path / "adapter_model.safetensors"))
    assert {k.replace(".trained.", "."): v.shape for k, v in kept.items()} == {
        k: v.shape for k, v in saved.items()
    }
    assert {p.name for p in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
