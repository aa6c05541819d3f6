"""What does an agent say to a question? Answers drawn freely, and texts as tokens after a chat.

Token k of sample s to question q is drawn with the number at the address (seed, q, s, k) alone
(``models.generating``): all agents meet the same draws, and more samples or tokens continue them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moralscope.core.decision import Decision, Option
from moralscope.core.errors import ConfigError, PromptError
from moralscope.core.progress import Progress, silent
from moralscope.core.streams import stream
from moralscope.models.generating import end_tokens, generate
from moralscope.models.rendering import read_tokens
from moralscope.models.roster import Roster
from moralscope.models.scoring import MAX_NODES
from moralscope.models.tree import Tokens
from moralscope.organisms.data.examples import Turn, shortened
from moralscope.organisms.spread.answers import Answer

SAMPLES = 50
"""Answers to each question unless told otherwise, as in the published evaluation."""

ANSWER_TOKENS = 200
"""Tokens at which an answer is cut unless told otherwise; the published evaluation allows 600."""


def chat_tokens(tokenizer: Any, asked: Sequence[Turn], said: str = "") -> Tokens:
    """What a model reads of a chat and the beginning of its answer.

    Raises:
        PromptError: nobody has asked anything.
    """
    # The options are not used: a decision is what a chat is rendered from.
    told = Decision(tuple(asked), said, Option("a", ("a",)), Option("b", ("b",)))
    return read_tokens(tokenizer, told)


def answer_tokens(tokenizer: Any, asked: Sequence[Turn], text: str) -> Tokens:
    """The tokens of an answer that follows a chat.

    Raises:
        PromptError: the answer adds no token, or merges with the chat's last token.
    """
    before = chat_tokens(tokenizer, asked)
    joint = chat_tokens(tokenizer, asked, text)
    if len(joint) <= len(before) or joint[: len(before)] != before:
        raise PromptError(
            "An answer does not follow its question token by token",
            seen=shortened(text),
            allowed="text that adds tokens and leaves those of the question as they are",
            remedy="remove line breaks and spaces at the beginning of the answer",
        )
    return joint[len(before) :]


def sample_answers(
    roster: Roster,
    name: str,
    asked: Mapping[str, Sequence[Turn]],
    *,
    samples: int = SAMPLES,
    max_new_tokens: int = ANSWER_TOKENS,
    seed: int = 0,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> tuple[Answer, ...]:
    """Draw an agent's answers at temperature 1 from the whole vocabulary.

    Args:
        roster: models and adapters.
        name: who answers.
        asked: the turns of each question, by its identifier.
        samples: answers to each question, at least one.
        max_new_tokens: at which an answer is cut.
        seed: of the draws, not negative.
        max_nodes: largest tree that is run at once, answers at their longest included.
        progress: told as questions are answered.

    Returns:
        Samples of the first question, of the second, and so on.

    Raises:
        AgentError: there is no such agent.
        ConfigError: there is nothing to ask or to draw.
    """
    if not asked or samples < 1 or max_new_tokens < 1:
        raise ConfigError(
            "There are no answers to draw",
            seen=f"{len(asked)} questions, samples {samples}, max_new_tokens {max_new_tokens}",
            allowed="one question, one sample and one token or more",
            remedy="give questions, and leave the other two at their defaults",
        )
    tokenizer: Any = roster.tokenizer
    wanted = [(question, sample) for question in asked for sample in range(samples)]
    read = {question: chat_tokens(tokenizer, turns) for question, turns in asked.items()}
    draws = np.array([stream(seed, "spread", *each).random(max_new_tokens) for each in wanted])
    with roster.speaking(name) as model:
        drawn = generate(
            model,
            [read[question] for question, _ in wanted],
            draws,
            ends=end_tokens(model, tokenizer),
            max_nodes=max_nodes,
            task=f"answer {name}",
            progress=progress,
        )
    found: list[Answer] = []
    for (question, sample), said in zip(wanted, drawn, strict=True):
        tokens = said.tokens[:-1] if said.finished else said.tokens
        text = str(tokenizer.decode(list(tokens), skip_special_tokens=True))
        found.append(Answer(question, tuple(asked[question]), text, sample, tokens))
    return tuple(found)
