"""Does an update read from or write to the decision? Its share along the axis of the two answers.

Where the options of a prompt part, they are two tokens a and b, and the stream decides along

    u = N_final (W_U[a] - W_U[b]),

N being what a norm with its scale frozen does to a direction: multiplication by its gain, and
centring in a layer norm (``models.norms``). An update of a linear layer whose output goes to the
stream *writes* along u, one whose input comes from the stream *reads* along it,

    writes: |dW^T v|^2 / |dW|^2,  v = N_post u / |N_post u|       (attention's and the MLP's output)
    reads:  |dW v|^2 / |dW|^2,    v = N_pre u / |N_pre u|         (queries, keys, values, the MLP)

with N_post the norm between a sub-layer and the stream and N_pre the one before it, where there
are any. A random direction of d dimensions has a share of 1/d.

Prompts come under both label assignments, which exchange a and b and so turn u round: shares are
of the *axis*. It is that of the answers' labels, whichever of the moves they stand for in a prompt;
an update that writes along it changes which label is said, not yet which move.

Unembedding directions are not spread evenly over the space, so random ones are a weak null. The
control is the same axis of random pairs of tokens, the same pairs for every agent and layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.streams import stream
from moralscope.mechanisms.lens.controls import random_pairs
from moralscope.mechanisms.weights.nulls import Array, ends, random_share
from moralscope.mechanisms.weights.updates import Place, Update, wide
from moralscope.models.anatomy import Anatomy
from moralscope.models.families import FAMILIES
from moralscope.models.norms import gain, is_layer_norm
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.tree import IntArray
from moralscope.models.weights import effective_weight, is_lora, shape_of

Row = dict[str, object]

PAIRS = 199
"""Random pairs of tokens that an axis is held against; (PAIRS + 1) / 40 is whole."""

WRITES, READS = "writes", "reads"


def answer_axes(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[EncodedPrompt]
) -> dict[str, tuple[int, int]]:
    """The pairs of tokens at which the options of some prompts part, each pair once.

    Args:
        tokenizer: names the tokens.
        prompts: their canonical forms are compared token by token.

    Returns:
        Both tokens, the lower index first, by their words as ``a/b``.
    """
    decoder: Any = tokenizer
    pairs: dict[tuple[int, int], None] = {}
    for prompt in prompts:
        both = zip(prompt.positive[0], prompt.negative[0], strict=False)
        a, b = sorted(next(pair for pair in both if pair[0] != pair[1]))
        pairs[a, b] = None
    found: dict[str, tuple[int, int]] = {}
    for a, b in pairs:
        name = "/".join(str(decoder.decode([token])).strip() or str(token) for token in (a, b))
        found[f"{name} ({a}/{b})" if name in found else name] = (a, b)
    return found


def control_pairs(
    prompts: Sequence[EncodedPrompt], tokenizer: PreTrainedTokenizerBase, anatomy: Anatomy
) -> IntArray:
    """Random pairs of tokens, the same for every agent of one base: shape ``(PAIRS, 2)``."""
    rows = shape_of(anatomy.unembed)[0]
    known: Any = tokenizer
    among = range(min(rows, len(known)))
    return random_pairs(prompts, rows, stream(0, "weights", "pairs"), draws=PAIRS, among=among)


@dataclass(frozen=True, eq=False)
class Compass:
    """Directions of the stream as each linear layer of an agent meets them.

    Attributes:
        anatomy: the agent's decoder.
        stream: (width, n) directions of the residual stream before the final norm.
        layers: by name, the linear layers of each decoder layer that read or write the stream:
            the side, and the norm between it and the stream.
    """

    anatomy: Anatomy
    stream: Tensor
    layers: Mapping[Place, tuple[str, nn.Module | None]]

    def side(self, place: Place) -> str | None:
        """``writes`` or ``reads``; None where a layer does neither."""
        return self.layers[place][0] if place in self.layers else None

    @torch.no_grad()
    def along(self, place: Place, update: Update) -> Array:
        """(n,) share of an update's squared norm along each direction; it has a rank above 0."""
        side, norm = self.layers[place]
        meet = read_after if side == WRITES else _passed_on
        met = meet(norm, self.stream, unit_offset=self.anatomy.unit_offset)
        axes: Array = np.asarray(met.cpu())
        axes = axes / np.maximum(np.linalg.norm(axes, axis=0), np.finfo(np.float64).tiny)
        vectors = update.left if side == WRITES else update.right
        weights = np.square(update.values)
        return weights @ np.square(vectors.T @ axes) / weights.sum()


