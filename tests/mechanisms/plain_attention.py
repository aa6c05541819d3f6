"""Attention of plain transformers calls on single sequences, read and altered after the softmax.

Nothing is packed, resumed or masked here: weights are what ``output_attentions=True`` returns, and
an edit multiplies the finished probabilities and divides by their new sum.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any
from unittest import mock

import hooked
import numpy as np
import tiny
import torch
from torch import Tensor

from moralscope.models.rendering import EncodedPrompt


@contextlib.contextmanager
def eager(model: Any) -> Generator[None]:
    """Attention by the library's plain kernel."""
    was = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(was)


@torch.no_grad()
def last_weights(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """Weights from the last token of a sequence, ``(layers, heads, tokens)``."""
    with eager(model), tiny.never_narrowed():
        found = model(
            input_ids=torch.tensor([list(tokens)]), output_attentions=True, use_cache=False
        )
    return torch.stack([layer[0, :, -1] for layer in found.attentions]).numpy()


def _altering(
    plain: Callable[..., Any], columns: Sequence[int], start: int, factor: float, layers: set[int]
) -> Callable[..., Any]:
    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any
    ) -> Any:
        output, weights = plain(module, query, key, value, *args, **named)
        if module.layer_idx not in layers:
            return output, weights
        changed = weights.clone()
        changed[:, :, start:, list(columns)] *= factor
        changed /= changed.sum(-1, keepdim=True)
        repeats = changed.shape[1] // value.shape[1]
        return (changed @ value.repeat_interleave(repeats, 1)).transpose(1, 2), changed

    return attend


def edited_log_odds(
    model: Any,
    prompt: EncodedPrompt,
    columns: Sequence[int],
    factor: float,
    layers: Sequence[int] | None = None,
) -> float:
    """Log-odds of a prompt, attention from its answer span to some tokens multiplied.

    Args:
        model: a decoder.
        prompt: what is asked.
        columns: indices of tokens of the prompt.
        factor: what their weights are multiplied by.
        layers: at which layers; all unless given.
    """
    chosen = set(range(model.config.num_hidden_layers) if layers is None else layers)
    library = sys.modules[type(model).__module__]
    plain = library.eager_attention_forward
    start = len(prompt.tokens) - 1
    altering = _altering(plain, columns, start, factor, chosen)
    found = np.full(2, -np.inf)
    with eager(model), mock.patch.object(library, "eager_attention_forward", altering):
        for form, positive in hooked.forms_of(prompt):
            logits = tiny.plain_logits(model, [*prompt.tokens, *form[:-1]])
            log_p = logits.log_softmax(-1)
            value = sum(float(log_p[start + i, token]) for i, token in enumerate(form))
            side = 0 if positive else 1
            found[side] = np.logaddexp(found[side], value)
    return float(found[0] - found[1])
