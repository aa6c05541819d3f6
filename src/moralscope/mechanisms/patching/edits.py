"""What is replaced, and how? Interventions, and the hooks that carry them out.

An intervention names sites that are patched together. A head is replaced either by the source's own
contribution (``write``) or by its head activation through the target's projection (``z``):

    write:  out += W_source[h] z_source[h] - W_target[h] z[h]
    z:      out += W_target[h] (z_source[h] - z[h])

The two differ when the output projection carries an adapter. Heads, attention layers and MLPs are
replaced at the sub-layer's output, before any post-norm, so that the norm is recomputed; queries,
keys and values just before rotary positions; the residual stream and the embedding where they flow.
Activation patching: Vig et al. 2020, Meng et al. 2022; the treatment of adapters and post-norms is
derived here. The edits know which tokens of a pass they apply to, and nothing of attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import SiteError
from moralscope.core.site import Kind, Site
from moralscope.mechanisms.patching.donors import Donor, Write, head_writes, values_of
from moralscope.models.anatomy import Anatomy, Block
from moralscope.models.capture import first_tensor
from moralscope.models.projections import Projection


@dataclass(frozen=True)
class Intervention:
    """Sites that are patched together, in one row.

    Attributes:
        sites: what is replaced.
        donor: which of a sweep's donors the values come from.
    """

    sites: tuple[Site, ...]
    donor: int = 0

    def __post_init__(self) -> None:
        if not self.sites:
            raise SiteError(
                "An intervention has no site",
                seen="()",
                allowed="one site or more",
                remedy="the clean run is measured in every pass already",
            )
        for site in self.sites:
            if site.kind in ("bias", "all"):
                raise SiteError(
                    "This site cannot be patched",
                    seen=str(site),
                    allowed="embed, heads, queries, keys, values, attention layers, MLPs and the "
                    "residual stream",
                    remedy="biases are parameters, the same on every prompt"
                    if site.kind == "bias"
                    else "every sweep measures the full swap as the site all",
                )

    @property
    def entry(self) -> int:
        """The first layer that has to be computed again."""
        return min((site.layer or 0) + (site.kind == "resid_post") for site in self.sites)


@dataclass(frozen=True, eq=False)
class Edit:
    """What replaces one kind of site in one layer.

    Attributes:
        rows: the rows that are edited, ``(n,)``.
        heads: the head of each, zero for sites without.
        values: what goes in, ``(n, edited, dim)``.
    """

    rows: Tensor
    heads: Tensor
    values: Tensor


LayerEdits = dict[Kind, Edit]


def edits_by_layer(
    anatomy: Anatomy,
    interventions: Sequence[Intervention],
    donors: Sequence[Donor],
    *,
    write: Write,
    first_row: int,
    device: torch.device,
) -> tuple[LayerEdits, ...]:
    """What each layer has to replace; one entry more than layers, for what follows the last.

    Args:
        anatomy: the target's decoder.
        interventions: in the order of their rows.
        donors: where values come from.
        write: see the module.
        first_row: the row of the first intervention.
        device: where the rows are computed.
    """
    found: list[dict[Kind, dict[int, list[tuple[int, Site]]]]] = [
        {} for _ in range(anatomy.n_layers + 1)
    ]
    for row, intervention in enumerate(interventions, start=first_row):
        for site in intervention.sites:
            # The stream after a layer is the stream before the next.
            at = (site.layer or 0) + (site.kind == "resid_post")
            by_donor = found[at].setdefault(site.kind, {})
            by_donor.setdefault(intervention.donor, []).append((row, site))

    def edit(by_donor: dict[int, list[tuple[int, Site]]]) -> Edit:
        pairs = [pair for group in by_donor.values() for pair in group]
        values = [
            values_of(donors[index], [site for _, site in group], write, anatomy.n_heads)
            for index, group in by_donor.items()
        ]
        return Edit(
            torch.tensor([row for row, _ in pairs], device=device),
            torch.tensor([site.head or 0 for _, site in pairs], device=device),
            torch.cat(values).to(device),
        )

    return tuple({kind: edit(rows) for kind, rows in kinds.items()} for kinds in found)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where rows lie in a pass.

    Attributes:
        length: tokens of a row.
        edited: which of them are replaced, ``(edited,)``.
    """

    length: int
    edited: Tensor

    def tokens(self, rows: Tensor) -> Tensor:
        """Packed positions of the edited tokens of rows, ``(rows, edited)``."""
        return rows[:, None] * self.length + self.edited


