"""Adapters stand where sites say, on every family, and nowhere else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.core.errors import ConfigError
from moralscope.models.loading import LoadedModel
from moralscope.training.config import LoraSettings
from moralscope.training.lora import Fresh, adapted, adapted_together, trainable
from moralscope.training.targets import count_trainable, linear_layers, target_modules

DIRECT = ("llama", "qwen3", "gemma2", "olmo2")
FUSED = {"gpt2": "attn.c_attn", "phi3": "self_attn.qkv_proj", "gpt_neox": "query_key_value"}
LAYERS = 3
_MODELS: dict[str, Any] = {}


def model_of(family: str) -> Any:
    if family not in _MODELS:
        _MODELS[family] = tiny.tiny_model(family)
    return _MODELS[family]


def beside(base: LoadedModel, sites: tuple[str, ...]) -> set[str]:
    """Names of the layers that PEFT put an adapter beside."""
    with adapted(base, LoraSettings(rank=2, sites=sites), 0) as wrapped:
        return {
            name.removeprefix("base_model.model.").split(".lora_")[0] for name in trainable(wrapped)
        }


@pytest.mark.parametrize("family", [*DIRECT, *FUSED])
def test_no_sites_are_every_layer_that_peft_would_choose(family: str) -> None:
    model = tiny.tiny_model(family)
    base = tiny.loaded(model)
    assert beside(base, ()) == set(linear_layers(model)) == set(target_modules(model, ()))


def llama(*layers: int, parts: str) -> set[str]:
    """Names of Llama's layers, written out by hand."""
    where = {
        "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
        "o": "self_attn.o_proj", "g": "mlp.gate_proj", "u": "mlp.up_proj", "d": "mlp.down_proj",
    }  # fmt: skip
    return {f"model.layers.{i}.{where[p]}" for i in layers for p in parts}


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        (("L1-L2 mlp",), llama(1, 2, parts="gud")),
        (("L1-2.mlp",), llama(1, 2, parts="gud")),
        (("L0 attn",), llama(0, parts="qkvo")),
        (("L2.q",), llama(2, parts="q")),
        (("L0-L1 q,v",), llama(0, 1, parts="qv")),
        (("L0-L1  q , v",), llama(0, 1, parts="qv")),
        (("L1",), llama(1, parts="qkvogud")),
        (("L1-L2",), llama(1, 2, parts="qkvogud")),
        (("down_proj",), llama(0, 1, 2, parts="d")),
        (("L1 down_proj",), llama(1, parts="d")),
        (("o",), llama(0, 1, 2, parts="o")),
        (("L2 self_attn.k_proj",), llama(2, parts="k")),
        (("model.layers.1.mlp.up_proj",), llama(1, parts="u")),
        (("L0.q", "L2 mlp", "L0 q,k"), llama(0, parts="qk") | llama(2, parts="gud")),
    ],
)
def test_sites_are_the_layers_that_they_name(sites: tuple[str, ...], expected: set[str]) -> None:
    base = tiny.loaded(model_of("llama"))
    assert beside(base, sites) == expected
    found = target_modules(base.model, sites)
    assert list(found) == [n for n, _ in base.model.named_modules() if n in expected]


@pytest.mark.parametrize("family", FUSED)
def test_queries_keys_and_values_computed_together_are_adapted_together(family: str) -> None:
    model = model_of(family)
    together = target_modules(model, ("L1 q,k,v",))
    assert len(together) == 1
    assert together[0].endswith(FUSED[family])
    assert target_modules(model, (f"L1 {FUSED[family].rpartition('.')[2]}",)) == together
    assert set(together) < set(target_modules(model, ("L1 attn",)))
    with pytest.raises(ConfigError, match="An adapter cannot change q alone") as caught:
        target_modules(model, ("L1.q",))
    assert caught.value.remedy.startswith(f"write {FUSED[family].rpartition('.')[2]}")


@pytest.mark.parametrize("family", [*DIRECT, *FUSED])
def test_attention_and_mlp_are_the_whole_of_a_layer(family: str) -> None:
    model = model_of(family)
    attention, mlp = (set(target_modules(model, (f"L1 {part}",))) for part in ("attn", "mlp"))
    assert attention
    assert mlp
    assert not attention & mlp
    assert attention | mlp == set(target_modules(model, ("L1",)))
    # What is left out of an anatomy's own words: each layer's number stands in its names.
    assert all(re.search(r"\.1\.", name) for name in attention | mlp)


