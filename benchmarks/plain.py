"""What would one do without this package? The same numbers by padded batches and plain hooks.

These are the peers of the comparisons, written as a careful user would write them: no token is
run twice where the options share it, padding stands on the right, where causal attention needs
no mask for it, only the logits that are read are computed, and no cache is filled. Nothing here
shares code with the paths that it is compared with, but the anatomy's names of a model's parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.site import Site
from moralscope.models.anatomy import Anatomy
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.tree import Tokens
from moralscope.models.weights import effective_weight


@dataclass(frozen=True)
class PaddedBatch:
    """Prompts with their options as a padded batch.

    Attributes:
        tokens: ``(rows, longest)``, padded on the right.
        positions: positions whose logits are computed, ``(kept,)``.
        row, at, token: for each predicted token, where it is read (``at`` among the kept).
        lengths: for each prompt, for each option, the tokens of each of its forms.
        real_tokens: tokens that are not padding.
    """

    tokens: Tensor
    positions: Tensor
    row: Tensor
    at: Tensor
    token: Tensor
    lengths: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    real_tokens: int


def _rows_of(prompt: EncodedPrompt) -> list[Tokens]:
    """The fewest sequences that score a prompt: one where each form is a single token."""
    wanted = sorted(set(prompt.continuations))
    return [s for s in wanted if not any(o != s and o[: len(s)] == s for o in wanted)]


def pad(prompts: Sequence[EncodedPrompt]) -> PaddedBatch:
    """Lay prompts out as a padded batch."""
    rows: list[Tokens] = []
    reads: list[tuple[int, int, int]] = []
    lengths: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for prompt in prompts:
        own = _rows_of(prompt)
        for form in prompt.positive + prompt.negative:
            before = prompt.tokens + form[:-1]
            row = next(i for i, s in enumerate(own) if s[: len(before)] == before)
            first = len(prompt.tokens) - 1
            reads += [(len(rows) + row, first + step, t) for step, t in enumerate(form)]
        rows += own
        sides = (prompt.positive, prompt.negative)
        positive, negative = (tuple(len(form) for form in side) for side in sides)
        lengths.append((positive, negative))
    longest = max(len(row) for row in rows)
    positions = sorted({position for _, position, _ in reads})
    return PaddedBatch(
        tokens=torch.tensor([row + (0,) * (longest - len(row)) for row in rows]),
        positions=torch.tensor(positions),
        row=torch.tensor([row for row, _, _ in reads]),
        at=torch.tensor([positions.index(position) for _, position, _ in reads]),
        token=torch.tensor([token for _, _, token in reads]),
        lengths=tuple(lengths),
        real_tokens=sum(len(row) for row in rows),
    )


def padded_log_p(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """Log-probability of each option, ``(prompts, 2)``: positive, negative. Differentiable."""
    output: Any = model(input_ids=batch.tokens, logits_to_keep=batch.positions, use_cache=False)
    picked = output.logits.float().log_softmax(-1)[batch.row, batch.at, batch.token]
    sizes = [size for sides in batch.lengths for side in sides for size in side]
    forms = iter(picked.split(sizes))
    rows = [
        torch.stack([torch.stack([next(forms).sum() for _ in side]).logsumexp(0) for side in sides])
        for sides in batch.lengths
    ]
    return torch.stack(rows)


@torch.no_grad()
def option_by_option(model: nn.Module, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """Log-probability of each option with one forward for each form, ``(prompts, 2)``."""
    rows: list[Tensor] = []
    for prompt in prompts:
        sides = (prompt.positive, prompt.negative)
        rows.append(
            torch.stack(
                [torch.stack([_form(model, prompt, f) for f in s]).logsumexp(0) for s in sides]
            )
        )
    return torch.stack(rows)


def _form(model: nn.Module, prompt: EncodedPrompt, form: Tokens) -> Tensor:
    sequence = torch.tensor([prompt.tokens + form[:-1]])
    output: Any = model(input_ids=sequence, logits_to_keep=len(form), use_cache=False)
    log_p = output.logits[0].float().log_softmax(-1)
    return log_p[torch.arange(len(form)), torch.tensor(form)].sum()


def log_odds(log_p: Tensor) -> Tensor:
    """``log P(positive) - log P(negative)``, in double precision."""
    return (log_p[:, 0] - log_p[:, 1]).detach().double()


@dataclass(frozen=True)
class PlainRun:
    """An agent's activations over the answer span of one prompt, kept by hooks.

    Attributes:
        z: inputs of the output projections, ``(layers, rows, span, heads * head_dim)``.
        mlp: outputs of the MLPs, ``(layers, rows, span, width)``.
        out_weights: effective output projection of each layer.
        log_odds: the agent's decision.
    """

    z: Tensor
    mlp: Tensor
    out_weights: tuple[Tensor, ...]
    log_odds: float


@torch.no_grad()
def plain_run(model: nn.Module, anatomy: Anatomy, prompt: EncodedPrompt) -> PlainRun:
    """Run a prompt once and keep what a patch needs."""
    batch = pad([prompt])
    first = len(prompt.tokens) - 1
    z: list[Tensor] = []
    mlp: list[Tensor] = []
    handles: list[Any] = []
    for block in anatomy.blocks:
        handles.append(
            block.out_proj.register_forward_pre_hook(
                lambda _, args: z.append(args[0][:, first:].clone())
            )
        )
        handles.append(
            block.mlp.register_forward_hook(
                lambda _, __, output: mlp.append(output[:, first:].clone())
            )
        )
    try:
        value = float(log_odds(padded_log_p(model, batch))[0])
    finally:
        for handle in handles:
            handle.remove()
    weights = tuple(effective_weight(block.out_proj) for block in anatomy.blocks)
    return PlainRun(torch.stack(z), torch.stack(mlp), weights, value)


@torch.no_grad()
def keep_by_hooks(model: nn.Module, anatomy: Anatomy, tokens: Tokens) -> dict[str, list[Tensor]]:
    """What each layer computes at every token of one sequence, kept by plain hooks.

    Returns:
        For each layer ``(tokens, dim)``: ``head``, the input of the output projection, all heads
        side by side; ``attn``, its output; ``mlp``, the MLP's output.
    """
    kept: dict[str, list[Tensor]] = {"head": [], "attn": [], "mlp": []}
    handles: list[Any] = []
    for block in anatomy.blocks:
        handles += [
            block.out_proj.register_forward_pre_hook(
                lambda _, args: kept["head"].append(args[0][0])
            ),
            block.out_proj.register_forward_hook(lambda *told: kept["attn"].append(told[2][0])),
            block.mlp.register_forward_hook(lambda *told: kept["mlp"].append(told[2][0])),
        ]
    try:
        model(input_ids=torch.tensor([tokens]), logits_to_keep=1, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept


@torch.no_grad()
def patch_by_hook(
    model: nn.Module,
    anatomy: Anatomy,
    prompt: EncodedPrompt,
    site: Site,
    *,
    source: PlainRun,
    target: PlainRun,
) -> float:
    """Log-odds with one head's or MLP's write replaced by the source's: one whole forward.

    A head's write is replaced by ``W_source[h] z_source[h] - W_target[h] z[h]``, where ``z`` is
    what the target's head holds in this very forward.
    """
    first = len(prompt.tokens) - 1
    layer = site.layer or 0
    block = anatomy.blocks[layer]
    if site.kind == "mlp":

        def replace_mlp(_: nn.Module, __: object, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, first:] = source.mlp[layer]
            return changed

        handle = block.mlp.register_forward_hook(replace_mlp)
    else:
        start = (site.head or 0) * anatomy.head_dim
        part = slice(start, start + anatomy.head_dim)
        theirs = source.z[layer][..., part] @ source.out_weights[layer][:, part].T

        def replace_head(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            own = args[0][:, first:, part] @ target.out_weights[layer][:, part].T
            changed = output.clone()
            changed[:, first:] += theirs - own
            return changed

        handle = block.out_proj.register_forward_hook(replace_head)
    try:
        return float(log_odds(padded_log_p(model, pad([prompt])))[0])
    finally:
        handle.remove()
