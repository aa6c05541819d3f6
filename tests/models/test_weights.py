"""Effective weights: what a projection computes, its un-merged adapter included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from moralscope.core.errors import ModelError
from moralscope.models.libraries import renamed_properties_tolerated
from moralscope.models.weights import (
    active_updates,
    base_weight,
    bias_of,
    changes_nothing,
    effective_weight,
    in_features,
    shape_of,
)


def projection(roster: Any, family: str = "llama") -> Any:
    model = roster.base.model
    if family == "gpt2":
        return model.transformer.h[1].mlp.c_proj
    return model.model.layers[1].self_attn.o_proj


def as_computed(linear: nn.Module, n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The matrix of a linear layer, one unit vector at a time."""
    with torch.no_grad():
        rows = linear(torch.eye(n, dtype=dtype)) - linear(torch.zeros(1, n, dtype=dtype))
    return rows.T


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "patterns": {"rank_pattern": {"1.*[co]_proj": 2}, "alpha_pattern": {"1.*[co]_proj": 7}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "llama_bias", "gpt2"])
def test_the_effective_weight_is_what_the_layer_computes(tmp_path: Path, family: str, kind: str):
    roster = tiny.tiny_roster(tmp_path, family, settings={"rank": 5, **KINDS[kind]})
    linear = projection(roster, family)
    n_in = 4 * 32 if family == "gpt2" else 32
    assert shape_of(linear) == (32, n_in)
    seen: list[torch.Tensor] = []
    for name in ("base", "game", "moral", "base"):
        with roster.speaking(name):
            weight = effective_weight(linear)
            assert torch.allclose(weight, as_computed(linear, n_in), atol=1e-12, rtol=0)
            with torch.no_grad():
                bias = linear(torch.zeros(n_in, dtype=torch.float64))
            found = bias_of(linear)
            found = torch.zeros_like(bias) if found is None else found
            assert torch.allclose(found, bias, atol=1e-12)
            seen.append(weight)
    base, game, moral, again = seen
    assert torch.equal(base, again)
    assert torch.equal(base, base_weight(linear))
    assert (game - base).abs().max() > 0.01
    assert (game - moral).abs().max() > 0.01
    if kind != "dora":
        a, b, scaling = updates_of(roster, "game", family)
        expected = {"rslora": 10 / 5**0.5, "patterns": 7 / 2}.get(kind, 2.0)
        assert scaling == pytest.approx(expected)
        assert a.shape == (2 if kind == "patterns" else 5, n_in)
        assert torch.allclose(game - base, scaling * b @ a, atol=1e-12, rtol=0)


def updates_of(
    roster: Any, name: str, family: str = "llama"
) -> tuple[torch.Tensor, torch.Tensor, float]:
    with roster.speaking(name):
        (update,) = active_updates(projection(roster, family))
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


Configs = dict[str, dict[str, Any]]


def adapted(layer: nn.Module, adapters: Configs, seed: int = 0) -> tuple[Any, Any]:
    """A layer with random adapters, all active in this order; and the whole PEFT model."""
    generator = torch.Generator().manual_seed(seed)
    model: Any = nn.Sequential(layer)
    wrapped: Any = None
    with renamed_properties_tolerated():
        for name, settings in adapters.items():
            plain = {"r": 3, "lora_alpha": 4, "target_modules": ["0"], "init_lora_weights": False}
            config = LoraConfig(**{**plain, **settings})
            if wrapped is None:
                wrapped = PeftModel(model, config, adapter_name=name)
            else:
                wrapped.add_adapter(name, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise)
    wrapped.base_model.set_adapter(list(adapters))
    wrapped.eval().requires_grad_(False)
    return model[0], wrapped


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.booleans(), st.integers(0, 10_000)
)
def test_effective_weights_of_any_shape(n_in: int, n_out: int, rank: int, dora: bool, seed: int):
    layer = nn.Linear(n_in, n_out, bias=False, dtype=torch.float64)
    linear, _ = adapted(layer, {"x": {"r": rank, "use_dora": dora}}, seed)
    found = effective_weight(linear)
    assert torch.allclose(found, as_computed(linear, n_in), atol=1e-9, rtol=1e-9)


DORA: dict[str, Any] = {"use_dora": True}


