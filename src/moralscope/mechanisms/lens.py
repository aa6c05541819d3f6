"""At which depth is the decision there? The logit lens, after each sub-layer.

The residual stream at a depth is read as if it were the last: final norm, then the unembedding
direction of the decision at the token where the options part,

    logit_diff(l) = u . norm_final(x_l)        (nostalgebraist 2020)

At the last depth this is the model's own logit difference, before soft-capping. Families with
post-norms are read like the others, because the stream already holds what their norms let
through. A lens shows what is *readable* along the unembedding, not what is used; early values
mostly reflect the last token and the labels.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.readout import read_out
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import full_precision


@torch.no_grad()
def read_depths(anatomy: Anatomy, run: CleanRun, part: CleanPack) -> Tensor:
    """Logit difference at each depth, shape ``(1 + 2 * layers, members)``.

    Row 0 is the embedding; rows ``1 + 2 l`` and ``2 + 2 l`` follow layer ``l``'s attention and MLP.
    """
    captured = part.captured
    readout = read_out(anatomy, part.pack, run.prompts, captured)
    branch = readout.is_branch.nonzero()[:, 0]
    row = torch.as_tensor(readout.row)[branch].to(readout.direction.device)
    before = captured.resid_pre[:, row]
    middle = before + captured.attn_write[:, row]
    after = torch.cat([before[1:], captured.resid_final[None, row]])
    depths = torch.cat([before[:1], torch.stack([middle, after], 1).flatten(0, 1)])
    with full_precision(anatomy.final_norm):
        normed: Tensor = anatomy.final_norm(depths)
    return (normed * readout.direction[branch]).sum(-1) + readout.offset[branch]


def lens_table(anatomy: Anatomy, run: CleanRun) -> pl.DataFrame:
    """The table ``lens`` of one agent; its weights must be in force."""
    rows: list[dict[str, object]] = []
    for part in run.packs:
        by_depth = np.asarray(read_depths(anatomy, run, part).T.double().cpu())
        for member, values in zip(part.pack.members, by_depth.tolist(), strict=True):
            for depth, value in enumerate(values):
                rows.append(
                    {
                        "agent": run.agent,
                        "prompt": run.prompts[member].name,
                        "layer": (depth - 1) // 2 if depth else -1,
                        "sublayer": "embed" if depth == 0 else ("attn", "mlp")[(depth - 1) % 2],
                        "logit_diff": value,
                    }
                )
    return from_rows("lens", rows)
