"""Layers that are computed twice give the same gradient from less memory."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.models.loading import LoadedModel
from moralscope.models.scoring import make_packs, option_log_probabilities
from moralscope.training.config import LoraSettings
from moralscope.training.lora import Fresh, adapted, adapted_together, speaking, trainable
from moralscope.training.recomputing import recomputing

OWN = LoraSettings(rank=2, alpha=4.0)
PROMPTS = tiny.token_prompts(6)
FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "phi3", "olmo2", "gpt_neox")


def move(wrapped: Any, adapter: str = "trained", seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trainable(wrapped, adapter).values():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def loss_of(base: LoadedModel) -> Tensor:
    (pack,) = make_packs(PROMPTS, 100_000)
    return option_log_probabilities(base.model, pack)[:, 0].sum()


def taken(wrapped: Any, adapter: str = "trained") -> dict[str, Tensor]:
    found = {k: p.grad for k, p in trainable(wrapped, adapter).items()}
    for p in trainable(wrapped, adapter).values():
        p.grad = None
    return {k: g.clone() for k, g in found.items() if g is not None}


class _Calls:
    """How often each decoder layer's first part is run."""

    def __init__(self, base: LoadedModel) -> None:
        self.count = 0
        modules = dict(base.model.named_modules())
        parts = [m for n, m in modules.items() if n.rpartition(".")[2] == "mlp"]
        self.layers = len(parts)
        self.handles = [m.register_forward_pre_hook(self._hear) for m in parts]

    def _hear(self, *_: object) -> None:
        self.count += 1

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_same_on_a_tree(family: str) -> None:
    base = tiny.loaded(tiny.tiny_model(family))
    with adapted(base, OWN, 0) as wrapped:
        move(wrapped)
        loss_of(base).backward()
        plain = taken(wrapped)
        calls = _Calls(base)
        with recomputing(base.model):
            loss = loss_of(base)
            assert calls.count == calls.layers
            assert not any(m.training for m in wrapped.modules())
        loss.backward()  # after the block
        calls.stop()
        assert calls.count == 2 * calls.layers  # it really ran twice
        again = taken(wrapped)
    assert len(again) == len(plain) > 0
    for key, gradient in plain.items():
        assert float(gradient.abs().max()) > 1e-9
        assert float((again[key] - gradient).abs().max()) <= 1e-12 * float(gradient.abs().max())
    assert not any("forward" in vars(m) for m in base.model.modules())


def test_each_layer_is_redone_with_the_adapter_that_spoke() -> None:
    base = tiny.loaded(tiny.tiny_model("llama"))
    adapters = {"trained": Fresh(OWN, 1), "opponent": Fresh(OWN, 1)}

    def gradients(on: bool) -> list[dict[str, Tensor]]:
        with adapted_together(base, adapters) as wrapped:
            for seed, name in enumerate(adapters):
                move(wrapped, name, seed)
            losses: list[Tensor] = []
            with recomputing(base.model, on=on):
                for name in adapters:
                    with speaking(wrapped, name):
                        losses.append(loss_of(base))
                with speaking(wrapped, None):
                    for loss in losses:
                        loss.backward()
            return [taken(wrapped, name) for name in adapters]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        assert len(again) == len(plain) > 0
        for key, gradient in plain.items():
            assert float((again[key] - gradient).abs().max()) <= 1e-12 * float(gradient.abs().max())


def test_autocast_is_the_same_when_a_layer_is_redone() -> None:
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32))

    def gradients(on: bool, narrow: bool) -> dict[str, Tensor]:
        with adapted(base, OWN, 0) as wrapped:
            move(wrapped)
            with (
                recomputing(base.model, on=on),
                torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow),
            ):
                loss = loss_of(base)
            loss.backward()
            return taken(wrapped)

    plain, again = gradients(False, True), gradients(True, True)
    assert plain
    assert all(torch.equal(plain[k], again[k]) for k in plain)
    wide = gradients(True, False)
    assert any(float((plain[k] - wide[k]).abs().max()) > 1e-4 for k in plain)


def kept_bytes(base: LoadedModel, on: bool) -> int:
    """Bytes that autograd holds when the forward is done, each storage once."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
    keep: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            keep.append(tensor)  # so that no address is used twice
        return tensor

    with (
        recomputing(base.model, on=on),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
    ):
        loss_of(base)
    return sum(storages.values())


def test_less_is_kept() -> None:
    base = tiny.loaded(tiny.tiny_model("llama", num_hidden_layers=6))
    with adapted(base, OWN, 0):
        plain, again = kept_bytes(base, False), kept_bytes(base, True)
    assert again < 0.4 * plain


def test_without_gradient_or_when_off_nothing_is_done_twice() -> None:
    base = tiny.loaded(tiny.tiny_model("llama"))
    with adapted(base, OWN, 0) as wrapped:
        move(wrapped)
        calls = _Calls(base)
        with recomputing(base.model), torch.no_grad():
            loss_of(base)
        assert calls.count == calls.layers
        with recomputing(base.model, on=False):
            loss_of(base).backward()
        assert calls.count == 2 * calls.layers
        calls.stop()


def test_the_layers_come_back_after_an_error() -> None:
    base = tiny.loaded(tiny.tiny_model("llama"))
    with contextlib.suppress(ZeroDivisionError), recomputing(base.model):
        assert any("forward" in vars(m) for m in base.model.modules())
        raise ZeroDivisionError
    assert not any("forward" in vars(m) for m in base.model.modules())
