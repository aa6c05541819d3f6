"""Scalars of one prompt put into another, against additions to the layers' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny_organism import Organism, flowing

from moralscope.core.errors import PromptError
from moralscope.models.rendering import EncodedPrompt
from moralscope.organisms.scalars.adapters import RankOne
from moralscope.organisms.scalars.patching import patch_scalars


def prompts(forms: str = "several") -> tuple[EncodedPrompt, EncodedPrompt]:
    first, other = (tiny.token_prompts(1, seed=seed, forms=forms)[0] for seed in (0, 1))
    size = min(len(first.tokens), len(other.tokens))
    return replace(first, tokens=first.tokens[:size]), replace(other, tokens=other.tokens[:size])


def by_addition(
    here: Organism, adapters: Sequence[RankOne], prompt: EncodedPrompt, other: EncodedPrompt
) -> float:
    """Each form on its own; what an adapter lacks of the other's contribution is added."""
    read = flowing(here.model, other.tokens, [each.linear for each in adapters])
    theirs = [inside @ each.reads for (inside, _), each in zip(read, adapters, strict=True)]
    length = len(prompt.tokens)

    def add(each: RankOne, wanted: torch.Tensor) -> Any:
        def hook(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            lacking = wanted[:length] - args[0][0, :length] @ each.reads
            changed = output.clone()
            changed[0, :length] += each.scaling * torch.outer(lacking, each.writes)
            return changed

        return each.linear.register_forward_hook(hook)

    handles = [add(each, wanted) for each, wanted in zip(adapters, theirs, strict=True)]
    try:
        return tiny.plain_log_odds(here.model, prompt)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("forms", ["single", "several"])
@pytest.mark.parametrize("which", [(0,), (1, 2), (0, 1, 2)])
def test_patched_log_odds_are_those_of_additions_form_by_form(
    here: Organism, forms: str, which: tuple[int, ...]
) -> None:
    prompt, other = prompts(forms)
    adapters = [here.adapters[at] for at in which]
    found = patch_scalars(here.model, adapters, prompt, other)
    assert found.patched == pytest.approx(by_addition(here, adapters, prompt, other), abs=1e-10)
    assert found.baseline == pytest.approx(tiny.plain_log_odds(here.model, prompt), abs=1e-10)
    assert found.other == pytest.approx(tiny.plain_log_odds(here.model, other), abs=1e-10)
    assert found.effect == found.patched - found.baseline
    assert abs(found.effect) > 1e-3


def test_a_prompt_patched_with_itself_does_not_change(here: Organism) -> None:
    prompt, _ = prompts()
    found = patch_scalars(here.model, here.adapters, prompt, prompt)
    assert found.effect == pytest.approx(0.0, abs=1e-12)


def test_without_adapters_nothing_changes(here: Organism) -> None:
    prompt, other = prompts()
    assert patch_scalars(here.model, here.adapters[:0], prompt, other).effect == 0.0


def test_scores_per_token_are_means(here: Organism) -> None:
    prompt, other = prompts("multi")
    found = patch_scalars(here.model, here.adapters, prompt, other, normalise="token")
    sides = [
        tiny.plain_log_probability(here.model, prompt.tokens, form) / len(form)
        for form in (prompt.positive[0], prompt.negative[0])
    ]
    assert found.baseline == pytest.approx(sides[0] - sides[1], abs=1e-10)


def test_no_hook_stays_behind(here: Organism) -> None:
    patch_scalars(here.model, here.adapters, *prompts())
    assert not [m for m in here.model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_prompts_of_other_lengths_are_refused(here: Organism) -> None:
    prompt, other = prompts()
    shorter = replace(other, name="short", tokens=other.tokens[:-2])
    size = len(prompt.tokens)
    with pytest.raises(PromptError, match=f"'p0' of {size} tokens, 'short' of {size - 2}"):
        patch_scalars(here.model, here.adapters, prompt, shorter)
    assert np.isfinite(patch_scalars(here.model, here.adapters, prompt, other).patched)
