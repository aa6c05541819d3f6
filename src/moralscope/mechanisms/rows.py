"""How can hundreds of patches cost about one forward? Interventions as rows that share a prefix.

A patch at the answer span changes no earlier token, so the prompt's keys and values are computed
once. Each intervention is then a *row*: a copy of the answer-span tokens that sees the prompt and
itself, and no other row.

1. The answer span of a prompt is its last token and the tokens of its options but their last.
2. Row 0 is clean. A row enters at the first layer that its intervention touches, as a copy of
   row 0, because before that layer it could not differ.
3. At its layer a row's write is replaced, before any post-norm, so that the norm is recomputed.
4. Log-odds are read from every row at once; only the logits of the options' tokens are computed
   where the normaliser cancels.

Effect = patched minus row 0, measured in the same pass. Row attention is plain masked attention
through the model's own layers; nothing of the model is reimplemented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import first_tensor, hooks
from moralscope.models.forward import (
    Mask,
    Visibility,
    build_mask,
    compute_dtype,
    full_precision,
)
from moralscope.models.libraries import transformers
from moralscope.models.tree import IntArray
from moralscope.models.weights import bias_of, effective_weight

Write = Literal["write", "z"]
PATCHABLE = ("head", "mlp", "attn")


@dataclass(frozen=True)
class Intervention:
    """Sites that are patched together, in one row."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        for site in self.sites:
            if site.kind not in PATCHABLE:
                raise SiteError(
                    "This site cannot be patched by rows",
                    seen=str(site),
                    allowed="heads (L5.h3), attention layers (L5.attn) and MLPs (L5.mlp)",
                    remedy="name such sites; all of them together stand for the whole model",
                )
        if not self.sites:
            raise SiteError(
                "An intervention has no site",
                seen="()",
                allowed="one site or more",
                remedy="the clean run is row 0 of every pass already",
            )

    @property
    def entry(self) -> int:
        """The first layer that the intervention touches."""
        return min(site.layer or 0 for site in self.sites)


@dataclass(frozen=True)
class Span:
    """The answer span of one prompt within its pack.

    Attributes:
        prefix: packed nodes of the prompt without its last token.
        nodes: packed nodes of the span, parents first.
        rows: their rows among the pack's kept nodes.
    """

    prefix: IntArray
    nodes: IntArray
    rows: IntArray


def span_of(part: CleanPack, position: int, prompt_tokens: int, n_forms: int) -> Span:
    """The answer span of the prompt at a position of a pack.

    Args:
        part: the pack.
        position: which of its members.
        prompt_tokens: number of tokens of that prompt.
        n_forms: number of forms of its options together.
    """
    first = int(np.searchsorted(part.pack.option, 2 * position))
    paths = part.pack.tree.paths[first : first + n_forms]
    nodes = np.unique(np.concatenate([path[prompt_tokens - 1 :] for path in paths]))
    rows = np.searchsorted(part.pack.keep, nodes)
    return Span(paths[0][: prompt_tokens - 1], nodes, rows.astype(np.int64))


@dataclass(frozen=True)
class _Layout:
    """How the rows of one pass lie side by side.

    Attributes:
        span: the answer span; a row is a copy of it.
        order: interventions in the order of their rows, row 0 (clean) left out.
        rows_at: for each layer, how many rows are present, row 0 included.
        masks: the full mask of each layer.
    """

    span: Span
    order: tuple[int, ...]
    rows_at: tuple[int, ...]
    masks: tuple[Tensor, ...]


def _lay_rows(
    model: nn.Module,
    anatomy: Anatomy,
    part: CleanPack,
    span: Span,
    interventions: Sequence[Intervention],
) -> _Layout:
    order = sorted(range(len(interventions)), key=lambda i: interventions[i].entry)
    entries = np.array([interventions[i].entry for i in order])
    rows_at = tuple(1 + int((entries <= layer).sum()) for layer in range(anatomy.n_layers))
    tree = part.pack.tree
    own = tree.depth[span.nodes]
    ancestors = np.array(
        [[_is_ancestor(tree.parent, int(a), int(b)) for a in span.nodes] for b in span.nodes]
    )
    rows = 1 + len(interventions)
    allowed = np.concatenate(
        [
            np.ones((rows * len(own), len(span.prefix)), dtype=np.bool_),
            np.kron(np.eye(rows, dtype=np.bool_), ancestors),
        ],
        axis=1,
    )
    key_depth = np.concatenate([tree.depth[span.prefix], np.tile(own, rows)])
    distance = np.tile(own, rows)[:, None] - key_depth[None, :]
    mask = build_mask(model, Visibility(allowed, distance), compute_dtype(model))
    return _Layout(span, tuple(order), rows_at, _per_layer(model, anatomy, mask))


