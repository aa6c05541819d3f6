"""How is a tree run? The one place that calls a decoder.

The call uses public Hugging Face arguments only: tokens, a four-dimensional additive mask,
positions, and the indices of the logits to keep. Layers with a sliding window get a mask of
their own, cut by distance in depth, which is distance in the prompt.

Measured quantities are float32 whatever the model's dtype. A float64 model stays float64
throughout: library code narrows norms and softmax to float32 there, which would hide errors
below 1e-7, so such narrowing is undone while a float64 model runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moralscope.models.tree import BoolArray, IntArray, PromptTree

Mask = Tensor | dict[str, Tensor]


class _KeepDouble(TorchFunctionMode):
    """Undo casts of float64 tensors to float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        wide = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        if wide and func is Tensor.float:
            return args[0]
        if wide and func in (Tensor.to, torch.softmax, nn.functional.softmax, Tensor.softmax):
            named = {
                k: torch.float64 if v is torch.float32 and k == "dtype" else v
                for k, v in named.items()
            }
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        return func(*args, **named)


@contextlib.contextmanager
def full_precision(model: nn.Module) -> Generator[None]:
    """Run a float64 model in float64 throughout; no effect on other models."""
    if next(model.parameters()).dtype == torch.float64:
        with _KeepDouble():
            yield
    else:
        yield


@dataclass(frozen=True)
class Visibility:
    """Which key each query may attend to, and how far apart they stand.

    Attributes:
        allowed: ``[query, key]``.
        distance: depth of the query minus depth of the key, ``[query, key]``.
    """

    allowed: BoolArray
    distance: IntArray

    @classmethod
    def of_tree(cls, tree: PromptTree) -> Visibility:
        """Ancestors and itself."""
        return cls(tree.ancestors(), tree.depth[:, None] - tree.depth[None, :])


def _additive(allowed: BoolArray, dtype: torch.dtype, device: torch.device) -> Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    mask.masked_fill_(torch.as_tensor(~allowed).to(device), float("-inf"))
    return mask[None, None]


def build_mask(model: nn.Module, seen: Visibility, dtype: torch.dtype) -> Mask:
    """The additive mask of a model: one tensor, or one for each type of attention layer.

    A sliding window of ``w`` sees keys at a distance below ``w``.
    """
    config: Any = model.config
    device = next(model.parameters()).device
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if window is not None and layer_types is not None and "sliding_attention" in layer_types:
        near = seen.allowed & (seen.distance < window)
        return {
            "full_attention": _additive(seen.allowed, dtype, device),
            "sliding_attention": _additive(near, dtype, device),
        }
    if window is not None and getattr(config, "use_sliding_window", True):
        return _additive(seen.allowed & (seen.distance < window), dtype, device)
    return _additive(seen.allowed, dtype, device)


def call(
    model: nn.Module,
    *,
    tokens: IntArray,
    depth: IntArray,
    mask: Mask,
    keep: IntArray,
    cache: object | None = None,
) -> Tensor:
    """One packed forward; gradients flow where they are enabled.

    Args:
        model: a Hugging Face decoder.
        tokens: shape ``(nodes,)``.
        depth: position of each node, shape ``(nodes,)``.
        mask: from ``build_mask``.
        keep: nodes whose logits are wanted, shape ``(kept,)``.
        cache: keys and values of nodes already run, extended in place; None for none.

    Returns:
        Logits, shape ``(kept, vocabulary)``, float32 or wider.
    """
    device = next(model.parameters()).device
    with full_precision(model):
        output: Any = model(
            input_ids=torch.as_tensor(tokens)[None].to(device),
            attention_mask=mask,
            position_ids=torch.as_tensor(depth)[None].to(device),
            logits_to_keep=torch.as_tensor(keep).to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
    logits: Tensor = output.logits[0]
    return logits if logits.dtype == torch.float64 else logits.float()


def run_tree(
    model: nn.Module, tree: PromptTree, keep: IntArray, *, cache: object | None = None
) -> Tensor:
    """Logits at some nodes of a tree, shape ``(kept, vocabulary)``."""
    dtype = compute_dtype(model)
    mask = build_mask(model, Visibility.of_tree(tree), dtype)
    return call(model, tokens=tree.tokens, depth=tree.depth, mask=mask, keep=keep, cache=cache)


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that attention is computed in: autocast's, where it is on, else the weights'."""
    parameter = next(model.parameters())
    if torch.is_autocast_enabled(parameter.device.type):
        return torch.get_autocast_dtype(parameter.device.type)
    return parameter.dtype
