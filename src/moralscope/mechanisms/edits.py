"""What is put in, and where? The source's writes in place of the target's, at chosen sites.

An intervention names sites that are patched together. What goes in is the source's activity at
the answer span of the same prompt, either as its own contribution (``write``) or as its head
activation through the target's projection (``z``):

    write:  out += W_source[h] z_source[h] - W_target[h] z[h]
    z:      out += W_target[h] (z_source[h] - z[h])

The two differ when the output projection carries an adapter. Both are made at the sub-layer's
output, before any post-norm, so that the norm is recomputed. Activation patching: Vig et al. 2020,
Meng et al. 2022; the treatment of adapters and post-norms is derived here. The edits know which
tokens of a pass they apply to, and nothing of attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanPack, CleanRun, Span
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import first_tensor
from moralscope.models.tree import IntArray

Write = Literal["write", "z"]
PATCHABLE = ("head", "mlp", "attn")


@dataclass(frozen=True)
class Intervention:
    """Sites that are patched together, in one row."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        for site in self.sites:
            if site.kind not in PATCHABLE:
                raise SiteError(
                    "This site cannot be patched by rows",
                    seen=str(site),
                    allowed="heads (L5.h3), attention layers (L5.attn) and MLPs (L5.mlp)",
                    remedy="name such sites; all of them together stand for the whole model",
                )
        if not self.sites:
            raise SiteError(
                "An intervention has no site",
                seen="()",
                allowed="one site or more",
                remedy="the clean run is row 0 of every pass already",
            )

    @property
    def entry(self) -> int:
        """The first layer that the intervention touches."""
        return min(site.layer or 0 for site in self.sites)


@dataclass(frozen=True)
class Edit:
    """What replaces the writes of one layer.

    Attributes:
        head_rows, heads: rows and heads whose contribution is replaced, pairwise.
        attn_rows, mlp_rows: rows whose whole sub-layer output is replaced.
    """

    head_rows: IntArray
    heads: IntArray
    attn_rows: IntArray
    mlp_rows: IntArray


def edits_by_layer(n_layers: int, interventions: Sequence[Intervention]) -> tuple[Edit, ...]:
    """What each layer has to replace, the interventions being rows 1, 2, ... of a pass."""
    found: list[dict[str, list[tuple[int, int]]]] = [
        {"head": [], "attn": [], "mlp": []} for _ in range(n_layers)
    ]
    for row, intervention in enumerate(interventions, start=1):
        for site in intervention.sites:
            found[site.layer or 0][site.kind].append((row, site.head or 0))

    def column(pairs: list[tuple[int, int]], which: int) -> IntArray:
        return np.array([pair[which] for pair in pairs], dtype=np.int64)

    return tuple(
        Edit(
            column(kinds["head"], 0),
            column(kinds["head"], 1),
            column(kinds["attn"], 0),
            column(kinds["mlp"], 0),
        )
        for kinds in found
    )


@dataclass(frozen=True)
class Donor:
    """What the source writes at the answer span of one prompt, in float32 or wider.

    Attributes:
        z: head activations, ``(layers, span, heads * head_dim)``.
        attn_out, mlp_out: sub-layer outputs before any post-norm, ``(layers, span, width)``.
        out_weights: the source's own effective output projections.
    """

    z: Tensor
    attn_out: Tensor
    mlp_out: Tensor
    out_weights: tuple[Tensor, ...]


def donor_of(run: CleanRun, part: CleanPack, span: Span) -> Donor:
    """The source's side of a patch."""
    captured = part.captured
    rows = torch.as_tensor(span.rows, device=captured.z.device)
    return Donor(
        captured.z[:, rows], captured.attn_out[:, rows], captured.mlp_out[:, rows], run.out_weights
    )


def _by_head(x: Tensor, n_heads: int) -> Tensor:
    """``(..., heads * dim)`` as ``(..., heads, dim)``, sharing memory."""
    return x.view(*x.shape[:-1], n_heads, -1)


def _tokens_of(rows: IntArray, span_length: int, device: torch.device) -> Tensor:
    """Packed positions of rows, ``(rows, span)``."""
    first = torch.as_tensor(rows, device=device)[:, None] * span_length
    return first + torch.arange(span_length, device=device)


