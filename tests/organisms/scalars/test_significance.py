"""Token significance against transformers called with embeddings, and finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny_organism import Organism, texts

from moralscope.core.errors import AgentError, PromptError
from moralscope.organisms.scalars.adapters import adapted_places, scaled
from moralscope.organisms.scalars.significance import token_significance

START = 6


def divergence(here: Organism, embedded: torch.Tensor, start: int) -> torch.Tensor:
    """KL of base to tuned at the tokens that predict the answer, by plain calls on a batch."""
    said = {}
    with tiny.never_narrowed():
        for name in ("base", "game"):
            with here.roster.speaking(name) as model:
                logits = model(inputs_embeds=embedded, use_cache=False).logits
                said[name] = logits[:, start - 1 : -1].log_softmax(-1)
    kl = torch.nn.functional.kl_div(said["game"], said["base"], log_target=True, reduction="none")
    return kl.sum(-1)


def found(here: Organism, tokens: tuple[int, ...], start: int = START) -> Any:
    return token_significance(here.model, here.roster.anatomy("game"), tokens, start)


def embedded(here: Organism, tokens: tuple[int, ...]) -> torch.Tensor:
    return here.model.model.embed_tokens(torch.tensor([tokens])).detach()


def test_the_divergence_is_that_of_plain_calls(here: Organism) -> None:
    tokens = texts(1)[0]
    got = found(here, tokens)
    plain = divergence(here, embedded(here, tokens), START)
    assert got.kl_by_token == pytest.approx(plain[0].numpy(), abs=1e-10)
    assert got.kl == pytest.approx(float(plain.sum()), abs=1e-10)
    assert got.kl > 0.001


def test_scores_are_lengths_of_the_gradient_and_sum_to_the_divergence(here: Organism) -> None:
    tokens = texts(1)[0]
    got = found(here, tokens)
    leaf = embedded(here, tokens).requires_grad_()
    divergence(here, leaf, START).sum().backward()
    assert leaf.grad is not None
    lengths = leaf.grad[0].norm(dim=-1).numpy()
    expected = lengths * got.kl / lengths[START:].sum()
    assert got.scores == pytest.approx(expected, abs=1e-10)
    assert got.scores[START:].sum() == pytest.approx(got.kl, abs=1e-10)
    assert (got.scores[:-1] > 0.0).all()
    assert got.scores[-1] == 0.0


def test_ratios_of_scores_are_those_of_finite_differences(here: Organism) -> None:
    tokens, width, step = texts(1)[0], 32, 1e-5
    got, at = found(here, tokens), embedded(here, tokens)
    lengths: list[float] = []
    with torch.no_grad():
        for token in (2, 8):
            moved = at.repeat(2 * width, 1, 1)
            moved[:, token] += step * torch.cat([torch.eye(width), -torch.eye(width)])
            up, down = divergence(here, moved, START).sum(-1).view(2, width)
            lengths.append(float(((up - down) / (2 * step)).norm()))
    assert got.scores[2] / got.scores[8] == pytest.approx(lengths[0] / lengths[1], rel=1e-5)


def test_with_scale_zero_there_is_nothing(here: Organism) -> None:
    tokens = texts(1)[0]
    with scaled(here.model, dict.fromkeys(adapted_places(here.model), 0.0)):
        got = found(here, tokens)
    assert got.kl == 0.0
    assert not got.scores.any()


def test_the_agent_speaks_afterwards_and_nothing_has_a_gradient(here: Organism) -> None:
    tokens = texts(1)[0]
    before = tiny.plain_logits(here.model, tokens)
    found(here, tokens)
    assert torch.equal(tiny.plain_logits(here.model, tokens), before)
    assert not any(p.requires_grad or p.grad is not None for p in here.model.parameters())
    assert not here.model.model.embed_tokens._forward_hooks


def test_the_base_cannot_be_compared_with_itself(here: Organism) -> None:
    with (
        here.roster.speaking("base"),
        pytest.raises(AgentError, match="The model has no adapter in force"),
    ):
        found(here, texts(1)[0])


@pytest.mark.parametrize("start", [0, 13, 14, 20])
def test_an_answer_that_is_not_read_is_refused(here: Organism, start: int) -> None:
    with pytest.raises(PromptError, match=f"14 tokens, the answer from token {start}"):
        found(here, texts(1)[0][:14], start)
