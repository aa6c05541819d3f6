"""Which direction of the residual stream is the decision? The target of attribution and lens.

Let the canonical forms of the two options part at answer token ``b``. Where both are single
tokens there, the normaliser cancels and

    log_odds = logit(positive_b) - logit(negative_b)

exactly. Tokens after the branch enter through the linearisation of their log-probability,
``logit(t) - sum_v p(v) logit(v)`` with the model's own ``p``; tokens before it are shared and
cancel. What the linear form leaves out (soft-cap, further forms, curvature) is stored as the
remainder, never hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture
from moralscope.models.forward import full_precision
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import Pack
from moralscope.models.tree import IntArray
from moralscope.models.weights import bias_of, effective_weight


@dataclass(frozen=True)
class Readout:
    """Where the decisions of a pack are read, and along which directions.

    Attributes:
        member: for each entry, the position of its prompt in the pack.
        answer_token: the answer token that it reads, 0 for the first.
        row: its row among the kept nodes.
        is_branch: whether the options part at this entry.
        direction: unembedding direction, positive minus negative, ``(entries, width)``.
        offset: contribution of the unembedding's bias, ``(entries,)``.
        value: the logit difference that is attributed, before soft-capping, ``(entries,)``.
    """

    member: IntArray
    answer_token: IntArray
    row: IntArray
    is_branch: torch.Tensor
    direction: Tensor
    offset: Tensor
    value: Tensor


@dataclass(frozen=True)
class _Entry:
    member: int
    answer_token: int
    row: int
    plus: int | None
    minus: int | None


def _entries(pack: Pack, prompts: Sequence[EncodedPrompt]) -> list[_Entry]:
    """Each place where a prompt's canonical forms are read; ``None`` stands for the mean logit."""
    row_of = {int(node): row for row, node in enumerate(pack.keep)}
    paths = iter(pack.tree.paths)
    entries: list[_Entry] = []
    for position, member in enumerate(pack.members):
        prompt = prompts[member]
        forms = [(form, next(paths)) for form in prompt.positive + prompt.negative]
        (plus, plus_path), (minus, minus_path) = forms[0], forms[len(prompt.positive)]
        start = len(prompt.tokens) - 1
        branch = next(i for i, (a, b) in enumerate(zip(plus, minus, strict=False)) if a != b)
        entries.append(
            _Entry(position, branch, row_of[int(plus_path[start + branch])],
                   plus[branch], minus[branch])
        )  # fmt: skip
        for step in range(branch + 1, len(plus)):
            row = row_of[int(plus_path[start + step])]
            entries.append(_Entry(position, step, row, plus[step], None))
        for step in range(branch + 1, len(minus)):
            row = row_of[int(minus_path[start + step])]
            entries.append(_Entry(position, step, row, None, minus[step]))
    return entries


@torch.no_grad()
def read_out(
    anatomy: Anatomy, pack: Pack, prompts: Sequence[EncodedPrompt], captured: Capture
) -> Readout:
    """The decision directions of a pack for one agent.

    Args:
        anatomy: the agent's decoder, its adapter active.
        pack: what was run.
        prompts: the caller's list, which ``pack.members`` indexes.
        captured: activations at ``pack.keep``.
    """
    entries = _entries(pack, prompts)
    weight = effective_weight(anatomy.unembed).to(captured.logits.dtype)
    bias = bias_of(anatomy.unembed)
    logits = _before_softcap(anatomy, captured, weight, bias)
    directions: list[Tensor] = []
    offsets: list[Tensor] = []
    values: list[Tensor] = []
    for entry in entries:
        selector = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
        if entry.plus is None or entry.minus is None:
            selector += captured.logits[entry.row].softmax(-1)
            selector *= 1.0 if entry.plus is None else -1.0
        if entry.plus is not None:
            selector[entry.plus] += 1.0
        if entry.minus is not None:
            selector[entry.minus] -= 1.0
        nonzero = selector.nonzero()[:, 0]
        chosen = selector[nonzero]
        directions.append(chosen @ weight[nonzero])
        offsets.append(
            torch.zeros_like(chosen.sum())
            if bias is None
            else chosen @ bias[nonzero].to(chosen.dtype)
        )
        values.append(chosen @ logits[entry.row, nonzero])
    return Readout(
        member=np.array([e.member for e in entries], dtype=np.int64),
        answer_token=np.array([e.answer_token for e in entries], dtype=np.int64),
        row=np.array([e.row for e in entries], dtype=np.int64),
        is_branch=torch.tensor([e.plus is not None and e.minus is not None for e in entries]),
        direction=torch.stack(directions),
        offset=torch.stack(offsets),
        value=torch.stack(values),
    )


def _before_softcap(
    anatomy: Anatomy, captured: Capture, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The model's own logits; recomputed from its own norm where a soft-cap hides them."""
    if anatomy.softcap is None:
        return captured.logits
    with full_precision(anatomy.final_norm):
        normed: Tensor = anatomy.final_norm(captured.resid_final)
    logits = normed.to(weight.dtype) @ weight.T
    return logits if bias is None else logits + bias.to(weight.dtype)
