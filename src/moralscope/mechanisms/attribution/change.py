"""Did a component change, or only what it is fed? A change of attribution, split in two.

An agent's contribution at a site differs from its base's for two reasons. With ``c(W, x, s)`` the
contribution of a component with weights ``W`` on inputs ``x`` under norm scales ``s``, read along
the base's decision direction,

    weights = c(W_agent, x_base, s_base) - c(W_base, x_base, s_base)
    input   = c(agent) - c(base) - weights

*weights* is what the component's own new weights do on the base's inputs; *input* is the rest:
other inputs, made by earlier components that changed, other norm scales, another unembedding or
gain before it. The two sum to the change exactly, by construction of the second and not of the
first. A head's component is its query, key, value and output projections and the norms around
them; an MLP's likewise; the embedding and the biases are weights alone. An adapter on one layer
shows *weights* in that layer alone, and *input* after it; before it *input* holds no more than the
change of the final norm's scale.

Cost: one forward of the agent's layers, each on the base's own input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError
from moralscope.core.tables import from_rows
from moralscope.mechanisms.attribution.contributions import (
    PackAttribution,
    attribute_pack,
    pack_rows,
)
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, first_tensor, hooks
from moralscope.models.forward import compute_dtype, full_precision
from moralscope.models.norms import pull_back
from moralscope.models.resume import call_layer


def base_attributions(anatomy: Anatomy, base: CleanRun) -> tuple[PackAttribution, ...]:
    """The base's attributions, pack by pack, made while the base speaks."""
    return tuple(attribute_pack(anatomy, base, part) for part in base.packs)


def change_table(
    model: nn.Module,
    anatomy: Anatomy,
    run: CleanRun,
    base: CleanRun,
    base_found: Sequence[PackAttribution],
    *,
    everywhere: Iterable[CleanPack] | None = None,
) -> pl.DataFrame:
    """Rows of the table ``attribution`` with ``part`` weights and input, for one agent.

    Args:
        model: the agent's decoder, its weights in force.
        anatomy: its parts.
        run: its clean run.
        base: the base's clean run over the same prompts.
        base_found: from ``base_attributions``.
        everywhere: the base's packs with every token's activations, made one by one where they
            would not fit in memory together; those of ``base`` unless given.

    Raises:
        AgentError: the runs are of different prompts, or the base's did not keep every token.
    """
    if run.prompts != base.prompts or len(run.packs) != len(base.packs):
        raise AgentError(
            "An agent and its base were not run on the same prompts",
            seen=f"{run.agent} and {base.agent}",
            allowed="clean runs over one list of prompts with one pack size",
            remedy="run both on the same prompts",
        )
    rows: list[dict[str, object]] = []
    whole = base.packs if everywhere is None else everywhere
    for part, base_part, found_base in zip(run.packs, whole, base_found, strict=True):
        found = attribute_pack(anatomy, run, part)
        own = weights_part(
            model, anatomy, run, part=part, base_part=base_part, base_found=found_base
        )
        rest = PackAttribution(
            found.readout,
            found.embed - found_base.embed - own.embed,
            found.bias - found_base.bias - own.bias,
            found.heads - found_base.heads - own.heads,
            found.mlps - found_base.mlps - own.mlps,
            found.pulled,
        )
        rows += pack_rows(run, part, own, "weights") + pack_rows(run, part, rest, "input")
    return from_rows("attribution", rows)


