"""One-by-one patching with plain hooks: a full, ordinary forward for every form of every prompt.

It shares no code with the package. Activations of the source are recorded on the same sequence
and put into the target at the answer span, one intervention at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import tiny
import torch
from torch import Tensor

from moralscope.core.site import Site
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

Recording = dict[tuple[int, str], Tensor]


@contextlib.contextmanager
def hooked(handles: list[Any]) -> Generator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forms_of(prompt: EncodedPrompt) -> list[tuple[tuple[int, ...], bool]]:
    """Each form of a prompt, and whether it is a positive one."""
    return [(f, True) for f in prompt.positive] + [(f, False) for f in prompt.negative]


@torch.no_grad()
def record(model: Any, tokens: Sequence[int]) -> Recording:
    """Inputs of the output projections and outputs of the sub-layers on one sequence."""
    kept: Recording = {}

    def on_input(key: tuple[int, str]) -> Callable[..., None]:
        return lambda _, args: kept.update({key: args[0][0].clone()})

    def on_output(key: tuple[int, str]) -> Callable[..., None]:
        return lambda _, __, output: kept.update({key: output[0].clone()})

    handles: list[Any] = []
    for index, layer in enumerate(model.model.layers):
        projection = layer.self_attn.o_proj
        handles += [
            projection.register_forward_pre_hook(on_input((index, "z"))),
            projection.register_forward_hook(on_output((index, "attn"))),
            layer.mlp.register_forward_hook(on_output((index, "mlp"))),
        ]
    with hooked(handles):
        tiny.plain_logits(model, tokens)
    return kept


def matrix(linear: Any, n: int, dtype: torch.dtype) -> Tensor:
    """The matrix that a layer multiplies by now, adapters included, found by trying."""
    zero = torch.zeros(1, n, dtype=dtype)
    return (linear(torch.eye(n, dtype=dtype)) - linear(zero)).T


def replace(
    model: Any, site: Site, *, start: int, source: Recording, matrices: list[Tensor], write: str
) -> Any:
    """Hook one site so that positions from ``start`` on get the source's activity."""
    layer = model.model.layers[site.layer]
    projection = layer.self_attn.o_proj
    if site.kind == "mlp":

        def mlp(_: Any, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[0, start:] = source[site.layer, "mlp"][start:]
            return changed

        return layer.mlp.register_forward_hook(mlp)
    if site.kind == "attn":

        def attention(_: Any, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[0, start:] = source[site.layer, "attn"][start:]
            return changed

        return projection.register_forward_hook(attention)
    width = source[site.layer, "z"].shape[-1] // model.config.num_attention_heads
    head = slice(site.head * width, (site.head + 1) * width)
    theirs = source[site.layer, "z"][start:, head]
    if write == "z":

        def activity(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            changed = args[0].clone()
            changed[0, start:, head] = theirs
            return (changed,)

        return projection.register_forward_pre_hook(activity)

    def contribution(module: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        own_z = args[0][0]
        own = matrix_now(module, own_z)
        change = theirs @ matrices[site.layer][:, head].T - own_z[start:, head] @ own[:, head].T
        changed = output.clone()
        changed[0, start:] += change
        return changed

    return projection.register_forward_hook(contribution)


def matrix_now(module: Any, like: Tensor) -> Tensor:
    """The matrix of the module whose hook is running, its hooks left out."""
    return matrix(module.forward, like.shape[-1], like.dtype)


@torch.no_grad()
def hooked_sweep(
    roster: Roster,
    source: str,
    target: str,
    prompt: EncodedPrompt,
    *,
    interventions: Sequence[Sequence[Site]],
    write: str = "write",
) -> list[float]:
    """Log-odds of the target with the source's activity put in at the answer span.

    One value for each intervention, a list of sites that are patched together.
    """
    start = len(prompt.tokens) - 1
    found = np.full((len(interventions), 2), -np.inf)
    for form, positive in forms_of(prompt):
        tokens = [*prompt.tokens, *form[:-1]]
        with roster.speaking(source) as model:
            theirs = record(model, tokens)
            matrices = [
                matrix(layer.self_attn.o_proj, theirs[0, "z"].shape[-1], theirs[0, "z"].dtype)
                for layer in model.model.layers
            ]
        with roster.speaking(target) as model:
            for row, sites in enumerate(interventions):
                handles = [
                    replace(model, s, start=start, source=theirs, matrices=matrices, write=write)
                    for s in sites
                ]
                with hooked(handles):
                    log_p = tiny.plain_logits(model, tokens).log_softmax(-1)
                value = sum(float(log_p[start + i, t]) for i, t in enumerate(form))
                side = 0 if positive else 1
                found[row, side] = np.logaddexp(found[row, side], value)
    return [float(value) for value in found[:, 0] - found[:, 1]]
