"""What is the model asked? A question with two answers, in one call.

The first answer is the *positive* option: every signed number points towards it,
``log_odds = log P(positive) - log P(negative)``. The model is told the text in its own chat
template; an answer is scored as the text that directly follows, so a leading space, where the
language needs one, is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, get_args

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet, Role, Span
from moralscope.core.errors import PromptError, nearest

Turn = Message | Mapping[str, str]
"""One turn of a chat: a ``Message``, or a mapping with the keys role and content."""

Forms = str | Sequence[str]
"""The text of an answer, or several that count as the same answer, the canonical one first."""


def ask(
    text: str | Sequence[Turn],
    *,
    positive: Forms,
    negative: Forms,
    stem: str = "",
    name: str | None = None,
    scenario: str | None = None,
    spans: Mapping[str, str] | None = None,
) -> Prompt:
    """A question with two answers.

    Args:
        text: what the user says, or a chat of several turns.
        positive: the answer that signed numbers point towards, as the text that follows.
        negative: the other answer.
        stem: the beginning of the answer, put in the model's mouth.
        name: how tables call it; ``q1``, ``q2``, ... by its place where none is given.
        scenario: what it is about; prompts that share it are variants of one situation. Its own
            name unless given.
        spans: named words of the text, for patching at them: category to the words, every
            occurrence of which counts.

    Raises:
        PromptError: something is empty, not text, or asked twice over; words of a span do not
            stand in the text.
    """
    messages = _messages(text)
    options = [
        Option(forms[0].strip() or forms[0], forms)
        for forms in (_forms("positive", positive), _forms("negative", negative))
    ]
    if not isinstance(cast("object", stem), str):
        raise _not_text("The stem", stem)
    decision = Decision(
        messages=messages,
        stem=stem,
        positive=options[0],
        negative=options[1],
        spans=tuple(
            span
            for category, words in (spans or {}).items()
            for span in _occurrences(category, words, messages)
        ),
    )
    return Prompt(
        name=name or "",
        decision=decision,
        game="user",
        scenario=scenario or "",
        family="user",
        template=name or "own",
        labels=f"{options[1].name}/{options[0].name}",
    )


def named(prompts: Prompt | Sequence[Prompt] | PromptSet) -> PromptSet:
    """Prompts as a set without duplicates, those without a name called ``q1``, ``q2``, ...

    Raises:
        PromptError: there are none, one is not a prompt, two share a name or a text.
    """
    given = [prompts] if isinstance(prompts, Prompt) else list(prompts)
    listed: list[Prompt] = []
    for place, prompt in enumerate(given, start=1):
        if not isinstance(cast("object", prompt), Prompt):
            raise PromptError(
                "This is not a prompt",
                seen=f"number {place}: {_short(prompt)}",
                allowed="prompts made by ask, or read by games.read_prompts",
                remedy="write ask(text, positive=..., negative=...)",
            )
        name = prompt.name or f"q{place}"
        listed.append(replace(prompt, name=name, scenario=prompt.scenario or name))
    return PromptSet(tuple(listed))


def _messages(text: str | Sequence[Turn]) -> tuple[Message, ...]:
    turns: Sequence[Turn] = [Message("user", text)] if isinstance(text, str) else text
    if not isinstance(cast("object", turns), Sequence):
        raise _not_text("The question", text)
    messages = tuple(_message(turn) for turn in turns)
    for message in messages:
        if not message.content.strip():
            raise PromptError(
                "A message is empty",
                seen=repr(message.content),
                allowed="messages with text in them",
                remedy="write what the model is asked",
            )
    return messages


def _message(turn: Turn) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(cast("object", turn), Mapping) or set(turn) != {"role", "content"}:
        raise PromptError(
            "This is not a turn of a chat",
            seen=_short(turn),
            allowed="a mapping with the keys role and content",
            remedy='write {"role": "user", "content": "..."}',
        )
    role = turn["role"]
    if role not in get_args(Role):
        raise PromptError(
            "There is no such role",
            seen=repr(role),
            allowed=", ".join(get_args(Role)),
            remedy=nearest(str(role), get_args(Role)),
        )
    if not isinstance(cast("object", turn["content"]), str):
        raise _not_text("The content of a turn", turn["content"])
    return Message(cast("Role", role), turn["content"])


def _forms(which: str, given: Forms) -> tuple[str, ...]:
    forms = (given,) if isinstance(given, str) else given
    if not isinstance(cast("object", forms), Sequence):
        raise _not_text(f"The {which} answer", given)
    for form in forms:
        if not isinstance(cast("object", form), str):
            raise _not_text(f"The {which} answer", form)
    if not forms or not all(forms):
        raise PromptError(
            f"The {which} answer is empty",
            seen=repr(given),
            allowed="the text that the model would answer with, or several such texts",
            remedy=f'write {which}=" yes"',
        )
    return tuple(forms)


def _occurrences(category: str, words: str, messages: Sequence[Message]) -> list[Span]:
    found: list[Span] = []
    for index, message in enumerate(messages):
        at = message.content.find(words) if words else -1
        while at >= 0:
            found.append(Span(category, index, at, at + len(words)))
            at = message.content.find(words, at + 1)
    if not found:
        raise PromptError(
            f"The words of span {category!r} do not stand in the question",
            seen=repr(words),
            allowed="words that stand in a message, spelt exactly as there",
            remedy="copy them from the text",
        )
    return found


def _not_text(what: str, seen: object) -> PromptError:
    return PromptError(
        f"{what} is not text", seen=_short(seen), allowed="text", remedy="put it in quotes"
    )


def _short(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"
