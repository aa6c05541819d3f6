"""Where does each head look? Masses by category, and the tokens of chosen heads.

    mass[l, h, c] = sum over the tokens t of category c of weight[l, h, t]

Every token has one category (``attention.categories``), so masses sum to 1. Token-level weights of
every head would be large and are not needed: they are kept for the heads whose masses moved most
from the base,

    moved[l, h] = mean over prompts of  1/2 sum_c |mass - mass of the base|,

the share of its attention that a head gives to another category, or for heads that are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.core.site import Site
from moralscope.core.tables import conform, from_rows
from moralscope.mechanisms.attention.categories import (
    Categories,
    categories_of,
    category_by_token,
)
from moralscope.mechanisms.attention.weights import Weights
from moralscope.models.rendering import EncodedPrompt

Named = Mapping[str, Sequence[str]]
"""Categories that each prompt names, by the prompt's name."""

NOTHING_NAMED: Named = {}


def masses_of(weights: Weights, categories: Categories) -> NDArray[np.float64]:
    """Masses of one prompt, ``(layers, heads, categories)``, summing to 1 over the last axis."""
    return np.stack([weights[:, :, list(tokens)].sum(-1) for tokens in categories.values()], -1)


def attention_table(
    agent: str,
    prompts: Sequence[EncodedPrompt],
    weights: Sequence[Weights],
    named: Named = NOTHING_NAMED,
) -> pl.DataFrame:
    """The table ``attention`` of one agent.

    Args:
        agent: its name.
        prompts: of its clean run.
        weights: from ``weights.attention_weights``, in the same order.
        named: categories that the prompts name, from ``categories.named_categories``.
    """
    parts = [
        _prompt_rows(agent, prompt, own, categories_of(prompt, named.get(prompt.name, ())))
        for prompt, own in zip(prompts, weights, strict=True)
    ]
    return conform("attention", pl.concat(parts))


def _prompt_rows(
    agent: str, prompt: EncodedPrompt, weights: Weights, categories: Categories
) -> pl.DataFrame:
    masses = masses_of(weights, categories)
    layer, head, category = (index.ravel() for index in np.indices(masses.shape))
    names = np.array(list(categories))
    counts = np.array([len(tokens) for tokens in categories.values()])
    return pl.DataFrame(
        {
            "agent": pl.Series([agent]).new_from_index(0, masses.size),
            "prompt": pl.Series([prompt.name]).new_from_index(0, masses.size),
            "layer": layer,
            "head": head,
            "category": names[category],
            "mass": masses.ravel(),
            "tokens": counts[category],
        }
    )


def most_moved(
    prompts: Sequence[EncodedPrompt],
    weights: Sequence[Weights],
    base: Sequence[Weights],
    heads: int,
) -> tuple[Site, ...]:
    """The heads that give most of their attention to other categories than the base's do.

    Args:
        prompts: of both clean runs.
        weights: of the agent, from ``weights.attention_weights``.
        base: of its base.
        heads: how many, at most; equal ones in the order of depth.
    """
    moved = np.mean(
        [
            np.abs(masses_of(own, c) - masses_of(theirs, c)).sum(-1) / 2.0
            for own, theirs, c in zip(weights, base, map(categories_of, prompts), strict=True)
        ],
        axis=0,
    )
    order = np.argsort(-moved, axis=None, kind="stable")[:heads]
    layers, indices = np.unravel_index(order, moved.shape)
    pairs = zip(layers.tolist(), indices.tolist(), strict=True)
    return tuple(Site("head", layer, head) for layer, head in pairs)


def attention_tokens_table(
    agent: str,
    prompts: Sequence[EncodedPrompt],
    weights: Sequence[Weights],
    heads: Sequence[Site],
    base: Sequence[Weights] | None = None,
) -> pl.DataFrame:
    """The table ``attention_tokens`` of one agent.

    Args:
        agent: its name.
        prompts: of its clean run.
        weights: from ``weights.attention_weights``, in the same order.
        heads: sites of kind ``head``.
        base: the weights of its base; None for a base.
    """
    parts = [
        _token_rows(agent, prompt, head, (own, None if base is None else base[at]))
        for at, (prompt, own) in enumerate(zip(prompts, weights, strict=True))
        for head in heads
    ]
    return conform("attention_tokens", pl.concat(parts)) if parts else _no_tokens()


def _no_tokens() -> pl.DataFrame:
    return from_rows("attention_tokens", ())


def _token_rows(
    agent: str, prompt: EncodedPrompt, head: Site, weights: tuple[Weights, Weights | None]
) -> pl.DataFrame:
    own, base = weights
    layer, index, n = head.layer or 0, head.head or 0, len(prompt.tokens)
    return pl.DataFrame(
        {
            "agent": pl.Series([agent]).new_from_index(0, n),
            "prompt": pl.Series([prompt.name]).new_from_index(0, n),
            "layer": pl.Series([layer]).new_from_index(0, n),
            "head": pl.Series([index]).new_from_index(0, n),
            "position": np.arange(n),
            "token": list(token_texts(prompt)),
            "category": category_by_token(categories_of(prompt)),
            "weight": own[layer, index],
            "base_weight": pl.Series(
                [None] * n if base is None else base[layer, index], dtype=pl.Float64
            ),
        }
    )


def token_texts(prompt: EncodedPrompt) -> Iterator[str]:
    """What each token says: its characters, empty where it covers none or that is not known.

    Characters between two tokens, such as a space that a tokenizer drops, go with the later one.
    """
    if not prompt.offsets:
        yield from ("" for _ in prompt.tokens)
        return
    before = 0
    for start, end in prompt.offsets:
        yield prompt.text[min(before, start) : end] if end > start else ""
        before = max(before, end)