def _is_ancestor(parent: IntArray, above: int, below: int) -> bool:
    while below > above:
        below = int(parent[below])
    return below == above


def _per_layer(model: nn.Module, anatomy: Anatomy, mask: Mask) -> tuple[Tensor, ...]:
    if not isinstance(mask, dict):
        return (mask,) * anatomy.n_layers
    config: Any = model.config
    return tuple(mask[kind] for kind in config.layer_types)


@dataclass(frozen=True)
class _Edit:
    """What replaces the writes of one layer.

    Attributes:
        head_rows, heads: rows and heads whose contribution is replaced, pairwise.
        attn_rows, mlp_rows: rows whose whole sub-layer output is replaced.
    """

    head_rows: IntArray
    heads: IntArray
    attn_rows: IntArray
    mlp_rows: IntArray


def _edits(
    anatomy: Anatomy, layout: _Layout, interventions: Sequence[Intervention]
) -> tuple[_Edit, ...]:
    found: list[dict[str, list[tuple[int, int]]]] = [
        {"head": [], "attn": [], "mlp": []} for _ in range(anatomy.n_layers)
    ]
    for row, index in enumerate(layout.order, start=1):
        for site in interventions[index].sites:
            found[site.layer or 0][site.kind].append((row, site.head or 0))

    def column(pairs: list[tuple[int, int]], which: int) -> IntArray:
        return np.array([pair[which] for pair in pairs], dtype=np.int64)

    return tuple(
        _Edit(
            column(kinds["head"], 0),
            column(kinds["head"], 1),
            column(kinds["attn"], 0),
            column(kinds["mlp"], 0),
        )
        for kinds in found
    )


@dataclass(frozen=True)
class Donor:
    """What the source writes at the answer span of one prompt, in float32 or wider.

    Attributes:
        z: head activations, ``(layers, span, heads * head_dim)``.
        attn_out, mlp_out: sub-layer outputs before any post-norm, ``(layers, span, width)``.
        out_weights: the source's own effective output projections.
    """

    z: Tensor
    attn_out: Tensor
    mlp_out: Tensor
    out_weights: tuple[Tensor, ...]


def donor_of(run: CleanRun, part: CleanPack, span: Span) -> Donor:
    """The source's side of a patch."""
    captured = part.captured
    rows = torch.as_tensor(span.rows, device=captured.z.device)
    return Donor(
        captured.z[:, rows], captured.attn_out[:, rows], captured.mlp_out[:, rows], run.out_weights
    )


def _tokens_of(rows: IntArray, span_length: int, device: torch.device) -> Tensor:
    """Packed positions of rows, ``(rows, span)``."""
    first = torch.as_tensor(rows, device=device)[:, None] * span_length
    return first + torch.arange(span_length, device=device)


def _enter(layout: _Layout, layer: int) -> Any:
    """Hook before a layer: append the rows that enter there and give every row its mask."""
    length = len(layout.span.nodes)
    rows = layout.rows_at[layer]
    tokens = rows * length

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = dict(kwargs)
        hidden: Tensor = args[0] if args else named.pop("hidden_states")
        new = rows - hidden.shape[1] // length
        if new:
            hidden = torch.cat([hidden, hidden[:, :length].repeat(1, new, 1)], 1)
        for name in ("position_embeddings", "position_ids"):
            if named.get(name) is not None:
                named[name] = _repeat(named[name], rows)
        prefix = len(layout.span.prefix)
        named["attention_mask"] = layout.masks[layer][:, :, :tokens, : prefix + tokens]
        return (hidden, *args[1:]), named

    return hook


def _repeat(value: Any, rows: int) -> Any:
    """Position arguments of one span, repeated for each row along their token axis."""
    if isinstance(value, tuple):
        parts: tuple[Any, ...] = value
        return tuple(_repeat(part, rows) for part in parts)
    return value.repeat(1, rows, *([1] * (value.ndim - 2)))


