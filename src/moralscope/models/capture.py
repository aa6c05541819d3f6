"""What flows where? Activations at chosen nodes of a tree, observed without being disturbed.

Heads are captured at the *input* of the output projection, the only place where they are still
apart. For families with post-norms the sub-layer outputs are captured before that norm, where
patches go in, and after it, where contributions add up. Queries, keys and values are captured on
request. Hooks are removed whatever happens. An activation that is not finite is refused at the
first site where it appears.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import ModelError
from moralscope.core.site import Site
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import run_tree
from moralscope.models.projections import Projection
from moralscope.models.resume import LayerCall, record_call
from moralscope.models.tree import IntArray, PromptTree

Part = Literal["q", "k", "v"]
PARTS: tuple[Part, ...] = ("q", "k", "v")


def parts_of(kinds: Collection[str]) -> tuple[Part, ...]:
    """Which of queries, keys and values are among some kinds of site."""
    wanted = frozenset(kinds)
    return tuple(part for part in PARTS if not wanted.isdisjoint((part,)))


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
        logits: ``(read nodes, vocabulary)``, after any soft-cap.
        calls: what the decoder passed to each layer, for runs that resume there.
        q, k, v: queries, keys and values before rotary positions, ``(layers, nodes, heads,
            head_dim)``, or None where they were not asked for.
    """

    z: Tensor
    attn_out: Tensor
    mlp_out: Tensor
    attn_write: Tensor
    mlp_write: Tensor
    resid_pre: Tensor
    resid_final: Tensor
    logits: Tensor
    calls: tuple[LayerCall, ...]
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None

    @property
    def resid_mid(self) -> Tensor:
        """Residual stream between attention and MLP, ``(layers, nodes, width)``."""
        return self.resid_pre + self.attn_write

    def resid_post(self, layer: int) -> Tensor:
        """Residual stream after a layer, ``(nodes, width)``."""
        last = layer + 1 == len(self.resid_pre)
        return self.resid_final if last else self.resid_pre[layer + 1]

    def at(self, rows: Tensor) -> Capture:
        """The same activations at some of the nodes; logits and calls as they are."""
        by_layer = (
            "z",
            "attn_out",
            "mlp_out",
            "attn_write",
            "mlp_write",
            "resid_pre",
            "q",
            "k",
            "v",
        )
        values = {name: getattr(self, name) for name in by_layer}
        picked = {name: None if x is None else x[:, rows] for name, x in values.items()}
        return replace(self, **picked, resid_final=self.resid_final[rows])


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


