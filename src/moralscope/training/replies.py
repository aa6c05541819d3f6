"""How does a learner answer while it plays? By its scored probabilities, or in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moralscope.core.decision import Decision, Move
from moralscope.games.parsing import Verdict, strict
from moralscope.models.generating import drawn_from
from moralscope.models.tree import Tokens
from moralscope.training.answers import Question
from moralscope.training.learners import Learner
from moralscope.training.objectives import answer_probabilities
from moralscope.training.play import Answer, Answering, Turn
from moralscope.training.session import Session

_MOVES: tuple[Move | None, ...] = ("C", "D", None)


def answering(session: Session, learner: Learner, step: int) -> Answering:
    """How this learner answers prompts in a step, its parameters being what they are."""
    if learner.seat.config.actions == "score":
        return _scored(session, learner)
    return _generated(session, learner, step)


def question_of(learner: Learner, turn: Turn) -> Question:
    """What was asked in a turn, with the tokens of the answer where they were generated."""
    return Question(learner.seat.encoded[turn.prompt], turn.answer.tokens)


def _scored(session: Session, learner: Learner) -> Answering:
    known: dict[int, NDArray[np.float64]] = {}

    @torch.no_grad()
    def answer(prompts: Sequence[int], rngs: Sequence[np.random.Generator]) -> list[Answer]:
        new = sorted(set(prompts) - set(known))
        if new:
            asked = [Question(learner.seat.encoded[i]) for i in new]
            log_p = session.read(learner.seat.adapter, asked).log_p.double().cpu()
            known.update(zip(new, answer_probabilities(log_p).numpy(), strict=True))
        return [
            Answer(_MOVES[drawn_from(known[i], rng.random())])
            for i, rng in zip(prompts, rngs, strict=True)
        ]

    return answer


def _generated(session: Session, learner: Learner, step: int) -> Answering:
    tokenizer: Any = session.base.tokenizer
    count = max(len(form) for p in learner.seat.encoded for form in p.positive + p.negative)
    asked_before = 0
    known: dict[Tokens, NDArray[np.float64]] = {}

    def answer(prompts: Sequence[int], rngs: Sequence[np.random.Generator]) -> list[Answer]:
        nonlocal asked_before
        uniforms = np.array([rng.random(count) for rng in rngs])
        encoded = [learner.seat.encoded[i] for i in prompts]
        address = (step, asked_before)
        tokens = session.generate(learner.seat.adapter, encoded, uniforms, known, address)
        asked_before += 1
        texts = [str(tokenizer.decode(list(t), skip_special_tokens=True)).strip() for t in tokens]
        decisions = [learner.seat.prompts[i].decision for i in prompts]
        return [
            Answer(legal_move(decision, text), t, text)
            for decision, t, text in zip(decisions, tokens, texts, strict=True)
        ]

    return answer


def legal_move(decision: Decision, text: str) -> Move | None:
    """The move that a text is, if it is exactly an option, space at both ends aside."""
    moves: dict[Verdict, Move] = {"positive": "D", "negative": "C"}
    return moves.get(strict(decision, text))
