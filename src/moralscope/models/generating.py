"""What does the model say, token by token? Drawn freely, with the probability of every token.

Token k of an answer to prompt x is the one at quantile ``u_k`` of its distribution over the whole
vocabulary, at temperature 1, so that equal numbers give equal answers:

    t_k = min {t : P(token <= t | x, t_1 .. t_{k-1}) > u_k}

The prompts are run once, as a tree whose keys and values are kept. Every further token is one
forward over the distinct continuations alone, each of which attends to its own path through the
tree: answers that begin alike share their nodes until they part. An answer ends with one of the
tokens that end a turn, which counts as its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.errors import ConfigError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.models.forward import Visibility, build_mask, call, compute_dtype, run_tree
from moralscope.models.libraries import transformers
from moralscope.models.scoring import MAX_NODES
from moralscope.models.tree import IntArray, Tokens, cut_into_packs, grow_tree

FloatArray = NDArray[np.float64]

MAX_ROWS = 128
"""Next-token distributions held at a time: 25 MB in float32 at a vocabulary of 50,000."""


@dataclass(frozen=True)
class Generated:
    """An answer as it was drawn.

    Attributes:
        tokens: its tokens, with the one that ended it where there was one.
        log_p: log-probability of each of them given all before, nats.
        finished: whether the model ended it; if not, it was cut.
    """

    tokens: Tokens
    log_p: tuple[float, ...]
    finished: bool


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer, by the model's settings and its tokenizer."""
    untyped: Any = model
    told = [
        getattr(getattr(untyped, "generation_config", None), "eos_token_id", None),
        getattr(untyped.config, "eos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ]
    found: set[int] = set()
    for value in told:
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found |= {int(v) for v in cast("Sequence[int]", value)}
    return frozenset(found)


def drawn_from(weights: FloatArray, uniform: float) -> int:
    """The index at a quantile, in [0, 1), of a distribution proportional to weights."""
    return int(_quantiles(weights, np.array([uniform]))[0])


def _quantiles(weights: FloatArray, uniforms: FloatArray) -> IntArray:
    heights: FloatArray = weights.cumsum()
    found = np.searchsorted(heights, uniforms * float(heights[-1]), side="right")
    return np.minimum(found, len(heights) - 1).astype(np.int64)


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Tokens],
    uniforms: FloatArray,
    *,
    ends: frozenset[int] = frozenset(),
    max_nodes: int = MAX_NODES,
    task: str = "generate",
    progress: Progress = silent,
) -> tuple[Generated, ...]:
    """Draw an answer to each prompt.

    Args:
        model: the decoder, with the adapter that is meant active.
        prompts: tokens before each answer, at least one; equal prompts are run once.
        uniforms: numbers in [0, 1), ``[prompts, tokens]``, one for each token of each answer at
            most.
        ends: tokens that end an answer.
        max_nodes: largest tree that is run at once, answers at their longest included.
        task: what is running, for the progress.
        progress: told after each tree.

    Returns:
        The answers, in the order of the prompts.

    Raises:
        ConfigError: the numbers are not one row for each prompt and one column or more.
    """
    if uniforms.ndim != 2 or len(uniforms) != len(prompts) or uniforms.shape[1] < 1:
        raise ConfigError(
            "The numbers to draw answers with do not fit the prompts",
            seen=f"shape {uniforms.shape} for {len(prompts)} prompts",
            allowed="a row for each prompt, a column for each token, at least one",
            remedy="draw one number for each token of each answer",
        )
    distinct = list(dict.fromkeys(prompts))
    asked: dict[Tokens, list[int]] = {tokens: [] for tokens in distinct}
    for index, tokens in enumerate(prompts):
        asked[tokens].append(index)
    found: dict[int, Generated] = {}
    # The room that answers will take is held by tokens that do not exist.
    room = [
        tokens + tuple(range(-1, -1 - len(asked[tokens]) * uniforms.shape[1], -1))
        for tokens in distinct
    ]
    for pack in cut_into_packs([[tokens] for tokens in room], max_nodes):
        rows = [row for i in pack for row in asked[distinct[i]]]
        answers = _generate_pack(model, [prompts[row] for row in rows], uniforms[rows], ends)
        found.update(zip(rows, answers, strict=True))
        progress(ProgressEvent(task, len(found), len(prompts)))
    return tuple(found[row] for row in range(len(prompts)))


