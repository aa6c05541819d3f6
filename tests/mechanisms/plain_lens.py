"""The logit lens by plain hooks on one sequence, with the model's own norm and unembedding.

It shares no code with the package: where the streams are is written down for each family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tiny
import torch
import transformers
from torch import Tensor

PARTS = {
    # family: decoder, layers, final norm, unembedding, what reads the stream after attention
    "llama": ("model", "layers", "norm", "lm_head", "post_attention_layernorm"),
    "gemma2": ("model", "layers", "norm", "lm_head", "pre_feedforward_layernorm"),
    "olmo2": ("model", "layers", "norm", "lm_head", "mlp"),
    "gpt2": ("transformer", "h", "ln_f", "lm_head", "ln_2"),
    "gpt_neox": ("gpt_neox", "layers", "final_layer_norm", "lm_head", None),
}


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """A tiny random decoder, also of families that the other tests build by themselves."""
    sizes = {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 3, "num_attention_heads": 4}  # fmt: skip
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if family == "gpt_neox":
        config = transformers.GPTNeoXConfig(**sizes, **ends, use_parallel_residual=True)
    elif family == "olmo2":
        config = transformers.Olmo2Config(**sizes, **ends, num_key_value_heads=2)
    else:
        return tiny.tiny_model(family, dtype=dtype)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(0.3 * noise + (1.0 if parameter.ndim == 1 else 0.0))
    return model.to(dtype).requires_grad_(False).eval()


@torch.no_grad()
def plain_lens(model: Any, family: str, tokens: Sequence[int]) -> Tensor:
    """Logits before any soft-cap after the last token at each depth, ``(depths, vocabulary)``."""
    core_name, layers, norm, unembed, middle = PARTS[family]
    core = getattr(model, core_name)
    streams: dict[tuple[int, int], Tensor] = {}
    writes: dict[int, Tensor] = {}

    def keep_input(key: tuple[int, int]) -> Any:
        return lambda _, args, kwargs: streams.update(
            {key: (args[0] if args else kwargs["hidden_states"])[0, -1].clone()}
        )

    handles = [getattr(core, norm).register_forward_pre_hook(keep_input((99, 0)), with_kwargs=True)]
    for index, layer in enumerate(getattr(core, layers)):
        handles.append(layer.register_forward_pre_hook(keep_input((index, 0)), with_kwargs=True))
        if middle is not None:
            reads = getattr(layer, middle)
            handles.append(
                reads.register_forward_pre_hook(keep_input((index, 1)), with_kwargs=True)
            )
        else:
            handles.append(
                layer.attention.dense.register_forward_hook(
                    lambda _, __, output, index=index: writes.update({index: output[0, -1]})
                )
            )
    try:
        tiny.plain_logits(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    for index, write in writes.items():
        streams[index, 1] = streams[index, 0] + write
    ordered = torch.stack([streams[key] for key in sorted(streams)])
    with tiny.never_narrowed():
        return getattr(model, unembed)(getattr(core, norm)(ordered))