@pytest.mark.parametrize(
    ("site", "problem", "remedy"),
    [
        ("L7 mlp", "The model has no layer 7", "the nearest is L2-L2"),
        ("L1-L9", "The model has no layer 9", "the nearest is L1-L2"),
        ("L2-L1 mlp", "A range of layers is empty", "the nearest is L1-L2"),
        ("L1 mpl", "A layer of the model has no part 'mpl'", "did you mean 'mlp'"),
        ("L1 donw_proj", "A layer of the model has no part 'donw_proj'", "did you mean 'down_"),
        ("L1.h3", "An adapter cannot stand on a head", "write L1 attn"),
        ("L1.kv1.k", "An adapter cannot stand on a head", "write L1 attn"),
        ("L1mlp", "A layer of the model has no part 'L1mlp'", ""),
        ("lm_head", "A layer of the model has no part 'lm_head'", ""),
        ("", "An adapter's site chooses nothing", "leave sites out"),
        (" , ", "An adapter's site chooses nothing", "leave sites out"),
    ],
)
def test_what_the_model_does_not_have_is_refused(site: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        target_modules(model_of("llama"), (site,))
    assert caught.value.problem.startswith(problem)
    assert caught.value.remedy.startswith(remedy)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from("qkvo")),
        min_size=1,
        max_size=4,
    )
)
def test_entries_add_up(entries: list[tuple[int, int, str]]) -> None:
    sites = tuple(f"L{min(a, b)}-L{max(a, b)} {part}" for a, b, part in entries)
    expected = set[str]().union(
        *(llama(*range(min(a, b), max(a, b) + 1), parts=part) for a, b, part in entries)
    )
    assert set(target_modules(model_of("llama"), sites)) == expected


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("sites", [(), ("L1-L2 mlp",), ("L0 attn", "L2 mlp")])
def test_the_count_is_of_the_parameters_that_train(family: str, sites: tuple[str, ...]) -> None:
    base = tiny.loaded(model_of(family))
    chosen = LoraSettings(rank=3, sites=sites)
    count = count_trainable(base.model, chosen)

    def trained(settings_: LoraSettings) -> int:
        with adapted(base, settings_, 0) as wrapped:
            return sum(p.numel() for p in trainable(wrapped).values())

    assert count.parameters == trained(chosen)
    assert count.all_linear == trained(LoraSettings(rank=3))
    assert count.saved == pytest.approx(1 - count.parameters / count.all_linear)
    assert (count.saved > 0.3) == bool(sites)
    # Adam holds two numbers beside each parameter and its gradient; float32 has 4 bytes.
    assert count.bytes == 16 * count.parameters
    assert count.saved_bytes == 16 * (count.all_linear - count.parameters)
    assert count.to_json()["layers"] == len(target_modules(base.model, sites))


def test_layers_left_out_do_not_change() -> None:
    base = tiny.loaded(model_of("llama"))
    tokens = torch.arange(40, 52)[None]

    def streams() -> list[torch.Tensor]:
        return list(base.model(tokens, output_hidden_states=True).hidden_states)

    with torch.no_grad():
        before = streams()
        with adapted(base, LoraSettings(rank=2, sites=("L2 mlp",)), 0) as wrapped:
            for parameter in trainable(wrapped).values():
                parameter.add_(0.3)
            after = streams()
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert float((before[3] - after[3]).abs().max()) > 1e-3


def test_two_adapters_stand_each_on_its_own_sites() -> None:
    base = tiny.loaded(model_of("llama"))
    made = {
        "trained": Fresh(LoraSettings(rank=2, sites=("L1-L2 mlp",)), 0),
        "opponent": Fresh(LoraSettings(rank=5, sites=("L2.q", "L0 down_proj")), 0),
    }
    expected = {
        "trained": llama(1, 2, parts="gud"),
        "opponent": llama(2, parts="q") | llama(0, parts="d"),
    }
    with adapted_together(base, made) as wrapped:
        for name, places in expected.items():
            own = trainable(wrapped, name)
            rank = made[name].settings.rank
            assert {k.removeprefix("base_model.model.").split(".lora_")[0] for k in own} == places
            assert {min(p.shape) for p in own.values()} == {rank}
