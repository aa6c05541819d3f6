"""What does each agent compute on the unaltered prompts? One forward, kept for every method.

Lens, attribution and patching all read the same clean run, so an agent is run once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Capture, Part, capture
from moralscope.models.libraries import transformers
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import MAX_NODES, Pack, log_probabilities_from_logits, make_packs
from moralscope.models.tree import IntArray
from moralscope.models.weights import bias_of, effective_weight


@dataclass(frozen=True)
class CleanPack:
    """One pack of a clean run.

    Attributes:
        pack: what was run; its kept nodes are the answer spans.
        captured: activations at those nodes.
        everywhere: activations at every node, or None where only the spans were kept.
        cache: keys and values of every node, for patches to see.
        log_odds: of each member, shape ``(members,)``.
    """

    pack: Pack
    captured: Capture
    everywhere: Capture | None
    cache: Any
    log_odds: Tensor


@dataclass(frozen=True)
class CleanRun:
    """An agent's clean run over a list of prompts.

    Attributes:
        agent: its name.
        prompts: the prompts, in the caller's order.
        packs: their packs, the same for every agent.
        out_weights: effective weight of each layer's output projection, ``(width, heads * dim)``.
        out_biases: its bias, or None.
        shape: of the decoder, ``Anatomy.shape``.
    """

    agent: str
    prompts: tuple[EncodedPrompt, ...]
    packs: tuple[CleanPack, ...]
    out_weights: tuple[Tensor, ...]
    out_biases: tuple[Tensor | None, ...]
    shape: str

    @property
    def layouts(self) -> tuple[Pack, ...]:
        """What was run, without what was found."""
        return tuple(part.pack for part in self.packs)

    @property
    def log_odds(self) -> Tensor:
        """Log-odds on each prompt, in the order of ``prompts``."""
        result = torch.empty(len(self.prompts), dtype=self.packs[0].log_odds.dtype)
        for part in self.packs:
            result[list(part.pack.members)] = part.log_odds.cpu()
        return result


def memory_of(run: CleanRun) -> int:
    """Bytes that a clean run holds: its activations, keys and values, and projections."""
    storages: dict[int, int] = {}
    waiting: list[Any] = [run.out_weights, run.out_biases]
    for part in run.packs:
        waiting += [part.log_odds, *_tensors_of(part.captured), *_tensors_of(part.everywhere)]
        waiting += [(layer.keys, layer.values) for layer in getattr(part.cache, "layers", ())]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            # Views share what they are views of.
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, tuple | list):
            waiting += list(cast("Sequence[Any]", value))
    return sum(storages.values())


def _tensors_of(captured: Capture | None) -> list[Any]:
    return [] if captured is None else [getattr(captured, f.name) for f in fields(captured)]


@torch.no_grad()
def run_clean(
    agent: str,
    model: nn.Module,
    anatomy: Anatomy,
    prompts: Sequence[EncodedPrompt],
    *,
    max_nodes: int = MAX_NODES,
    keep_cache: bool = True,
    everywhere: bool = False,
    parts: Collection[Part] = (),
) -> CleanRun:
    """Run an agent once over prompts and keep what the mechanisms need.

    Args:
        agent: name for the tables.
        model: the decoder with the agent's weights in force.
        anatomy: its parts.
        prompts: what to run.
        max_nodes: largest pack.
        keep_cache: whether keys and values are kept, which patching needs; they take
            ``8 * layers * kv_heads * head_dim`` bytes a node in float32.
        everywhere: keep activations at every token, which patches outside the answer span need;
            they take about ``4 * layers * (3 * width + heads * head_dim)`` bytes a node, more
            with post-norms.
        parts: which of queries, keys and values to keep as well.
    """
    done: list[CleanPack] = []
    for pack in make_packs(prompts, max_nodes):
        # Without a configuration the cache keeps every position, also in sliding-window layers.
        cache: Any = transformers.DynamicCache() if keep_cache else None
        # The scorer reads at exactly the nodes of the answer spans.
        found = capture(
            model, anatomy, pack.tree, pack.keep, cache=cache, everywhere=everywhere, parts=parts
        )
        keep = torch.as_tensor(pack.keep, device=found.resid_final.device)
        captured = found.at(keep) if everywhere else found
        log_p = log_probabilities_from_logits(captured.logits, pack)
        log_odds = log_p[:, 0] - log_p[:, 1]
        done.append(CleanPack(pack, captured, found if everywhere else None, cache, log_odds))
    weights = tuple(effective_weight(block.out_proj) for block in anatomy.blocks)
    biases = tuple(bias_of(block.out_proj) for block in anatomy.blocks)
    return CleanRun(agent, tuple(prompts), tuple(done), weights, biases, anatomy.shape)


@torch.no_grad()
def with_every_token(model: nn.Module, anatomy: Anatomy, part: CleanPack) -> CleanPack:
    """A pack again, with activations at every token; its cache stays what it was.

    Args:
        model: the decoder with the weights in force that the pack was run with.
        anatomy: its parts.
        part: a pack of its clean run.
    """
    found = capture(model, anatomy, part.pack.tree, part.pack.keep, everywhere=True)
    return replace(part, everywhere=found)


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
