"""How does a backward pass fit in less memory? Layers forget what they computed, and redo it.

Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): of each decoder layer only the input
is kept, and its forward runs once more when the backward pass arrives, about a third more time in
all. The recomputed forward is the same one to the last bit, so is the gradient.

transformers' own switch works only in training mode, where dropout of the base would be on, and
redoes a layer as the model happens to be by then. Here a layer is redone as it was: with the
adapter that spoke, in the dtype of autocast, and a float64 model in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint

from moralscope.models.anatomy import dissect
from moralscope.models.forward import full_precision
from moralscope.training.lora import Voice, give_voice, lora_layers, voice_of

_library: Any = checkpoint
_checkpoint: Any = _library.checkpoint


@contextlib.contextmanager
def recomputing(model: nn.Module, *, on: bool = True) -> Generator[None]:
    """Keep only the inputs of decoder layers in forwards inside the block.

    The backward pass may run inside or after the block. Forwards without gradient, and those that
    fill a cache of keys and values, run as ever.

    Args:
        model: the decoder, with or without adapters.
        on: False does nothing.

    Raises:
        ModelError: the architecture is not supported.
    """
    if not on:
        yield
        return
    layers: list[Any] = [block.layer for block in dissect(model).blocks]
    try:
        for layer in layers:
            layer.forward = partial(_run, model, layer, layer.forward)
        yield
    finally:
        for layer in layers:
            if "forward" in vars(layer):
                del layer.forward


def _run(
    model: nn.Module, layer: nn.Module, forward: Callable[..., Any], *args: Any, **named: Any
) -> Any:
    cached = named.get("past_key_values") is not None or named.get("layer_past") is not None
    if cached or not torch.is_grad_enabled():
        return forward(*args, **named)
    adapted = lora_layers(layer)
    voices = [voice_of(module) for module in adapted]

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _as_it_was(model, adapted, voices)

    return _checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing is drawn: the model is in evaluation mode
        context_fn=contexts,
        **named,
    )


@contextlib.contextmanager
def _as_it_was(
    model: nn.Module, adapted: Sequence[Any], voices: Sequence[Voice]
) -> Generator[None]:
    now = [voice_of(module) for module in adapted]
    try:
        for module, voice in zip(adapted, voices, strict=True):
            give_voice(module, voice)
        with full_precision(model):
            yield
    finally:
        for module, voice in zip(adapted, now, strict=True):
            give_voice(module, voice)
