"""The logit lens by plain hooks on one sequence, with the model's own norm and unembedding.

It shares no code with the package: where the streams are is written down for each family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tiny
import torch
from torch import Tensor, nn

CORES = {
    "gpt2": ("transformer", "h", "ln_f"),
    "gpt_neox": ("gpt_neox", "layers", "final_layer_norm"),
}
READS_MIDDLE = {"gpt2": "ln_2", "olmo2": "mlp", "gemma2": "pre_feedforward_layernorm",
                "gemma3_text": "pre_feedforward_layernorm"}  # fmt: skip
"""What reads the stream between attention and MLP; ``post_attention_layernorm`` in the others."""


def final_norm(model: Any) -> nn.Module:
    """The norm before the unembedding."""
    core, _, norm = CORES.get(model.config.model_type, ("model", "layers", "norm"))
    return getattr(getattr(model, core), norm)


@torch.no_grad()
def plain_lens(model: Any, tokens: Sequence[int]) -> Tensor:
    """Logits before any soft-cap after the last token at each depth, ``(depths, vocabulary)``."""
    family = model.config.model_type
    core, layers, _ = CORES.get(family, ("model", "layers", "norm"))
    middle = READS_MIDDLE.get(family, "post_attention_layernorm")
    parallel = getattr(model.config, "use_parallel_residual", False)
    streams: dict[tuple[int, int], Tensor] = {}
    writes: dict[int, Tensor] = {}

    def keep_input(module: nn.Module, key: tuple[int, int]) -> Any:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entered = args[0] if args else kwargs["hidden_states"]
            streams[key] = entered[0, -1].clone()

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    def keep_write(module: nn.Module, layer: int) -> Any:
        return module.register_forward_hook(
            lambda _, __, output: writes.update({layer: output[0, -1].clone()})
        )

    handles = [keep_input(final_norm(model), (99, 0))]
    for index, layer in enumerate(getattr(getattr(model, core), layers)):
        handles.append(keep_input(layer, (index, 0)))
        if parallel:
            handles.append(keep_write(layer.attention.dense, index))
        else:
            handles.append(keep_input(getattr(layer, middle), (index, 1)))
    try:
        tiny.plain_logits(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    for index, write in writes.items():
        streams[index, 1] = streams[index, 0] + write
    ordered = torch.stack([streams[key] for key in sorted(streams)])
    with tiny.never_narrowed():
        return model.lm_head(final_norm(model)(ordered))
