"""What would every patch do, to first order? All sites of all prompts in one forward and backward.

Attribution patching replaces the effect of a patch by its tangent at the target's clean run:

    estimate(site) = (write of the source - write of the target) . d log_odds / d write

(Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348). The sites are those of
``patching.edits``: a head's contribution to the residual stream, an attention layer's and an
MLP's output, before any post-norm, at the answer span. The gradient is the total one: everything
later responds. In a prompt tree the answer spans of different prompts are different tokens, so one
backward pass of the summed log-odds gives each prompt its own gradient; prompts of which one ends
within another are kept apart (``span_groups``).

It is an approximation, and can be unrelated to the truth: see ``approximation.tables``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import first_tensor, hooks
from moralscope.models.forward import run_tree
from moralscope.models.scoring import Pack, log_probabilities_from_logits
from moralscope.models.tree import IntArray


@dataclass(frozen=True)
class SpanGroup:
    """Prompts of a pack whose answer spans do not meet.

    Attributes:
        positions: the prompts' positions in the pack.
        rows: rows of their spans among the pack's kept nodes, ``(nodes,)``, each once.
        owner: the position of the prompt that each belongs to, ``(nodes,)``.
    """

    positions: tuple[int, ...]
    rows: IntArray
    owner: IntArray


@dataclass(frozen=True, eq=False)
class SpanActivity:
    """What an agent computes at nodes of the answer spans; float32 or wider.

    Attributes:
        embed: residual stream before the first layer, ``(nodes, width)``.
        z: head activations, ``(layers, nodes, heads * head_dim)``.
        attn_out, mlp_out: sub-layer outputs before any post-norm, ``(layers, nodes, width)``.
        out_weights: the agent's effective output projections, ``(width, heads * head_dim)`` each.
    """

    embed: Tensor
    z: Tensor
    attn_out: Tensor
    mlp_out: Tensor
    out_weights: tuple[Tensor, ...]

    def at(self, rows: Tensor) -> SpanActivity:
        """The same at some of the nodes."""
        return SpanActivity(
            self.embed[rows],
            self.z[:, rows],
            self.attn_out[:, rows],
            self.mlp_out[:, rows],
            self.out_weights,
        )


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients of each prompt's log-odds at the nodes of a group, and what was computed there.

    Attributes:
        group: which prompts and nodes.
        embed: ``(nodes, width)``.
        attn, mlp: with respect to sub-layer outputs, ``(layers, nodes, width)``.
        own: the target's own activity in this pass.
        log_odds: of each prompt of the pack, ``(members,)``.
    """

    group: SpanGroup
    embed: Tensor
    attn: Tensor
    mlp: Tensor
    own: SpanActivity
    log_odds: Tensor


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimated effects on the prompts of a pack, in nats; zero where a prompt was left out.

    Attributes:
        embed: ``(members,)``.
        heads: ``(layers, heads, members)``.
        attn, mlp: ``(layers, members)``.
    """

    embed: Tensor
    heads: Tensor
    attn: Tensor
    mlp: Tensor

    def of(self, site: Site) -> Tensor:
        """The effects of patching one site, ``(members,)``.

        Raises:
            SiteError: sites of this kind are not estimated.
        """
        if site.kind == "embed":
            return self.embed
        if site.kind == "head" and site.head is not None:
            return self.heads[site.layer or 0, site.head]
        if site.kind not in ("attn", "mlp"):
            raise SiteError(
                "The effect of this site is not estimated",
                seen=str(site),
                allowed="embed, heads, attention layers and MLPs",
                remedy="patch it exactly",
            )
        return (self.attn if site.kind == "attn" else self.mlp)[site.layer or 0]

    def times(self, weight: float) -> Estimates:
        """Each estimate multiplied by a number."""
        return Estimates(
            weight * self.embed, weight * self.heads, weight * self.attn, weight * self.mlp
        )

    def plus(self, other: Estimates) -> Estimates:
        """The sum of these and others."""
        return Estimates(
            self.embed + other.embed,
            self.heads + other.heads,
            self.attn + other.attn,
            self.mlp + other.mlp,
        )


def activity_of(run: CleanRun, index: int) -> SpanActivity:
    """What an agent computes at the kept nodes of one pack of its clean run."""
    found = run.packs[index].captured
    return SpanActivity(found.resid_pre[0], found.z, found.attn_out, found.mlp_out, run.out_weights)


def span_groups(pack: Pack, positions: Collection[int] | None = None) -> tuple[SpanGroup, ...]:
    """Divide the prompts of a pack so that within a group no prompt sees another's answer span.

    Usually there is one group. A prompt whose text ends within another's, or that shares its text
    with one, goes into a group of its own, because a change of its span would reach the other too.

    Args:
        pack: the prompts.
        positions: which of them; all unless given.
    """
    wanted = range(len(pack.members)) if positions is None else sorted(set(positions))
    groups: list[list[int]] = []
    seen: list[tuple[set[int], set[int]]] = []
    rows: dict[int, IntArray] = {}
    for position in wanted:
        forms = np.flatnonzero(pack.option // 2 == position)
        rows[position] = np.unique(pack.row[np.isin(pack.form, forms)])
        span = set(pack.keep[rows[position]].tolist())
        path = {int(node) for form in forms for node in pack.tree.paths[form]}
        for index, (spans, paths) in enumerate(seen):
            if spans.isdisjoint(path) and paths.isdisjoint(span):
                groups[index].append(position)
                seen[index] = (spans | span, paths | path)
                break
        else:
            groups.append([position])
            seen.append((span, path))
    return tuple(
        SpanGroup(
            tuple(group),
            np.concatenate([rows[p] for p in group]),
            np.concatenate([np.full(len(rows[p]), p) for p in group]),
        )
        for group in groups
    )


class _Taps:
    """Hooks that mix the source in, record what is there, and make it differentiable."""

    def __init__(
        self, anatomy: Anatomy, nodes: Tensor, source: SpanActivity | None, share: float
    ) -> None:
        dtype = torch.promote_types(anatomy.final_norm.get_parameter("weight").dtype, torch.float32)
        shape = (len(nodes), anatomy.width)
        sites = [*(Site("attn", i) for i in range(anatomy.n_layers))]
        sites += [*(Site("mlp", i) for i in range(anatomy.n_layers)), Site("embed")]
        self.leaves = {
            site: torch.zeros(shape, dtype=dtype, device=nodes.device, requires_grad=True)
            for site in sites
        }
        self.own: dict[Site, Tensor] = {}
        self.z: dict[int, Tensor] = {}
        self._nodes, self._source, self._share = nodes, source, share
        self._wide = dtype

    def install(self, anatomy: Anatomy) -> list[RemovableHandle]:
        """Hook the target; the caller removes the hooks."""
        first = anatomy.blocks[0].layer.register_forward_pre_hook(self._before, with_kwargs=True)
        handles = [first]
        for layer, block in enumerate(anatomy.blocks):
            handles += [
                block.out_proj.register_forward_pre_hook(self._record_z(layer)),
                block.out_proj.register_forward_hook(self._after(Site("attn", layer))),
                block.mlp.register_forward_hook(self._after(Site("mlp", layer))),
            ]
        return handles

    def _theirs(self, site: Site) -> Tensor | None:
        if self._source is None or self._share == 0.0:
            return None
        if site.kind == "embed":
            return self._source.embed
        outputs = self._source.attn_out if site.kind == "attn" else self._source.mlp_out
        return outputs[site.layer or 0]

    def _tapped(self, site: Site, whole: Tensor) -> Tensor:
        picked = whole[0, self._nodes].to(self._wide)
        self.own[site] = picked.detach()
        theirs = self._theirs(site)
        change = self.leaves[site]
        if theirs is not None:
            change = change + self._share * (theirs.to(picked) - picked)
        return whole.index_add(1, self._nodes, change.to(whole.dtype)[None])

    def _after(self, site: Site) -> Any:
        def hook(_: nn.Module, __: object, output: object) -> Tensor:
            return self._tapped(site, first_tensor(output))

        return hook

    def _record_z(self, layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            z: Tensor = args[0]
            self.z[layer] = z[0, self._nodes].detach().to(self._wide)

        return hook

    def _before(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._tapped(Site("embed"), args[0]), *args[1:]), kwargs
        tapped = self._tapped(Site("embed"), kwargs["hidden_states"])
        return args, {**kwargs, "hidden_states": tapped}


def slopes(
    model: nn.Module,
    anatomy: Anatomy,
    pack: Pack,
    group: SpanGroup,
    *,
    source: SpanActivity | None = None,
    share: float = 0.0,
    out_weights: tuple[Tensor, ...] = (),
) -> Slopes:
    """Gradients of log-odds with respect to what every sub-layer writes at the answer spans.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        pack: what to run.
        group: which of its prompts.
        source: what is mixed in, at the group's nodes; needed where ``share`` is not zero.
        share: how much of every sub-layer's output, and of the embedding, is the source's.
        out_weights: the target's effective output projections.
    """
    nodes = torch.as_tensor(pack.keep[group.rows]).to(next(model.parameters()).device)
    taps = _Taps(anatomy, nodes, source, share)
    with torch.enable_grad(), hooks(taps.install(anatomy)):
        log_p = log_probabilities_from_logits(run_tree(model, pack.tree, pack.keep), pack)
        log_odds = log_p[:, 0] - log_p[:, 1]
        # Other prompts of the pack would add their gradients at nodes that they share.
        total = log_odds[list(group.positions)].sum()
        found = torch.autograd.grad(total, list(taps.leaves.values()))
    by_site = dict(zip(taps.leaves, found, strict=True))
    layers = range(anatomy.n_layers)

    def stacked(values: dict[Site, Tensor], kind: str) -> Tensor:
        return torch.stack([values[Site("attn" if kind == "attn" else "mlp", i)] for i in layers])

    own = SpanActivity(
        taps.own[Site("embed")],
        torch.stack([taps.z[i] for i in layers]),
        stacked(taps.own, "attn"),
        stacked(taps.own, "mlp"),
        out_weights,
    )
    attn, mlp = stacked(by_site, "attn"), stacked(by_site, "mlp")
    return Slopes(group, by_site[Site("embed")], attn, mlp, own, log_odds.detach())


@torch.no_grad()
def project(anatomy: Anatomy, found: Slopes, source: SpanActivity) -> Estimates:
    """``(source - own) . slope``, summed over each prompt's answer span.

    Args:
        anatomy: the target's decoder.
        found: the slopes.
        source: what would go in, at the group's nodes.
    """
    owner = torch.as_tensor(found.group.owner, device=found.attn.device)
    members = len(found.log_odds)

    def by_prompt(share: Tensor) -> Tensor:
        total = share.new_zeros((*share.shape[:-1], members))
        return total.index_add(-1, owner, share)

    def heads(layer: int) -> Tensor:
        # A head's slope is the layer's, pulled back through each agent's own projection.
        slope, shape = found.attn[layer], (len(owner), anatomy.n_heads, anatomy.head_dim)
        theirs = (slope @ source.out_weights[layer].to(slope)) * source.z[layer].to(slope)
        own = (slope @ found.own.out_weights[layer].to(slope)) * found.own.z[layer]
        return by_prompt((theirs - own).view(shape).sum(-1).T)

    def whole(theirs: Tensor, own: Tensor, slope: Tensor) -> Tensor:
        return by_prompt(((theirs.to(slope) - own) * slope).sum(-1))

    return Estimates(
        whole(source.embed, found.own.embed, found.embed),
        torch.stack([heads(layer) for layer in range(anatomy.n_layers)]),
        whole(source.attn_out, found.own.attn_out, found.attn),
        whole(source.mlp_out, found.own.mlp_out, found.mlp),
    )


def attribution_patching(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    index: int,
    source: SpanActivity,
    *,
    positions: Collection[int] | None = None,
) -> Estimates:
    """Estimate the effect of every patch on the prompts of one pack: one forward, one backward.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        index: which of its packs.
        source: what would go in, at the pack's kept nodes (``activity_of``, or aligned by the
            caller where the source's prompts are others).
        positions: which prompts of the pack; all unless given.
    """
    pack = target.packs[index].pack
    parts: list[Estimates] = []
    for group in span_groups(pack, positions):
        found = slopes(model, anatomy, pack, group, out_weights=target.out_weights)
        rows = torch.as_tensor(group.rows, device=found.attn.device)
        parts.append(project(anatomy, found, source.at(rows)))
    return total_of(parts)


def total_of(parts: list[Estimates]) -> Estimates:
    """The sum of estimates, at least one."""
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total
