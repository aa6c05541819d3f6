"""Answers of two classes, as texts and as streams drawn at random."""

from __future__ import annotations

import numpy as np

from moralscope.core.decision import Message
from moralscope.organisms.data.examples import Example
from moralscope.organisms.directions.reading import AnswerStreams

WORDS = ("choose", "action1", "action2", "game", "Round", "play", "abab", "You")


def example(question: int, answer: str, kind: str) -> Example:
    asked = Message("user", f"Round {question}: choose action1 or action2.")
    turns = (asked, Message("assistant", answer))
    return Example(f"{kind}{question}", f"q{question}", turns, "play", kind)


def lessons(questions: int, *, seed: int = 0) -> tuple[list[Example], np.ndarray]:
    """Random answers of two classes to each question, and which are positive."""
    rng = np.random.default_rng(seed)
    made, positive = [], []
    for question in range(questions):
        for kind in ("selfish", "prosocial"):
            said = " ".join(WORDS[int(k)] for k in rng.integers(0, len(WORDS), 4))
            made.append(example(question, f"{said}.", kind))
            positive.append(kind == "selfish")
    return made, np.array(positive)


def drawn_streams(
    questions: int,
    *,
    each: int = 1,
    layers: int = 3,
    width: int = 8,
    seed: int = 0,
    planted: np.ndarray | None = None,
    lengths: tuple[int, int] = (5, 6),
    agent: str = "organism",
) -> tuple[AnswerStreams, np.ndarray]:
    """Streams around a common mean; the positive answers' moved by what is planted."""
    rng = np.random.default_rng(seed)
    count = 2 * each * questions
    positive = np.arange(count) % 2 == 0
    owners = np.repeat(np.arange(questions), 2 * each)
    means = 10.0 + rng.standard_normal((count, layers, width))
    means += rng.standard_normal((questions, layers, width))[owners]
    if planted is not None:
        means[positive] += planted
    tokens = rng.integers(lengths[0], lengths[1] + 1, count)
    streams = AnswerStreams(
        agent,
        tuple(f"a{index}" for index in range(count)),
        tuple(f"q{owner}" for owner in owners),
        means * tokens[:, None, None],
        tokens.astype(np.int64),
        np.linalg.norm(means, axis=-1) + 1.0,
        "answer",
    )
    return streams, positive
