"""What does a patch do when relevance, not the gradient, is passed back? RelP, in two passes.

The estimate is that of attribution patching with another backward pass, whose rules keep what is
linear and treat the rest as constant (layer-wise relevance propagation; RelP: Jafari et al. 2025,
arXiv 2508.21258; norms and attention: Ali et al. 2022, arXiv 2202.07304):

    norm            x * sg(1 / scale(x)); a layer norm keeps taking the mean away
    attention       sg(pattern) @ v: through the values alone
    activation      x * sg(act(x) / x)
    product a * b   half to each factor: (a * sg(b) + sg(a) * b) / 2

``sg`` stops the gradient. The forward pass is untouched. The decision itself, a soft-cap on the
logits included, is differentiated as it is. The rules are applied to whatever the model calls, so
that they hold for every family; where one was never met, or an activation has none, it is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import ModelError
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    SpanActivity,
    project,
    slopes,
    span_groups,
    total_of,
)
from moralscope.mechanisms.clean import CleanRun
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import hooks

_ACTIVATIONS = {
    "SiLU": 0.5,
    "SiLUActivation": 0.5,
    "GELU": 0.5,
    "GELUActivation": 0.5,
    "GELUTanh": 0.5,
    "PytorchGELUTanh": 0.5,
    "NewGELUActivation": 0.5,
    "FastGELUActivation": 0.5,
    "AccurateGELUActivation": 0.5,
    "QuickGELUActivation": 0.5,
    "ReLU": 0.0,
}
"""Classes of activations with a rule, and the limit of ``act(x) / x`` at 0."""

_SOFTMAX = (torch.softmax, nn.functional.softmax, Tensor.softmax)
_RSQRT = (torch.rsqrt, Tensor.rsqrt)
_PRODUCT = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply)
_ATTENTION = nn.functional.scaled_dot_product_attention


def _passing(value: Tensor, linear: Tensor) -> Tensor:
    """The value, with the gradient of another expression of it."""
    return value.detach() + (linear - linear.detach())


class _Rules(TorchFunctionMode):
    """The rules for norms, patterns and products, and how often each was met."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = self.patterns = self.activations = self.products = 0
        self._activated: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _RSQRT:
            self.norms += 1
            return func(*args, **named).detach()
        if func is nn.functional.layer_norm:
            self.norms += 1
            return _layer_norm(*args, **named)
        if func in _SOFTMAX:
            self.patterns += 1
            return func(*args, **named).detach()
        if func is _ATTENTION:
            self.patterns += 1
            return _frozen_attention(*args, **named)
        output: Any = func(*args, **named)
        if func in _PRODUCT and any(a is self._activated for a in args):
            self.products += 1
            self._activated = None
            return _passing(output, 0.5 * output)
        return output

    def after_activation(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Hook after an activation: the identity rule."""
        x: Tensor = args[0]
        self.activations += 1
        limit = _ACTIVATIONS[type(module).__name__]
        at_zero = torch.full_like(x, limit)
        # Divided by one where x is zero, so that nothing undefined is ever computed.
        ratio = torch.where(x == 0, at_zero, output / torch.where(x == 0, torch.ones_like(x), x))
        self._activated = _passing(output, x * ratio.detach())
        return self._activated


def _layer_norm(
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    output = nn.functional.layer_norm(x, normalized_shape, weight, bias, eps)
    centred = x - x.mean(-1, keepdim=True)
    frozen = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps).detach()
    return _passing(output, frozen if weight is None else frozen * weight)


def _frozen_attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
    return _ATTENTION(query.detach(), key.detach(), value, *rest, **named)


def _activation_of(layer: int, mlp: nn.Module) -> nn.Module:
    """The MLP's activation, the one child that is neither linear nor a dropout.

    Raises:
        ModelError: it has no rule, or there is not exactly one.
    """
    found: list[nn.Module] = []
    for child in mlp.children():
        if isinstance(child, (nn.Dropout, nn.Identity)):
            continue
        name = type(child).__name__
        if name not in _ACTIVATIONS and next(child.parameters(), None) is not None:
            continue
        found.append(child)
    names = [type(child).__name__ for child in found]
    if len(found) != 1 or names[0] not in _ACTIVATIONS:
        raise ModelError(
            "An activation function has no relevance rule",
            seen=f"{', '.join(names) or 'no activation'} in L{layer}.mlp",
            allowed=", ".join(_ACTIVATIONS),
            remedy="use attribution patching or integrated gradients, or patch exactly",
        )
    return found[0]


@contextlib.contextmanager
def relevance_rules(anatomy: Anatomy) -> Generator[None]:
    """Run exactly one forward pass whose backward pass obeys the rules.

    Raises:
        ModelError: an activation has no rule, or the pass did not meet every rule in every layer.
    """
    rules = _Rules()
    handles: list[RemovableHandle] = []
    shared: set[nn.Module] = set()
    for layer, block in enumerate(anatomy.blocks):
        activation = _activation_of(layer, block.mlp)
        if activation not in shared:
            handles.append(activation.register_forward_hook(cast("Any", rules.after_activation)))
        shared.add(activation)
    with hooks(handles), rules:
        yield
    layers = anatomy.n_layers
    met = {
        "norms": rules.norms > 2 * layers,
        "attention patterns": rules.patterns == layers,
        "activations": rules.activations == layers,
        "products": rules.products in (0, layers),
    }
    if not all(met.values()):
        raise ModelError(
            f"A relevance rule was not met in every layer of this {anatomy.model_type} model",
            seen=", ".join(name for name, held in met.items() if not held),
            allowed="norms by rsqrt or layer_norm, attention by softmax or "
            "scaled_dot_product_attention, one activation a layer, gated or not",
            remedy="load the model with attn_implementation='sdpa' or 'eager', or use attribution "
            "patching",
        )


def relevance_patching(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    index: int,
    source: SpanActivity,
    *,
    positions: Collection[int] | None = None,
) -> Estimates:
    """Estimate the effect of every patch on the prompts of one pack by RelP.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        index: which of its packs.
        source: what would go in, at the pack's kept nodes.
        positions: which prompts of the pack; all unless given.

    Raises:
        ModelError: see ``relevance_rules``.
    """
    pack = target.packs[index].pack
    parts: list[Estimates] = []
    for group in span_groups(pack, positions):
        with relevance_rules(anatomy):
            found = slopes(model, anatomy, pack, group, out_weights=target.out_weights)
        rows = torch.as_tensor(group.rows, device=found.attn.device)
        parts.append(project(anatomy, found, source.at(rows)))
    return total_of(parts)
