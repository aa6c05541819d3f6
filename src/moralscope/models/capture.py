"""What flows where? Activations at chosen nodes of a tree, observed without being disturbed.

Heads are captured at the *input* of the output projection, the only place where they are still
apart. For families with post-norms the sub-layer outputs are captured before that norm, where
patches go in, and after it, where contributions add up. Hooks are removed whatever happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import run_tree
from moralscope.models.tree import IntArray, PromptTree


@dataclass(frozen=True)
class Capture:
    """Activations of one agent at the kept nodes; all float32 or wider.

    Attributes:
        z: head activations, ``(layers, nodes, heads * head_dim)``.
        attn_out, mlp_out: sub-layer outputs before any post-norm, ``(layers, nodes, width)``.
        attn_write, mlp_write: what is added to the residual stream (equal to ``*_out`` in
            families without post-norms), same shape.
        resid_pre: residual stream before each layer, same shape; row 0 is the embedding.
        resid_final: residual stream before the final norm, ``(nodes, width)``.
        logits: ``(nodes, vocabulary)``, after any soft-cap.
    """

    z: Tensor
    attn_out: Tensor
    mlp_out: Tensor
    attn_write: Tensor
    mlp_write: Tensor
    resid_pre: Tensor
    resid_final: Tensor
    logits: Tensor


@contextlib.contextmanager
def hooks(handles: list[RemovableHandle]) -> Generator[None]:
    """Keep hooks for the length of a block, and never longer."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(value: object) -> Tensor:
    """The tensor of a module's output, which some modules wrap in a tuple."""
    tensor: Any = cast("tuple[Any, ...]", value)[0] if isinstance(value, tuple) else value
    return tensor


def _keeper(store: list[Tensor], nodes: Tensor) -> Callable[[object], None]:
    def keep(value: object) -> None:
        picked = first_tensor(value)[0, nodes]
        store.append(picked if picked.dtype == torch.float64 else picked.float())

    return keep


def _on_input(module: nn.Module, keep: Callable[[object], None]) -> RemovableHandle:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, keep: Callable[[object], None]) -> RemovableHandle:
    def hook(_: nn.Module, __: object, output: object) -> None:
        keep(output)

    return module.register_forward_hook(hook)


@torch.no_grad()
def capture(
    model: nn.Module,
    anatomy: Anatomy,
    tree: PromptTree,
    keep: IntArray,
    *,
    cache: object | None = None,
) -> Capture:
    """Run a tree once and keep the activations at some of its nodes.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        tree: what to run.
        keep: nodes to observe, shape ``(nodes,)``.
        cache: as in ``forward.call``; keys and values of every node are added to it.
    """
    nodes = torch.as_tensor(keep).to(next(model.parameters()).device)
    names = ("z", "attn_out", "mlp_out", "attn_write", "mlp_write", "resid_pre", "final")
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    handles: list[RemovableHandle] = []
    for block in anatomy.blocks:
        handles += [
            _on_input(block.layer, _keeper(kept["resid_pre"], nodes)),
            _on_input(block.out_proj, _keeper(kept["z"], nodes)),
            _on_output(block.out_proj, _keeper(kept["attn_out"], nodes)),
            _on_output(block.mlp, _keeper(kept["mlp_out"], nodes)),
        ]
        if block.attention_post_norm is not None:
            handles.append(
                _on_output(block.attention_post_norm, _keeper(kept["attn_write"], nodes))
            )
        if block.mlp_post_norm is not None:
            handles.append(_on_output(block.mlp_post_norm, _keeper(kept["mlp_write"], nodes)))
    handles.append(_on_input(anatomy.final_norm, _keeper(kept["final"], nodes)))
    with hooks(handles):
        logits = run_tree(model, tree, keep, cache=cache)
    stacked = {name: torch.stack(values) for name, values in kept.items() if values}
    return Capture(
        z=stacked["z"],
        attn_out=stacked["attn_out"],
        mlp_out=stacked["mlp_out"],
        attn_write=stacked.get("attn_write", stacked["attn_out"]),
        mlp_write=stacked.get("mlp_write", stacked["mlp_out"]),
        resid_pre=stacked["resid_pre"],
        resid_final=stacked["final"][0],
        logits=logits,
    )
