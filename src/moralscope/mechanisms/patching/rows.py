"""How can hundreds of patches cost about one forward? Interventions as rows that share a prefix.

A patch changes no token before the first one that it touches, so the clean run's keys and values
serve for those. Each intervention is then a *row*: a copy of the tokens that can change, which sees
the frozen ones and itself, and no other row.

1. A segment (``patching.segments``) says which tokens can change: at the answer span a handful,
   at all positions the whole tree of a group of prompts.
2. A row enters at the first layer that its intervention touches, with the clean residual stream,
   because before that layer it could not differ. Layers before the first entry are not run.
3. At its layer a row's site is replaced, before any post-norm, so that the norm is recomputed.
4. Log-odds are read from every row at once; only the logits of the options' tokens are computed
   where the normaliser cancels.

Row 0 is clean where rows are many; effects are differences from it, so that both sides went through
the same kernels. The rows go through the model's own layers (``models.resume``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Donor, Write
from moralscope.mechanisms.patching.edits import (
    Intervention,
    LayerEdits,
    Placement,
    edits_by_layer,
    install,
    replace_stream,
)
from moralscope.mechanisms.patching.readings import read_log_odds
from moralscope.mechanisms.patching.segments import Segment, kept_rows
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, hooks
from moralscope.models.forward import Visibility, build_mask, compute_dtype, full_precision
from moralscope.models.resume import call_layer
from moralscope.models.tree import PromptTree

CLEAN_ROW_FROM = 8
"""Interventions in a pass from which a clean row is run with them: it then costs little."""


@dataclass(frozen=True, eq=False)
class _Layout:
    """How the rows of one pass lie side by side.

    Attributes:
        place: where a row's edited tokens are.
        order: interventions in the order of their rows.
        clean: whether row 0 is clean.
        rows: how many there are in the end.
        rows_at: for each layer, how many rows are present.
        masks: the full mask of each layer.
        captured: the target's clean activations.
        kept: rows of the segment's tokens in it.
    """

    place: Placement
    order: tuple[int, ...]
    clean: bool
    rows: int
    rows_at: tuple[int, ...]
    masks: tuple[Tensor, ...]
    captured: Capture
    kept: Tensor


def _lay_rows(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    segment: Segment,
    interventions: Sequence[Intervention],
) -> _Layout:
    part = target.packs[segment.pack]
    captured, kept = kept_rows(part, segment.nodes)
    clean = len(interventions) >= CLEAN_ROW_FROM
    order = sorted(range(len(interventions)), key=lambda i: interventions[i].entry)
    entries = np.array([interventions[i].entry for i in order])
    first = int(entries.min())
    present = [int((entries <= layer).sum()) for layer in range(anatomy.n_layers)]
    rows = len(order) + clean
    device = captured.resid_final.device
    return _Layout(
        Placement(len(segment.nodes), torch.as_tensor(segment.edited, device=device)),
        tuple(order),
        clean,
        rows,
        tuple(here + clean if layer >= first else 0 for layer, here in enumerate(present)),
        masks_of_rows(model, anatomy, part.pack.tree, segment, rows),
        captured,
        torch.as_tensor(kept, device=device),
    )


def masks_of_rows(
    model: nn.Module, anatomy: Anatomy, tree: PromptTree, segment: Segment, rows: int
) -> tuple[Tensor, ...]:
    """For each layer the additive mask of rows side by side after the frozen tokens."""
    mask = build_mask(model, _visibility(tree, segment, rows), compute_dtype(model))
    if isinstance(mask, Tensor):
        return (mask,) * anatomy.n_layers
    config: Any = model.config
    return tuple(mask[kind] for kind in config.layer_types)


def _visibility(tree: PromptTree, segment: Segment, rows: int) -> Visibility:
    """Each row sees the frozen ancestors of its tokens, and its own tokens' ancestors."""
    length = len(segment.nodes)
    place = {int(node): at for at, node in enumerate(segment.nodes)}
    frozen = {int(node): at for at, node in enumerate(segment.frozen)}
    own = np.zeros((length, length), dtype=np.bool_)
    before = np.zeros((length, len(frozen)), dtype=np.bool_)
    for at, node in enumerate(segment.nodes.tolist()):
        parent = int(tree.parent[node])
        if parent in place:
            own[at], before[at] = own[place[parent]], before[place[parent]]
        else:
            while parent >= 0:
                before[at, frozen[parent]] = True
                parent = int(tree.parent[parent])
        own[at, at] = True
    allowed = np.concatenate(
        [np.tile(before, (rows, 1)), np.kron(np.eye(rows, dtype=np.bool_), own)], axis=1
    )
    depth = tree.depth[segment.nodes]
    keys = np.concatenate([tree.depth[segment.frozen], np.tile(depth, rows)])
    return Visibility(allowed, np.tile(depth, rows)[:, None] - keys[None, :])