class _Store:
    """Activations of one kind, layer after layer, copied into place as they come.

    Copied, because some modules add in place to what they were given; into place, because a list
    put together at the end would hold everything twice.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._filled = 0
        self.values: Tensor | None = None

    def add(self, picked: Tensor) -> None:
        if self.values is None:
            dtype = torch.promote_types(picked.dtype, torch.float32)
            self.values = picked.new_empty(self._layers, *picked.shape, dtype=dtype)
        self.values[self._filled] = picked
        self._filled += 1


def _keeper(store: _Store, nodes: Tensor | None) -> Callable[[object], None]:
    def keep(value: object) -> None:
        whole = first_tensor(value)[0]
        store.add(whole if nodes is None else whole[nodes])

    return keep


def _heads_keeper(
    projection: Projection, store: _Store, nodes: Tensor | None
) -> Callable[[object], None]:
    def keep(value: object) -> None:
        whole = projection.read(first_tensor(value))
        store.add(whole if nodes is None else whole[nodes])

    return keep


def _on_input(module: nn.Module, keep: Callable[[object], None]) -> RemovableHandle:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, keep: Callable[[object], None]) -> RemovableHandle:
    def hook(_: nn.Module, __: object, output: object) -> None:
        keep(output)

    return module.register_forward_hook(hook)


def _on_call(module: nn.Module, calls: list[LayerCall]) -> RemovableHandle:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(record_call(layer, args, kwargs))

    return module.register_forward_pre_hook(hook, with_kwargs=True)


@torch.no_grad()
def capture(
    model: nn.Module,
    anatomy: Anatomy,
    tree: PromptTree,
    keep: IntArray,
    *,
    cache: object | None = None,
    everywhere: bool = False,
    parts: Collection[Part] = (),
) -> Capture:
    """Run a tree once and keep the activations at some of its nodes.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        tree: what to run.
        keep: nodes to observe and to read logits at, shape ``(nodes,)``.
        cache: as in ``forward.call``; keys and values of every node are added to it.
        everywhere: observe every node instead; logits are still read at ``keep`` alone.
        parts: which of queries, keys and values to keep as well.

    Raises:
        ModelError: an activation is not finite; names the first such site.
    """
    nodes = None if everywhere else torch.as_tensor(keep).to(next(model.parameters()).device)
    names = ("resid_pre", "q", "k", "v", "z", "attn_out", "attn_write", "mlp_out", "mlp_write")
    kept = {name: _Store(anatomy.n_layers) for name in names} | {"final": _Store(1)}
    calls: list[LayerCall] = []
    handles: list[RemovableHandle] = []

    def onto(name: str) -> Callable[[object], None]:
        return _keeper(kept[name], nodes)

    for block in anatomy.blocks:
        handles += [
            _on_call(block.layer, calls),
            _on_input(block.layer, onto("resid_pre")),
            _on_input(block.out_proj, onto("z")),
            _on_output(block.out_proj, onto("attn_out")),
            _on_output(block.mlp, onto("mlp_out")),
        ]
        for part in parts:
            projection: Projection = getattr(block, part)
            handles.append(
                _on_output(projection.module, _heads_keeper(projection, kept[part], nodes))
            )
        if block.attention_post_norm is not None:
            handles.append(_on_output(block.attention_post_norm, onto("attn_write")))
        if block.mlp_post_norm is not None:
            handles.append(_on_output(block.mlp_post_norm, onto("mlp_write")))
    handles.append(_on_input(anatomy.final_norm, onto("final")))
    with hooks(handles):
        logits = run_tree(model, tree, keep, cache=cache)
    stacked = {name: s.values for name, s in kept.items() if s.values is not None}
    _refuse_not_finite(stacked)
    return Capture(
        z=stacked["z"],
        attn_out=stacked["attn_out"],
        mlp_out=stacked["mlp_out"],
        attn_write=stacked.get("attn_write", stacked["attn_out"]),
        mlp_write=stacked.get("mlp_write", stacked["mlp_out"]),
        resid_pre=stacked["resid_pre"],
        resid_final=stacked["final"][0],
        logits=logits,
        calls=tuple(calls),
        q=stacked.get("q"),
        k=stacked.get("k"),
        v=stacked.get("v"),
    )


def _refuse_not_finite(stacked: dict[str, Tensor]) -> None:
    """Name the first site, in the order of computation, whose activation is not finite."""
    final = stacked["final"]
    # What is wrong anywhere upstream of the end shows there, unless it was masked away.
    if torch.isfinite(final).all() and torch.isfinite(stacked["mlp_out"]).all():
        return
    layers = len(stacked["resid_pre"])
    for layer in range(layers):
        for name, values in stacked.items():
            if name == "final" or torch.isfinite(values[layer]).all():
                continue
            raise ModelError(
                "An activation is not finite",
                seen=f"first at {_site_of(name, layer, values[layer])}",
                allowed="finite numbers at every site",
                remedy="check the weights of that layer, or run in float32: float16 overflows",
            )
    raise ModelError(
        "An activation is not finite",
        seen=f"first at L{layers - 1}.resid_post",
        allowed="finite numbers at every site",
        remedy="check the weights of that layer, or run in float32: float16 overflows",
    )


def _site_of(name: str, layer: int, values: Tensor) -> Site:
    if name == "resid_pre":
        return Site("resid_pre", layer) if layer else Site("embed")
    if name in ("q", "k", "v"):
        head = int((~torch.isfinite(values)).any(-1).any(0).nonzero()[0])
        return Site(name, layer, head)
    return Site("mlp" if name.startswith("mlp") else "attn", layer)
