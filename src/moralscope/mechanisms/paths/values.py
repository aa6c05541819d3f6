"""What does a receiver hear if one sender alone changed? Step 1 of path patching.

See ``paths.tables``. The sender's change of the stream is what replacing its output changes, in
families with post-norms of the normed output; the receiver is computed by the model's own layer on
the clean stream plus that change, with everything between kept clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.site import Edge, Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Donor, Write, donor_for, head_writes, values_of
from moralscope.mechanisms.patching.rows import FrozenPrefix, masks_of_rows
from moralscope.mechanisms.patching.segments import Segment, kept_rows
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, first_tensor, hooks
from moralscope.models.forward import compute_dtype, full_precision
from moralscope.models.resume import call_layer

STREAMS = ("resid_pre", "resid_mid", "resid_post")
"""Receivers that are the stream itself."""


@dataclass(frozen=True, eq=False)
class Patched:
    """A segment of the target, what is clean there, and the source's side.

    Attributes:
        segment: the rows' tokens.
        captured: the target's clean activations.
        kept: rows of the segment's tokens in it.
        donor: the source at the edited tokens.
    """

    segment: Segment
    captured: Capture
    kept: Tensor
    donor: Donor

    def clean(self, values: Tensor) -> Tensor:
        """Clean values at the segment's tokens."""
        return values[self.kept]


def sent(anatomy: Anatomy, target: CleanRun, here: Patched, sender: Site, write: Write) -> Tensor:
    """What replacing a sender changes in the stream, ``(tokens of the segment, width)``."""
    edited = torch.as_tensor(here.segment.edited, device=here.kept.device)
    at = here.kept[edited]
    layer = sender.layer or 0
    theirs = values_of(here.donor, [sender], write, anatomy.n_heads)[0]
    captured = here.captured
    if sender.kind == "head":
        heads = torch.tensor([sender.head or 0], device=at.device)
        z = captured.z[layer, at].view(len(at), anatomy.n_heads, -1)[:, heads].transpose(0, 1)
        weight = target.out_weights[layer]
        if write == "z":
            theirs = head_writes(theirs[None], weight, heads, anatomy.n_heads)[0]
        change = theirs - head_writes(z, weight, heads, anatomy.n_heads)[0]
    elif sender.kind == "embed":
        change = theirs - captured.resid_pre[0, at]
    else:
        out = captured.attn_out if sender.kind == "attn" else captured.mlp_out
        change = theirs - out[layer, at]
    change = _through_post_norm(anatomy, captured, sender, at, change)
    delta = change.new_zeros(len(here.kept), change.shape[-1])
    delta[edited] = change
    return delta


def _through_post_norm(
    anatomy: Anatomy, captured: Capture, sender: Site, at: Tensor, change: Tensor
) -> Tensor:
    """A change of a sub-layer's output as a change of what is added to the stream."""
    if sender.kind == "embed":
        return change
    layer = sender.layer or 0
    block = anatomy.blocks[layer]
    is_mlp = sender.kind == "mlp"
    norm = block.mlp_post_norm if is_mlp else block.attention_post_norm
    if norm is None:
        return change
    out = (captured.mlp_out if is_mlp else captured.attn_out)[layer, at]
    written = (captured.mlp_write if is_mlp else captured.attn_write)[layer, at]
    dtype = norm.get_parameter("weight").dtype
    normed: Tensor = norm((out + change).to(dtype))
    return normed.to(written.dtype) - written


def received(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    here: Patched,
    *,
    layer: int,
    edges: Sequence[Edge],
    deltas: Tensor,
) -> list[Tensor]:
    """What the receivers of one layer become when only their senders changed.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        here: the segment.
        layer: the receivers' layer.
        edges: paths into that layer.
        deltas: what each sender changes in the stream, ``(edges, tokens, width)``.

    Returns:
        For each edge the receiver's value, ``(tokens, dim)``.
    """
    if all(edge.receiver.kind in STREAMS for edge in edges):
        return [
            here.clean(_stream(here.captured, edge.receiver)) + delta
            for edge, delta in zip(edges, deltas, strict=True)
        ]
    kept = _run_layer(model, anatomy, target, here, layer=layer, deltas=deltas)
    return [
        here.clean(_stream(here.captured, edge.receiver)) + deltas[row]
        if edge.receiver.kind in STREAMS
        else _picked(kept, edge.receiver, row)
        for row, edge in enumerate(edges)
    ]


