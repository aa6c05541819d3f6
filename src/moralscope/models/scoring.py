"""What does the agent decide, and how surely? The one sequence scorer.

For an option with surface forms ``f``, each a token sequence after the prompt ``x``,

    log P(option) = logsumexp_f sum_t log p(f_t | x, f_<t)

``log_odds = log P(positive) - log P(negative)`` and ``legal_mass = P(positive) + P(negative)``
are views of it; there is no other decision metric. All prompts of a pack are scored in one
forward over their prefix tree. With ``normalise="token"`` a form's sum becomes its mean per
token, which makes long continuations comparable but is no longer a probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.models.forward import run_tree
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.tree import IntArray, PromptTree, cut_into_packs, grow_tree

FloatArray = NDArray[np.float64]
Normalise = Literal["none", "token"]

MAX_NODES = 2048
"""Nodes a pack may hold unless told otherwise: masks and activations stay below 100 MB."""


@dataclass(frozen=True)
class Pack:
    """Prompts that are scored in one forward, and where their probabilities are read.

    Attributes:
        members: indices of the prompts in the caller's list.
        tree: their prefix tree, options without their last token included.
        keep: nodes whose next-token distribution is read.
        row, token: for each predicted token, its row among ``keep`` and the token itself.
        form: for each predicted token, the form that it belongs to.
        option: for each form, ``2 * member + (0 positive, 1 negative)``.
        length: tokens of each form.
    """

    members: tuple[int, ...]
    tree: PromptTree
    keep: IntArray
    row: IntArray
    token: IntArray
    form: IntArray
    option: IntArray
    length: IntArray


def _lay_out(prompts: Sequence[EncodedPrompt], members: Sequence[int]) -> Pack:
    sequences = [s for m in members for s in prompts[m].continuations]
    tree = grow_tree(sequences)
    paths = iter(tree.paths)
    nodes: list[int] = []
    token: list[int] = []
    form: list[int] = []
    option: list[int] = []
    length: list[int] = []
    for position, member in enumerate(members):
        prompt = prompts[member]
        for side, forms in enumerate((prompt.positive, prompt.negative)):
            for continuation in forms:
                path = next(paths)
                start = len(prompt.tokens) - 1
                for step, predicted in enumerate(continuation):
                    nodes.append(int(path[start + step]))
                    token.append(predicted)
                    form.append(len(option))
                option.append(2 * position + side)
                length.append(len(continuation))
    keep, row = np.unique(np.array(nodes, dtype=np.int64), return_inverse=True)
    return Pack(
        tuple(members),
        tree,
        keep,
        row.astype(np.int64),
        np.array(token, dtype=np.int64),
        np.array(form, dtype=np.int64),
        np.array(option, dtype=np.int64),
        np.array(length, dtype=np.int64),
    )


def make_packs(prompts: Sequence[EncodedPrompt], max_nodes: int = MAX_NODES) -> tuple[Pack, ...]:
    """Divide prompts into packs of at most ``max_nodes`` tree nodes; each prompt is in one."""
    groups = [prompt.continuations for prompt in prompts]
    return tuple(_lay_out(prompts, members) for members in cut_into_packs(groups, max_nodes))


def log_probabilities_from_logits(
    logits: Tensor, pack: Pack, normalise: Normalise = "none"
) -> Tensor:
    """Log-probability of each option from the logits at ``pack.keep``.

    Returns:
        Shape ``(members, 2)``: positive, negative. Differentiable.
    """
    device = logits.device
    log_p = logits.log_softmax(-1)
    row, token, form, option, length = (
        torch.as_tensor(a).to(device)
        for a in (pack.row, pack.token, pack.form, pack.option, pack.length)
    )
    picked = log_p[row, token]
    total = torch.zeros(len(pack.option), dtype=log_p.dtype, device=device)
    total = total.index_add(0, form, picked)
    if normalise == "token":
        total = total / length
    return logsumexp_by(total, option, 2 * len(pack.members)).view(-1, 2)


def logsumexp_by(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Log-sum-exp of values that share a group; groups are numbered in order of appearance."""
    counts = torch.bincount(group, minlength=groups)
    first = torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(values), device=values.device) - first[group]
    table = values.new_full((groups, int(counts.max())), float("-inf"))
    table = table.index_put((group, slot), values)
    return table.logsumexp(-1)


def option_log_probabilities(model: nn.Module, pack: Pack, normalise: Normalise = "none") -> Tensor:
    """Log-probability of each option of a pack: one forward, shape ``(members, 2)``."""
    return log_probabilities_from_logits(run_tree(model, pack.tree, pack.keep), pack, normalise)


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of the two options on a list of prompts, in its order, in nats."""

    log_p_positive: FloatArray
    log_p_negative: FloatArray

    @property
    def log_odds(self) -> FloatArray:
        """``log P(positive) - log P(negative)``; NaN where neither has any probability."""
        with np.errstate(invalid="ignore"):  # -inf - -inf
            return self.log_p_positive - self.log_p_negative

    @property
    def p_positive(self) -> FloatArray:
        """Probability of the positive option."""
        return np.exp(self.log_p_positive)

    @property
    def p_negative(self) -> FloatArray:
        """Probability of the negative option."""
        return np.exp(self.log_p_negative)

    @property
    def legal_mass(self) -> FloatArray:
        """Probability that the answer is one of the two options."""
        return self.p_positive + self.p_negative

    @property
    def p_positive_given_legal(self) -> FloatArray:
        """``P(positive) / legal_mass``, computed from the log-odds to keep precision.

        NaN where neither option has any probability.
        """
        with np.errstate(over="ignore"):  # of an option without probability
            return 1.0 / (1.0 + np.exp(-self.log_odds))


@torch.no_grad()
def score(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    *,
    max_nodes: int = MAX_NODES,
    normalise: Normalise = "none",
    task: str = "score",
    progress: Progress = silent,
) -> Scores:
    """Score every prompt, one packed forward a pack.

    Returns:
        Scores in the order of ``prompts``.
    """
    result = np.empty((len(prompts), 2))
    packs = make_packs(prompts, max_nodes)
    done = 0
    for pack in packs:
        values = option_log_probabilities(model, pack, normalise)
        result[list(pack.members)] = values.double().cpu().numpy()
        done += len(pack.members)
        progress(ProgressEvent(task, done, len(prompts)))
    return Scores(result[:, 0], result[:, 1])
