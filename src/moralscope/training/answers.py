"""What does the model answer, token by token, and with what gradient? One packed forward.

Every step of training reads the same three things of a list of questions: the log-probability of
each option, that of each token of an answer that was given, and the activation from which the
answer's tokens are predicted (what a value head sees). Equal questions are read once, all of them
share their prefixes in a tree, and several processes share the trees between them.

Answers are drawn from the full next-token distribution at temperature 1, one packed forward for
each token of the longest answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.models.forward import run_tree
from moralscope.models.generating import drawn_from
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import MAX_NODES, logsumexp_by
from moralscope.models.tree import IntArray, Tokens, cut_into_packs, grow_tree
from moralscope.training.config import ComputeDtype
from moralscope.training.distribution import ALONE, Processes


@dataclass(frozen=True)
class Question:
    """A prompt and an answer that was given to it, or none."""

    prompt: EncodedPrompt
    answer: Tokens = ()


@dataclass(frozen=True)
class Reading:
    """What was read of N questions, in their order; T is the longest answer, at least 1.

    Attributes:
        log_p: log-probability of the positive and of the negative option, ``[N, 2]``, nats.
        token_log_p: of each token of the answers, ``[N, T]``; 0 where there is none.
        mask: which tokens there are, ``[N, T]``.
        hidden: activation that the unembedding reads where each token is predicted, of a question
            without answer where its answer would begin, ``[N, T, width]``; None unless asked for.
    """

    log_p: Tensor
    token_log_p: Tensor
    mask: Tensor
    hidden: Tensor | None


@dataclass(frozen=True)
class _Layout:
    """One pack: where its questions' numbers are read; nodes are rows of the kept logits."""

    sequences: list[Tokens]
    keep: IntArray
    form: IntArray  # of each predicted token of an option: its form
    option: IntArray  # of each form: 2 * question + side
    row: IntArray  # of each predicted token of an option: its kept node, and
    token: IntArray  # itself
    answer_row: IntArray  # [questions, T]
    answer_token: IntArray
    present: IntArray


def _sequences(question: Question) -> tuple[Tokens, ...]:
    answer = (question.prompt.tokens + question.answer[:-1],)
    return (*question.prompt.continuations, *answer)


def _lay_out(questions: Sequence[Question], width: int) -> tuple[Any, _Layout]:
    sequences = [s for q in questions for s in _sequences(q)]
    tree = grow_tree(sequences)
    paths = iter(tree.paths)
    nodes: list[int] = []
    token: list[int] = []
    form: list[int] = []
    option: list[int] = []
    answers = np.zeros((3, len(questions), width), dtype=np.int64)
    for index, question in enumerate(questions):
        start = len(question.prompt.tokens) - 1
        for side, forms in enumerate((question.prompt.positive, question.prompt.negative)):
            for continuation in forms:
                path = next(paths)
                nodes += [int(path[start + k]) for k in range(len(continuation))]
                token += continuation
                form += [len(option)] * len(continuation)
                option.append(2 * index + side)
        path = next(paths)
        length = max(1, len(question.answer))
        answers[0, index] = int(path[start])
        answers[0, index, :length] = path[start : start + length]
        answers[1, index, : len(question.answer)] = question.answer
        answers[2, index, : len(question.answer)] = 1
    keep, row = np.unique(np.concatenate([nodes, answers[0].ravel()]), return_inverse=True)
    return tree, _Layout(
        sequences,
        keep.astype(np.int64),
        np.array(form, dtype=np.int64),
        np.array(option, dtype=np.int64),
        row[: len(nodes)].astype(np.int64),
        np.array(token, dtype=np.int64),
        row[len(nodes) :].reshape(len(questions), width).astype(np.int64),
        answers[1],
        answers[2],
    )


