"""Which token of one prompt corresponds to which of another?"""

from __future__ import annotations

from dataclasses import dataclass

from moralscope.models.rendering import EncodedPrompt


@dataclass(frozen=True)
class Alignment:
    """Pairs (target, source) of prompt token indices, and (form, step) of answer tokens."""

    prompt: tuple[tuple[int, int], ...]
    forms: tuple[tuple[int, int], ...]


def align(target: EncodedPrompt, source: EncodedPrompt, positions: str) -> Alignment:
    """Same prompt only."""
    forms = tuple(
        (f, k)
        for f, form in enumerate(target.positive + target.negative)
        for k in range(len(form) - 1)
    )
    n = len(target.tokens)
    indices = [n - 1] if positions == "answer_span" else list(range(n))
    return Alignment(tuple((i, i) for i in indices), forms)
