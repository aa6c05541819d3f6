"""Adapters train over base weights in 4 bits, and are saved as any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_base import save_tiny
from torch import Tensor

from moralscope.games import structured
from moralscope.models.libraries import peft, renamed_properties_tolerated
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.models.quantised import is_four_bit
from moralscope.models.rendering import encode_all
from moralscope.models.scoring import make_packs, option_log_probabilities, score
from moralscope.training.config import LoraSettings
from moralscope.training.lora import adapted, save_adapter, trainable

SETTINGS = LoraSettings(rank=4, alpha=8.0, sites=("L0 mlp", "L1 attn"))


@pytest.fixture(scope="module")
def four_bit(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_tiny(tmp_path_factory.mktemp("four_bit") / "model", hidden=64)
    return load_model(locate_model(str(folder)), dtype="nf4")


def loss_of(base: LoadedModel) -> Tensor:
    encoded = encode_all(base.tokenizer, tuple(structured())[:4])
    (pack,) = make_packs(encoded, 100_000)
    log_p = option_log_probabilities(base.model, pack)
    return (log_p[:, 1] - log_p[:, 0]).mean()  # towards defecting


def test_the_gradient_is_that_of_finite_differences(four_bit: LoadedModel) -> None:
    generator = torch.Generator().manual_seed(0)
    with adapted(four_bit, SETTINGS, 0) as wrapped:
        assert sum(is_four_bit(m) for m in wrapped.modules()) == 14
        own = list(trainable(wrapped).values())
        with torch.no_grad():
            for p in own:
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
        loss_of(four_bit).backward()
        gradients = [p.grad.double() for p in own if p.grad is not None]
        assert len(gradients) == len(own) == 14
        for gradient in gradients:  # each factor's own direction, so that none can hide
            assert float(gradient.abs().max()) > 1e-7
        start = [p.detach().clone() for p in own]
        for index in (0, 1, 6, 13):
            direction = gradients[index] / gradients[index].norm()
            values: list[float] = []
            for sign in (1, -1):
                with torch.no_grad():
                    own[index].copy_(start[index] + sign * 2e-2 * direction)
                    values.append(float(loss_of(four_bit)))
                    own[index].copy_(start[index])
            slope = (values[0] - values[1]) / 4e-2
            assert slope == pytest.approx(float(gradients[index].norm()), rel=0.02)


def test_the_loss_falls_and_plain_peft_reads_the_adapter(
    four_bit: LoadedModel, tmp_path: Path
) -> None:
    encoded = encode_all(four_bit.tokenizer, tuple(structured())[:4])
    stored = {n: p.detach().clone() for n, p in four_bit.model.named_parameters()}
    losses: list[float] = []
    with adapted(four_bit, SETTINGS, 0) as wrapped:
        optimiser = torch.optim.Adam(trainable(wrapped).values(), lr=0.02)
        for _ in range(6):
            loss = loss_of(four_bit)
            losses.append(float(loss.detach()))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        here = score(four_bit.model, encoded).log_odds
        save_adapter(wrapped, tmp_path, four_bit.source.name)
    assert losses[-1] < losses[0] - 0.3
    now = dict(four_bit.model.named_parameters())
    assert all(torch.equal(now[n], p) for n, p in stored.items())
    wide = load_model(four_bit.source, dtype="nf4")
    with renamed_properties_tolerated():
        loaded = peft.PeftModel.from_pretrained(wide.model, str(tmp_path)).eval()
    there = score(loaded.get_base_model(), encoded).log_odds
    assert abs(here - there).max() < 1e-5
    assert abs(here - score(four_bit.model, encoded).log_odds).max() > 0.1