@pytest.mark.parametrize("layer", [nn.Linear(6, 5), Conv1D(5, 6)], ids=["linear", "conv1d"])
@pytest.mark.parametrize(
    "kinds",
    [({}, {}), ({}, DORA), (DORA, {}), (DORA, DORA), ({"use_rslora": True}, {"lora_bias": True})],
)
def test_several_active_adapters_act_in_turn(layer: nn.Module, kinds: tuple[dict[str, Any], ...]):
    named: Configs = dict(zip("ab", kinds, strict=True))
    linear, wrapped = adapted(layer.double(), named)
    both = effective_weight(linear)
    assert torch.allclose(both, as_computed(linear, 6), atol=1e-10, rtol=0)
    bias = bias_of(linear)
    assert bias is not None
    assert torch.allclose(bias, linear(torch.zeros(6, dtype=torch.float64)), atol=1e-10, rtol=0)
    with wrapped.disable_adapter():
        alone = effective_weight(linear)
        assert torch.equal(alone, base_weight(linear))
        assert torch.equal(alone, as_computed(linear, 6)) or torch.allclose(
            alone, as_computed(linear, 6), atol=1e-12
        )
    wrapped.base_model.set_adapter("a")
    one = effective_weight(linear)
    assert torch.allclose(one, as_computed(linear, 6), atol=1e-10, rtol=0)
    assert min(float((x - y).abs().max()) for x, y in ((both, alone), (both, one))) > 0.1
    wrapped.base_model.unload()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_narrow_weights_are_widened_before_the_adapter_is_added(
    tmp_path: Path, family: str, dtype: torch.dtype
):
    small = {"size": 0.01, "rank": 4}
    roster = tiny.tiny_roster(tmp_path, family, dtype=dtype, settings=small)
    linear = projection(roster, family)
    with roster.speaking("game"):
        weight = effective_weight(linear)
        (update,) = active_updates(linear)
    a, b, scaling = (x.double() if isinstance(x, torch.Tensor) else x for x in update)
    stored = linear.base_layer.weight
    assert stored.dtype == dtype
    assert weight.dtype == torch.float32
    stored = stored.T if family == "gpt2" else stored
    exact = stored.double() + scaling * b @ a
    assert (weight - exact).abs().max() < 1e-6 * exact.abs().max()
    narrow = (stored + (scaling * b @ a).to(dtype)).double()
    assert (narrow - exact).norm() > 0.05 * (scaling * b @ a).norm() * (dtype == torch.bfloat16)
    assert (narrow - exact).norm() > 20 * (weight - exact).norm()
    with roster.speaking("game"):
        computed = as_computed(linear, weight.shape[1], dtype)
    assert (computed - weight).abs().max() < 0.05 * weight.abs().max()


def test_a_merged_adapter_is_refused(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path)
    linear = projection(roster)
    with roster.speaking("game"):
        linear.merge()
        with pytest.raises(ModelError, match="An adapter is merged into the base weights") as e:
            effective_weight(linear)
        linear.unmerge()
    assert e.value.seen == "game"


def test_weights_that_include_their_adapter_are_not_added_to_again(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, "gpt2")
    linear = projection(roster, "gpt2")
    with roster.speaking("game"):
        before = effective_weight(linear)
        linear.merge()
        with pytest.raises(ModelError, match="An adapter is merged into the base weights"):
            effective_weight(linear)
        with pytest.raises(ModelError, match="An adapter is merged into the base weights"):
            bias_of(linear)
        merged = linear.get_base_layer()
    assert torch.allclose(effective_weight(merged), before, atol=1e-12)


def test_an_adapter_that_drops_inputs_is_refused_until_it_is_evaluated():
    linear, wrapped = adapted(nn.Linear(4, 4), {"x": {"lora_dropout": 0.5}})
    steady = effective_weight(linear)
    wrapped.train()
    with pytest.raises(ModelError, match="drops inputs at random") as e:
        effective_weight(linear)
    assert e.value.seen == "x in training mode with dropout"
    with wrapped.disable_adapter():
        assert torch.equal(effective_weight(linear), base_weight(linear))
    wrapped.eval()
    assert torch.equal(effective_weight(linear), steady)
    calm, wrapped = adapted(nn.Linear(4, 4), {"x": {}})
    wrapped.train()
    assert torch.isfinite(effective_weight(calm)).all()


