"""Several adapters on one base: each speaks alone, keeps its gradients, and can be frozen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.core.errors import AgentError
from moralscope.games import structured
from moralscope.models.libraries import (
    peft,
    renamed_properties_tolerated,
    transformers,
)
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.scoring import make_packs, option_log_probabilities, score
from moralscope.training.config import LoraSettings
from moralscope.training.lora import (
    Fresh,
    Saved,
    adapted,
    adapted_together,
    adapter_dropout,
    save_adapter,
    speaking,
    trainable,
)

OWN = LoraSettings(rank=4, alpha=8.0)
OTHER = LoraSettings(rank=3, alpha=3.0, sites=("L1 mlp", "L0 q,v"))
BOTH = {"trained": Fresh(OWN, 1), "opponent": Fresh(OTHER, 1)}


def prompts_of(base: LoadedModel) -> tuple[EncodedPrompt, ...]:
    return encode_all(base.tokenizer, tuple(structured())[:4])


def move(parameters: dict[str, nn.Parameter], seed: int, size: float = 0.1) -> None:
    """Give every factor of an adapter random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def loss_of(base: LoadedModel) -> Tensor:
    (pack,) = make_packs(prompts_of(base), 100_000)
    return option_log_probabilities(base.model, pack)[:, 0].sum()


def odds(base: LoadedModel) -> Any:
    return score(base.model, prompts_of(base)).log_odds


def test_each_adapter_speaks_alone(base: LoadedModel, tmp_path: Path) -> None:
    plainly = odds(base)
    with adapted_together(base, BOTH) as wrapped:
        for seed, name in enumerate(BOTH):
            move(trainable(wrapped, name), seed)
            save_adapter(wrapped, tmp_path / name, base.source.name, name)
        heard: dict[str, Any] = {}
        for name in BOTH:
            with speaking(wrapped, name):
                heard[name] = odds(base)
        with speaking(wrapped, None):
            heard["base"] = odds(base)
        heard["outside"] = odds(base)
    assert (heard["base"] == plainly).all()
    assert (heard["outside"] == heard["trained"]).all()
    assert abs(heard["trained"] - heard["opponent"]).max() > 0.01
    for name in BOTH:
        plain = transformers.AutoModelForCausalLM.from_pretrained(str(base.source.folder))
        with renamed_properties_tolerated():
            loaded = peft.PeftModel.from_pretrained(plain, str(tmp_path / name)).eval()
        alone = score(loaded.get_base_model(), prompts_of(base)).log_odds
        assert abs(alone - heard[name]).max() < 1e-5
        assert abs(alone - plainly).max() > 0.01


def test_blocks_inside_blocks_end_where_they_began(base: LoadedModel) -> None:
    with adapted_together(base, BOTH) as wrapped:
        for seed, name in enumerate(BOTH):
            move(trainable(wrapped, name), seed)
        with speaking(wrapped, "opponent"):
            before = odds(base)
            with speaking(wrapped, None):
                assert abs(odds(base) - before).max() > 0.001
                with speaking(wrapped, "trained"):
                    assert abs(odds(base) - before).max() > 0.001
            assert (odds(base) == before).all()


def test_gradients_are_kept_while_another_speaks(wide_base: LoadedModel) -> None:
    """Two learners: both are read before either moves, and both gradients arrive whole."""

    def gradients(together: bool) -> dict[str, dict[str, Tensor]]:
        with adapted_together(wide_base, BOTH) as wrapped:
            for seed, name in enumerate(BOTH):
                move(trainable(wrapped, name), seed)
            losses: list[Tensor] = []
            for name in BOTH:
                with speaking(wrapped, name):
                    losses.append(loss_of(wide_base))
                    if not together:
                        losses[-1].backward()
            with speaking(wrapped, None), torch.no_grad():
                loss_of(wide_base)
            if together:
                for loss in losses:
                    loss.backward()
            return {
                name: {
                    k: p.grad.clone()
                    for k, p in trainable(wrapped, name).items()
                    if p.grad is not None
                }
                for name in BOTH
            }

    apart, together = gradients(False), gradients(True)
    for name in BOTH:
        assert len(together[name]) == len(apart[name]) > 0
        for key, gradient in apart[name].items():
            assert float(gradient.abs().max()) > 1e-9
            assert torch.equal(together[name][key], gradient)


