"""How much does each head and MLP push the decision? Exact direct attribution of the log-odds.

With every norm's scale frozen at its value, the logit difference is linear in what each component
writes to the residual stream, so it splits without remainder:

    embed + sum(heads) + sum(MLPs) + biases = logit difference

1. The unembedding direction ``u`` (``mechanisms.readout``) is pulled back through the final norm:
   ``v = u * gain / rms(x)``.
2. In families with post-norms (Gemma) it is pulled back through that norm too, its scale frozen:
   ``v_l = v * gain_l / rms(sum_h r_h)``. The norm acts on the *sum* of heads, so a head's share is
   its own write under the common scale.
3. A head writes ``r_h = W_O[:, h] z_h`` with the effective weight, LoRA included; its share is
   ``(v_l W_O)[h] . z_h``. No head is ever cut out of the projected sum.

Biases come from parameters, never from a remainder, so the completeness error is a real check.
Equation: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; the treatment
of post-norms is derived here. Cost: one packed forward and a few vector products per layer.
An MLP's output bias, where it has one, is part of that MLP's write.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.readout import Readout, read_out
from moralscope.models.anatomy import Anatomy
from moralscope.models.norms import pull_back
from moralscope.models.weights import bias_of

SUM_OVER_ANSWER = -1


@dataclass(frozen=True)
class PackAttribution:
    """Contributions to the logit difference at each entry of a readout, in nats.

    Attributes:
        readout: the entries.
        embed, bias: shape ``(entries,)``.
        heads: shape ``(layers, heads, entries)``.
        mlps: shape ``(layers, entries)``.
        pulled: the decision's direction before the final norm, ``(entries, width)``.
    """

    readout: Readout
    embed: Tensor
    bias: Tensor
    heads: Tensor
    mlps: Tensor
    pulled: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of all contributions, shape ``(entries,)``."""
        return self.embed + self.bias + self.heads.sum((0, 1)) + self.mlps.sum(0)


@torch.no_grad()
def attribute_pack(anatomy: Anatomy, run: CleanRun, part: CleanPack) -> PackAttribution:
    """Attribute the decisions of one pack.

    Args:
        anatomy: the agent's decoder, its weights in force.
        run: its clean run.
        part: the pack.
    """
    captured = part.captured
    readout = read_out(anatomy, part.pack, run.prompts, captured)
    row = torch.as_tensor(readout.row, device=readout.direction.device)
    offset = anatomy.unit_offset
    pulled, constant = pull_back(
        anatomy.final_norm, captured.resid_final[row], readout.direction, unit_offset=offset
    )
    embed = (pulled * captured.resid_pre[0, row]).sum(-1)
    bias = readout.offset + constant
    heads: list[Tensor] = []
    mlps: list[Tensor] = []
    for layer, block in enumerate(anatomy.blocks):
        towards = pulled
        if block.attention_post_norm is not None:
            own = captured.attn_out[layer, row]
            towards, constant = pull_back(
                block.attention_post_norm, own, pulled, unit_offset=offset
            )
            bias = bias + constant
        by_input = towards @ run.out_weights[layer]
        share = by_input * captured.z[layer, row]
        heads.append(share.view(len(row), anatomy.n_heads, -1).sum(-1).T)
        out_bias = bias_of(block.out_proj)
        if out_bias is not None:
            bias = bias + towards @ out_bias.to(towards.dtype)
        mlps.append((pulled * captured.mlp_write[layer, row]).sum(-1))
    return PackAttribution(readout, embed, bias, torch.stack(heads), torch.stack(mlps), pulled)


def attribution_tables(anatomy: Anatomy, run: CleanRun) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``attribution`` and ``completeness`` of one agent.

    ``attribution`` holds the sum over the answer (token -1) for every prompt, and each answer
    token where there are several. The agent's weights must be in force.
    """
    rows: list[dict[str, object]] = []
    checks: list[dict[str, object]] = []
    for part in run.packs:
        found = attribute_pack(anatomy, run, part)
        rows += pack_rows(run, part, found, "whole")
        for position, member in enumerate(part.pack.members):
            name = run.prompts[member].name
            entries = (found.readout.member == position).nonzero()[0].tolist()
            value = float(found.readout.value[entries].sum())
            checks.append(
                {
                    "agent": run.agent,
                    "prompt": name,
                    "error": float(found.total[entries].sum()) - value,
                    "logit_diff": value,
                    "remainder": float(part.log_odds[position]) - value,
                }
            )
    return from_rows("attribution", rows), from_rows("completeness", checks)


def pack_rows(
    run: CleanRun, part: CleanPack, found: PackAttribution, which: str
) -> list[dict[str, object]]:
    """Rows of the table ``attribution``: the sum over the answer, then each token of several.

    Args:
        run: the clean run that was attributed.
        part: its pack.
        found: contributions there.
        which: the column ``part``: whole, weights or input.
    """
    rows: list[dict[str, object]] = []
    for position, member in enumerate(part.pack.members):
        entries = (found.readout.member == position).nonzero()[0].tolist()
        wanted: list[tuple[int, list[int]]] = [(SUM_OVER_ANSWER, entries)]
        tokens = found.readout.answer_token[entries]
        if len(entries) > 1:
            wanted += [
                (int(t), [e for e, u in zip(entries, tokens, strict=True) if u == t])
                for t in sorted(set(tokens.tolist()))
            ]
        place = {"agent": run.agent, "prompt": run.prompts[member].name, "part": which}
        for token, chosen in wanted:
            rows += [{**place, "token": token, **row} for row in _site_rows(found, chosen)]
    return rows


def _site_rows(found: PackAttribution, entries: list[int]) -> list[dict[str, object]]:
    heads = np.asarray(found.heads[:, :, entries].sum(-1).double().cpu()).tolist()
    mlps = np.asarray(found.mlps[:, entries].sum(-1).double().cpu()).tolist()
    sites: list[tuple[Site, float]] = [(Site("embed"), float(found.embed[entries].sum()))]
    for layer, (by_head, mlp) in enumerate(zip(heads, mlps, strict=True)):
        sites += [(Site("head", layer, head), value) for head, value in enumerate(by_head)]
        sites.append((Site("mlp", layer), mlp))
    sites.append((Site("bias"), float(found.bias[entries].sum())))
    return [
        {
            "site": str(site),
            "layer": site.layer,
            "kind": site.kind,
            "head": site.head,
            "contribution": value,
        }
        for site, value in sites
    ]
