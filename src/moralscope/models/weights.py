"""Which weights are in force? Linear layers read with their active, un-merged LoRA included.

An un-merged PEFT layer exposes the base weight as ``.weight``; reading that alone is how an
adapter silently takes no effect in an analysis. Active adapters act in turn, each on what those
before it left:

    W <- W + scaling * B A                              LoRA (Hu et al. 2021); rsLoRA scales anew
    W <- m / |W_base + scaling * B A| * (W + scaling * B A)    DoRA (Liu et al. 2024, equation 5)

with ``| |`` the norm of each output's row. Factors are widened before they are multiplied.
Layers are known by the code that they run: a subclass with a forward of its own is refused,
since its weight may mean anything.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.libraries import peft, transformers
from moralscope.models.quantised import dequantised, is_four_bit

_LORA_LINEAR: Any = peft.tuners.lora.layer.Linear
_LORA_FOUR_BIT = "peft.tuners.lora.bnb.Linear4bit"  # exists where bitsandbytes does
_DORA: Any = peft.tuners.lora.variants.DoraLinearVariant
_CONV1D: Any = transformers.pytorch_utils.Conv1D
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SAME = 1e-2  # storing a DoRA magnitude in bfloat16 moves it by less than this


def _type_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def is_lora(module: nn.Module) -> bool:
    """Whether a module is PEFT's LoRA over a linear layer."""
    return type(module) is _LORA_LINEAR or _type_name(module) == _LORA_FOUR_BIT


def _runs(layer: nn.Module, known: Any) -> bool:
    """Whether a layer multiplies by its ``.weight`` with the forward of a known class."""
    weight: Any = getattr(layer, "weight", None)
    return (
        isinstance(layer, known)
        and type(layer).forward is known.forward
        and "forward" not in vars(layer)
        and type(weight.data) is Tensor
        and weight.dtype in _FLOATS
    )


def _own_ways(layer: nn.Module) -> str:
    weight: object = getattr(layer, "weight", None)
    ways = [
        "with a forward of its own" if isinstance(layer, nn.Linear | _CONV1D) else "",
        f"and a weight of {weight.dtype}" if isinstance(weight, Tensor) else "",
    ]
    return "".join(f" {way}" for way in ways if way)


def _base(linear: nn.Module) -> Any:
    untyped: Any = linear
    layer: Any = untyped.base_layer if is_lora(linear) else linear
    if not (_runs(layer, nn.Linear) or _runs(layer, _CONV1D) or is_four_bit(layer)):
        raise ModelError(
            "A projection of this model is not a plain linear layer",
            seen=_type_name(layer) + _own_ways(layer),
            allowed="torch.nn.Linear, transformers' Conv1D, bitsandbytes' Linear4bit, "
            "or PEFT's LoRA over one of them",
            remedy="load the model without other quantisation, and adapters as LoRA or DoRA",
        )
    return layer


def _require_steady(linear: nn.Module) -> None:
    """Refuse states in which the layer does not compute what its parts say."""
    layer: Any = linear
    if layer.merged:
        raise ModelError(
            "An adapter is merged into the base weights",
            seen=", ".join(str(name) for name in layer.merged_adapters),
            allowed="un-merged adapters: merging rounds them to the base's dtype",
            remedy="load the adapter again without merging",
        )
    random = [name for name in _active(linear) if _drops(layer.lora_dropout[name])]
    if random:
        raise ModelError(
            "An adapter drops inputs at random",
            seen=f"{', '.join(random)} in training mode with dropout",
            allowed="layers in evaluation mode",
            remedy="call eval() on the model",
        )
    other = [name for name in _active(linear) if not _is_known_variant(layer, name)]
    if other:
        raise ModelError(
            "An adapter is a variant of LoRA that is not handled exactly",
            seen=", ".join(f"{name}: {_type_name(layer.lora_variant[name])}" for name in other),
            allowed="LoRA, rsLoRA and DoRA",
            remedy="merge it into a full checkpoint with PEFT and load that",
        )


def _drops(dropout: Any) -> bool:
    return dropout.training and getattr(dropout, "p", 0.0) > 0.0


def _is_dora(layer: Any, name: str) -> bool:
    return type(layer.lora_variant.get(name)) is _DORA


def _is_known_variant(layer: Any, name: str) -> bool:
    return name not in layer.lora_variant or _is_dora(layer, name)


def _active(linear: nn.Module) -> list[str]:
    """Names of the adapters in force, in the order in which they act."""
    layer: Any = linear
    if not is_lora(linear) or layer.disable_adapters:
        return []
    return [str(name) for name in layer.active_adapters if name in layer.lora_A]


