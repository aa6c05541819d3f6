"""A wire planted by hand: one MLP writes what varies over prompts, another one alone hears it.

Nothing else in the model reads the direction ``u`` of the wire. The first layer's MLP writes an
amount of it that depends on the prompt; two neurons of the last layer's MLP turn what they hear
into its square, ``silu(z) z + silu(-z) (-z) = z^2``, along the decision.
"""

from __future__ import annotations

from typing import Any

import tiny
import torch
from torch import Tensor

WRITER, READER = "L0.mlp", "L2.mlp"
POSITIVE, NEGATIVE = 11, 12
"""Tokens of the options of ``tiny.token_prompts``."""


def wired(*, planted: bool) -> Any:
    """The tiny model, deaf to ``u``, with the wire or without it."""
    model = tiny.tiny_model("llama")
    generator = torch.Generator().manual_seed(7)
    width = model.config.hidden_size
    u = torch.randn(width, generator=generator, dtype=torch.float64)
    u /= u.norm()
    layers = model.model.layers
    with torch.no_grad():
        for layer in layers:
            attention, mlp = layer.self_attn, layer.mlp
            for name in ("q_proj", "k_proj", "v_proj"):
                _deafen(getattr(attention, name).weight, layer.input_layernorm.weight * u)
            for name in ("gate_proj", "up_proj"):
                _deafen(getattr(mlp, name).weight, layer.post_attention_layernorm.weight * u)
        decision = model.lm_head.weight[POSITIVE] - model.lm_head.weight[NEGATIVE]
        _deafen(model.lm_head.weight, model.model.norm.weight * u)
        if planted:
            layers[0].mlp.down_proj.weight[:, 0] += 12.0 * u
            last = layers[2]
            heard = 2.0 * u / last.post_attention_layernorm.weight
            for neuron, sign in ((0, 1.0), (1, -1.0)):
                last.mlp.gate_proj.weight[neuron] = sign * heard
                last.mlp.up_proj.weight[neuron] = sign * heard
                last.mlp.down_proj.weight[:, neuron] = 3.0 * decision / decision.norm()
    return model


def _deafen(weight: Tensor, heard: Tensor) -> None:
    """Take a direction out of what the rows of a matrix read."""
    weight -= torch.outer(weight @ heard, heard) / (heard @ heard)
