"""What does an adapter do that may not write a direction? Its B without it, and B put back.

An adapter adds ``scaling * B A x`` to what a linear layer writes. With

    B <- B - u u^T B,     |u| = 1,

it no longer writes along ``u`` whatever it reads. Where a norm stands between the layer and the
stream (Gemma 2 and 3), ``u`` is the direction that the norm turns into the wanted one, up to the
norm's own scale. Only layers that write to the stream have such a B: attention's and the MLP's
output projection. The published code stretches B back to its old norm; ``renormalise`` does so too.

How much of B lies along a direction to begin with is ``written_share``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.mechanisms.weights.directions import WRITES, read_after, sides
from moralscope.mechanisms.weights.updates import linear_places
from moralscope.models.anatomy import Anatomy
from moralscope.models.weights import is_lora, is_low_rank


@dataclass(frozen=True, eq=False)
class Written:
    """One adapter's B that writes to the stream.

    Attributes:
        layer, module: of the linear layer, and its name within the decoder layer.
        adapter: its name.
        parts: B, ``(outputs, rank)``, and the adapter's bias ``(outputs, 1)`` where it has one;
            both share memory with the model.
        norm: between the linear layer and the stream, or None.
    """

    layer: int
    module: str
    adapter: str
    parts: tuple[Tensor, ...]
    norm: nn.Module | None


def written_by_adapters(model: nn.Module, anatomy: Anatomy) -> tuple[Written, ...]:
    """Every B in force that writes to the stream, in the order of the layers.

    Raises:
        ModelError: there is none; one is a DoRA adapter, whose B is not all that it writes; or an
            adapter is merged.
    """
    places = linear_places(model)
    side = sides(anatomy, places)
    found = [
        one
        for place, linear in places.items()
        if is_lora(linear) and place in side and side[place][0] == WRITES
        for one in _of_layer(place, linear, side[place][1])
    ]
    if not found:
        raise ModelError(
            "No adapter in force writes to the stream",
            seen="no LoRA on an output projection of attention or MLP",
            allowed="an agent with an active adapter on one of them, such as down_proj",
            remedy="project the direction out of the stream itself",
        )
    return tuple(found)


def _of_layer(
    place: tuple[int, str], linear: nn.Module, norm: nn.Module | None
) -> Iterator[Written]:
    layer: Any = linear
    if layer.disable_adapters:
        return
    for name in layer.active_adapters:
        if name not in layer.lora_A:
            continue
        if not is_low_rank(linear):
            raise ModelError(
                f"Adapter {name!r} writes more than its B",
                seen=f"DoRA on layer {place[0]}, {place[1]}",
                allowed="LoRA or rsLoRA",
                remedy="project the direction out of the stream itself",
            )
        b = layer.lora_B[name]
        bias = () if b.bias is None else (b.bias.detach()[:, None],)
        yield Written(place[0], place[1], str(name), (b.weight.detach(), *bias), norm)


@contextlib.contextmanager
def adapters_projected(
    model: nn.Module,
    anatomy: Anatomy,
    vectors: Tensor,
    *,
    layer: int | None = None,
    renormalise: bool = False,
) -> Generator[None]:
    """Take a direction out of what adapters write, for the length of a block.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        vectors: ``(layers, width)``, of some length.
        layer: whose direction is taken out of all adapters; each adapter's own if not given.
        renormalise: whether each B gets its old norm back.

    Raises:
        ModelError: see ``written_by_adapters``; or nothing of a B is left to stretch.
    """
    written = written_by_adapters(model, anatomy)
    before = [[part.clone() for part in one.parts] for one in written]
    try:
        for one in written:
            unit = _unit(anatomy, one, vectors[one.layer if layer is None else layer])
            for part in one.parts:
                _project(part, unit, one if renormalise else None)
        yield
    finally:
        for one, own in zip(written, before, strict=True):
            for part, old in zip(one.parts, own, strict=True):
                part.copy_(old)


def _unit(anatomy: Anatomy, written: Written, vector: Tensor) -> Tensor:
    part = written.parts[0]
    wide = torch.promote_types(part.dtype, torch.float32)
    along = vector.to(part.device, wide)[:, None]
    met = read_after(written.norm, along, unit_offset=anatomy.unit_offset)[:, 0]
    return met / met.square().sum().sqrt()


def _project(part: Tensor, unit: Tensor, stretched: Written | None) -> None:
    wide = part.to(unit.dtype)
    left = wide - unit[:, None] * (unit @ wide)
    if stretched is not None:
        old, new = wide.square().sum().sqrt(), left.square().sum().sqrt()
        if float(new) <= 1e-6 * float(old):
            raise ModelError(
                f"Nothing is left of adapter {stretched.adapter!r} without the direction",
                seen=f"layer {stretched.layer}, {stretched.module}: B lies along it",
                allowed="a B that also points elsewhere",
                remedy="leave renormalise out",
            )
        left = left * (old / new)
    part.copy_(left)


def written_share(model: nn.Module, anatomy: Anatomy, vectors: Tensor) -> list[dict[str, object]]:
    """How much of each adapter's B lies along the direction of its layer?

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        vectors: ``(layers, width)``, of some length.

    Returns:
        For each adapter that writes to the stream ``layer``, ``module``, ``adapter``, ``share``
        ``= |u^T B|^2 / |B|^2`` in [0, 1], ``expected`` of a random direction (1 / width), and
        ``cosine``, signed, of the column of a rank-1 adapter (None otherwise).

    Raises:
        ModelError: see ``written_by_adapters``; or a B is zero.
    """
    rows: list[dict[str, object]] = []
    for one in written_by_adapters(model, anatomy):
        unit = _unit(anatomy, one, vectors[one.layer])
        b = one.parts[0].to(unit.dtype)
        size = float(b.square().sum())
        if size == 0.0:
            raise ModelError(
                f"Adapter {one.adapter!r} writes nothing",
                seen=f"layer {one.layer}, {one.module}: B is zero",
                allowed="a trained adapter",
                remedy="train it, or leave it out",
            )
        along = unit @ b
        rows.append(
            {
                "layer": one.layer,
                "module": one.module,
                "adapter": one.adapter,
                "share": float(along.square().sum()) / size,
                "expected": 1.0 / len(unit),
                "cosine": float(along[0]) / size**0.5 if b.shape[1] == 1 else None,
            }
        )
    return rows
