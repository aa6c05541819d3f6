"""Where are one head's query, key and value? Attention inputs, head by head, in any layout.

Families differ in how they compute them: three linear layers, one fused layer whose output is cut
into blocks (GPT-2, Phi-3), one fused layer that interleaves them head by head (GPT-NeoX), and a
norm on queries and keys, over each head (Qwen3, Gemma-3) or over all heads at once (OLMo-2). A
``Projection`` names the module whose output holds the final value, just before rotary positions are
applied, and how heads lie in it. Query heads that share a key/value head share its site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Layout = Literal["features", "token_head", "head_token"]


@dataclass(frozen=True, eq=False)
class Projection:
    """The queries, keys or values of one layer.

    Attributes:
        module: the module at whose output they are.
        features: which flat output features belong to each head, ``(heads, head_dim)``.
        layout: shape of the module's output: ``(1, tokens, features)``, ``(1, tokens, heads,
            head_dim)`` or ``(1, heads, tokens, head_dim)``.
    """

    module: nn.Module
    features: Tensor
    layout: Layout = "features"

    def read(self, output: Tensor) -> Tensor:
        """Every head's value, ``(tokens, heads, head_dim)``."""
        if self.layout == "token_head":
            return output[0]
        if self.layout == "head_token":
            return output[0].transpose(0, 1)
        return output[0][:, self.features.to(output.device)]

    def replaced(self, output: Tensor, tokens: Tensor, heads: Tensor, values: Tensor) -> Tensor:
        """A copy of the output with some heads' values replaced at some tokens.

        Args:
            output: what the module gave.
            tokens: packed positions, ``(n, positions)``.
            heads: one head for each of the ``n``.
            values: ``(n, positions, head_dim)``.
        """
        output = output.clone()
        values = values.to(output.dtype)
        if self.layout == "token_head":
            output[0][tokens, heads[:, None]] = values
        elif self.layout == "head_token":
            output[0][heads[:, None], tokens] = values
        else:
            features = self.features.to(output.device)[heads]
            output[0][tokens[:, :, None], features[:, None, :]] = values
        return output


def blocks_of(heads: int, dim: int, start: int = 0) -> Tensor:
    """Features of heads that lie one after another from ``start``."""
    return start + torch.arange(heads * dim).view(heads, dim)


def interleaved(heads: int, dim: int, part: int) -> Tensor:
    """Features of one of three parts that are interleaved head by head (GPT-NeoX)."""
    first = (3 * torch.arange(heads) + part) * dim
    return first[:, None] + torch.arange(dim)