def test_an_adapter_starts_the_same_whoever_stands_beside_it(base: LoadedModel) -> None:
    with adapted(base, OWN, 1) as wrapped:
        alone = {k: p.detach().clone() for k, p in trainable(wrapped).items()}
    turned = {name: BOTH[name] for name in ("opponent", "trained")}
    for adapters in (BOTH, turned):
        with adapted_together(base, adapters) as wrapped:
            beside = trainable(wrapped)
            assert list(beside) == list(alone)
            assert all(torch.equal(beside[k], alone[k]) for k in alone)
            for name, other in trainable(wrapped, "opponent").items():
                twin = alone[name.replace(".opponent.", ".trained.")]
                drawn = other.shape == twin.shape and ".lora_A." in name
                assert not drawn or not torch.equal(other, twin)


def test_a_frozen_earlier_agent_speaks_as_it_was_saved(base: LoadedModel, tmp_path: Path) -> None:
    with adapted(base, OTHER, 3) as wrapped:
        move(trainable(wrapped), 7)
        before = odds(base)
        save_adapter(wrapped, tmp_path, base.source.name)
    adapters = {"trained": Fresh(OWN, 0), "opponent": Saved(str(tmp_path))}
    with adapted_together(base, adapters) as wrapped:
        assert trainable(wrapped, "opponent") == {}
        own = trainable(wrapped)
        move(own, 8)
        with speaking(wrapped, "opponent"):
            assert abs(odds(base) - before).max() < 1e-6
        with speaking(wrapped, "trained"):
            loss_of(base).backward()
            assert abs(odds(base) - before).max() > 0.01
        assert all(p.grad is not None for p in own.values())
        frozen = [p for k, p in wrapped.named_parameters() if ".opponent." in k]
        assert frozen
        assert not any(p.requires_grad or p.grad is not None for p in frozen)
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_an_earlier_agent_of_another_base_is_refused(base: LoadedModel, tmp_path: Path) -> None:
    folder = tiny.save_adapter(tmp_path / "other", tiny.tiny_model("llama"))
    plainly = odds(base)
    adapters = {"trained": Fresh(OWN, 0), "opponent": Saved(str(folder))}
    with (
        pytest.raises(AgentError, match="made for another base"),
        adapted_together(base, adapters),
    ):
        pass
    assert not any("lora" in name for name, _ in base.model.named_modules())
    assert (odds(base) == plainly).all()


def test_names_that_begin_alike_are_saved_apart(base: LoadedModel, tmp_path: Path) -> None:
    adapters = {"trained": Fresh(OWN, 0), "trained_too": Fresh(OTHER, 0)}
    with adapted_together(base, adapters) as wrapped:
        sizes: dict[str, int] = {}
        for name in adapters:
            move(trainable(wrapped, name), 2)
            save_adapter(wrapped, tmp_path / name, "some/base", name)
            sizes[name] = len(trainable(wrapped, name))
    for name in adapters:
        with adapted_together(base, {"agent": Saved(str(tmp_path / name))}) as wrapped:
            found = [k for k, _ in wrapped.named_parameters() if ".lora_" in k]
            assert len(found) == sizes[name]


def test_an_unknown_adapter_cannot_speak(base: LoadedModel) -> None:
    with adapted_together(base, BOTH) as wrapped:
        with (
            pytest.raises(AgentError, match="no adapter of this name") as caught,
            speaking(wrapped, "oponent"),
        ):
            pass
        assert caught.value.remedy == "did you mean 'opponent'"


def test_dropout_is_on_inside_the_block_alone(base: LoadedModel) -> None:
    with adapted(base, OWN.model_copy(update={"dropout": 0.5}), 0) as wrapped:
        move(trainable(wrapped), 1)
        still = odds(base)
        generator = torch.get_rng_state()
        drawn: list[Any] = []
        for seed in (3, 3, 4):
            torch.rand(1)  # where torch's own generator stands does not matter
            with adapter_dropout(wrapped, True, seed):
                on = {k for k, m in wrapped.named_modules() if m.training}
                drawn.append(odds(base))
        torch.set_rng_state(generator)
        with adapter_dropout(wrapped, True, 3):
            odds(base)
        assert torch.equal(torch.get_rng_state(), generator)
        with adapter_dropout(wrapped, False, 3):
            assert (odds(base) == still).all()
        assert (odds(base) == still).all()
        assert not any(m.training for m in wrapped.modules())
    assert on
    assert all(".lora_dropout." in name for name in on)
    assert (drawn[0] == drawn[1]).all()
    assert abs(drawn[0] - drawn[2]).max() > 1e-3
    assert abs(drawn[0] - still).max() > 1e-3
