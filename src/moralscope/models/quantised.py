"""What is a 4-bit weight worth? Base weights stored as NF4, each read as the float32 it stands for.

In every block of 64 weights, one scale and a 4-bit index into 16 fixed numbers (QLoRA, Dettmers
et al. 2023, equations 1 and 5; scales are themselves stored in 8 bits):

    W[i] = code[index[i]] * scale[block of i]

Only the base is stored like this: embeddings, norms, the unembedding and adapters stay float32,
and so does all arithmetic, so a decision decomposes as exactly as in float32.

bitsandbytes does the storing, with two traps on processors, of which it says nothing. Where there
are bfloat16 instructions, the first forward would rearrange the weights in place and compute in
bfloat16 from there on; read in the old order they are other weights. ``keep_readable`` switches
that off. And its kernel applies scales row by row, which is wrong unless the inputs of a layer
are a multiple of 64; such layers are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.libraries import optional_library, transformers

_FOUR_BIT = "bitsandbytes.nn.modules.Linear4bit"


def _bitsandbytes() -> Any:
    return optional_library("bitsandbytes", extra="quantised")


def four_bit_settings(device: str) -> dict[str, Any]:
    """What ``from_pretrained`` needs to store linear layers as NF4 with nested scales.

    Raises:
        DependencyError: bitsandbytes is not installed.
    """
    _bitsandbytes()
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return {"quantization_config": settings, "device_map": {"": device}, "dtype": torch.float32}


def is_four_bit(layer: nn.Module) -> bool:
    """Whether a layer's weight is stored in 4 bits by bitsandbytes."""
    return f"{type(layer).__module__}.{type(layer).__qualname__}" == _FOUR_BIT


def keep_readable(model: nn.Module) -> int:
    """Keep 4-bit layers as they are stored and in their own arithmetic; returns how many.

    Raises:
        ModelError: the processor would apply the scales of a layer to the wrong weights.
    """
    untyped: Any = model
    layers: dict[str, Any] = {k: m for k, m in untyped.named_modules() if is_four_bit(m)}
    for name, layer in layers.items():
        _require_whole_blocks(layer, name)
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def _require_whole_blocks(layer: Any, name: str) -> None:
    weight = layer.weight
    block = weight.quant_state.blocksize if weight.quant_state is not None else 1
    if weight.device.type == "cpu" and layer.in_features % block:
        raise ModelError(
            "A layer cannot be stored in 4 bits on this device",
            seen=f"{name} with {layer.in_features} inputs on {weight.device}",
            allowed=f"inputs in whole blocks of {block}: the processor's kernel applies other "
            "scales to other weights",
            remedy="load the model in float32 or bfloat16",
        )


def dequantised(layer: nn.Module) -> Tensor:
    """The weight that a 4-bit layer multiplies by, shape ``(out, in)``.

    Raises:
        ModelError: the weight was never quantised, was rearranged for the processor, or is not in
            whole blocks.
    """
    untyped: Any = layer
    weight: Any = untyped.weight
    state: Any = weight.quant_state
    rearranged = getattr(state, "packing_format_for_cpu", False)
    if state is None or rearranged:
        raise ModelError(
            "A 4-bit weight cannot be read",
            seen="it was rearranged for this processor" if rearranged else "it has no scales yet",
            allowed="4-bit layers as bitsandbytes stores them",
            remedy='load the model with load_model(..., dtype="nf4")',
        )
    _require_whole_blocks(layer, "a layer")
    return _bitsandbytes().functional.dequantize_4bit(weight.data, state)
