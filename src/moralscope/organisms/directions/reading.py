"""What does the stream hold while an answer is said? Sums over answer tokens, after every layer.

Of an answer ``a`` whose own words stand on the tokens ``T_a``, after layer ``l``,

    sum_a,l = sum_{t in T_a} x_{a,t,l},    mean_a,l = sum_a,l / |T_a|

A token belongs to the answer if it covers a character of it; the header of the turn and the token
that ends it do not. The published code (arXiv 2506.11618) takes the whole turn, so that short
answers consist of the header to a large part; ``over="turn"`` does so too, to show what it changes.
Answers to one question share the tokens of the question, which are run once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.errors import EvidenceError, ModelError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.mechanisms.intervening.placements import at_stream, placed
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import run_tree
from moralscope.models.rendering import chat_text
from moralscope.models.scoring import MAX_NODES
from moralscope.models.tree import Tokens, cut_into_packs, grow_tree
from moralscope.organisms.data.examples import Example
from moralscope.training.supervised_examples import encode_chats

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Range = tuple[int, int]

Over = Literal["answer", "turn"]
"""Which tokens count: the answer's own words, or its turn with header and end."""

MAX_TOKENS = 4_096
"""The most tokens that a chat may have, unless told otherwise."""


@dataclass(frozen=True)
class ReadAnswer:
    """An answer as the model reads it after its question.

    Attributes:
        id, question: of its example.
        tokens: of the chat, up to the one that ends the answer's turn.
        answer: half-open range of the tokens on which the answer's own words stand.
        turn: half-open range of the turn, header and end included.
    """

    id: str
    question: str
    tokens: Tokens
    answer: Range
    turn: Range


def read_answers(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, max_tokens: int = MAX_TOKENS
) -> tuple[ReadAnswer, ...]:
    """The tokens of chats, in order, and which of them are the answers.

    Args:
        tokenizer: fast.
        examples: at least one.
        max_tokens: the most that a chat may have.

    Raises:
        PromptError: there are none; an answer is empty, is not in the text, merges with its
            header or is longer than the limit; the tokenizer does not say what tokens cover.
    """
    encoded = encode_chats(tokenizer, examples, max_tokens=max_tokens)
    encode: Any = tokenizer
    plain = getattr(tokenizer, "chat_template", None) is None
    found: list[ReadAnswer] = []
    for example, chat in zip(examples, encoded, strict=True):
        asked = chat_text(tokenizer, example.asked, answering=False)
        before = encode(asked, add_special_tokens=plain)["input_ids"]
        same = (one == other for one, other in zip(before, chat.tokens, strict=False))
        header = sum(1 for _ in itertools.takewhile(bool, same))
        turn = min(header, chat.answer[0]), len(chat.tokens)
        found.append(ReadAnswer(chat.id, chat.question, chat.tokens, chat.answer, turn))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class AnswerStreams:
    """Streams of an agent while it reads answers; row ``i`` of each belongs to answer ``i``.

    Attributes:
        agent: whose.
        ids, questions: of the answers.
        sums: over the tokens that count, ``(answers, layers, width)``, model units.
        lengths: how many tokens count, ``(answers,)``.
        sizes: mean over them of the length of the stream, ``(answers, layers)``.
        over: which tokens count.
    """

    agent: str
    ids: tuple[str, ...]
    questions: tuple[str, ...]
    sums: Array
    lengths: IntArray
    sizes: Array
    over: Over

    @property
    def means(self) -> Array:
        """The mean stream of each answer, ``(answers, layers, width)``."""
        means: Array = self.sums / self.lengths[:, None, None]
        return means


