"""What goes in? The source's activity at the tokens that are replaced, site by site.

A donor holds, for every edited token of a segment, what the source computes there: another agent
on the same prompt, the same agent on another prompt, both, or values made elsewhere (a mean, zero,
or what a path alone would deliver).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moralscope.core.errors import AgentError
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.segments import Segment, kept_rows
from moralscope.models.capture import Capture

Write = Literal["write", "z"]


@dataclass(frozen=True, eq=False)
class Donor:
    """What the source computes at the edited tokens, float32 or wider.

    Attributes:
        parts: its activations, by pack: a capture, its rows, and which edited tokens they are for.
        out_weights: its own effective output projections, ``(width, heads * head_dim)``.
        own: values that take precedence, ``(edited, dim)`` by site; a head's is its contribution
            to the residual stream.
    """

    parts: tuple[tuple[Capture, Tensor, Tensor], ...] = ()
    out_weights: tuple[Tensor, ...] = ()
    own: Mapping[Site, Tensor] = field(default_factory=dict[Site, Tensor])

    def take(self, pick: Callable[[Capture], Tensor]) -> Tensor:
        """One layer's activations of one kind at the edited tokens, ``(edited, ...)``.

        Args:
            pick: gives them for all nodes of a capture.
        """
        taken = [pick(captured)[rows] for captured, rows, _ in self.parts]
        if len(taken) == 1:
            return taken[0]
        result = taken[0].new_empty(sum(map(len, taken)), *taken[0].shape[1:])
        for values, (_, _, at) in zip(taken, self.parts, strict=True):
            result[at] = values
        return result


def donor_for(source: CleanRun, segment: Segment) -> Donor:
    """The source's activity at the counterparts of a segment's edited tokens.

    Raises:
        AgentError: the source's clean run did not keep them.
    """
    parts: list[tuple[Capture, Tensor, Tensor]] = []
    for pack in sorted({int(pack) for pack in segment.counterparts[:, 0]}):
        at = np.flatnonzero(segment.counterparts[:, 0] == pack)
        captured, rows = kept_rows(source.packs[pack], segment.counterparts[at, 1])
        device = captured.resid_final.device
        places = torch.as_tensor(at, device=device)
        parts.append((captured, torch.as_tensor(rows, device=device), places))
    return Donor(tuple(parts), source.out_weights)


def values_of(donor: Donor, sites: Sequence[Site], write: Write, n_heads: int) -> Tensor:
    """What goes in at sites of one kind and layer.

    Args:
        donor: where from.
        sites: of one kind and one layer.
        write: for heads, ``write`` gives contributions to the residual stream, ``z`` head
            activations.
        n_heads: heads of a layer.

    Returns:
        ``(sites, edited, dim)``.

    Raises:
        AgentError: the source did not keep what is needed.
    """
    if all(site in donor.own for site in sites):
        return torch.stack([donor.own[site] for site in sites])
    if not donor.parts:
        missing = next(site for site in sites if site not in donor.own)
        raise AgentError(
            "The source has no value for a site",
            seen=str(missing),
            allowed=", ".join(map(str, donor.own)) or "none",
            remedy="give a value for every site that is patched",
        )
    kind, layer = sites[0].kind, sites[0].layer or 0
    if kind == "head":
        z = donor.take(lambda captured: captured.z[layer])
        heads = torch.tensor([site.head or 0 for site in sites], device=z.device)
        z = z.view(len(z), n_heads, -1)[:, heads].transpose(0, 1)
        return z if write == "z" else head_writes(z, donor.out_weights[layer], heads, n_heads)
    if kind in ("q", "k", "v"):
        by_head = donor.take(lambda captured: _by_head(captured, kind, layer))
        return by_head[:, [site.head or 0 for site in sites]].transpose(0, 1)
    stream = donor.take(lambda captured: _stream(captured, kind, layer))
    return stream.expand(len(sites), *stream.shape)


def _by_head(captured: Capture, kind: Literal["q", "k", "v"], layer: int) -> Tensor:
    values: Tensor | None = getattr(captured, kind)
    if values is None:
        raise AgentError(
            "The source's queries, keys or values were not kept",
            seen=f"{kind} of layer {layer}",
            allowed="a clean run that kept them",
            remedy=f"run clean with parts=({kind!r},)",
        )
    return values[layer]


def _stream(captured: Capture, kind: str, layer: int) -> Tensor:
    """Values of a site that a layer has once, ``(nodes, width)``."""
    if kind in ("embed", "resid_pre"):
        return captured.resid_pre[layer]
    if kind == "resid_mid":
        return captured.resid_pre[layer] + captured.attn_write[layer]
    if kind == "resid_post":
        return captured.resid_post(layer)
    return captured.attn_out[layer] if kind == "attn" else captured.mlp_out[layer]


def head_writes(z: Tensor, weight: Tensor, heads: Tensor, n_heads: int) -> Tensor:
    """``W_O[:, h] z_h`` for chosen heads: ``(n, tokens, head_dim)`` to ``(n, tokens, width)``."""
    by_head = weight.view(weight.shape[0], n_heads, -1)
    if len(heads) <= n_heads:
        return torch.einsum("nsk,dnk->nsd", z.to(weight.dtype), by_head[:, heads])
    # Many rows patch the same heads: one product a head, not one copy of its weights a row.
    writes = weight.new_empty(*z.shape[:2], weight.shape[0])
    for head in range(n_heads):
        at = (heads == head).nonzero().flatten()
        writes[at] = z[at].to(weight.dtype) @ by_head[:, head].T
    return writes
