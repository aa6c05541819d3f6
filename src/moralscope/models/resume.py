"""How is a decoder resumed at one of its layers? With the arguments that its own forward gave it.

A clean run records what the decoder passes to each of its layers (``LayerCall``): positions, masks,
cache, flags. A resumed run calls the same layer modules, from any depth, on any nodes and any
number of copies of them, with those arguments re-cut to match. Nothing of the model is
reimplemented, and layers before the entry cost nothing.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from moralscope.core.errors import ModelError

_HIDDEN = "hidden_states"
_MASK = "attention_mask"
_CACHE = ("past_key_values", "layer_past", "past_key_value")
_BY_TOKEN = ("position_ids", "position_embeddings", "cache_position")


@dataclass(frozen=True, eq=False)
class LayerCall:
    """What a decoder passed to one of its layers, by parameter name, the hidden states left out."""

    named: dict[str, Any]


def record_call(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerCall:
    """Name the arguments of a layer's call.

    Raises:
        ModelError: the layer takes a tensor whose meaning is not known, so that it could not be
            cut to other nodes.
    """
    named = _by_name(layer, args, kwargs)
    named.pop(_HIDDEN, None)
    known = (_MASK, *_CACHE, *_BY_TOKEN)
    for name, value in named.items():
        if name not in known and isinstance(value, Tensor):
            raise ModelError(
                "A layer of this model takes an argument that is not understood",
                seen=f"{type(layer).__name__}({name}=...)",
                allowed=", ".join((_HIDDEN, *known)),
                remedy="use a model of a supported family as transformers builds it",
            )
    return LayerCall(named)


def _by_name(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, what was passed on in bulk included."""
    # Gradient checkpointing wraps the call, not the forward, so its signature is the layer's own.
    signature = inspect.signature(layer.forward)
    named: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = value
        elif len(value) > 1:  # the first is the hidden states, whatever wraps the forward
            raise ModelError(
                "A layer of this model is wrapped so that its arguments have no names",
                seen=f"{type(layer).__name__}.forward{signature}",
                allowed="a forward with the signature of the transformers library",
                remedy="take the wrapper off, or write it with functools.wraps",
            )
    return named


def call_layer(
    layer: nn.Module,
    recorded: LayerCall,
    hidden: Tensor,
    *,
    nodes: Tensor,
    copies: int,
    mask: Tensor,
    cache: object | None,
) -> Tensor:
    """Call a layer on copies of some nodes.

    Args:
        layer: the decoder layer.
        recorded: its arguments in the clean run.
        hidden: its input, ``(1, copies * nodes, width)``.
        nodes: which nodes of the clean run each copy stands for.
        copies: how many lie side by side.
        mask: additive, ``(1, 1, copies * nodes, keys)``.
        cache: keys and values that are seen besides, or None.

    Returns:
        The layer's output, the shape of ``hidden``.
    """
    named: dict[str, Any] = {}
    for name, value in recorded.named.items():
        if name == _MASK:
            named[name] = mask
        elif name in _CACHE:
            named[name] = cache
        elif name in _BY_TOKEN and value is not None:
            named[name] = _recut(value, nodes, copies)
        elif name == "use_cache":
            named[name] = cache is not None
        else:
            named[name] = value
    output: Any = layer(hidden, **named)
    if isinstance(output, tuple):
        output = cast("tuple[Any, ...]", output)[0]
    result: Tensor = output
    return result


def _recut(value: Any, nodes: Tensor, copies: int) -> Any:
    """Arguments by token, picked at the nodes and repeated for each copy."""
    if isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)
        return tuple(_recut(part, nodes, copies) for part in parts)
    tensor: Tensor = value
    axis = 0 if tensor.ndim == 1 else 1
    picked = tensor.index_select(axis, nodes.to(tensor.device))
    repeats = [1] * tensor.ndim
    repeats[axis] = copies
    return picked.repeat(*repeats)
