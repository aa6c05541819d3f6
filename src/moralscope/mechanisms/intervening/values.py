"""What does a site usually hold? Activations of every site, averaged, for ablations and steering.

For prompt p and site s, with T_p the tokens of the prompt's answer span (or all its tokens),

    a_p(s) = mean over t in T_p of a_s(t)        mean(s) = mean over p of a_p(s)

so every prompt counts once, however long its answers are. A mean ablation puts ``mean(s)`` in; a
resample ablation puts in ``a_p'(s)`` of another prompt p' drawn at random (Chan et al. 2022).
Activations are those of ``models.capture``: heads at the input of the output projection, sub-layers
before any post-norm, queries and keys before rotary positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moralscope.core.errors import AgentError
from moralscope.core.site import Kind, Site
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, Part
from moralscope.models.tree import IntArray

Over = Literal["answer_span", "all"]


@dataclass(frozen=True, eq=False)
class SiteValues:
    """One value for each site, the same at every position.

    Attributes:
        values: ``(head_dim,)`` for heads, queries, keys and values, ``(width,)`` for the others.
        origin: where they come from: a prompt's name, or words.
    """

    values: Mapping[Site, Tensor]
    origin: str


def prompt_activations(
    run: CleanRun, anatomy: Anatomy, *, over: Over = "answer_span"
) -> tuple[SiteValues, ...]:
    """What every site holds on each prompt, in the order of ``run.prompts``.

    Queries, keys and values are there if the run kept them.

    Args:
        run: an agent's clean run.
        anatomy: its parts.
        over: ``answer_span``, or ``all`` tokens of the prompt and its options.

    Raises:
        AgentError: all tokens are wanted and the run did not keep them.
    """
    by_kind = _by_kind(run, anatomy, over)
    return tuple(
        SiteValues(_spread(by_kind, lambda x, at=index: x[at]), prompt.name)
        for index, prompt in enumerate(run.prompts)
    )


def mean_activations(run: CleanRun, anatomy: Anatomy, *, over: Over = "answer_span") -> SiteValues:
    """What every site holds on average over the prompts; arguments as ``prompt_activations``."""
    values = _spread(_by_kind(run, anatomy, over), lambda x: x.mean(0))
    return SiteValues(values, f"mean of {run.agent} over {len(run.prompts)} prompts")


def resampled(
    run: CleanRun,
    anatomy: Anatomy,
    generator: np.random.Generator,
    *,
    other_than: int | None = None,
    over: Over = "answer_span",
) -> SiteValues:
    """What every site holds on one prompt drawn at random.

    Args:
        run: an agent's clean run.
        anatomy: its parts.
        generator: of the draw (``core.streams``).
        other_than: index of the prompt that must not be drawn, or None.
        over: as ``prompt_activations``.

    Raises:
        AgentError: there is no other prompt, or as ``prompt_activations``.
    """
    drawn = draw_other(run, generator, other_than)
    values = _spread(_by_kind(run, anatomy, over), lambda x: x[drawn])
    return SiteValues(values, run.prompts[drawn].name)


def draw_other(run: CleanRun, generator: np.random.Generator, other_than: int | None) -> int:
    """Index of a prompt of a run, any but one with equal chance.

    Raises:
        AgentError: the run has no other prompt.
    """
    choices = [index for index in range(len(run.prompts)) if index != other_than]
    if not choices:
        raise AgentError(
            "Resampling needs another prompt",
            seen=f"a run over {len(run.prompts)} prompt",
            allowed="a clean run over at least two prompts",
            remedy="run clean over more prompts, or ablate with how='mean' or how='zero'",
        )
    return choices[int(generator.integers(len(choices)))]


def stream_means(
    run: CleanRun, pick: Callable[[Capture], Tensor], *, over: Over = "answer_span"
) -> Tensor:
    """The mean of an activation over each prompt's tokens, ``(prompts, layers, ...)``.

    Args:
        run: an agent's clean run.
        pick: gives the activation at the nodes of a capture, ``(layers, nodes, ...)``.
        over: as ``prompt_activations``.
    """
    found: list[Tensor] = []
    order: list[int] = []
    for part in run.packs:
        captured = part.captured if over == "answer_span" else _everywhere(part)
        values = pick(captured)
        weights = values.new_zeros(len(part.pack.members), values.shape[1])
        for position in range(len(part.pack.members)):
            rows = span_rows(part, position) if over == "answer_span" else _nodes(part, position)
            weights[position, torch.as_tensor(rows, device=values.device)] = 1.0 / len(rows)
        means = weights @ values.flatten(2)
        shape = (len(weights), len(values), *values.shape[2:])
        found.append(means.transpose(0, 1).reshape(shape))
        order += part.pack.members
    stacked = torch.cat(found)
    return stacked[torch.as_tensor(np.argsort(order), device=stacked.device)]


def span_rows(part: CleanPack, position: int) -> IntArray:
    """Rows of a prompt's answer span among the kept nodes of its pack."""
    pack = part.pack
    return np.unique(pack.row[pack.option[pack.form] // 2 == position])


def _nodes(part: CleanPack, position: int) -> IntArray:
    pack = part.pack
    forms = np.flatnonzero(pack.option // 2 == position)
    return np.unique(np.concatenate([pack.tree.paths[form] for form in forms]))


def _everywhere(part: CleanPack) -> Capture:
    if part.everywhere is None:
        raise AgentError(
            "A mean over all tokens needs activations that were not kept",
            seen="a clean run that kept the answer spans",
            allowed="over='answer_span', or a clean run that kept every token",
            remedy="run clean with everywhere=True",
        )
    return part.everywhere


def _by_kind(run: CleanRun, anatomy: Anatomy, over: Over) -> dict[Kind, Tensor]:
    """Activations by kind: ``(prompts, layers, dim)``, heads ``(prompts, layers, heads, dim)``."""
    picks: dict[Kind, Callable[[Capture], Tensor]] = {
        "embed": lambda c: c.resid_pre[:1],
        "resid_pre": lambda c: c.resid_pre,
        "head": lambda c: c.z.view(*c.z.shape[:2], anatomy.n_heads, anatomy.head_dim),
        "attn": lambda c: c.attn_out,
        "mlp": lambda c: c.mlp_out,
        "resid_post": lambda c: torch.cat([c.resid_pre[1:], c.resid_final[None]]),
    }
    if not anatomy.parallel:
        picks["resid_mid"] = lambda c: c.resid_mid
    parts: tuple[Part, ...] = ("q", "k", "v")
    for part in parts:
        if getattr(run.packs[0].captured, part) is not None:
            picks[part] = partial(_part, part)
    return {kind: stream_means(run, pick, over=over) for kind, pick in picks.items()}


def _part(part: Part, captured: Capture) -> Tensor:
    return getattr(captured, part)


def _spread(
    by_kind: Mapping[Kind, Tensor], over_prompts: Callable[[Tensor], Tensor]
) -> dict[Site, Tensor]:
    """One entry a site, from what is made of the values over prompts."""
    values: dict[Site, Tensor] = {}
    for kind, every in by_kind.items():
        for layer, held in enumerate(over_prompts(every)):
            if kind == "embed":
                values[Site("embed")] = held
            elif held.ndim == 2:
                values.update({Site(kind, layer, head): own for head, own in enumerate(held)})
            else:
                values[Site(kind, layer)] = held
    return values
