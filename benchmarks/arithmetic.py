"""How near is a sweep to the least that arithmetic allows? Operations over the matrix rate.

The floor counts, for each patched row, only what must be computed anew: from its site on. A
patched head needs its layer's MLP and every later layer, a patched MLP every later layer; then
the option tokens' logits. A linear layer costs two operations per weight and token, its active
LoRA factors included; attention costs four per key and channel of a head. Norms, activations, the
clean runs and the donor's writes are left out, so the true floor lies a little higher.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moralscope.core.site import Site
from moralscope.models.anatomy import Anatomy
from moralscope.models.weights import active_updates


@dataclass(frozen=True)
class SpanSize:
    """What a row is: tokens of the answer span, of the prompt before it, and option tokens."""

    span: int
    prefix: int
    option_tokens: int


def linear_operations(module: nn.Module) -> int:
    """Operations of all linear layers in a module on one token, active LoRA included."""
    weights = 0
    untyped: Any = module  # torch types this only partly
    for name, part in untyped.named_modules():
        if isinstance(part, nn.Linear) and ".lora_" not in f".{name}":
            weights += part.weight.numel()
        for a, b, _ in active_updates(part):
            weights += a.numel() + b.numel()
    return 2 * weights


def sweep_operations(anatomy: Anatomy, sites: Sequence[Site], size: SpanSize) -> int:
    """Operations that patching each site once needs at least."""
    keys = size.prefix + (size.span + 1) // 2  # a span's tokens see half of each other
    attention = 4 * keys * anatomy.n_heads * anatomy.head_dim
    whole = [linear_operations(block.layer) + attention for block in anatomy.blocks]
    mlp = [linear_operations(block.mlp) for block in anatomy.blocks]
    per_token = 0
    for site in sites:
        layer = site.layer or 0
        per_token += sum(whole[layer + 1 :]) + (mlp[layer] if site.kind == "head" else 0)
    return per_token * size.span + len(sites) * size.option_tokens * 2 * anatomy.width


def matrix_rate(anatomy: Anatomy, rows: int, *, seconds: float = 1.0) -> float:
    """Operations a second of float32 matrix products here: the best of several shapes.

    Args:
        anatomy: whose shapes to try, beside a large square.
        rows: rows of a patching pass.
        seconds: how long to measure each shape.
    """
    shapes = ((1024, 1024, 1024), (rows, anatomy.width, 4 * anatomy.width))
    generator = torch.Generator().manual_seed(0)
    best = 0.0
    for m, k, n in shapes:
        a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
        ends = time.perf_counter() + seconds
        while True:
            started = time.perf_counter()
            torch.mm(a, b)
            now = time.perf_counter()
            best = max(best, 2 * m * k * n / max(now - started, 1e-9))
            if now > ends:
                break
    return best