def _row_norms(weight: Tensor) -> Tensor:
    return weight.square().sum(1).sqrt()


def _factors(layer: Any, name: str) -> tuple[Tensor, Tensor, float]:
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return a.detach(), b.detach(), float(layer.scaling[name])


def active_updates(linear: nn.Module) -> Generator[tuple[Tensor, Tensor, float]]:
    """The LoRA factors in force: ``A (rank, in)``, ``B (out, rank)`` and their scaling."""
    for name in _active(linear):
        yield _factors(linear, name)


def is_low_rank(linear: nn.Module) -> bool:
    """Whether the adapters in force add no more than their products ``scaling * B A``.

    True of LoRA and rsLoRA, and of a layer without an adapter in force; DoRA scales whole rows.

    Raises:
        ModelError: as ``effective_weight``.
    """
    if is_lora(linear):
        _require_steady(linear)
    return not any(_is_dora(linear, name) for name in _active(linear))


@torch.no_grad()
def base_weight(linear: nn.Module) -> Tensor:
    """The weight below any adapter, shape ``(out, in)``, float32 or wider.

    Raises:
        ModelError: the layer is not linear in a way that is known.
    """
    layer = _base(linear)
    if is_four_bit(layer):
        weight = dequantised(layer)
    else:
        weight = layer.weight.detach()
        weight = weight.T if isinstance(layer, _CONV1D) else weight
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


@torch.no_grad()
def effective_weight(linear: nn.Module) -> Tensor:
    """The matrix that the layer multiplies by, shape ``(out, in)``, float32 or wider.

    Raises:
        ModelError: the layer is not linear in a way that is known; an adapter is merged, drops
            inputs at random, or is a variant other than LoRA, rsLoRA and DoRA.
    """
    base = weight = base_weight(linear)
    if is_lora(linear):
        _require_steady(linear)
    layer: Any = linear
    for name in _active(linear):
        a, b, scaling = _factors(layer, name)
        update = scaling * (b.to(weight.dtype) @ a.to(weight.dtype))
        weight = weight + update
        if _is_dora(layer, name):
            magnitude: Tensor = layer.lora_magnitude_vector[name].weight.to(weight.dtype)
            # PEFT takes the norm with the base alone, whatever other adapters added.
            weight = (magnitude / _row_norms(base + update))[:, None] * weight
    return weight


@torch.no_grad()
def bias_of(linear: nn.Module) -> Tensor | None:
    """The vector that the layer adds, shape ``(out,)``, with adapters' own; None without any.

    Raises:
        ModelError: as ``effective_weight``; or a DoRA adapter is active beside a LoRA bias, which
            PEFT takes into the norm of the weights.
    """
    own = _base(linear).bias
    bias = None if own is None else own.detach()
    if is_lora(linear):
        _require_steady(linear)
    layer: Any = linear
    names = _active(linear)
    biased = [name for name in names if layer.lora_B[name].bias is not None]
    if biased and any(_is_dora(layer, name) for name in names):
        raise ModelError(
            "DoRA beside a LoRA bias is not handled exactly",
            seen=f"lora_bias of {', '.join(biased)}",
            allowed="DoRA without lora_bias, or LoRA with it",
            remedy="merge it into a full checkpoint with PEFT and load that",
        )
    for name in biased:
        extra = layer.scaling[name] * layer.lora_B[name].bias.detach()
        bias = extra if bias is None else bias + extra
    return bias


def shape_of(linear: nn.Module) -> tuple[int, int]:
    """How many outputs and inputs a linear layer has.

    Raises:
        ModelError: the layer is not linear in a way that is known.
    """
    layer = _base(linear)
    if isinstance(layer, _CONV1D):
        n_in, n_out = layer.weight.shape
        return int(n_out), int(n_in)
    return layer.out_features, layer.in_features


def in_features(linear: nn.Module) -> int:
    """How many inputs a linear layer has."""
    return shape_of(linear)[1]


@torch.no_grad()
def changes_nothing(linear: nn.Module, name: str) -> bool:
    """Whether an adapter, if it were active, would leave this LoRA layer as it is."""
    layer: Any = linear
    a, b, scaling = _factors(layer, name)
    bias = layer.lora_B[name].bias
    if scaling and ((a.any() and b.any()) or (bias is not None and bias.any())):
        return False
    if not _is_dora(layer, name):
        return True
    norm = _row_norms(base_weight(linear))
    magnitude: Tensor = layer.lora_magnitude_vector[name].weight
    return torch.allclose(magnitude.to(norm.dtype), norm, rtol=_SAME, atol=0)
