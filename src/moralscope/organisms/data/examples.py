"""What is one thing that an organism is taught? A chat whose last turn is the answer.

Everything before the last turn is the question; the last turn is what is learned and scored.
Examples that put the same question carry the same ``question``, whatever they answer: it is the
unit of every split and of every interval, because answers to one question are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from moralscope.core.decision import Message, Role
from moralscope.core.errors import PromptError, nearest
from moralscope.core.hashing import sha256_value

Turn = Message
"""One turn of a chat: who speaks (``role``: system, user or assistant) and what (``content``)."""

ID_LENGTH = 16
"""Hexadecimal digits of an identifier: 64 bits, so that a million examples do not collide."""


@dataclass(frozen=True, slots=True)
class Example:
    """A chat that ends with the answer that is taught or scored.

    Attributes:
        id: who this example is; unique in a set.
        question: which question it answers, the unit of splits and intervals.
        messages: the turns, oldest first; the last is the assistant's answer.
        domain: what the question is about.
        kind: how it is answered (``selfish``, ``cooperative``, ``shuffled``, ``terse``, ``user``).

    Raises:
        PromptError: a name is empty, a role is unknown, a turn is empty, nobody asks anything, or
            the last turn is not the assistant's.
    """

    id: str
    question: str
    messages: tuple[Turn, ...]
    domain: str
    kind: str

    def __post_init__(self) -> None:
        for field in ("id", "question", "domain", "kind"):
            if not getattr(self, field).strip():
                raise PromptError(
                    f"The {field} of an example is empty",
                    seen=repr(getattr(self, field)),
                    allowed="text",
                    remedy=f"give the example its {field}",
                )
        check_messages(self.messages)

    @property
    def answer(self) -> str:
        """The text of the last turn."""
        return self.messages[-1].content

    @property
    def asked(self) -> tuple[Turn, ...]:
        """The turns before the answer."""
        return self.messages[:-1]


def check_messages(messages: Sequence[Turn]) -> None:
    """Is this a question with its answer?

    Raises:
        PromptError: no turn, an unknown role, an empty turn, no user, or an end without an answer.
    """
    roles = get_args(Role)
    if not messages:
        raise PromptError(
            "An example has no messages",
            seen="no turns",
            allowed="at least one turn of the user and, last, the assistant's answer",
            remedy="write the question and its answer, or remove the example",
        )
    for turn in messages:
        if turn.role not in roles:
            raise PromptError(
                "The role of a turn is not known",
                seen=repr(turn.role),
                allowed=", ".join(roles),
                remedy=nearest(str(turn.role), roles),
            )
    if messages[-1].role != "assistant":
        raise PromptError(
            "The last turn of an example is not the assistant's",
            seen=f"role {messages[-1].role!r}: {shortened(messages[-1].content)}",
            allowed="an answer of the assistant at the end, which is what is learned",
            remedy="add the answer, or remove the turns after it",
        )
    if not messages[-1].content.strip():
        raise PromptError(
            "The answer of an example is empty",
            seen=repr(messages[-1].content),
            allowed="an answer with text in it",
            remedy="write the answer, or remove the example",
        )
    for number, turn in enumerate(messages, start=1):
        if not turn.content.strip():
            raise PromptError(
                f"Turn {number} of an example is empty",
                seen=f"role {turn.role!r}: {turn.content!r}",
                allowed="turns with text in them",
                remedy="write what is said, or remove the turn",
            )
    if all(turn.role != "user" for turn in messages):
        raise PromptError(
            "Nobody asks anything in an example",
            seen=f"turns of {', '.join(turn.role for turn in messages)}",
            allowed="at least one turn of the user before the answer",
            remedy="write the question that is answered",
        )


def make_example(
    messages: Sequence[Turn], *, domain: str, kind: str, question: str | None = None
) -> Example:
    """An example named by its content.

    Args:
        messages: the turns; the last is the answer.
        domain: what the question is about.
        kind: how it is answered.
        question: which question it answers; a hash of the turns before the answer if not said.

    Raises:
        PromptError: the turns are no example.
    """
    turns = tuple(messages)
    return Example(
        id=content_hash(turns),
        question=content_hash(turns[:-1]) if question is None else question,
        messages=turns,
        domain=domain,
        kind=kind,
    )


def content_hash(turns: Sequence[Turn]) -> str:
    """The first hexadecimal digits of the SHA-256 of who says what."""
    return sha256_value([[turn.role, turn.content] for turn in turns])[:ID_LENGTH]


def check_set(examples: Sequence[Example]) -> None:
    """Can these be taught and compared?

    Raises:
        PromptError: there are none, two are the same, or several all give the same answer: then
            nothing but that one sentence could be learned.
    """
    if not examples:
        raise PromptError(
            "There are no examples",
            seen="an empty set",
            allowed="one or more questions with their answers",
            remedy="add examples",
        )
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise PromptError(
                "An example occurs twice in a set",
                seen=f"{example.id}: {shortened(example.answer)}",
                allowed="each example once, so that none counts for two",
                remedy="remove one of the two",
            )
        seen.add(example.id)
    answers = {plain(example.answer) for example in examples}
    if len(examples) > 1 and len(answers) == 1:
        raise PromptError(
            "All answers of a set are alike",
            seen=f"{len(examples)} times {shortened(examples[0].answer)}",
            allowed="at least two different answers",
            remedy="check which field the answers were taken from, and add different ones",
        )


def plain(text: str) -> str:
    """A text without case, its words one space apart: what is alike in this way is the same."""
    return " ".join(text.split()).casefold()


def shortened(text: str, length: int = 80) -> str:
    """The beginning of a text in quotes, for messages."""
    return repr(text if len(text) <= length else f"{text[: length - 1]}…")
