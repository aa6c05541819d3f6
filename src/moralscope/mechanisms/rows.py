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
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.mechanisms.clean import CleanPack, CleanRun, Span, span_of
from moralscope.mechanisms.edits import Donor, Intervention, Write, edits_by_layer, install_edits
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import hooks
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

_ROWS_OF_LOGITS = 64
"""Rows whose full logits are held at once where a normaliser is needed."""


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
        parts = cast("tuple[Any, ...]", value)
        return tuple(_repeat(part, rows) for part in parts)
    return value.repeat(1, rows, *([1] * (value.ndim - 2)))


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
    edits = edits_by_layer(anatomy.n_layers, [interventions[i] for i in layout.order])
    length = len(span.nodes)
    device = next(model.parameters()).device
    tree = part.pack.tree
    decoder: Any = model.get_submodule("model")
    clean_mask = {
        kind: mask[:, :, :length, : len(span.prefix) + length]
        for kind, mask in _named_masks(model, layout).items()
    }
    handles = [
        block.layer.register_forward_pre_hook(_enter(layout, layer), with_kwargs=True)
        for layer, block in enumerate(anatomy.blocks)
    ]
    handles += install_edits(
        anatomy, edits, donor, span_length=length, out_weights=target.out_weights, write=write
    )
    with hooks(handles), full_precision(model):
        output: Any = decoder(
            input_ids=torch.as_tensor(tree.tokens[span.nodes], device=device)[None],
            attention_mask=clean_mask if len(clean_mask) > 1 else next(iter(clean_mask.values())),
            position_ids=torch.as_tensor(tree.depth[span.nodes], device=device)[None],
            past_key_values=_cache_of(part, span),
            use_cache=True,
        )
    states: Tensor = output.last_hidden_state[0]
    hidden = states.reshape(-1, length, states.shape[-1])
    log_odds = _log_odds_of_rows(anatomy, part, position, span, hidden).double().cpu()
    restored = torch.empty(len(interventions), dtype=log_odds.dtype)
    restored[list(layout.order)] = log_odds[1:]
    return float(log_odds[0]), restored


def _cache_of(part: CleanPack, span: Span) -> Any:
    """Keys and values of the prompt before its answer span, picked from the clean run."""
    cache: Any = transformers.DynamicCache()
    for layer, stored in enumerate(part.cache.layers):
        at = torch.as_tensor(span.prefix, device=stored.keys.device)
        cache.update(stored.keys[:, :, at], stored.values[:, :, at], layer)
    return cache


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
    step = len(hidden) if one_node else _ROWS_OF_LOGITS
    for start in range(0, len(hidden), step):
        rows = hidden[start : start + step]
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