def _replace_z(edit: _Edit, donor: Donor, layer: int, n_heads: int, length: int) -> Any:
    """Hook before the output projection: put in the source's head activations."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z: Tensor = args[0].clone()
        by_head = z[0].unflatten(-1, (n_heads, -1))
        source = donor.z[layer].unflatten(-1, (n_heads, -1)).to(z.dtype)
        heads = torch.as_tensor(edit.heads, device=z.device)
        at = _tokens_of(edit.head_rows, length, z.device)
        by_head[at, heads[:, None]] = source[:, heads].transpose(0, 1)
        return (z, *args[1:])

    return hook


def _replace_attention(
    edit: _Edit, donor: Donor, weight: Tensor | None, *, layer: int, n_heads: int, length: int
) -> Any:
    """Hook after the output projection: put in the source's contributions.

    For a head this adds the difference of two contributions, the source's own and the one that
    the row's head makes now, ``W_source[h] z_source[h] - W_target[h] z_row[h]``.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if weight is not None and len(edit.heads):
            at = _tokens_of(edit.head_rows, length, output.device)
            heads = torch.as_tensor(edit.heads, device=output.device)
            own_z = args[0][0].unflatten(-1, (n_heads, -1))[at, heads[:, None]]
            own = _head_writes(own_z.to(weight.dtype), weight, heads, n_heads)
            source_z = donor.z[layer].unflatten(-1, (n_heads, -1))[:, heads].transpose(0, 1)
            theirs = _head_writes(source_z, donor.out_weights[layer], heads, n_heads)
            change = (theirs - own).to(output.dtype)
            output = output.index_add(1, at.flatten(), change.flatten(0, 1)[None])
        if len(edit.attn_rows):
            output = output.clone()
            at = _tokens_of(edit.attn_rows, length, output.device)
            output[0, at] = donor.attn_out[layer].to(output.dtype)
        return output

    return hook


def _head_writes(z: Tensor, weight: Tensor, heads: Tensor, n_heads: int) -> Tensor:
    """``W_O[:, h] z_h`` for chosen heads: ``(n, span, head_dim)`` to ``(n, span, width)``."""
    by_head = weight.unflatten(1, (n_heads, -1))[:, heads]
    return torch.einsum("nsk,dnk->nsd", z, by_head)


def _replace_mlp(edit: _Edit, donor: Donor, layer: int, length: int) -> Any:
    """Hook after the MLP: put in the source's output."""

    def hook(_: nn.Module, __: object, output: object) -> Tensor:
        replaced = first_tensor(output).clone()
        at = _tokens_of(edit.mlp_rows, length, replaced.device)
        replaced[0, at] = donor.mlp_out[layer].to(replaced.dtype)
        return replaced

    return hook


def _install(
    anatomy: Anatomy,
    layout: _Layout,
    edits: Sequence[_Edit],
    donor: Donor,
    *,
    out_weights: Sequence[Tensor],
    write: Write,
) -> list[RemovableHandle]:
    length = len(layout.span.nodes)
    handles: list[RemovableHandle] = []
    for layer, (block, edit) in enumerate(zip(anatomy.blocks, edits, strict=True)):
        handles.append(
            block.layer.register_forward_pre_hook(_enter(layout, layer), with_kwargs=True)
        )
        weight = out_weights[layer] if write == "write" else None
        if write == "z" and len(edit.heads):
            hook = _replace_z(edit, donor, layer, anatomy.n_heads, length)
            handles.append(block.out_proj.register_forward_pre_hook(hook))
        if (write == "write" and len(edit.heads)) or len(edit.attn_rows):
            hook = _replace_attention(
                edit, donor, weight, layer=layer, n_heads=anatomy.n_heads, length=length
            )
            handles.append(block.out_proj.register_forward_hook(hook))
        if len(edit.mlp_rows):
            hook = _replace_mlp(edit, donor, layer, length)
            handles.append(block.mlp.register_forward_hook(hook))
    return handles


