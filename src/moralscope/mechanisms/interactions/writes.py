"""How large is what each component writes, and how far does it push the decision?

With ``r_c`` what component c adds to the residual stream, two numbers per prompt:

    norm        ||r_c||      at the last prompt token, Euclidean, in float32 or wider
    projection  v . r_c      where the options part, in nats

with ``v`` the direction of the decision pulled back through the final norm, its scale frozen
(``attribution.contributions``; Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). Components are sub-layers (attn, mlp) and heads. In families with post-norms a head's
write is its share of the normed sum, that norm's scale frozen too, so heads add up to their
sub-layer there as well; biases belong to the sub-layer and to no head.

A norm says how loud a component is, whatever it says; a projection what it says about the decision.
Correlations of either over prompts are the wiring that ``evidence`` compares between agents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.site import Site
from moralscope.core.tables import conform
from moralscope.mechanisms.attribution.contributions import PackAttribution, attribute_pack
from moralscope.mechanisms.clean import CleanPack, CleanRun, span_of
from moralscope.models.anatomy import Anatomy
from moralscope.models.norms import gain, inverse_scale, is_layer_norm
from moralscope.models.rendering import EncodedPrompt

_Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Writes:
    """What components write on each prompt.

    Attributes:
        agent: who decides.
        prompts: the n prompts, in the caller's order.
        sites: the K components, by depth.
        norms: (n, K) model units.
        projections: (n, K) nats, positive towards the positive option.
    """

    agent: str
    prompts: tuple[str, ...]
    sites: tuple[Site, ...]
    norms: _Values
    projections: _Values


@torch.no_grad()
def writes_of(anatomy: Anatomy, run: CleanRun) -> Writes:
    """Sizes and shares of every sub-layer and head of one agent, whose weights are in force.

    Args:
        anatomy: its decoder.
        run: its clean run; no cache is needed.
    """
    sites = written_sites(anatomy)
    shape = (len(run.prompts), len(sites))
    norms, projections = np.empty(shape), np.empty(shape)
    for part in run.packs:
        members = list(part.pack.members)
        rows = _last_tokens(part, run.prompts)
        norms[members] = _on_cpu(_sizes(anatomy, run, part, rows))
        found = attribute_pack(anatomy, run, part)
        branch = found.readout.is_branch.numpy().nonzero()[0]
        # One entry of each prompt is where its options part, in the order of the pack.
        projections[[members[found.readout.member[entry]] for entry in branch]] = _on_cpu(
            _shares(anatomy, part, found)[branch]
        )
    names = tuple(prompt.name for prompt in run.prompts)
    return Writes(run.agent, names, sites, norms, projections)


def written_sites(anatomy: Anatomy) -> tuple[Site, ...]:
    """Heads, attention and MLP of each layer, in the order of the columns."""
    return tuple(
        site
        for layer in range(anatomy.n_layers)
        for site in (
            *(Site("head", layer, head) for head in range(anatomy.n_heads)),
            Site("attn", layer),
            Site("mlp", layer),
        )
    )


def writes_tables(found: Writes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``norms`` and ``projections`` of one agent, prompt by prompt."""
    place = {
        "agent": [found.agent] * found.norms.size,
        "prompt": np.repeat(found.prompts, len(found.sites)).tolist(),
        "site": [str(site) for site in found.sites] * len(found.prompts),
    }
    return (
        conform("norms", pl.DataFrame({**place, "norm": found.norms.ravel()})),
        conform("projections", pl.DataFrame({**place, "projection": found.projections.ravel()})),
    )


def _last_tokens(part: CleanPack, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """Row of each member's last prompt token among the kept nodes."""
    rows: list[int] = []
    for position, member in enumerate(part.pack.members):
        prompt = prompts[member]
        n_forms = len(prompt.positive) + len(prompt.negative)
        rows.append(int(span_of(part, position, len(prompt.tokens), n_forms).rows[0]))
    return torch.tensor(rows, device=part.captured.resid_final.device)


def _sizes(anatomy: Anatomy, run: CleanRun, part: CleanPack, rows: Tensor) -> Tensor:
    """(members, K) norms."""
    columns: list[Tensor] = []
    for layer, block in enumerate(anatomy.blocks):
        weight = run.out_weights[layer]
        z = part.captured.z[layer, rows].view(len(rows), anatomy.n_heads, -1)
        by_head = weight.view(len(weight), anatomy.n_heads, -1)
        heads = torch.einsum("nhk,dhk->nhd", z.to(weight.dtype), by_head)
        if block.attention_post_norm is not None:
            own = part.captured.attn_out[layer, rows]
            heads = _normed(anatomy, block.attention_post_norm, own[:, None], heads)
        whole = (part.captured.attn_write[layer, rows], part.captured.mlp_write[layer, rows])
        columns += [*_length(heads).T, *(_length(write) for write in whole)]
    return torch.stack(columns, dim=1)


def _length(writes: Tensor) -> Tensor:
    """Euclidean norm along the last axis."""
    return writes.pow(2).sum(-1).sqrt()


def _normed(anatomy: Anatomy, norm: nn.Module, x: Tensor, parts: Tensor) -> Tensor:
    """What a norm makes of parts of its input ``x``, its scale frozen and its bias left out."""
    centred = parts - parts.mean(-1, keepdim=True) if is_layer_norm(norm) else parts
    scale = gain(norm, unit_offset=anatomy.unit_offset).to(parts.dtype)
    return centred * inverse_scale(norm, x) * scale


def _shares(anatomy: Anatomy, part: CleanPack, found: PackAttribution) -> Tensor:
    """(entries, K) projections; heads and MLPs as attributed, attention with its biases."""
    row = torch.as_tensor(found.readout.row, device=found.pulled.device)
    columns: list[Tensor] = []
    for layer in range(anatomy.n_layers):
        attention = (found.pulled * part.captured.attn_write[layer, row]).sum(-1)
        columns += [*found.heads[layer], attention, found.mlps[layer]]
    return torch.stack(columns, dim=1)


def _on_cpu(values: Tensor) -> _Values:
    return values.double().cpu().numpy()
