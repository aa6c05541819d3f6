"""What does a norm do to a direction? Norms with their scale frozen are linear maps.

Two kinds occur in decoders:

    root mean square:  norm(x) = gain * x / sqrt(mean(x^2) + eps)
    layer norm:        norm(x) = gain * (x - mean(x)) / sqrt(var(x) + eps) + bias

With the denominator frozen at its value for ``x``, a direction ``u`` after the norm is a direction
before it, plus a constant: ``u . norm(x) = pulled . x + offset`` (``pull_back``), exactly. Because
a layer norm also takes the mean away, its pulled direction is centred. What is assumed of a norm is
checked on the live module (``check_norm``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError


def is_layer_norm(norm: nn.Module) -> bool:
    """Whether the norm takes the mean away."""
    return isinstance(norm, nn.LayerNorm)


def gain(norm: nn.Module, *, unit_offset: bool) -> Tensor:
    """The elementwise gain of a norm, shape ``(width,)``, float32 or wider.

    Args:
        norm: the norm.
        unit_offset: whether gains are stored as ``1 + weight`` (Gemma).
    """
    weight: Tensor = norm.get_parameter("weight").detach()
    # One more than a small half-precision number would lose its digits.
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return weight + 1.0 if unit_offset else weight


def epsilon(norm: nn.Module) -> float:
    """The constant under the root of a norm."""
    for name in ("variance_epsilon", "eps"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    raise ModelError(
        "A norm of this model has no epsilon that is understood",
        seen=type(norm).__name__,
        allowed="a root-mean-square norm or a layer norm, with variance_epsilon or eps",
        remedy="use a model of a supported family",
    )


def inverse_scale(norm: nn.Module, x: Tensor) -> Tensor:
    """One over the norm's denominator at ``x``, kept as a trailing axis of one."""
    if is_layer_norm(norm):
        x = x - x.mean(-1, keepdim=True)
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon(norm))


def pull_back(
    norm: nn.Module, x: Tensor, direction: Tensor, *, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    """The direction before a norm that reads what ``direction`` reads after it.

    ``direction . norm(x) = pulled . x + offset``, and with the scale frozen at ``x`` also for
    every part of a sum that makes up ``x`` (the offset counted once).

    Args:
        norm: the norm.
        x: its input, shape ``(..., width)``, which fixes the scale.
        direction: shape broadcastable to that of ``x``.
        unit_offset: see ``gain``.

    Returns:
        ``pulled``, the shape of ``x``, and ``offset``, without the last axis.
    """
    pulled = direction * gain(norm, unit_offset=unit_offset).to(direction.dtype)
    if is_layer_norm(norm):
        pulled = pulled - pulled.mean(-1, keepdim=True)
    pulled = pulled * inverse_scale(norm, x)
    bias: Tensor | None = getattr(norm, "bias", None)
    if bias is None:
        return pulled, pulled.new_zeros(pulled.shape[:-1])
    return pulled, (direction * bias.detach().to(direction.dtype)).sum(-1).expand(pulled.shape[:-1])


def check_norm(norm: nn.Module, family: str, *, unit_offset: bool) -> None:
    """Check on the live module that a norm computes what is assumed of it.

    The caller runs float64 models in full precision (``forward.full_precision``).

    Raises:
        ModelError: it computes something else.
    """
    weight = norm.get_parameter("weight")
    x = torch.linspace(-2.0, 3.0, weight.numel(), device=weight.device).to(weight.dtype)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # The identity matrix as directions gives the norm's output, entry by entry.
    every = torch.eye(weight.numel(), dtype=wide.dtype, device=wide.device)
    pulled, offset = pull_back(norm, wide.expand_as(every), every, unit_offset=unit_offset)
    tolerance = 1e-2 if weight.element_size() == 2 else 1e-5
    # The norm itself, without what an open intervention does to its output.
    found = norm.forward(x).to(wide.dtype)
    expected = (pulled @ wide + offset).to(wide.dtype)
    if not torch.allclose(found, expected, atol=tolerance, rtol=tolerance):
        raise ModelError(
            f"A norm of this {family} model is neither a root-mean-square nor a layer norm",
            seen=type(norm).__name__,
            allowed="gain * x / sqrt(mean(x^2) + eps), or the same of x minus its mean, plus bias",
            remedy="use a model of a supported family",
        )