def _run_layer(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    here: Patched,
    *,
    layer: int,
    deltas: Tensor,
) -> dict[str, Tensor]:
    """One layer on changed streams, attention's write kept clean.

    Returns:
        Queries, keys, values and outputs of its sub-layers, ``(edges, tokens, ...)``.
    """
    dtype = compute_dtype(model)
    block = anatomy.blocks[layer]
    rows, length = len(deltas), len(here.kept)
    hidden = (here.clean(here.captured.resid_pre[layer]) + deltas).to(dtype)
    frozen = here.clean(here.captured.attn_write[layer]).to(dtype).repeat(rows, 1)[None]
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: object, output: object) -> None:
            value = first_tensor(output)
            value = getattr(block, name).read(value) if name in ("q", "k", "v") else value[0]
            wide = value if value.dtype == torch.float64 else value.float()
            kept[name] = wide.view(rows, length, *wide.shape[1:])

        return hook

    def freeze(_: nn.Module, __: object, ___: object) -> Tensor:
        # What attention adds stays clean, so that an MLP hears the sender directly.
        return frozen

    written = block.attention_post_norm or block.out_proj
    handles = [
        block.q.module.register_forward_hook(keep("q")),
        block.k.module.register_forward_hook(keep("k")),
        block.v.module.register_forward_hook(keep("v")),
        block.out_proj.register_forward_hook(keep("attn")),
        written.register_forward_hook(freeze),
        block.mlp.register_forward_hook(keep("mlp")),
    ]
    part = target.packs[here.segment.pack]
    masks = masks_of_rows(model, anatomy, part.pack.tree, here.segment, rows)
    prefix = torch.as_tensor(here.segment.frozen, device=here.kept.device)
    with hooks(handles), full_precision(model):
        call_layer(
            block.layer,
            part.captured.calls[layer],
            hidden.view(1, rows * length, -1),
            nodes=torch.as_tensor(here.segment.nodes, device=here.kept.device),
            copies=rows,
            mask=masks[layer],
            cache=FrozenPrefix.of(part.cache, layer, prefix),
        )
    return kept


def _picked(kept: dict[str, Tensor], receiver: Site, row: int) -> Tensor:
    value = kept[receiver.kind][row]
    return value[:, receiver.head or 0] if receiver.kind in ("q", "k", "v") else value


def _stream(captured: Capture, receiver: Site) -> Tensor:
    layer = receiver.layer or 0
    if receiver.kind == "resid_pre":
        return captured.resid_pre[layer]
    if receiver.kind == "resid_mid":
        return captured.resid_pre[layer] + captured.attn_write[layer]
    return captured.resid_post(layer)


def patched_at(source: CleanRun, target: CleanRun, segment: Segment) -> Patched:
    """A segment with both sides of its patch.

    Raises:
        AgentError: a clean run did not keep what is needed there.
    """
    captured, kept = kept_rows(target.packs[segment.pack], segment.nodes)
    rows = torch.as_tensor(kept, device=captured.resid_final.device)
    return Patched(segment, captured, rows, donor_for(source, segment))


def receiver_values(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    here: Patched,
    *,
    edges: Sequence[Edge],
    write: Write,
) -> list[Tensor]:
    """The receivers' values, each sender computed once and each receiving layer run once."""
    with full_precision(model):
        deltas = {e.sender: sent(anatomy, target, here, e.sender, write) for e in edges}
    values: list[Tensor | None] = [None] * len(edges)
    for layer in sorted({edge.receiver.layer or 0 for edge in edges}):
        at = [i for i, edge in enumerate(edges) if (edge.receiver.layer or 0) == layer]
        here_edges = [edges[i] for i in at]
        stacked = torch.stack([deltas[edge.sender] for edge in here_edges])
        found = received(
            model, anatomy, target, here, layer=layer, edges=here_edges, deltas=stacked
        )
        for i, value in zip(at, found, strict=True):
            values[i] = value
    return [value for value in values if value is not None]