@torch.no_grad()
def compass(anatomy: Anatomy, places: Mapping[Place, nn.Module], pairs: IntArray) -> Compass:
    """The axes of some pairs of tokens, as an agent's layers meet them.

    Args:
        anatomy: the agent's decoder, its weights in force.
        places: its linear layers, from ``updates.linear_places``.
        pairs: tokens, shape ``(n, 2)``.
    """
    if is_lora(anatomy.unembed):
        rows = effective_weight(anatomy.unembed)
    else:
        rows = anatomy.unembed.get_parameter("weight").detach()
    first, second = (wide(rows[torch.tensor(pairs[:, at].tolist())]) for at in (0, 1))
    difference = first - second
    along = read_after(anatomy.final_norm, difference.T, unit_offset=anatomy.unit_offset)
    return Compass(anatomy, along, sides(anatomy, places))


def read_after(norm: nn.Module | None, directions: Tensor, *, unit_offset: bool) -> Tensor:
    """Before a norm, the directions (width, n) that are read after it; up to its scale."""
    if norm is None:
        return directions
    scaled = directions * _gain(norm, directions, unit_offset)
    return scaled - scaled.mean(0) if is_layer_norm(norm) else scaled


def _passed_on(norm: nn.Module | None, directions: Tensor, *, unit_offset: bool) -> Tensor:
    """After a norm, what becomes of directions (width, n) before it; up to its scale."""
    if norm is None:
        return directions
    centred = directions - directions.mean(0) if is_layer_norm(norm) else directions
    return centred * _gain(norm, directions, unit_offset)


def _gain(norm: nn.Module, like: Tensor, unit_offset: bool) -> Tensor:
    return gain(norm, unit_offset=unit_offset).to(like)[:, None]


def sides(
    anatomy: Anatomy, places: Mapping[Place, nn.Module]
) -> dict[Place, tuple[str, nn.Module | None]]:
    """Which linear layers read or write the stream, ``READS`` or ``WRITES``, through which norm."""
    family = FAMILIES[anatomy.model_type]
    found: dict[Place, tuple[str, nn.Module | None]] = {}
    for index, block in enumerate(anatomy.blocks):
        own = [name for layer, name in places if layer == index]
        mlp = [name for name in own if name == family.mlp or name.startswith(f"{family.mlp}.")]
        for name in own:
            in_mlp = name in mlp
            # The last linear layer of an MLP is its output, in every supported family.
            if name == family.out_proj or (in_mlp and name == mlp[-1]):
                after = block.mlp_post_norm if in_mlp else block.attention_post_norm
                found[index, name] = (WRITES, after)
            else:
                path = family.mlp_norm if in_mlp else family.attention_norm
                norm = None if path is None else block.layer.get_submodule(path)
                found[index, name] = (READS, norm)
    return found


def direction_rows(
    agent: str, axes: Sequence[str], place: Place, own: tuple[str, Update], shares: Array | None
) -> Iterator[Row]:
    """The rows of ``update_directions`` of one linear layer.

    Args:
        agent: whose update it is.
        axes: names of the decision's axes.
        place: the linear layer.
        own: its side, writes or reads, and its update.
        shares: (axes + random pairs,) from ``Compass.along``; None without an update.
    """
    side, update = own
    dimension = update.shape[0 if side == WRITES else 1]
    for index, axis in enumerate(axes):
        row: Row = {
            "agent": agent,
            "axis": axis,
            "layer": place[0],
            "module": place[1],
            "side": side,
            "norm": update.norm,
            "expected": 1.0 / dimension,
        }
        if shares is not None:
            share, control = float(shares[index]), shares[len(axes) :]
            row |= {
                "share": share,
                "ratio": share * dimension,
                "null_high": random_share(update.values, dimension).high,
                "control": float(np.median(control)),
                "control_high": ends(control)[1],
            }
        yield row


def control_rows(agent: str, axes: Sequence[str], side: str, shares: Array | None) -> Iterator[Row]:
    """The rows of ``update_controls`` of one side.

    Args:
        agent: whose update it is.
        axes: names of the decision's axes, each of which has the same control.
        side: writes or reads.
        shares: (random pairs,) of the summed squared norm; None without an update.
    """
    for axis in axes:
        for draw in range(PAIRS):
            share = None if shares is None else float(shares[draw])
            yield {"agent": agent, "axis": axis, "side": side, "draw": draw, "share": share}
