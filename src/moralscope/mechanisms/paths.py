"""What does one component tell another? Path patching, exact and exhaustive.

The effect of a sender on the decision *through a chosen receiver only* (Wang et al. 2022,
Goldowsky-Dill et al. 2023), in two steps:

1. The sender is replaced by the source's. Every other component keeps its clean output, MLPs
   included, so the stream that the receiver reads changes by what the sender writes, and by nothing
   else: ``x + delta``. The receiver is computed on that.
2. The receiver's new value is put into an otherwise clean target, and everything after it reacts.

Receivers are a head's query (``L7.h2.q``), a key/value head's key or value (``L7.kv1.k``), a whole
attention layer, an MLP, or the residual stream itself; the stream after the last layer is the
decision, read directly. In families with post-norms ``delta`` is the change of the normed output.
Step 1 costs one layer for all senders of a receiver's layer, step 2 is a sweep of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from moralscope.core.errors import SiteError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.site import Edge, Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.donors import Donor, Write, donor_for, head_writes, values_of
from moralscope.mechanisms.edits import Intervention
from moralscope.mechanisms.plans import DEFAULT_MEMORY_BYTES, MAX_ROW_TOKENS, plan_sweep
from moralscope.mechanisms.rows import FrozenPrefix, masks_of_rows, run_rows
from moralscope.mechanisms.segments import ANSWER_SPAN, Segment, kept_rows
from moralscope.mechanisms.sweeps import Pairs, pairs_of, segments_for
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, first_tensor, hooks
from moralscope.models.forward import compute_dtype, full_precision
from moralscope.models.resume import call_layer

_SENDERS = ("embed", "head", "attn", "mlp")
_STREAMS = ("resid_pre", "resid_mid", "resid_post")
_RECEIVERS = ("q", "k", "v", "attn", "mlp", *_STREAMS)


def direct_to_decision(anatomy: Anatomy, sender: Site) -> Edge:
    """The path from a sender straight to the decision."""
    return Edge(sender, Site("resid_post", anatomy.n_layers - 1))


def check_edge(anatomy: Anatomy, edge: Edge) -> None:
    """Refuse a path that this decoder does not have.

    Raises:
        SiteError: a site does not exist, cannot send or receive, or the receiver does not come
            after the sender.
    """
    sender, receiver = edge.sender, edge.receiver
    anatomy.check_site(sender)
    anatomy.check_site(receiver)
    if sender.kind not in _SENDERS or receiver.kind not in _RECEIVERS:
        raise SiteError(
            "This is not a path between components",
            seen=str(edge),
            allowed=f"senders {', '.join(_SENDERS)}; receivers {', '.join(_RECEIVERS)}",
            remedy="send to a head through its query (L7.h2.q), key or value (L7.kv1.k, L7.kv1.v)",
        )
    if _reads_from(receiver) < _writes_to(sender, parallel=anatomy.parallel):
        raise SiteError(
            "The receiver of a path does not come after its sender",
            seen=str(edge),
            allowed="a receiver that reads the stream after the sender has written to it",
            remedy="exchange the two, or choose a later receiver",
        )


def _writes_to(sender: Site, *, parallel: bool) -> float:
    """Depth of the first stream that holds the sender's write."""
    if sender.kind == "embed":
        return 0.0
    middle = sender.kind in ("head", "attn") and not parallel
    return (sender.layer or 0) + (0.5 if middle else 1.0)


def _reads_from(receiver: Site) -> float:
    """Depth of the stream that the receiver reads, or is."""
    layer = receiver.layer or 0
    offset = {"mlp": 0.5, "resid_mid": 0.5, "resid_post": 1.0}.get(receiver.kind, 0.0)
    return layer + offset


@dataclass(frozen=True, eq=False)
class _Patched:
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


