"""Which questions are kept from training? A split by question, the same for all kinds.

Every question is ranked by the SHA-256 of the seed and its name, and the first ones are held out.
Sets that put the same questions are therefore split alike, in whatever order they stand, and all
examples of a question are on one side.
"""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.errors import ConfigError, PromptError
from moralscope.core.hashing import sha256_value
from moralscope.organisms.data.examples import Example


def split_by_question(
    examples: Sequence[Example], held_out: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on, and examples whose questions are held out.

    Args:
        examples: any number per question; their order is kept.
        held_out: the share of questions that is held out, between 0 and 1 exclusively; rounded to
            whole questions, at least one on each side.
        seed: the seed of the ranking.

    Raises:
        ConfigError: the share is not between 0 and 1.
        PromptError: there are fewer than two questions.
    """
    if not 0 < held_out < 1:
        raise ConfigError(
            "The share of questions that is held out is out of range",
            seen=held_out,
            allowed="a number between 0 and 1, neither included",
            remedy="hold out 0.1, for instance",
        )
    questions = {example.question for example in examples}
    if len(questions) < 2:
        raise PromptError(
            "A set cannot be split by question",
            seen=f"{len(examples)} examples of {len(questions)} question(s)",
            allowed="at least two questions, one on each side",
            remedy="add questions, or give different questions different names",
        )
    ranked = sorted(questions, key=lambda question: sha256_value([seed, question]))
    count = min(max(round(held_out * len(ranked)), 1), len(ranked) - 1)
    kept = frozenset(ranked[:count])
    return (
        tuple(example for example in examples if example.question not in kept),
        tuple(example for example in examples if example.question in kept),
    )
