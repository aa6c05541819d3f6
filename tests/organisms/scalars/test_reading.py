"""Scalars against plain runs: what an adapter adds is scaling * s * b, at this module alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_organism import Organism, flowing, organism, texts

from moralscope.core.errors import PromptError
from moralscope.organisms.scalars.adapters import scaled
from moralscope.organisms.scalars.reading import contributions, read_scalars

FAMILIES = ("llama", "gemma2", "gpt2")


def modules(made: Organism) -> list[Any]:
    return [each.linear for each in made.adapters]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_contribution_is_the_change_of_the_layers_output(
    folder: Path, family: str, dtype: torch.dtype, tolerance: float
) -> None:
    target = "mlp.c_proj" if family == "gpt2" else "down_proj"
    made = organism(folder / f"{family}-{dtype}", family, dtype, {"target_modules": [target]})
    tokens = texts(1, length=20)[0]
    with made.roster.speaking("game") as model:
        adapters = made.adapters
        (scalars,) = read_scalars(model, adapters, [tokens])
        assert scalars.shape == (len(tokens), made.model.config.num_hidden_layers)
        for at, each in enumerate(adapters):
            with_it = flowing(model, tokens, modules(made))[at][1]
            # Switched off at this module alone, all that it reads stays as it is.
            with scaled(model, {each.place: 0.0}):
                without = flowing(model, tokens, modules(made))[at][1]
            changed = (with_it - without).double()
            said = torch.as_tensor(scalars[:, at])
            written = each.scaling * torch.outer(said, each.writes.double())
            assert changed.abs().max() > 0.05
            assert (changed - written).abs().max() <= tolerance * max(
                1.0, float(changed.abs().max())
            )
            lengths = np.abs(contributions(scalars, adapters)[:, at])
            assert lengths == pytest.approx(changed.norm(dim=-1).numpy(), rel=1e-3, abs=tolerance)


def test_scalars_are_the_down_modules_own_output_text_by_text(here: Organism) -> None:
    many = texts(5)
    found = read_scalars(here.model, here.adapters, many)
    for tokens, scalars in zip(many, found, strict=True):
        down = [
            out[:, 0] for _, out in flowing(here.model, tokens, [x.down for x in here.adapters])
        ]
        assert scalars == pytest.approx(torch.stack(down, 1).numpy(), abs=1e-10)


def test_packs_and_order_do_not_matter(here: Organism) -> None:
    many = texts(5)
    whole = read_scalars(here.model, here.adapters, many)
    cut = read_scalars(here.model, here.adapters, many[::-1], max_nodes=1)[::-1]
    for one, other in zip(whole, cut, strict=True):
        assert one == pytest.approx(other, abs=1e-10)


def test_turning_an_adapter_round_turns_its_scalar_not_its_contribution(here: Organism) -> None:
    tokens, adapters = texts(1)[0], here.adapters
    (before,) = read_scalars(here.model, adapters, [tokens])
    lora: Any = adapters[0].linear
    with torch.no_grad():
        for factor in (lora.lora_A["game"].weight, lora.lora_B["game"].weight):
            factor.neg_()
        try:
            (after,) = read_scalars(here.model, adapters, [tokens])
        finally:
            for factor in (lora.lora_A["game"].weight, lora.lora_B["game"].weight):
                factor.neg_()
    assert after[:, 0] == pytest.approx(-before[:, 0], abs=1e-12)
    assert after[:, 1:] == pytest.approx(before[:, 1:], abs=1e-12)


def test_no_hook_stays_behind(here: Organism) -> None:
    read_scalars(here.model, here.adapters, texts(2))
    left = [module for module in here.model.modules() if module._forward_pre_hooks]
    assert not left


def test_an_empty_text_is_refused(here: Organism) -> None:
    with pytest.raises(PromptError, match="text 1 of 2"):
        read_scalars(here.model, here.adapters, [(3, 4), ()])