@torch.no_grad()
def answer_streams(
    agent: str,
    model: nn.Module,
    anatomy: Anatomy,
    answers: Sequence[ReadAnswer],
    *,
    over: Over = "answer",
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> AnswerStreams:
    """Read answers and keep the stream after every layer, summed over the tokens of each.

    Holds ``8 * answers * layers * width`` bytes: 140 MB for 1,000 answers and 30 layers of 576.

    Args:
        agent: its name.
        model: the decoder, with the wanted adapter active; open interventions are seen.
        anatomy: its parts.
        answers: from ``read_answers``.
        over: which tokens count.
        max_nodes: largest tree that is run at once.
        progress: told after each tree.

    Raises:
        EvidenceError: there are no answers, or none of the tokens of one counts.
        ModelError: a stream is not finite.
    """
    ranges = [answer.answer if over == "answer" else answer.turn for answer in answers]
    _refuse_empty(answers, ranges)
    shape = (len(answers), anatomy.n_layers)
    sums, sizes = np.empty((*shape, anatomy.width)), np.empty(shape)
    lengths = np.array([last - first for first, last in ranges], dtype=np.int64)
    done = 0
    for pack in cut_into_packs([[answer.tokens] for answer in answers], max_nodes):
        # What comes after the last token that counts is not read.
        tree = grow_tree([answers[i].tokens[: ranges[i][1]] for i in pack])
        nodes = [path[slice(*ranges[i])] for path, i in zip(tree.paths, pack, strict=True)]
        device = next(model.parameters()).device
        seen = _Sums(anatomy.n_layers, nodes, device)
        with placed(at_stream(anatomy, k + 1, seen.observer(k)) for k in range(anatomy.n_layers)):
            run_tree(model, tree, np.zeros(1, dtype=np.int64))
        for layer in range(anatomy.n_layers):
            sums[pack, layer] = seen.sums[layer].double().cpu().numpy()
            sizes[pack, layer] = seen.sizes[layer].double().cpu().numpy() / lengths[pack]
        done += len(pack)
        progress(ProgressEvent(f"read answers of {agent}", done, len(answers)))
    _refuse_not_finite(sums)
    ids, questions = zip(*((answer.id, answer.question) for answer in answers), strict=True)
    return AnswerStreams(agent, ids, questions, sums, lengths, sizes, over)


class _Sums:
    """Sums over the tokens of each answer of a pack, layer by layer, as the decoder computes."""

    def __init__(self, layers: int, nodes: Sequence[IntArray], device: torch.device) -> None:
        self._nodes = torch.as_tensor(np.concatenate(nodes)).to(device)
        owners = np.repeat(np.arange(len(nodes)), [len(own) for own in nodes])
        self._owners = torch.as_tensor(owners).to(device)
        self._count = len(nodes)
        self.sums: list[Tensor] = [torch.empty(0)] * layers
        self.sizes: list[Tensor] = [torch.empty(0)] * layers

    def observer(self, layer: int) -> Callable[[Tensor], Tensor]:
        def look(x: Tensor) -> Tensor:
            rows = x[0, self._nodes]
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            zero = rows.new_zeros(self._count, rows.shape[1])
            self.sums[layer] = zero.index_add(0, self._owners, rows)
            lengths = rows.square().sum(-1).sqrt()
            self.sizes[layer] = zero[:, 0].index_add(0, self._owners, lengths)
            return x

        return look


def _refuse_empty(answers: Sequence[ReadAnswer], ranges: Sequence[Range]) -> None:
    if not answers:
        raise EvidenceError(
            "There are no answers to read",
            seen="an empty list",
            allowed="answers of both classes",
            remedy="give answers, or sample some first",
        )
    for answer, (first, last) in zip(answers, ranges, strict=True):
        if last <= first:
            raise EvidenceError(
                f"The answer of example {answer.id!r} has no token of its own",
                seen=f"tokens {first} to {last} of {len(answer.tokens)}",
                allowed="one token or more",
                remedy="leave the answer out, and its counterpart with it",
            )


def _refuse_not_finite(sums: Array) -> None:
    largest: Array = np.abs(sums).max(axis=-1)
    bad = ~np.isfinite(largest)
    if bad.any():
        layer = int(np.flatnonzero(bad.any(axis=0))[0])
        raise ModelError(
            "A stream is not finite while answers are read",
            seen=f"{int(bad[:, layer].sum())} of {len(sums)} answers, first after layer {layer}",
            allowed="finite numbers after every layer",
            remedy="check the weights of that layer, or run in float32: float16 overflows",
        )
