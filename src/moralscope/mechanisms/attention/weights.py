"""How much does each head attend to each token when it decides? The model's own weights, exactly.

    weight[l, h, t] = softmax_t( mask + cap(scale q_lh . k_lt) )

at the last token of the prompt, where the decision is read. Nothing of this is computed here: the
last tokens of all prompts of a pack go once more through each layer, entering with the clean
residual stream and seeing the clean keys of their own prompt, under the library's plain (eager)
kernel, which gives its weights away. So rotary positions, norms on queries and keys, grouped heads,
soft-caps, sliding windows and un-merged adapters are as the model has them, and it costs a few
tokens where attention over whole prompts would cost ``heads x tokens^2`` numbers a layer.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.patching.rows import FrozenPrefix
from moralscope.models.anatomy import Anatomy, Block
from moralscope.models.capture import hooks
from moralscope.models.forward import Visibility, build_mask, compute_dtype, full_precision
from moralscope.models.replicas import under_kernel
from moralscope.models.resume import call_layer
from moralscope.models.tree import BoolArray, IntArray

Weights = NDArray[np.float64]
"""Of one prompt: ``(layers, heads, tokens)``, summing to 1 over the tokens."""


@torch.no_grad()
def attention_weights(model: nn.Module, anatomy: Anatomy, run: CleanRun) -> tuple[Weights, ...]:
    """The attention weights from the last token of each prompt.

    Weights that a model in 16 bits has rounded are divided by their sum, so that they sum to 1.

    Args:
        model: the decoder, with the weights in force that the clean run was made with.
        anatomy: its parts.
        run: its clean run, with keys and values.

    Returns:
        For each prompt of the run, in its order, ``(layers, heads, tokens)``.

    Raises:
        AgentError: the clean run did not keep keys and values.
        ModelError: the model does not give its attention weights away.
    """
    found: dict[int, Weights] = {}
    with under_kernel(model, "eager"), full_precision(model):
        for part in run.packs:
            found.update(_of_pack(model, anatomy, run, part))
    return tuple(found[member] for member in range(len(run.prompts)))


def _of_pack(
    model: nn.Module, anatomy: Anatomy, run: CleanRun, part: CleanPack
) -> Generator[tuple[int, Weights]]:
    paths = _prompt_paths(run, part)
    nodes, row = np.unique([path[-1] for path in paths], return_inverse=True)
    whole = torch.stack(
        list(_layers(model, anatomy, part, nodes, _seen(len(part.pack.tree), paths, row)))
    )
    for member, path, at in zip(part.pack.members, paths, row.tolist(), strict=True):
        own = whole[:, :, at, torch.as_tensor(path, device=whole.device)].double().cpu().numpy()
        yield member, own / own.sum(-1, keepdims=True)


def _prompt_paths(run: CleanRun, part: CleanPack) -> list[IntArray]:
    """Packed nodes of each member's prompt, options left out."""
    first = np.searchsorted(part.pack.option, 2 * np.arange(len(part.pack.members)))
    return [
        part.pack.tree.paths[at][: len(run.prompts[member].tokens)]
        for at, member in zip(first.tolist(), part.pack.members, strict=True)
    ]


def _seen(nodes: int, paths: list[IntArray], row: IntArray) -> BoolArray:
    """Which nodes each last token sees: its own prompt, itself included."""
    seen = np.zeros((int(row.max()) + 1, nodes), dtype=np.bool_)
    for path, at in zip(paths, row.tolist(), strict=True):
        seen[at, path] = True
    return seen


def _layers(
    model: nn.Module, anatomy: Anatomy, part: CleanPack, nodes: IntArray, seen: BoolArray
) -> Generator[Tensor]:
    """For each layer the weights of the last tokens on every node, ``(heads, last, nodes)``."""
    tree, total = part.pack.tree, len(part.pack.tree)
    device, dtype = part.captured.resid_final.device, compute_dtype(model)
    rows = torch.as_tensor(np.searchsorted(part.pack.keep, nodes), device=device)
    depth = tree.depth[nodes]
    # Their keys come a second time behind the clean ones, where nothing sees them.
    allowed = np.concatenate([seen, np.zeros((len(nodes), len(nodes)), dtype=np.bool_)], 1)
    keys = np.concatenate([tree.depth, depth])
    mask = build_mask(model, Visibility(allowed, depth[:, None] - keys[None, :]), dtype)
    config: Any = model.config
    everything = torch.arange(total, device=device)
    for layer, block in enumerate(anatomy.blocks):
        kept: list[Tensor] = []
        with hooks([attention_module(block).register_forward_hook(_keep_weights(kept))]):
            call_layer(
                block.layer,
                part.captured.calls[layer],
                part.captured.resid_pre[layer, rows].to(dtype)[None],
                nodes=torch.as_tensor(nodes, device=device),
                copies=1,
                mask=mask if isinstance(mask, Tensor) else mask[config.layer_types[layer]],
                cache=FrozenPrefix.of(part.cache, layer, everything),
            )
        yield kept[0][0, :, :, :total]


def attention_module(block: Block) -> nn.Module:
    """The module of a layer that computes attention: the one that holds the output projection."""
    for module in block.layer.modules():
        if any(child is block.out_proj for child in module.children()):
            return module
    raise _no_weights(block.layer)


def _keep_weights(kept: list[Tensor]) -> Any:
    def hook(module: nn.Module, _: object, output: object) -> None:
        values = cast("tuple[Any, ...]", output) if isinstance(output, tuple) else ()
        if len(values) < 2 or not isinstance(values[1], Tensor):
            raise _no_weights(module)
        kept.append(values[1])

    return hook


def _no_weights(module: nn.Module) -> ModelError:
    return ModelError(
        "The model does not give its attention weights away",
        seen=type(module).__name__,
        allowed="attention that returns its output and its weights under the eager kernel",
        remedy="use a model of a supported family as transformers builds it",
    )
