"""A text is read as plain forwards read it; the divergence is torch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import plain_logits, tiny_roster, token_prompts

from moralscope.core.errors import PromptError
from moralscope.models.divergence import read_text

TOKENS = token_prompts(1)[0].tokens


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_it_equals_plain_forwards(tmp_path: Path, family: str) -> None:
    roster = tiny_roster(tmp_path, family, adapters=("game",))
    nats, divergence = read_text(roster, ("game", "base"), TOKENS)
    logits: list[torch.Tensor] = []
    for name, found in zip(("game", "base"), nats, strict=True):
        with roster.speaking(name) as model:
            logits.append(plain_logits(model, TOKENS)[:-1])
        loss = torch.nn.functional.cross_entropy(logits[-1], torch.tensor(TOKENS[1:]))
        assert found == pytest.approx(float(loss), abs=1e-9)
    agent, base = (torch.distributions.Categorical(logits=x) for x in logits)
    expected = float(torch.distributions.kl_divergence(agent, base).mean())
    assert divergence == pytest.approx(expected, abs=1e-9)
    assert divergence > 1e-3
    assert read_text(roster, ("game",), TOKENS) == ((nats[0],), 0.0)
    backwards = read_text(roster, ("base", "game"), TOKENS)
    assert backwards[0] == nats[::-1]
    assert backwards[1] != pytest.approx(divergence)


def test_a_single_token_is_refused(tmp_path: Path) -> None:
    roster = tiny_roster(tmp_path, adapters=())
    with pytest.raises(PromptError, match="nothing to predict.*1 tokens"):
        read_text(roster, ("base",), (5,))