def sent(anatomy: Anatomy, target: CleanRun, here: _Patched, sender: Site, write: Write) -> Tensor:
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
    here: _Patched,
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
    if all(edge.receiver.kind in _STREAMS for edge in edges):
        return [
            here.clean(_stream(here.captured, edge.receiver)) + delta
            for edge, delta in zip(edges, deltas, strict=True)
        ]
    dtype = compute_dtype(model)
    block = anatomy.blocks[layer]
    length, rows = len(here.kept), len(edges)
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
    return [
        here.clean(_stream(here.captured, edge.receiver)) + deltas[row]
        if edge.receiver.kind in _STREAMS
        else _picked(kept, edge.receiver, row)
        for row, edge in enumerate(edges)
    ]


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


def patch_paths(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    edges: Sequence[Edge],
    *,
    pairs: Pairs | None = None,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``edges``: every path on every pair of prompts, both in the order given.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that senders' activations come from.
        target: clean run of the model that is patched, with its cache.
        edges: the paths.
        pairs: (target prompt, source prompt); each prompt with itself unless given.
        positions: where senders are replaced.
        write: for heads as senders, see ``mechanisms.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass.
        progress: called after each pass.

    Raises:
        SiteError: a path does not exist; the rest as ``sweeps.sweep``.
    """
    for edge in edges:
        check_edge(anatomy, edge)
    chosen = pairs_of(source, target, pairs)
    segments = segments_for(source, target, chosen, positions)
    interventions = [Intervention((edge.receiver,)) for edge in edges]
    plan = plan_sweep(
        model, anatomy, segments, interventions,
        memory_bytes=memory_bytes, max_row_tokens=max_row_tokens,
    )  # fmt: skip
    baselines: dict[tuple[int, int], float] = {}
    effects: dict[tuple[tuple[int, int], int], float] = {}
    task = f"paths {source.agent}>{target.agent}"
    for done, step in enumerate(plan.passes, start=1):
        segment = segments[step.segment]
        here = _at(source, target, segment)
        taken = [edges[i] for i in step.interventions]
        with torch.no_grad():
            values = _values(model, anatomy, target, here, edges=taken, write=write)
        # The receiver's value is known at every token of the segment, not at the edited ones alone.
        whole = replace(segment, edited=np.arange(len(segment.nodes), dtype=np.int64))
        clean, patched = run_rows(
            model, anatomy, target, whole,
            [Intervention((edge.receiver,), donor=i) for i, edge in enumerate(taken)],
            donors=[Donor(own={edge.receiver: v}) for edge, v in zip(taken, values, strict=True)],
        )  # fmt: skip
        for column, case in enumerate(segment.cases):
            pair = (case.member, case.source_member)
            # Effects are differences within a pass; the first pass's baseline stands for all.
            baselines.setdefault(pair, float(clean[column]))
            for row, index in enumerate(step.interventions):
                effects[pair, index] = float(patched[row, column] - clean[column])
        progress(ProgressEvent(task, done, len(plan.passes)))
    asked = [(pair, index) for pair in chosen for index in range(len(edges))]
    rows: list[dict[str, object]] = [
        {
            "source": source.agent,
            "target": target.agent,
            "prompt": target.prompts[pair[0]].name,
            "source_prompt": source.prompts[pair[1]].name,
            "sender": str(edges[index].sender),
            "receiver": str(edges[index].receiver),
            "positions": positions,
            "write": write,
            "baseline_log_odds": baselines[pair],
            "patched_log_odds": baselines[pair] + effects[pair, index],
            "effect": effects[pair, index],
        }
        for pair, index in asked
    ]
    return from_rows("edges", rows)


def _at(source: CleanRun, target: CleanRun, segment: Segment) -> _Patched:
    captured, kept = kept_rows(target.packs[segment.pack], segment.nodes)
    rows = torch.as_tensor(kept, device=captured.resid_final.device)
    return _Patched(segment, captured, rows, donor_for(source, segment))


def _values(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    here: _Patched,
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
