"""Which decisions does the user bring? Prompts of one's own, from a YAML or JSONL file.

An entry is one decision with any two named options:

    - name: refund-1
      text: A customer asks for a refund after the deadline. Do you grant it?
      stem: "My answer:"
      positive: {name: grant, forms: [" yes"]}
      negative: {name: refuse, forms: [" no"]}
      spans: [{category: deadline, text: after the deadline}]

``name``, ``text`` (or ``messages``, a list of role and content), ``positive`` and ``negative`` are
needed; the rest is optional. A scenario is the unit of replication: entries that are variants of
one situation should name the same one, and an entry without is its own. Spans are given by the
words that they cover: all occurrences, or the one that ``occurrence`` counts (from 0).
A system message is one of ``messages``; ``chat_template: false`` does without the model's template.

An entry may say ``counterfactual_of: refund-1`` and, in words of one's own, what was changed
(``change: deadline``). Activity can then be patched from it into the prompt of that name.

YAML files hold a list, JSONL files one entry per line. Types are strict, nothing is guessed: a
misspelt key, a repeated key, an unquoted ``yes`` or a repeated text is an error that names the
file and the entry. How options become tokens is checked where the tokenizer is, not here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Generator
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, Field

from moralscope.core.decision import (
    Decision,
    Message,
    Move,
    Option,
    Prompt,
    PromptSet,
    Role,
    Span,
)
from moralscope.core.documents import parse_lines, parse_yaml, read_document, validate
from moralscope.core.errors import MoralscopeError, PromptError, nearest
from moralscope.core.files import write_text

_YAML = (".yaml", ".yml")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Option(_Strict):
    name: str
    forms: list[str]


class _Message(_Strict):
    role: Role
    content: str


class _Span(_Strict):
    category: str
    text: str
    message: int | None = None
    occurrence: int | None = None


class _Entry(_Strict):
    name: str
    text: str | None = None
    messages: list[_Message] | None = None
    stem: str = ""
    positive: _Option
    negative: _Option
    spans: list[_Span] = []
    chat_template: bool = True
    game: str = "user"
    scenario: str | None = None
    family: str = "user"
    template: str = "user"
    labels: str | None = None
    option_order: int = 0
    answer_order: int = 0
    table_order: str = "none"
    own_previous: Move | None = None
    opponent_previous: Move | None = None
    others_cooperated: int | None = Field(default=None, ge=0)
    counterfactual_of: str | None = None
    change: str | None = None


def read_prompts(path: Path) -> PromptSet:
    """Read a user's own prompts.

    Args:
        path: a ``.yaml``, ``.yml`` or ``.jsonl`` file as described above.

    Returns:
        The prompts in the order of the file; ``read_prompts`` of a written set equals that set.

    Raises:
        PromptError: the file cannot be read, or an entry is not a decision; the message names the
            file and the entry.
    """
    entries = _parse(path)
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    for place, raw in entries:
        entry = validate(_Entry, raw, f"{path}, {place}", PromptError)
        with located(f"{path}, {place}"):
            prompt = _prompt(entry)
            if prompt.name in seen:
                raise PromptError(
                    "The name of an entry is taken",
                    seen=f"{prompt.name!r}, which is also the name of {seen[prompt.name]}",
                    allowed="each name once in a file",
                    remedy="rename one of the two entries",
                )
        seen[prompt.name] = place
        prompts.append(prompt)
    for prompt in prompts:
        with located(f"{path}, {seen[prompt.name]}"):
            _check_counterfactual(prompt, seen)
    with located(str(path)):
        return PromptSet(tuple(prompts))


def write_prompts(path: Path, prompts: PromptSet) -> None:
    """Write prompts as JSONL, one per line, whole or not at all.

    Raises:
        PromptError: the file's name does not end in ``.jsonl``, or a prompt is a changed version
            of one that is not in the set.
        OutputError: the file cannot be written.
    """
    if path.suffix != ".jsonl":
        raise _wrong_ending(path, ".jsonl")
    names = {prompt.name for prompt in prompts}
    for prompt in prompts:
        _check_counterfactual(prompt, names)
    lines = (
        json.dumps(_entry(prompt).model_dump(exclude_defaults=True), ensure_ascii=False)
        for prompt in prompts
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _parse(path: Path) -> list[tuple[str, object]]:
    """The raw entries of a file, each with its place in words."""
    if path.suffix != ".jsonl" and path.suffix not in _YAML:
        raise _wrong_ending(path, ".yaml, .yml or .jsonl")
    text = read_document(path, PromptError)
    if path.suffix in _YAML:
        return _parse_yaml(path, text)
    remedy = "correct the line, or use YAML for entries of several lines"
    return parse_lines(text, str(path), PromptError, remedy=remedy)


def _parse_yaml(path: Path, text: str) -> list[tuple[str, object]]:
    raw = parse_yaml(text, str(path), PromptError)
    if not isinstance(raw, list):
        raise PromptError(
            "The prompt file does not hold a list",
            seen=f"{path}: {type(raw).__name__}",
            allowed="a YAML list, each entry beginning with a dash",
            remedy="put a dash before each entry",
        )
    entries = cast("list[object]", raw)
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]


@contextlib.contextmanager
def located(place: str) -> Generator[None]:
    """Put the place in the file before the problem of every error within."""
    try:
        yield
    except MoralscopeError as error:
        raise PromptError(
            f"{place}: {error.problem}",
            seen=error.seen,
            allowed=error.allowed,
            remedy=error.remedy,
        ) from error


def _prompt(entry: _Entry) -> Prompt:
    if (entry.text is None) == (entry.messages is None):
        raise PromptError(
            "An entry asks nothing or asks twice",
            seen="neither text nor messages" if entry.text is None else "text and messages",
            allowed="either text, for one user message, or messages",
            remedy="give one of the two",
        )
    if entry.messages is None:
        messages: tuple[Message, ...] = (Message("user", entry.text or ""),)
    else:
        messages = tuple(Message(m.role, m.content) for m in entry.messages)
    if any(not message.content.strip() for message in messages):
        raise PromptError(
            "A message is empty",
            seen=[message.content for message in messages],
            allowed="messages with text in them",
            remedy="write what the agent is asked",
        )
    positive, negative = (
        Option(option.name, tuple(option.forms)) for option in (entry.positive, entry.negative)
    )
    return Prompt(
        name=entry.name,
        decision=Decision(
            messages=messages,
            stem=entry.stem,
            positive=positive,
            negative=negative,
            spans=tuple(span for wanted in entry.spans for span in _find(wanted, messages)),
            chat_template=entry.chat_template,
        ),
        game=entry.game,
        scenario=entry.name if entry.scenario is None else entry.scenario,
        family=entry.family,
        template=entry.template,
        labels=f"{negative.name}/{positive.name}" if entry.labels is None else entry.labels,
        option_order=entry.option_order,
        answer_order=entry.answer_order,
        table_order=entry.table_order,
        own_previous=entry.own_previous,
        opponent_previous=entry.opponent_previous,
        others_cooperated=entry.others_cooperated,
        counterfactual_of=entry.counterfactual_of,
        change=entry.change,
    )


def _check_counterfactual(prompt: Prompt, names: Collection[str]) -> None:
    """Refuse a changed version of nothing, of itself, or of a prompt that is not there."""
    of = prompt.counterfactual_of
    if of is None:
        if prompt.change is not None:
            raise PromptError(
                f"Prompt {prompt.name!r} says what was changed but not in which prompt",
                seen=f"change {prompt.change!r} without counterfactual_of",
                allowed="change next to counterfactual_of, or neither",
                remedy="name the prompt that this one is a changed version of",
            )
    elif of == prompt.name:
        raise PromptError(
            f"Prompt {prompt.name!r} is the counterfactual of itself",
            seen=f"counterfactual_of {of!r}",
            allowed="the name of another prompt",
            remedy="name the prompt that this one is a changed version of",
        )
    elif of not in names:
        raise PromptError(
            f"Prompt {prompt.name!r} is the counterfactual of a prompt that is not there",
            seen=f"counterfactual_of {of!r}",
            allowed="the name of another prompt of the same set",
            remedy=nearest(of, [name for name in names if name != prompt.name])
            if len(names) > 1
            else "add the prompt that this one is a changed version of",
        )


def _find(wanted: _Span, messages: tuple[Message, ...]) -> list[Span]:
    """The occurrences of the words of a span; overlapping ones count separately."""
    indices = range(len(messages)) if wanted.message is None else [wanted.message]
    found = [
        Span(wanted.category, index, start, start + len(wanted.text))
        for index in indices
        if 0 <= index < len(messages)
        for start in _occurrences(wanted.text, messages[index].content)
    ]
    if wanted.occurrence is not None:
        at = wanted.occurrence
        found = found[at : at + 1] if at >= 0 else []
    if not found:
        raise PromptError(
            f"The words of span {wanted.category!r} do not occur in the prompt",
            seen=wanted.model_dump(exclude_defaults=True),
            allowed="words that stand in a message, spelt exactly as there",
            remedy="copy them from the text",
        )
    return found


def _occurrences(words: str, text: str) -> list[int]:
    starts: list[int] = []
    at = text.find(words) if words else -1
    while at >= 0:
        starts.append(at)
        at = text.find(words, at + 1)
    return starts


def _entry(prompt: Prompt) -> _Entry:
    """The inverse of ``_prompt``."""
    decision = prompt.decision
    plain = len(decision.messages) == 1 and decision.messages[0].role == "user"
    return _Entry(
        name=prompt.name,
        text=decision.messages[0].content if plain else None,
        messages=None
        if plain
        else [_Message(role=m.role, content=m.content) for m in decision.messages],
        stem=decision.stem,
        positive=_Option(name=decision.positive.name, forms=list(decision.positive.forms)),
        negative=_Option(name=decision.negative.name, forms=list(decision.negative.forms)),
        spans=[_span_words(span, decision.messages) for span in decision.spans],
        chat_template=decision.chat_template,
        game=prompt.game,
        scenario=prompt.scenario,
        family=prompt.family,
        template=prompt.template,
        labels=prompt.labels,
        option_order=prompt.option_order,
        answer_order=prompt.answer_order,
        table_order=prompt.table_order,
        own_previous=prompt.own_previous,
        opponent_previous=prompt.opponent_previous,
        others_cooperated=prompt.others_cooperated,
        counterfactual_of=prompt.counterfactual_of,
        change=prompt.change,
    )


def _span_words(span: Span, messages: tuple[Message, ...]) -> _Span:
    content = messages[span.message].content
    words = content[span.start : span.end]
    return _Span(
        category=span.category,
        text=words,
        message=span.message,
        occurrence=_occurrences(words, content).index(span.start),
    )


def _wrong_ending(path: Path, allowed: str) -> PromptError:
    return PromptError(
        "A prompt file has an ending that is not known",
        seen=path.name,
        allowed=allowed,
        remedy="rename the file",
    )