@torch.no_grad()
def run_rows(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    segment: Segment,
    interventions: Sequence[Intervention],
    *,
    donors: Sequence[Donor],
    write: Write = "write",
) -> tuple[Tensor, Tensor]:
    """Patch a segment, every intervention in one pass.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run, with keys and values.
        segment: what is patched.
        interventions: one row each.
        donors: what goes in, by ``Intervention.donor``.
        write: see ``patching.edits``.

    Returns:
        Clean log-odds of each case of the segment, ``(cases,)``, and patched log-odds,
        ``(interventions, cases)`` in the orders given, in nats.
    """
    part = target.packs[segment.pack]
    layout = _lay_rows(model, anatomy, target, segment, interventions)
    edits = edits_by_layer(
        anatomy,
        [interventions[i] for i in layout.order],
        donors,
        write=write,
        first_row=int(layout.clean),
        device=layout.kept.device,
    )
    final = layout.captured.resid_final[layout.kept]
    with full_precision(model):
        hidden = _through_layers(model, anatomy, target, segment, layout, edits=edits, write=write)
        length = layout.place.length
        entering = final.to(hidden.dtype).repeat(layout.rows - hidden.shape[1] // length, 1)
        hidden = torch.cat([hidden, entering[None]], 1)
        hidden = replace_stream(hidden, edits[-1].get("resid_post"), layout.place)
        rows = hidden.view(-1, length, hidden.shape[-1])
        if not layout.clean:
            rows = torch.cat([final.to(rows.dtype)[None], rows])
        log_odds = read_log_odds(anatomy, part.pack, segment, rows).double().cpu()
    patched = torch.empty(len(interventions), len(segment.cases), dtype=log_odds.dtype)
    patched[list(layout.order)] = log_odds[1:]
    return log_odds[0], patched


def _through_layers(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    segment: Segment,
    layout: _Layout,
    *,
    edits: Sequence[LayerEdits],
    write: Write,
) -> Tensor:
    """The stream after the last layer, of the rows that entered, ``(1, tokens, width)``."""
    length, device, dtype = layout.place.length, layout.kept.device, compute_dtype(model)
    part = target.packs[segment.pack]
    calls = part.captured.calls
    nodes = torch.as_tensor(segment.nodes, device=device)
    prefix = torch.as_tensor(segment.frozen, device=device)
    hidden = layout.captured.resid_final.new_empty(1, 0, anatomy.width, dtype=dtype)
    for layer, block in enumerate(anatomy.blocks):
        rows = layout.rows_at[layer]
        if not rows:
            continue
        clean = layout.captured.resid_pre[layer, layout.kept].to(dtype)
        entering = clean.repeat(rows - hidden.shape[1] // length, 1)
        hidden = torch.cat([hidden, entering[None]], 1)
        for kind in ("resid_post", "resid_pre", "embed"):
            hidden = replace_stream(hidden, edits[layer].get(kind), layout.place)
        handles = install(
            anatomy, layer, edits[layer], layout.place,
            out_weight=target.out_weights[layer], write=write, stream=hidden,
        )  # fmt: skip
        tokens = rows * length
        with hooks(handles):
            hidden = call_layer(
                block.layer,
                calls[layer],
                hidden,
                nodes=nodes,
                copies=rows,
                mask=layout.masks[layer][:, :, :tokens, : len(prefix) + tokens],
                cache=FrozenPrefix.of(part.cache, layer, prefix),
            )
    return hidden


@dataclass(frozen=True, eq=False)
class FrozenPrefix:
    """Keys and values that every row sees: the one method of a cache that attention calls."""

    keys: Tensor
    values: Tensor

    @classmethod
    def of(cls, cache: Any, layer: int, nodes: Tensor) -> FrozenPrefix | None:
        """Those of some nodes of a clean run; None where no token is frozen.

        Raises:
            AgentError: the clean run did not keep them.
        """
        if not len(nodes):
            return None
        if cache is None:
            raise AgentError(
                "A patch needs the keys and values of the clean run",
                seen="a clean run without them",
                allowed="run_clean(..., keep_cache=True)",
                remedy="run clean again with keep_cache=True",
            )
        stored = cache.layers[layer]
        return cls(stored.keys[:, :, nodes], stored.values[:, :, nodes])

    def update(
        self, keys: Tensor, values: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """The prefix's keys and values, followed by those of the rows."""
        return torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
