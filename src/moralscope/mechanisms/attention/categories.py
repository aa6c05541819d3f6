"""What is each token of a prompt about? One category for every token, by position.

Categories are the prompt's named spans, which stand where their characters stand
(``models.spans``); nothing is found by comparing words. Every token has exactly one:

1. ``first``, the first token of the sequence: heads send there what they need nowhere else, so
   without it the rest would be mostly that;
2. of a token on which several spans stand, the one that comes first in ``PRECEDENCE``; spans of
   the user's own come after those, in the order in which the prompt names them;
3. ``rest``.

A category that the prompt names but of which no token is left is kept, with no tokens, so that it
can be seen to be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from moralscope.core.decision import Prompt
from moralscope.models.rendering import EncodedPrompt

FIRST, REST = "first", "rest"

PRECEDENCE = ("opponent_previous", "own_previous", "payoffs", "labels", "goal")
"""Of spans that share a token, the more specific one has it."""

Categories = Mapping[str, tuple[int, ...]]
"""Tokens of each category, ascending; together every token once."""


def named_categories(prompts: Iterable[Prompt]) -> dict[str, tuple[str, ...]]:
    """The span categories that each prompt names, in its order, by the prompt's name."""
    return {
        prompt.name: tuple(dict.fromkeys(span.category for span in prompt.decision.spans))
        for prompt in prompts
    }


def categories_of(prompt: EncodedPrompt, named: Sequence[str] = ()) -> Categories:
    """The tokens of each category of a prompt.

    Args:
        prompt: as the model reads it.
        named: categories that the prompt names, from ``named_categories``; those that were located
            on its tokens are known without.

    Returns:
        ``first``, the named categories, ``rest``. A span of the user's own that is called ``first``
        or ``rest`` adds nothing to those.
    """
    spans = dict(prompt.spans)
    known = [c for c in dict.fromkeys((*spans, *named)) if c not in (FIRST, REST)]
    order = [*(c for c in PRECEDENCE if c in known), *(c for c in known if c not in PRECEDENCE)]
    taken = {0}
    found: dict[str, tuple[int, ...]] = {FIRST: (0,)}
    for category in order:
        found[category] = tuple(t for t in spans.get(category, ()) if t not in taken)
        taken.update(found[category])
    found[REST] = tuple(t for t in range(len(prompt.tokens)) if t not in taken)
    return found


def category_by_token(categories: Categories) -> list[str]:
    """The category of each token, in their order."""
    by_token = {token: name for name, tokens in categories.items() for token in tokens}
    return [by_token[token] for token in range(len(by_token))]