@torch.no_grad()
def weights_part(
    model: nn.Module,
    anatomy: Anatomy,
    run: CleanRun,
    *,
    part: CleanPack,
    base_part: CleanPack,
    base_found: PackAttribution,
) -> PackAttribution:
    """What the agent's own weights change on the base's inputs, in one pack, in nats.

    Args:
        model: the agent's decoder, its weights in force.
        anatomy: its parts.
        run: the agent's clean run.
        part: one of the agent's packs.
        base_part: the same pack of the base's, with every token's activations.
        base_found: the base's attributions there.
    """
    captured, pulled = base_part.captured, base_found.pulled
    readout = base_found.readout
    row = torch.as_tensor(readout.row, device=pulled.device)
    z, mlp_out = _on_base_inputs(model, anatomy, base_part)
    heads: list[Tensor] = []
    mlps: list[Tensor] = []
    final = captured.resid_final[row]
    bias = readout.offset + _before(anatomy.final_norm, final, readout.direction, anatomy)[1]
    for layer, block in enumerate(anatomy.blocks):
        own = captured.attn_out[layer, row]
        towards, constant = _before(block.attention_post_norm, own, pulled, anatomy)
        share = (towards @ run.out_weights[layer]) * z[layer][row]
        heads.append(share.view(len(row), anatomy.n_heads, -1).sum(-1).T)
        bias = bias + constant
        out_bias = run.out_biases[layer]
        if out_bias is not None:
            bias = bias + towards @ out_bias.to(towards.dtype)
        own = captured.mlp_out[layer, row]
        towards, constant = _before(block.mlp_post_norm, own, pulled, anatomy)
        mlps.append((towards * mlp_out[layer][row]).sum(-1) + constant)
    change = part.captured.resid_pre[0, row] - captured.resid_pre[0, row]
    return PackAttribution(
        readout,
        (pulled * change).sum(-1),
        bias - base_found.bias,
        torch.stack(heads) - base_found.heads,
        torch.stack(mlps) - base_found.mlps,
        pulled,
    )


def _before(
    norm: nn.Module | None, x: Tensor, direction: Tensor, anatomy: Anatomy
) -> tuple[Tensor, Tensor]:
    """A direction before a norm at the base's scale, and its constant; itself without a norm."""
    if norm is None:
        return direction, direction.new_zeros(direction.shape[:-1])
    return pull_back(norm, x, direction, unit_offset=anatomy.unit_offset)


def _on_base_inputs(
    model: nn.Module, anatomy: Anatomy, part: CleanPack
) -> tuple[list[Tensor], list[Tensor]]:
    """What the agent's layers compute on the base's streams, at the pack's kept nodes.

    Returns:
        For each layer the head activations ``(nodes, heads * head_dim)`` and the MLP's output
        before any post-norm ``(nodes, width)``, float32 or wider.
    """
    streams = part.everywhere
    if streams is None:
        raise AgentError(
            "Splitting a change of attribution needs the base's activations at every token",
            seen="a clean run that kept the answer spans",
            allowed="run_clean(..., everywhere=True) for the base",
            remedy="run the base clean with everywhere=True",
        )
    device = streams.resid_final.device
    kept = torch.as_tensor(part.pack.keep, device=device)
    nodes = torch.arange(len(part.pack.tree), device=device)
    dtype = compute_dtype(model)
    z: list[Tensor] = []
    mlp_out: list[Tensor] = []

    def keep_z(_: nn.Module, args: tuple[Any, ...]) -> None:
        z.append(_wide(args[0][0, kept]))

    def keep_mlp(_: nn.Module, __: object, output: object) -> None:
        mlp_out.append(_wide(first_tensor(output)[0, kept]))

    with full_precision(model):
        for layer, block in enumerate(anatomy.blocks):
            written = block.attention_post_norm or block.out_proj
            handles = [
                block.out_proj.register_forward_pre_hook(keep_z),
                # The MLP reads the base's stream: attention's write is put back to the base's.
                written.register_forward_hook(_write_back(streams, layer, dtype)),
                block.mlp.register_forward_hook(keep_mlp),
            ]
            recorded = streams.calls[layer]
            with hooks(handles):
                call_layer(
                    block.layer,
                    recorded,
                    streams.resid_pre[layer].to(dtype)[None],
                    nodes=nodes,
                    copies=1,
                    mask=recorded.named["attention_mask"],
                    cache=None,
                )
    return z, mlp_out


def _write_back(streams: Capture, layer: int, dtype: torch.dtype) -> Any:
    def hook(_: nn.Module, __: object, ___: object) -> Tensor:
        return streams.attn_write[layer].to(dtype)[None]

    return hook


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
