"""Is a known effect found? Vectors written as patches are, and added in an ordinary forward.

A vector ``v`` is added at one site of each kind, as long as the largest change that the patches of
a pair make there, and half as long. Its effect by rows must equal that of an ordinary forward of
the whole model with a hook, which shares nothing with the rows but the model: other packs, no
cache, every layer run, and tokens found by counting from the prompt's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.progress import Progress
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.intervening.placements import (
    Change,
    Placement,
    at_attention_write,
    at_stream,
    placed,
)
from moralscope.mechanisms.patching.changing import (
    Controlled,
    Found,
    cases_of,
    dim_of,
    own_values,
    through_rows,
)
from moralscope.mechanisms.patching.donors import Donor, Write
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.segments import ALL, ANSWER_SPAN, PackedPrompts, paths_of
from moralscope.models.anatomy import Anatomy
from moralscope.models.rendering import EncodedPrompt, tokens_of
from moralscope.models.scoring import MAX_NODES, Pack, make_packs, option_log_probabilities

Array = NDArray[np.float64]

PLANTED_PROMPTS = 2
"""Prompts on which the effect of a planted vector is computed by ordinary forwards."""

PLANTED_SIZES = (1.0, 0.5)
"""Lengths of planted vectors, as shares of the largest change."""

_UNPLANTED = ("q", "k", "v")
"""Kinds of site that write nothing to the residual stream themselves."""


def planted_kinds(sites: Sequence[Site]) -> tuple[str, ...]:
    """Kinds of site at which a vector can be planted, in order of appearance."""
    return tuple(dict.fromkeys(site.kind for site in sites if site.kind not in _UNPLANTED))


@dataclass(frozen=True, eq=False)
class Planted:
    """A vector that is added at one site, at every edited token; length 0 where none is known."""

    site: Site
    vector: Tensor

    @classmethod
    def of(
        cls,
        anatomy: Anatomy,
        found: Sequence[Found],
        kind: str,
        aim: Array,
        wanted: Controlled,
    ) -> Planted:
        """At the site of a kind where the patch changes most, as long as its largest change."""
        sites = [site for site in wanted.sites if site.kind == kind]
        largest = [max(float(part.lengths[site].max()) for part in found) for site in sites]
        best = int(np.argmax(largest))
        part = aim[: dim_of(anatomy, sites[best], wanted.write)]
        vector = torch.as_tensor(largest[best] * part / np.linalg.norm(part))
        return cls(sites[best], vector)


def planted_rows(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    found: Sequence[Found],
    wanted: Controlled,
    *,
    planted: Sequence[Planted],
    memory_bytes: int,
    max_nodes: int,
    task: str,
    progress: Progress,
) -> Iterator[dict[str, object]]:
    """Effects of planted vectors by rows, and by ordinary forwards.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        found: segments of the prompts that vectors are planted on.
        wanted: what is controlled.
        planted: the vectors.
        memory_bytes: what a pass may use.
        max_nodes: largest pack of an ordinary forward.
        task: name for progress.
        progress: called after each pass.
    """
    asked = [
        Intervention((one.site,), size) for one in planted for size in range(len(PLANTED_SIZES))
    ]
    added = {one.site: one.vector for one in planted}

    def donors(part: Found) -> list[Donor]:
        own = {s: own_values(anatomy, target, part.segment, s, wanted.write) for s in added}
        return [
            Donor(own={s: own[s] + (size * vector).to(own[s]) for s, vector in added.items()})
            for size in PLANTED_SIZES
        ]

    effects = through_rows(
        model, anatomy, target, found, asked,
        donors=donors, write=wanted.write, memory_bytes=memory_bytes, task=task, progress=progress,
    )  # fmt: skip
    members = [case.member for _, _, case in cases_of(found)]
    prompts = [target.prompts[member] for member in members]
    baseline = target.log_odds[members].double()
    tokens = {case.member: len(case.counterparts) for _, _, case in cases_of(found)}
    for row, intervention in enumerate(asked):
        (site,) = intervention.sites
        vector = PLANTED_SIZES[intervention.donor] * added[site]
        norm = float(vector.double().pow(2).sum().sqrt())
        forward = ordinary_log_odds(
            model, anatomy, prompts, site, vector,
            positions=wanted.positions, write=wanted.write, max_nodes=max_nodes,
        )  # fmt: skip
        for column, member in enumerate(members):
            known = norm > 0.0
            yield {
                "control": "planted",
                "prompt": prompts[column].name,
                "site": str(site),
                "draw": intervention.donor,
                "norm": norm * tokens[member] ** 0.5,
                "effect": float(effects[row, column]) if known else None,
                "expected": float(forward[column] - baseline[column]) if known else None,
                "source_effect": None,
            }


@torch.no_grad()
def ordinary_log_odds(
    model: nn.Module,
    anatomy: Anatomy,
    prompts: Sequence[EncodedPrompt],
    site: Site,
    vector: Tensor,
    *,
    positions: str,
    write: Write,
    max_nodes: int = MAX_NODES,
) -> Tensor:
    """Log-odds of whole forwards in which a vector is added at a site, ``(prompts,)``, nats.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        prompts: what is asked.
        site: where it is added: a head, sub-layer, stream or the embedding.
        vector: ``(width,)``, or ``(head_dim,)`` for a head's activation ``z``.
        positions: at which tokens.
        write: whether a head's vector is its contribution or its activation.
        max_nodes: largest pack.
    """
    result = torch.empty(len(prompts), dtype=torch.float64)
    for pack in make_packs(prompts, max_nodes):
        nodes = _tokens(prompts, pack, positions)
        with placed([_adding(anatomy, site, vector, nodes, write)]):
            found = option_log_probabilities(model, pack).double().cpu()
        result[list(pack.members)] = found[:, 0] - found[:, 1]
    return result


def _tokens(prompts: Sequence[EncodedPrompt], pack: Pack, positions: str) -> list[int]:
    """The nodes of a pack at which something is added: counted along each prompt's own paths."""
    whole = PackedPrompts(tuple(prompts), (pack,))
    nodes: set[int] = set()
    for member in pack.members:
        prompt = prompts[member]
        for path in paths_of(whole, member):
            if positions in (ANSWER_SPAN, ALL):
                first = len(prompt.tokens) - 1 if positions == ANSWER_SPAN else 0
                nodes |= {int(node) for node in path[first:]}
            else:
                nodes |= {int(path[token]) for token in tokens_of(prompt, positions)}
    return sorted(nodes)


def _adding(
    anatomy: Anatomy, site: Site, vector: Tensor, nodes: Sequence[int], write: Write
) -> Placement:
    """Add a vector where a patch of the site would write."""
    head = site.head or 0
    part = slice(head * anatomy.head_dim, (head + 1) * anatomy.head_dim)
    by_head = site.kind == "head" and write == "z"
    change = _plus(vector, nodes, part if by_head else slice(None))
    layer = site.layer or 0
    block = anatomy.blocks[layer]
    if by_head:
        return Placement(block.out_proj, "input", change)
    if site.kind in ("head", "attn"):
        return Placement(block.out_proj, "output", change)
    if site.kind == "mlp":
        return Placement(block.mlp, "output", change)
    if site.kind == "resid_mid":
        return at_attention_write(block, change)
    return at_stream(anatomy, layer + (site.kind == "resid_post"), change)


def _plus(vector: Tensor, nodes: Sequence[int], part: slice) -> Change:
    def change(x: Tensor) -> Tensor:
        moved = x.clone()
        at = torch.as_tensor(nodes, device=x.device)
        moved[:, at, part] = moved[:, at, part] + vector.to(x)
        return moved

    return change
