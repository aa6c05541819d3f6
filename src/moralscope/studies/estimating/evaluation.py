"""What would asking models in their own words take? Answers, conversations, neutral texts.

How long answers get is not known before they are given: each is counted at its longest, so these
are upper bounds. A step that adds one token to a few answers reads all weights for little
arithmetic, and costs about as much as ``STEP_NODES`` tokens read at once.
"""

from __future__ import annotations

from moralscope.behaviour.speaking.answering import FOLLOW_UPS
from moralscope.behaviour.speaking.neutral import QUESTIONS, TEXTS, everyday_choices
from moralscope.behaviour.speaking.side_effects import FREE_TOKENS
from moralscope.studies.choices.evaluation import answer_prompts, conversation_prompts
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.study import Study

STEP_NODES = 32
"""Tokens that could be read in the time of one step of a few answers, on a processor."""


def questioning_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of a stage that asks a model in words, by its name; None for any other stage."""
    kind = name.partition("-")[0]
    if kind == "answer":
        return _answering(study, shape)
    if kind == "affect":
        return _affecting(study, shape)
    return None


def _answering(study: Study, shape: Shape) -> Work:
    wanted, words = study.evaluation, study.prompts.words
    asked, begun = answer_prompts(words), conversation_prompts(words)
    packs, nodes = nodes_of(shape.encode(tuple(asked)), study.max_nodes)
    answers = len(asked) * wanted.answers
    drawn = packs * wanted.answer_tokens
    said = wanted.answer_tokens + len(FOLLOW_UPS) * wanted.conversation_tokens
    # Each follow-up reads the conversation so far once more.
    opened = nodes_of(shape.encode(tuple(begun)), study.max_nodes)[1]
    reread = (len(FOLLOW_UPS) + 1) * opened + len(begun) * said
    steps = drawn + wanted.answer_tokens + len(FOLLOW_UPS) * wanted.conversation_tokens
    tokens = (
        nodes + reread + max(steps * STEP_NODES, answers * wanted.answer_tokens + len(begun) * said)
    )
    return Work(packs + steps + len(FOLLOW_UPS) + 1, shape.operations(tokens), 100_000)


def _affecting(study: Study, shape: Shape) -> Work:
    read: list[int] = [len(ids) for ids in shape.tokenizer(list(TEXTS))["input_ids"]]
    packs, nodes = nodes_of(shape.encode(tuple(everyday_choices())), study.max_nodes)
    steps = FREE_TOKENS * max(STEP_NODES, len(QUESTIONS))
    once = sum(read) + nodes + steps
    forwards = 2 * (len(TEXTS) + packs + FREE_TOKENS)
    return Work(forwards, shape.operations(2 * once), 10 * BYTES_PER_ROW)
