"""What does a direction of the residual stream do? Adding it, and taking it away.

    steer:        x := x + c d            at the stream of one layer (Turner et al. 2023)
    project out:  x := x - B B^T x        at every write to the stream of given layers,

with the columns of ``B`` an orthonormal basis of the directions. Where every write of every layer
is projected, no layer can read the directions any more, which is the directional ablation of
Arditi et al. (2024). A direction is typically a difference of means,

    d = mean over p of x_p(run a) - mean over p of x_p(run b),

between two agents, or between two groups of prompts of one agent (``direction_between``).

Both are context managers that take their hooks with them, whatever happens; see
``intervening.placements`` for the order in which nested ones act.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.core.errors import ConfigError, ModelError, SiteError, nearest
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.intervening.placements import (
    Change,
    Placement,
    Positions,
    at_attention_write,
    at_mlp_write,
    at_stream,
    check_anatomy,
    check_direction,
    check_positions,
    placed,
    tokens_at,
)
from moralscope.mechanisms.intervening.values import Over, stream_means
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture
from moralscope.models.forward import compute_dtype

Stream = Literal["resid_pre", "resid_mid", "resid_post"]

_DEPENDENT = 1e-9
"""Singular values below this share of the largest are taken for rounding."""


@contextlib.contextmanager
def steer(
    model: nn.Module,
    anatomy: Anatomy,
    direction: Tensor,
    *,
    layer: int,
    coefficient: float,
    at: Stream = "resid_post",
    positions: Positions = "all",
) -> Generator[None]:
    """Add a direction to the residual stream of a layer, for the length of a block.

    A coefficient of 0 leaves every number as it is. Nested blocks at one place add up.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        direction: ``(width,)``, in units of the stream; it is not normalised.
        layer: from 0.
        coefficient: how many times it is added; negative to subtract.
        at: the stream before the layer, between attention and MLP, or after the layer.
        positions: which tokens, see ``interventions.Positions``.

    Raises:
        SiteError: the layer or its middle stream does not exist.
        ModelError: the direction does not fit or is not finite; the anatomy is another model's.
        ConfigError: ``at``, ``positions`` or the coefficient is not understood.
    """
    check_anatomy(model, anatomy)
    check_positions(positions)
    _check_stream(at)
    anatomy.check_site(Site(at, layer))
    if not math.isfinite(coefficient):
        raise ConfigError(
            "The coefficient is not finite",
            seen=coefficient,
            allowed="a finite number",
            remedy="start with 1.0, which adds the direction as it is",
        )
    dtype = compute_dtype(model)
    if direction.ndim > 1:
        direction = _one_row(direction, anatomy.width)
    check_direction("direction", direction, anatomy.width, dtype)
    step = coefficient * direction.to(torch.promote_types(direction.dtype, torch.float32))
    check_direction("direction times its coefficient", step, anatomy.width, dtype)
    change = _adding(step, positions)
    if at == "resid_mid":
        # What is added to attention's write is added to the stream after it.
        placement = at_attention_write(anatomy.blocks[layer], change)
    else:
        placement = at_stream(anatomy, layer + (at == "resid_post"), change)
    with placed([placement]):
        yield


def _check_stream(at: str) -> None:
    if at not in get_args(Stream):
        raise ConfigError(
            "This is not a residual stream",
            seen=repr(at),
            allowed=", ".join(get_args(Stream)),
            remedy=nearest(str(at), get_args(Stream)),
        )


def _one_row(direction: Tensor, width: int) -> Tensor:
    if direction.ndim == 2 and len(direction) == 1:
        return direction[0]
    raise ModelError(
        "Steering takes one direction",
        seen=f"shape {tuple(direction.shape)}",
        allowed=f"({width},)",
        remedy="nest one block for each direction, or add them up",
    )


def _adding(step: Tensor, positions: Positions) -> Change:
    def change(x: Tensor) -> Tensor:
        tokens = tokens_at(x, positions)
        moved = x.clone()
        moved[:, tokens] = moved[:, tokens] + step.to(x)
        return moved

    return change


@contextlib.contextmanager
def project_out(
    model: nn.Module,
    anatomy: Anatomy,
    directions: Tensor,
    *,
    layers: Sequence[int] | None = None,
) -> Generator[None]:
    """Take the component along some directions out of the stream, for the length of a block.

    In a chosen layer the stream is projected where it comes in, and so is what attention and the
    MLP write to it: from the layer's input to its output no component is left. Layers that are
    not chosen may write it back.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        directions: ``(width,)`` or ``(n, width)``, neither normalised nor orthogonal; those that
            depend on others add nothing.
        layers: which; all unless given.

    Raises:
        SiteError: a layer does not exist.
        ModelError: a direction does not fit, is not finite or is zero; the anatomy is another
            model's.
    """
    check_anatomy(model, anatomy)
    check_direction("direction", directions, anatomy.width, compute_dtype(model))
    chosen = range(anatomy.n_layers) if layers is None else sorted(set(layers))
    for layer in chosen:
        anatomy.check_site(Site("resid_pre", layer))
    change = projecting(orthonormal(directions))
    placements: list[Placement] = []
    for layer in chosen:
        block = anatomy.blocks[layer]
        placements += [
            at_stream(anatomy, layer, change),
            at_attention_write(block, change),
            at_mlp_write(block, change),
        ]
    with placed(placements):
        yield


def orthonormal(directions: Tensor) -> Tensor:
    """An orthonormal basis of what some directions span, ``(rank, width)``, float64.

    Args:
        directions: ``(width,)`` or ``(n, width)``.

    Raises:
        ModelError: there is none, or one is zero.
    """
    rows = directions.detach().double().reshape(-1, directions.shape[-1])
    length = rows.pow(2).sum(1, keepdim=True).sqrt()
    zero = int((length == 0).count_nonzero())
    if not len(rows) or zero:
        raise ModelError(
            "A direction is zero, so there is nothing to take away",
            seen=f"{zero} of {len(rows)} directions",
            allowed="directions of some length",
            remedy="check that the two runs whose difference it is do differ",
        )
    # Scaled to one length, a short direction counts as much as a long one.
    _, size, basis = np.linalg.svd((rows / length).cpu().numpy(), full_matrices=False)
    return torch.as_tensor(basis[size > _DEPENDENT * size[0]], device=directions.device)


def projecting(basis: Tensor) -> Change:
    """The change that takes away what lies along an orthonormal basis, ``(rank, width)``."""

    def change(x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        along = basis.to(wide)
        return (wide - (wide @ along.T) @ along).to(x.dtype)

    return change


def direction_between(
    run_a: CleanRun,
    run_b: CleanRun,
    layer: int,
    *,
    at: Stream = "resid_post",
    over: Over = "answer_span",
) -> Tensor:
    """The difference of the mean streams of two runs, a minus b, ``(width,)``, not normalised.

    The runs are of two agents on the same prompts, or of one agent on two groups of prompts. Each
    prompt counts once.

    Args:
        run_a: a clean run.
        run_b: another, of a model of the same shape.
        layer: from 0.
        at: which stream of the layer.
        over: ``answer_span``, or ``all`` tokens.

    Raises:
        SiteError: the layer does not exist.
        ModelError: the runs are of models of different shape.
        AgentError: all tokens are wanted and a run did not keep them.
        ConfigError: there is no such stream.
    """
    _check_stream(at)
    shapes = [run.packs[0].captured.resid_pre.shape[::2] for run in (run_a, run_b)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            "The two runs are of models of different shape",
            seen=" and ".join(f"{layers} layers of width {width}" for layers, width in shapes),
            allowed="runs of one model, or of models of one shape",
            remedy="run both agents on one base",
        )
    if layer not in range(shapes[0][0]):
        raise SiteError(
            "The model has no such layer",
            seen=layer,
            allowed=f"layers 0 to {shapes[0][0] - 1}",
            remedy=f"the nearest is {min(max(layer, 0), shapes[0][0] - 1)}",
        )

    def pick(captured: Capture) -> Tensor:
        if at == "resid_mid":
            return captured.resid_mid[layer, None]
        return (captured.resid_post(layer) if at == "resid_post" else captured.resid_pre[layer])[
            None
        ]

    means = [stream_means(run, pick, over=over).mean(0)[0] for run in (run_a, run_b)]
    return means[0] - means[1]