def test_variants_that_are_not_handled_are_refused_by_name():
    linear, _ = adapted(
        nn.Linear(4, 4), {"x": {"alora_invocation_tokens": [1], "task_type": "CAUSAL_LM"}}
    )
    with pytest.raises(ModelError, match="a variant of LoRA that is not handled exactly") as e:
        effective_weight(linear)
    assert "x: peft.tuners.lora.variants.ALora" in str(e.value.seen)
    linear, _ = adapted(nn.Linear(4, 4), {"x": {"use_dora": True}, "y": {"lora_bias": True}})
    with pytest.raises(ModelError, match="DoRA beside a LoRA bias") as e:
        bias_of(linear)
    assert e.value.seen == "lora_bias of y"


class Doubled(nn.Linear):
    """Linear, but not by its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


class Own(nn.Module):
    """Something with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


def patched() -> nn.Module:
    layer: Any = nn.Linear(2, 2)
    layer.forward = lambda x: x
    return layer


def whole_numbers() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    return layer


def other_tuner(config: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model: Any = nn.Sequential(nn.Linear(4, 4))
        with renamed_properties_tolerated():
            PeftModel(model, config)
        return model[0]

    return make


NOT_LINEAR: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "embedding": (lambda: nn.Embedding(2, 2), "torch.nn.modules.sparse.Embedding"),
    "own module": (Own, "test_weights.Own and a weight of torch.float32"),
    "own forward": (Doubled, "test_weights.Doubled with a forward of its own"),
    "forward put in its place": (patched, "Linear with a forward of its own"),
    "whole numbers": (whole_numbers, "and a weight of torch.int8"),
    "convolution": (lambda: nn.Conv1d(2, 2, 1), "torch.nn.modules.conv.Conv1d"),
    "IA3": (
        other_tuner(peft.IA3Config(target_modules=["0"], feedforward_modules=[])),
        "peft.tuners.ia3.layer.Linear",
    ),
    "LoHa": (other_tuner(peft.LoHaConfig(target_modules=["0"])), "peft.tuners.loha.layer"),
    "VeRA": (other_tuner(peft.VeraConfig(target_modules=["0"])), "peft.tuners.vera.layer"),
    "OFT": (
        other_tuner(peft.OFTConfig(target_modules=["0"], oft_block_size=2)),
        "peft.tuners.oft.layer",
    ),
}


@pytest.mark.parametrize("what", NOT_LINEAR)
def test_what_is_not_linear_in_a_known_way_is_refused_by_name(what: str):
    make, seen = NOT_LINEAR[what]
    layer = make() if what != "own forward" else Doubled(2, 2)
    for read in (effective_weight, bias_of, shape_of, in_features):
        with pytest.raises(ModelError, match="not a plain linear layer") as e:
            read(layer)
        assert seen in str(e.value.seen)
        assert "torch.nn.Linear, transformers' Conv1D" in e.value.allowed


def test_an_adapter_over_what_is_not_known_is_refused():
    linear, _ = adapted(Doubled(4, 4), {"x": {}})
    with pytest.raises(ModelError, match="not a plain linear layer") as e:
        effective_weight(linear)
    assert "test_weights.Doubled with a forward of its own" in str(e.value.seen)


def test_adapters_that_change_nothing_are_told_from_those_that_do():
    for settings in ({}, {"use_rslora": True}, {"lora_bias": True}, {"use_dora": True}):
        linear, _ = adapted(nn.Linear(4, 4), {"x": dict(settings)})
        assert not changes_nothing(linear, "x")
        with torch.no_grad():
            linear.lora_A["x"].weight.zero_()
        if "lora_bias" in settings:
            assert not changes_nothing(linear, "x")
            linear.lora_B["x"].bias.data.zero_()
        if "use_dora" in settings:
            assert not changes_nothing(linear, "x")
            norms = linear.base_layer.weight.norm(dim=1)
            linear.lora_magnitude_vector["x"].weight.data.copy_(norms)
        assert changes_nothing(linear, "x")
        assert torch.allclose(effective_weight(linear), base_weight(linear))
    linear, _ = adapted(nn.Linear(4, 4), {"x": {"lora_alpha": 0}})
    assert changes_nothing(linear, "x")