def _replace_z(edit: Edit, donor: Donor, layer: int, n_heads: int, length: int) -> Any:
    """Hook before the output projection: put in the source's head activations."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z: Tensor = args[0].clone()
        by_head = _by_head(z[0], n_heads)
        source = _by_head(donor.z[layer], n_heads).to(z.dtype)
        heads = torch.as_tensor(edit.heads, device=z.device)
        at = _tokens_of(edit.head_rows, length, z.device)
        by_head[at, heads[:, None]] = source[:, heads].transpose(0, 1)
        return (z, *args[1:])

    return hook


def _replace_attention(
    edit: Edit, donor: Donor, weight: Tensor | None, *, layer: int, n_heads: int, length: int
) -> Any:
    """Hook after the output projection: put in the source's contributions.

    For a head this adds the difference of two contributions, the source's own and the one that
    the row's head makes now, ``W_source[h] z_source[h] - W_target[h] z_row[h]``.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if weight is not None and len(edit.heads):
            at = _tokens_of(edit.head_rows, length, output.device)
            heads = torch.as_tensor(edit.heads, device=output.device)
            own_z = _by_head(args[0][0], n_heads)[at, heads[:, None]]
            own = _head_writes(own_z.to(weight.dtype), weight, heads, n_heads)
            source_z = _by_head(donor.z[layer], n_heads)[:, heads].transpose(0, 1)
            theirs = _head_writes(source_z, donor.out_weights[layer], heads, n_heads)
            change = (theirs - own).to(output.dtype)
            output = output.index_add(1, at.flatten(), change.flatten(0, 1)[None])
        if len(edit.attn_rows):
            output = output.clone()
            at = _tokens_of(edit.attn_rows, length, output.device)
            output[0, at] = donor.attn_out[layer].to(output.dtype)
        return output

    return hook


def _head_writes(z: Tensor, weight: Tensor, heads: Tensor, n_heads: int) -> Tensor:
    """``W_O[:, h] z_h`` for chosen heads: ``(n, span, head_dim)`` to ``(n, span, width)``."""
    by_head = _by_head(weight, n_heads)[:, heads]
    return torch.einsum("nsk,dnk->nsd", z, by_head)


def _replace_mlp(edit: Edit, donor: Donor, layer: int, length: int) -> Any:
    """Hook after the MLP: put in the source's output."""

    def hook(_: nn.Module, __: object, output: object) -> Tensor:
        replaced = first_tensor(output).clone()
        at = _tokens_of(edit.mlp_rows, length, replaced.device)
        replaced[0, at] = donor.mlp_out[layer].to(replaced.dtype)
        return replaced

    return hook


def install_edits(
    anatomy: Anatomy,
    edits: Sequence[Edit],
    donor: Donor,
    *,
    span_length: int,
    out_weights: Sequence[Tensor],
    write: Write,
) -> list[RemovableHandle]:
    """Hook the edits into a decoder; the caller removes the hooks.

    Args:
        anatomy: the target's decoder.
        edits: for each layer.
        donor: what goes in.
        span_length: tokens of a row.
        out_weights: the target's effective output projections.
        write: ``write`` puts in the source's own contribution, ``z`` its head activation.
    """
    handles: list[RemovableHandle] = []
    for layer, (block, edit) in enumerate(zip(anatomy.blocks, edits, strict=True)):
        weight = out_weights[layer] if write == "write" else None
        if write == "z" and len(edit.heads):
            hook = _replace_z(edit, donor, layer, anatomy.n_heads, span_length)
            handles.append(block.out_proj.register_forward_pre_hook(hook))
        if (write == "write" and len(edit.heads)) or len(edit.attn_rows):
            hook = _replace_attention(
                edit, donor, weight, layer=layer, n_heads=anatomy.n_heads, length=span_length
            )
            handles.append(block.out_proj.register_forward_hook(hook))
        if len(edit.mlp_rows):
            hook = _replace_mlp(edit, donor, layer, span_length)
            handles.append(block.mlp.register_forward_hook(hook))
    return handles
