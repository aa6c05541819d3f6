"""Which weights are in force? Linear layers read with their active, un-merged LoRA included.

An un-merged PEFT layer exposes the base weight as ``.weight``; reading that alone is how an
adapter silently takes no effect in an analysis. The effective weight is

    W_eff = W + sum_active scaling * B A        (LoRA, Hu et al. 2021; rsLoRA differs in scaling)
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.libraries import peft

_LORA_LINEAR: Any = peft.tuners.lora.layer.Linear


def _is_lora(linear: nn.Module) -> bool:
    return isinstance(linear, _LORA_LINEAR)


def _base(linear: nn.Module) -> nn.Linear:
    untyped: Any = linear
    layer: object = untyped.get_base_layer() if _is_lora(linear) else linear
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            "A projection of this model is not a plain linear layer",
            seen=type(linear).__name__,
            allowed="torch.nn.Linear, or a LoRA layer over one",
            remedy="load the model without quantisation, and adapters as plain LoRA",
        )
    return layer


def active_updates(linear: nn.Module) -> Generator[tuple[Tensor, Tensor, float]]:
    """The LoRA factors in force: ``A (rank, in)``, ``B (out, rank)`` and their scaling."""
    if not _is_lora(linear):
        return
    layer: Any = linear
    if layer.disable_adapters:
        return
    for name in layer.active_adapters:
        if name in layer.lora_A:
            yield (
                layer.lora_A[name].weight.detach(),
                layer.lora_B[name].weight.detach(),
                float(layer.scaling[name]),
            )


@torch.no_grad()
def effective_weight(linear: nn.Module) -> Tensor:
    """``W + sum scaling * B A``, shape ``(out, in)``, float32 or wider.

    Raises:
        ModelError: the layer is neither linear nor plain LoRA over linear, or is merged.
    """
    base = _base(linear)
    untyped: Any = linear
    if _is_lora(linear) and untyped.merged:
        raise ModelError(
            "An adapter is merged into the base weights",
            seen=", ".join(str(name) for name in untyped.merged_adapters),
            allowed="un-merged adapters: merging rounds them to the base's dtype",
            remedy="load the adapter again without merging",
        )
    weight = base.weight.detach()
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    for a, b, scaling in active_updates(linear):
        weight = weight + scaling * (b.to(weight.dtype) @ a.to(weight.dtype))
    return weight


def bias_of(linear: nn.Module) -> Tensor | None:
    """The bias of a linear layer, or None."""
    untyped: Any = _base(linear)  # torch declares the bias as always present
    return None if untyped.bias is None else untyped.bias.detach()


def in_features(linear: nn.Module) -> int:
    """How many inputs a linear layer has."""
    return _base(linear).in_features