def read_answers(
    model: nn.Module,
    questions: Sequence[Question],
    *,
    dtype: ComputeDtype = "float32",
    max_nodes: int = MAX_NODES,
    hidden: bool = False,
    processes: Processes = ALONE,
) -> Reading:
    """Read questions, equal ones once, one packed forward a pack; gradients where enabled.

    With several processes each reads its share; the others' numbers come without gradient, so a
    loss has its whole value everywhere, and gradients summed over processes are its gradient.

    Args:
        model: the decoder, with the adapter that is meant active.
        questions: at least one.
        dtype: of the forward pass.
        max_nodes: largest pack, in tree nodes.
        hidden: whether the activations are wanted.
        processes: who shares the work.
    """
    distinct = list(dict.fromkeys((q.prompt.tokens, q.answer) for q in questions))
    index = {key: i for i, key in enumerate(distinct)}
    first = {(q.prompt.tokens, q.answer): q for q in reversed(questions)}
    unique = [first[key] for key in distinct]
    width = max(1, *(len(q.answer) for q in unique))
    # A process without a share still has to know what shapes the others exchange.
    own = list(processes.share(len(unique))) or [0]
    mine = len(processes.share(len(unique)))
    packs = cut_into_packs([_sequences(unique[i]) for i in own], max_nodes)
    parts = [
        _read_pack(model, [unique[own[i]] for i in pack], width, dtype, hidden) for pack in packs
    ]
    rows = [own[i] for pack in packs for i in pack][:mine]
    wanted = [index[(q.prompt.tokens, q.answer)] for q in questions]
    joined = [
        processes.assemble(torch.cat(list(part))[:mine], rows, len(unique))[wanted]
        for part in zip(*parts, strict=True)
    ]
    return Reading(joined[0], joined[1], joined[2] > 0, joined[3] if hidden else None)


def _read_pack(
    model: nn.Module, questions: Sequence[Question], width: int, dtype: ComputeDtype, hidden: bool
) -> tuple[Tensor, ...]:
    tree, plan = _lay_out(questions, width)
    device = next(model.parameters()).device
    with autocast(model, dtype), _heard(model, hidden) as heard:
        logits = run_tree(model, tree, plan.keep)
    log_p = logits.log_softmax(-1)
    form, option, row, token, answer_row, answer_token, present = (
        torch.as_tensor(a).to(device)
        for a in (plan.form, plan.option, plan.row, plan.token,
                  plan.answer_row, plan.answer_token, plan.present)
    )  # fmt: skip
    total = log_p.new_zeros(len(option)).index_add(0, form, log_p[row, token])
    options = logsumexp_by(total, option, 2 * len(questions)).view(-1, 2)
    tokens = log_p[answer_row, answer_token] * present
    found = (options, tokens, present)
    return (*found, heard[0].to(log_p.dtype)[answer_row]) if hidden else found


@contextlib.contextmanager
def _heard(model: nn.Module, wanted: bool) -> Generator[list[Tensor]]:
    """What the unembedding is given at the kept nodes, ``[nodes, width]``."""
    found: list[Tensor] = []
    if not wanted:
        yield found
        return
    untyped: Any = model

    def listen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0][0])

    handle = untyped.get_output_embeddings().register_forward_pre_hook(listen)
    try:
        yield found
    finally:
        handle.remove()


def autocast(model: nn.Module, dtype: ComputeDtype) -> Any:
    """The context in which a forward runs in this dtype."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


@torch.no_grad()
def generate_answers(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    uniforms: NDArray[np.float64],
    known: dict[Tokens, NDArray[np.float64]],
    *,
    dtype: ComputeDtype = "float32",
    max_nodes: int = MAX_NODES,
) -> tuple[Tokens, ...]:
    """Draw answers freely, token by token, at temperature 1 from the whole vocabulary.

    Args:
        model: the decoder, with the adapter that is meant active.
        prompts: one for each answer.
        uniforms: numbers in [0, 1), ``[prompts, tokens]``: each token is the one at that quantile
            of its distribution, so equal numbers give equal answers.
        known: next-token distributions by what stands before them; those that are missing are
            computed, equal ones once, and added. Pass the same one as long as the model is the
            same.
        dtype: of the forward pass.
        max_nodes: largest pack, in tree nodes.

    Returns:
        The tokens of each answer, as many as there are numbers.
    """
    before = [prompt.tokens for prompt in prompts]
    for column in range(uniforms.shape[1]):
        missing = [tokens for tokens in dict.fromkeys(before) if tokens not in known]
        for pack in cut_into_packs([[tokens] for tokens in missing], max_nodes):
            tree = grow_tree([missing[i] for i in pack])
            keep, row = np.unique([int(path[-1]) for path in tree.paths], return_inverse=True)
            with autocast(model, dtype):
                logits = run_tree(model, tree, keep.astype(np.int64))
            p: NDArray[np.float64] = logits.double().softmax(-1).cpu().numpy()
            known.update({missing[i]: p[int(r)] for i, r in zip(pack, row, strict=True)})
        before = [
            (*tokens, drawn_from(known[tokens], float(u)))
            for tokens, u in zip(before, uniforms[:, column], strict=True)
        ]
    return tuple(
        tokens[len(prompt.tokens) :] for tokens, prompt in zip(before, prompts, strict=True)
    )
