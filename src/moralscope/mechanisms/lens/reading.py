"""At which depth is the decision there? The logit lens, after each sub-layer.

The residual stream at a depth is read as if it were the last: final norm, then the unembedding
direction of the decision at an answer token,

    logit_diff(l) = u . norm_final(x_l)        (nostalgebraist 2020)

At the token where the options part this is, at the last depth, the model's own logit difference
before soft-capping. Later tokens of an option are read along the linearised log-probability that
attribution uses (``mechanisms.readout``), so at the last depth each token's reading is the sum of
its attribution. Families with post-norms are read like the others, because the stream already holds
what their norms let through. Where attention and MLP work in parallel (GPT-NeoX) no stream stands
between them: *after attention* is then the partial sum of the layer's input and attention's write.

A lens shows what is *readable* along the unembedding, not what is used; early values mostly reflect
the last token and the labels. ``lens.controls`` measures how much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.readout import Readout, read_out
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture
from moralscope.models.norms import gain, inverse_scale, is_layer_norm
from moralscope.models.tree import IntArray


@dataclass(frozen=True)
class Depths:
    """What a lens sees of one pack.

    Row 0 is the embedding; rows ``1 + 2 l`` and ``2 + 2 l`` follow layer ``l``'s attention and MLP.

    Attributes:
        readout: the entries that are read, several for a prompt whose options go on after the
            token where they part.
        normed: residual stream after the final norm, ``(1 + 2 * layers, entries, width)``.
        values: logit difference, ``(1 + 2 * layers, entries)``, in nats.
    """

    readout: Readout
    normed: Tensor
    values: Tensor


@torch.no_grad()
def read_depths(anatomy: Anatomy, run: CleanRun, part: CleanPack) -> Depths:
    """The logit difference of each entry of a pack at each depth.

    Args:
        anatomy: the agent's decoder, its weights in force.
        run: its clean run.
        part: the pack.
    """
    readout = read_out(anatomy, part.pack, run.prompts, part.captured)
    normed = normed_depths(anatomy, part.captured, readout.row)
    values = (normed * readout.direction.to(normed.dtype)).sum(-1) + readout.offset
    return Depths(readout, normed, values)


def normed_depths(anatomy: Anatomy, captured: Capture, rows: IntArray) -> Tensor:
    """The residual stream at each depth, after the final norm.

    Args:
        anatomy: the decoder.
        captured: activations at the kept nodes.
        rows: which of those nodes.

    Returns:
        Shape ``(1 + 2 * layers, rows, width)``, float32 or wider.
    """
    row = torch.as_tensor(rows, device=captured.resid_pre.device)
    before = captured.resid_pre[:, row]
    middle = before + captured.attn_write[:, row]
    after = torch.cat([before[1:], captured.resid_final[None, row]])
    depths = torch.cat([before[:1], torch.stack([middle, after], 1).flatten(0, 1)])
    # The norm's own code would round to a half-precision weight, or refuse a wider input.
    norm = anatomy.final_norm
    centred = depths - depths.mean(-1, keepdim=True) if is_layer_norm(norm) else depths
    scale = gain(norm, unit_offset=anatomy.unit_offset).to(depths.dtype)
    normed = centred * inverse_scale(norm, depths) * scale
    bias: Tensor | None = getattr(norm, "bias", None)
    return normed if bias is None else normed + bias.detach().to(depths.dtype)


def depth_names(n_layers: int) -> tuple[tuple[int, str], ...]:
    """``layer`` and ``sublayer`` of each depth, in order: ``(-1, embed), (0, attn), ...``."""
    within = [(layer, name) for layer in range(n_layers) for name in ("attn", "mlp")]
    return ((-1, "embed"), *within)


def lens_table(anatomy: Anatomy, run: CleanRun) -> pl.DataFrame:
    """The table ``lens`` of one agent; its weights must be in force.

    One row for each prompt, answer token and depth. Where both options go on after the token at
    which they part, their readings at the same later token are summed, as in ``attribution``.
    """
    names = depth_names(anatomy.n_layers)
    rows: list[dict[str, object]] = []
    for part in run.packs:
        found = read_depths(anatomy, run, part)
        values = np.asarray(found.values.double().cpu())
        for position, member in enumerate(part.pack.members):
            entries = (found.readout.member == position).nonzero()[0]
            tokens = found.readout.answer_token[entries]
            for token in np.unique(tokens).tolist():
                chosen = entries[tokens == token]
                rows.extend(
                    {
                        "agent": run.agent,
                        "prompt": run.prompts[member].name,
                        "token": token,
                        "is_branch": bool(found.readout.is_branch[chosen[0]]),
                        "layer": layer,
                        "sublayer": sublayer,
                        "logit_diff": value,
                    }
                    for (layer, sublayer), value in zip(
                        names, values[:, chosen].sum(1).tolist(), strict=True
                    )
                )
    return from_rows("lens", rows)
