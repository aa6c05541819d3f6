"""Frozen layers run once: the same stream, the same logits and gradients, stated room."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chats import TEXTS, chats, deep_base, padded_loss, randomise, shared_tokenizer, teaching
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, GPTNeoXConfig

from moralscope.core.errors import ConfigError, ModelError, OutputError
from moralscope.core.progress import ProgressEvent
from moralscope.models.anatomy import dissect
from moralscope.models.capture import capture
from moralscope.models.loading import LoadedModel, ModelSource
from moralscope.training.cached_below import keep_stream, layer_to_cache, read_pack
from moralscope.training.lora import LoraSettings, adapted, trainable
from moralscope.training.supervised import lesson_of
from moralscope.training.supervised_batches import Corpus, corpus_of, packs_of
from moralscope.training.supervised_examples import encode_chats
from moralscope.training.supervised_step import Sums, losses_of

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 4,
    "bos_token_id": 4,
}
FAMILIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    # Windows shorter than the chats, of which the last of four layers has none.
    "gemma3": (Gemma3TextConfig, {"sliding_window": 6, "sliding_window_pattern": 4}, "down_proj"),
    # Positions are added to the embedding, before the layers that are left out.
    "gpt2": (GPT2Config, {"n_embd": 16, "n_layer": 4, "n_head": 2}, "mlp.c_proj"),
    # Attention and MLP read the same stream.
    "gpt_neox": (GPTNeoXConfig, {"use_parallel_residual": True}, "dense_4h_to_h"),
}


def family_base(family: str) -> tuple[LoadedModel, str]:
    make, own, down = FAMILIES[family]
    tokenizer = shared_tokenizer()
    common = {k: v for k, v in SIZES.items() if family != "gpt2" or "token" in k}
    config = make(vocab_size=len(tokenizer), **common, **own)
    model: Any = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.double().eval().requires_grad_(False)
    source = ModelSource(family, Path(), "folder", "0" * 64)
    return LoadedModel(model, tokenizer, source, "float64", "cpu"), down


def corpus_for(base: LoadedModel) -> Corpus:
    return corpus_of(encode_chats(base.tokenizer, chats(5), max_tokens=200), [])


@contextmanager
def adapter_at(base: LoadedModel, *sites: str) -> Generator[list[nn.Parameter]]:
    with adapted(base, LoraSettings(rank=1, alpha=8.0, sites=sites), 0) as wrapped:
        parameters = list(trainable(wrapped).values())
        randomise(parameters)
        yield parameters


def room(folder: Path, gib: float = 1.0) -> dict[str, Any]:
    return {"max_nodes": 70, "most_bytes": int(gib * 2**30), "folder": folder}


@pytest.mark.parametrize("layer", [1, 3])
def test_what_is_kept_is_the_stream_that_enters_the_layer(tmp_path: Path, layer: int) -> None:
    base = deep_base()
    corpus = corpus_for(base)
    kept = keep_stream(base.model, corpus, layer, **room(tmp_path))
    (whole,) = packs_of(corpus, range(5), 5000)
    every = np.arange(len(whole.tree))
    expected = capture(base.model, dissect(base.model), whole.tree, every).resid_pre[layer]
    assert kept.layer == layer
    assert kept.values.dtype == torch.float64
    assert float((kept.values[torch.as_tensor(whole.nodes)] - expected).abs().max()) < 1e-12
    assert kept.bytes == len(corpus.tree) * 16 * 8
    assert not any("forward" in vars(module) for module in base.model.modules())


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "gpt_neox"])
def test_resumed_logits_and_gradients_are_those_of_the_whole_model(
    tmp_path: Path, family: str
) -> None:
    base, down = family_base(family)
    corpus = corpus_for(base)
    with adapter_at(base, f"L2 {down}", f"L3 {down}") as parameters:
        layer = layer_to_cache(base.model, "auto")
        assert layer == 2
        kept = keep_stream(base.model, corpus, layer, **room(tmp_path))
        for pack in packs_of(corpus, [0, 3, 4], 90):
            whole = read_pack(base.model, pack)
            resumed = read_pack(base.model, pack, kept=kept)
            assert float((whole - resumed).detach().abs().max()) < 1e-11
            weight = torch.linspace(-1, 1, whole.numel(), dtype=torch.float64).view_as(whole)
            expected = torch.autograd.grad((whole * weight).sum(), parameters)
            found = torch.autograd.grad((resumed * weight).sum(), parameters)
            for a, b in zip(found, expected, strict=True):
                assert float((a - b).norm() / b.norm()) < 1e-10
    assert not any("forward" in vars(module) for module in base.model.modules())


def test_layers_below_are_not_run(tmp_path: Path) -> None:
    base = deep_base()
    corpus = corpus_for(base)
    run: list[int] = []
    parts: Any = [block.mlp for block in dissect(base.model).blocks]
    for index, part in enumerate(parts):
        part.register_forward_hook(lambda *_, index=index: run.append(index))
    kept = keep_stream(base.model, corpus, 2, **{**room(tmp_path), "max_nodes": 5000})
    assert run == [0, 1]
    (pack,) = packs_of(corpus, [1, 2], 5000)
    run.clear()
    read_pack(base.model, pack, kept=kept)
    assert run == [2, 3]


def test_a_large_cache_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    base = deep_base(torch.float32)
    corpus = corpus_for(base)
    told: list[ProgressEvent] = []
    inside = keep_stream(base.model, corpus, 2, **room(tmp_path))
    mapped = keep_stream(base.model, corpus, 2, **room(tmp_path, 0.0), progress=told.append)
    assert (inside.mapped, mapped.mapped) == (False, True)
    assert torch.equal(inside.values, mapped.values)
    assert (tmp_path / "stream.bin").stat().st_size == mapped.bytes == inside.bytes
    assert told[-1].done == told[-1].total > 1
    assert told[-1].note.endswith("MiB mapped from a file")


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    base = deep_base()
    (tmp_path / "stream.bin").mkdir()
    with pytest.raises(OutputError, match="The cache of the frozen layers cannot be made"):
        keep_stream(base.model, corpus_for(base), 2, **room(tmp_path, 0.0))


def test_a_stream_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    base = deep_base()
    weight: Any = dissect(base.model).blocks[0].mlp.get_parameter("down_proj.weight")
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="the residual stream that enters layer 2"):
        keep_stream(base.model, corpus_for(base), 2, **room(tmp_path))


@pytest.mark.parametrize(
    ("sites", "wanted", "told"),
    [
        (("L1 down_proj",), 2, "No adapter stands at or above the layer.*adapters at layers 1"),
        (("L1 down_proj", "L3 o"), 2, "An adapter stands below the layer.*adapters at layers 1, 3"),
    ],
)
def test_a_layer_that_cannot_be_kept_is_refused(
    sites: tuple[str, ...], wanted: int, told: str
) -> None:
    base = deep_base()
    with adapter_at(base, *sites), pytest.raises(ConfigError, match=told):
        layer_to_cache(base.model, wanted)


@pytest.mark.parametrize(
    ("sites", "wanted", "layer"),
    [
        (("L1 down_proj", "L3 o"), "auto", 1),
        (("L3 o",), 2, 2),
        (("L3 o",), None, None),
        (("q",), "auto", None),
    ],
)
def test_the_lowest_adapter_says_what_is_kept(
    sites: tuple[str, ...], wanted: int | str | None, layer: int | None
) -> None:
    base = deep_base()
    with adapter_at(base, *sites):
        assert layer_to_cache(base.model, wanted) == layer


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_has_the_same_gradient_with_and_without_the_cache(
    tmp_path: Path, checkpointing: bool
) -> None:
    found: list[list[Tensor]] = []
    for cache in ("auto", None):
        config = teaching(
            lora=LoraSettings(rank=1, alpha=8.0, sites=("L2 down_proj",)),
            cache_below=cache,
            kl_coefficient=0.3,
            gradient_checkpointing=checkpointing,
        )
        with lesson_of("a", config, deep_base(), chats(6), work=tmp_path, texts=TEXTS) as lesson:
            assert (lesson.kept is None) == (cache is None)
            parameters = list(lesson.trained.parameters.values())
            randomise(parameters)
            loss = sum(losses_of(lesson, 1, Sums()), torch.zeros(()))
            found.append(list(torch.autograd.grad(loss, parameters)))
    for a, b in zip(*found, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-10


@pytest.mark.slow
def test_on_the_real_model_the_gradient_is_that_of_the_padded_loop(
    real_base: LoadedModel, tmp_path: Path
) -> None:
    config = teaching(
        batch=3, lora=LoraSettings(rank=1, alpha=64.0, sites=("L22 down_proj",)), learn_end=True
    )
    with lesson_of("a", config, real_base, chats(3), work=tmp_path) as lesson:
        assert lesson.kept is not None
        assert lesson.kept.layer == 22
        assert lesson.kept.bytes == len(lesson.corpus.tree) * 576 * 4
        parameters = list(lesson.trained.parameters.values())
        randomise(parameters)
        loss = sum(losses_of(lesson, 1, Sums()), torch.zeros(()))
        found = torch.autograd.grad(loss, parameters)
        plain = padded_loss(real_base, chats(3))
        assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
        for a, b in zip(found, torch.autograd.grad(plain, parameters), strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-4