@dataclass
class _Pack:
    """Answers that grow on one tree; nodes are numbered as their keys lie in the cache.

    Attributes:
        cache: keys and values of every node so far.
        depth: of every node so far.
        paths: of every node at which an answer stands, the nodes up to it, itself included.
        node: where each answer stands.
        tokens, log_p: of each answer so far.
        growing: answers that have not ended, by index.
    """

    cache: Any
    depth: IntArray
    paths: dict[int, IntArray]
    node: list[int]
    tokens: list[list[int]]
    log_p: list[list[float]]
    growing: list[int]


def _generate_pack(
    model: nn.Module, prompts: Sequence[Tokens], uniforms: FloatArray, ends: frozenset[int]
) -> list[Generated]:
    tree = grow_tree(prompts)
    count = len(prompts)
    state = _Pack(
        transformers.DynamicCache(),
        tree.depth,
        {int(path[-1]): path for path in tree.paths},
        [int(path[-1]) for path in tree.paths],
        [[] for _ in range(count)],
        [[] for _ in range(count)],
        list(range(count)),
    )
    nodes = np.array(sorted(state.paths), dtype=np.int64)
    _draw(state, nodes, run_tree(model, tree, nodes, cache=state.cache), uniforms[:, 0])
    for column in range(1, uniforms.shape[1]):
        state.growing = [i for i in state.growing if state.tokens[i][-1] not in ends]
        grown = _grow(state)
        for start in range(0, len(grown), MAX_ROWS):
            block = grown[start : start + MAX_ROWS]
            nodes, logits = _run_block(model, state, block)
            _draw(state, nodes, logits, uniforms[:, column])
    return [
        Generated(tuple(tokens), tuple(log_p), tokens[-1] in ends)
        for tokens, log_p in zip(state.tokens, state.log_p, strict=True)
    ]


def _grow(state: _Pack) -> list[tuple[int, int]]:
    """Move every growing answer to the node of its last token; (parent, token) of the new nodes."""
    index: dict[tuple[int, int], int] = {}
    for answer in state.growing:
        step = (state.node[answer], state.tokens[answer][-1])
        state.node[answer] = index.setdefault(step, len(state.depth) + len(index))
    # Only where answers stand are paths wanted again.
    state.paths = {
        node: np.append(state.paths[parent], node) for (parent, _), node in index.items()
    }
    return list(index)


def _run_block(
    model: nn.Module, state: _Pack, block: Sequence[tuple[int, int]]
) -> tuple[IntArray, Tensor]:
    """Run new nodes, in the order of their numbers; their numbers and logits."""
    nodes = np.arange(len(state.depth), len(state.depth) + len(block), dtype=np.int64)
    depth = np.array([len(state.paths[int(node)]) - 1 for node in nodes], dtype=np.int64)
    state.depth = np.concatenate([state.depth, depth])
    allowed = np.zeros((len(block), len(state.depth)), dtype=np.bool_)
    for row, node in enumerate(nodes):
        allowed[row, state.paths[int(node)]] = True
    seen = Visibility(allowed, depth[:, None] - state.depth[None, :])
    logits = call(
        model,
        tokens=np.array([token for _, token in block], dtype=np.int64),
        depth=depth,
        mask=build_mask(model, seen, compute_dtype(model)),
        keep=np.arange(len(block), dtype=np.int64),
        cache=state.cache,
    )
    return nodes, logits


def _draw(state: _Pack, nodes: IntArray, logits: Tensor, uniforms: FloatArray) -> None:
    """Give a token to every growing answer that stands at one of the nodes."""
    standing: dict[int, list[int]] = {int(node): [] for node in nodes}
    for answer in state.growing:
        if state.node[answer] in standing:
            standing[state.node[answer]].append(answer)
    for row, answers in enumerate(standing.values()):
        log_p: FloatArray = logits[row].double().log_softmax(-1).cpu().numpy()
        drawn = _quantiles(np.exp(log_p), uniforms[answers])
        for answer, token in zip(answers, drawn.tolist(), strict=True):
            state.tokens[answer].append(token)
            state.log_p[answer].append(float(log_p[token]))