@torch.no_grad()
def patch_rows(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    *,
    part: CleanPack,
    position: int,
    interventions: Sequence[Intervention],
    donor: Donor,
    write: Write = "write",
) -> tuple[float, Tensor]:
    """Patch one prompt at its answer span, every intervention in one pass.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run, with keys and values.
        part: the pack that the prompt is in.
        position: the prompt's position in that pack.
        interventions: what to patch; one row each.
        donor: what the source writes there.
        write: ``write`` puts in the source's own contribution, ``z`` its head activation through
            the target's projection.

    Returns:
        Log-odds of row 0 (clean), and of each intervention in the order given.
    """
    prompt = target.prompts[part.pack.members[position]]
    n_forms = len(prompt.positive) + len(prompt.negative)
    span = span_of(part, position, len(prompt.tokens), n_forms)
    layout = _lay_rows(model, anatomy, part, span, interventions)
    edits = _edits(anatomy, layout, interventions)
    length = len(span.nodes)
    prefix = torch.as_tensor(span.prefix)
    cache: Any = transformers.DynamicCache()
    for layer, stored in enumerate(part.cache.layers):
        at = prefix.to(stored.keys.device)
        cache.update(stored.keys[:, :, at], stored.values[:, :, at], layer)
    device = next(model.parameters()).device
    tree = part.pack.tree
    decoder: Any = model.get_submodule("model")
    clean_mask = {
        kind: mask[:, :, :length, : len(span.prefix) + length]
        for kind, mask in _named_masks(model, layout).items()
    }
    with (
        hooks(_install(anatomy, layout, edits, donor, out_weights=target.out_weights, write=write)),
        full_precision(model),
    ):
        output: Any = decoder(
            input_ids=torch.as_tensor(tree.tokens[span.nodes], device=device)[None],
            attention_mask=clean_mask if len(clean_mask) > 1 else next(iter(clean_mask.values())),
            position_ids=torch.as_tensor(tree.depth[span.nodes], device=device)[None],
            past_key_values=cache,
            use_cache=True,
        )
    hidden: Tensor = output.last_hidden_state[0].unflatten(0, (-1, length))
    log_odds = _log_odds_of_rows(anatomy, part, position, span, hidden).double().cpu()
    restored = torch.empty(len(interventions), dtype=log_odds.dtype)
    restored[list(layout.order)] = log_odds[1:]
    return float(log_odds[0]), restored


def _named_masks(model: nn.Module, layout: _Layout) -> dict[str, Tensor]:
    config: Any = model.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(layout.masks)
    return dict(zip(kinds, layout.masks, strict=True))


def _log_odds_of_rows(
    anatomy: Anatomy, part: CleanPack, position: int, span: Span, hidden: Tensor
) -> Tensor:
    """Log-odds of each row from its normed final states, ``(rows, span, width)``."""
    pack = part.pack
    forms = np.flatnonzero(pack.option // 2 == position)
    predicted = np.flatnonzero(np.isin(pack.form, forms))
    at = torch.as_tensor(np.searchsorted(span.nodes, pack.keep[pack.row[predicted]]))
    token = torch.as_tensor(pack.token[predicted])
    form = torch.as_tensor(pack.form[predicted] - forms[0])
    weight = effective_weight(anatomy.unembed)
    bias = bias_of(anatomy.unembed)
    hidden = hidden.to(weight.dtype)
    chunks: list[Tensor] = []
    one_node = len(span.nodes) == 1
    for rows in hidden.split(hidden.shape[0] if one_node else 64):
        if one_node:
            # Every form is one token read at the same node, so the normaliser cancels.
            picked = rows[:, 0] @ weight[token].T
            picked = _softcap(anatomy, picked if bias is None else picked + bias[token])
        else:
            logits = rows @ weight.T
            logits = _softcap(anatomy, logits if bias is None else logits + bias)
            picked = logits.log_softmax(-1)[:, at, token]
        total = picked.new_zeros(len(rows), len(forms)).index_add(1, form.to(rows.device), picked)
        positive = torch.as_tensor(pack.option[forms] % 2 == 0)
        chunks.append(total[:, positive].logsumexp(-1) - total[:, ~positive].logsumexp(-1))
    return torch.cat(chunks)


def _softcap(anatomy: Anatomy, logits: Tensor) -> Tensor:
    return (
        logits if anatomy.softcap is None else anatomy.softcap * (logits / anatomy.softcap).tanh()
    )