def replace_stream(hidden: Tensor, edit: Edit | None, place: Placement) -> Tensor:
    """The residual stream with some rows replaced, ``(1, tokens, width)``."""
    if edit is None:
        return hidden
    hidden = hidden.clone()
    hidden[0, place.tokens(edit.rows)] = edit.values.to(hidden.dtype)
    return hidden


def install(
    anatomy: Anatomy,
    layer: int,
    edits: LayerEdits,
    place: Placement,
    *,
    out_weight: Tensor,
    write: Write,
    stream: Tensor,
) -> list[RemovableHandle]:
    """Hook one layer's edits into it; the caller removes the hooks.

    Args:
        anatomy: the target's decoder.
        layer: which layer.
        edits: what is replaced there.
        place: which tokens.
        out_weight: the target's effective output projection.
        write: see the module.
        stream: the layer's input, which a patch of the stream between the sub-layers needs.
    """
    block = anatomy.blocks[layer]
    handles: list[RemovableHandle] = []
    for kind in ("q", "k", "v"):
        if kind in edits:
            projection: Projection = getattr(block, kind)
            hook = _replace_part(edits[kind], projection, place)
            handles.append(projection.module.register_forward_hook(hook))
    if "head" in edits:
        handles.append(
            _hook_heads(
                block,
                edits["head"],
                place,
                n_heads=anatomy.n_heads,
                weight=out_weight,
                write=write,
            )
        )
    if "attn" in edits:
        handles.append(block.out_proj.register_forward_hook(_replace_all(edits["attn"], place)))
    if "resid_mid" in edits:
        written = block.attention_post_norm or block.out_proj
        hook = _replace_middle(edits["resid_mid"], place, stream)
        handles.append(written.register_forward_hook(hook))
    if "mlp" in edits:
        handles.append(block.mlp.register_forward_hook(_replace_all(edits["mlp"], place)))
    return handles


def _replace_part(edit: Edit, projection: Projection, place: Placement) -> Any:
    """Hook after a projection: put in the source's queries, keys or values."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return projection.replaced(output, place.tokens(edit.rows), edit.heads, edit.values)

    return hook


def _hook_heads(
    block: Block, edit: Edit, place: Placement, *, n_heads: int, weight: Tensor, write: Write
) -> RemovableHandle:
    at = place.tokens(edit.rows)

    def by_head(z: Tensor) -> Tensor:
        return z.view(*z.shape[:-1], n_heads, -1)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z: Tensor = args[0].clone()
        by_head(z[0])[at, edit.heads[:, None]] = edit.values.to(z.dtype)
        return (z, *args[1:])

    def after(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        own_z = by_head(args[0][0])[at, edit.heads[:, None]]
        own = head_writes(own_z, weight, edit.heads, n_heads)
        # Two sites of one row may be heads of this layer: their changes add up.
        change = (edit.values - own).to(output.dtype)
        return output.index_add(1, at.flatten(), change.flatten(0, 1)[None])

    if write == "z":
        return block.out_proj.register_forward_pre_hook(before)
    return block.out_proj.register_forward_hook(after)


def _replace_all(edit: Edit, place: Placement) -> Any:
    """Hook after a sub-layer: put in the source's output."""

    def hook(_: nn.Module, __: object, output: object) -> Tensor:
        replaced = first_tensor(output).clone()
        replaced[0, place.tokens(edit.rows)] = edit.values.to(replaced.dtype)
        return replaced

    return hook


def _replace_middle(edit: Edit, place: Placement, stream: Tensor) -> Any:
    """Hook after attention's write: make the stream that follows it the source's."""
    at = place.tokens(edit.rows)

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        replaced = output.clone()
        replaced[0, at] = (edit.values - stream[0, at].to(edit.values.dtype)).to(output.dtype)
        return replaced

    return hook
