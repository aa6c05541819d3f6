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

YAML files hold a list, JSONL files one entry per line. Types are strict, nothing is guessed: a
misspelt key, a repeated key, an unquoted ``yes`` or a repeated text is an error that names the
file and the entry. How options become tokens is checked where the tokenizer is, not here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Hashable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

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


_PARTS: dict[str, type[_Strict]] = {
    "positive": _Option,
    "negative": _Option,
    "messages": _Message,
    "spans": _Span,
}


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
        with _located(f"{path}, {place}"):
            prompt = _prompt(_validated(raw))
            if prompt.name in seen:
                raise PromptError(
                    "The name of an entry is taken",
                    seen=f"{prompt.name!r}, which is also the name of {seen[prompt.name]}",
                    allowed="each name once in a file",
                    remedy="rename one of the two entries",
                )
        seen[prompt.name] = place
        prompts.append(prompt)
    with _located(str(path)):
        return PromptSet(tuple(prompts))


def write_prompts(path: Path, prompts: PromptSet) -> None:
    """Write prompts as JSONL, one per line, whole or not at all.

    Raises:
        PromptError: the file's name does not end in ``.jsonl``.
        OutputError: the file cannot be written.
    """
    if path.suffix != ".jsonl":
        raise _wrong_ending(path, ".jsonl")
    lines = (
        json.dumps(_entry(prompt).model_dump(exclude_defaults=True), ensure_ascii=False)
        for prompt in prompts
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _parse(path: Path) -> list[tuple[str, object]]:
    """The raw entries of a file, each with its place in words."""
    if path.suffix != ".jsonl" and path.suffix not in _YAML:
        raise _wrong_ending(path, ".yaml, .yml or .jsonl")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise PromptError(
            "The prompt file cannot be read",
            seen=f"{path} ({cause})",
            allowed="a readable text file in UTF-8",
            remedy="check the path, the permissions and the encoding",
        ) from cause
    return _parse_lines(path, text) if path.suffix == ".jsonl" else _parse_yaml(path, text)


def _parse_lines(path: Path, text: str) -> list[tuple[str, object]]:
    entries: list[tuple[str, object]] = []
    # Not splitlines: JSON strings may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        with _located(f"{path}, line {number}"):
            try:
                raw: object = json.loads(line, object_pairs_hook=_unique_keys)
            except PromptError:
                raise
            except (ValueError, RecursionError) as cause:
                raise PromptError(
                    "A line is not valid JSON",
                    seen=str(cause),
                    allowed="one JSON object per line",
                    remedy="correct the line, or use YAML for entries of several lines",
                ) from cause
        entries.append((f"line {number}", raw))
    return entries


def _parse_yaml(path: Path, text: str) -> list[tuple[str, object]]:
    with _located(str(path)):
        try:
            raw: object = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 (a safe loader)
        except PromptError:
            raise
        except (yaml.YAMLError, ValueError, RecursionError) as cause:
            raise PromptError(
                "The prompt file is not valid YAML",
                seen=" ".join(str(cause).split()),
                allowed="a YAML list of entries",
                remedy="correct the file at the line that is named",
            ) from cause
        if not isinstance(raw, list):
            raise PromptError(
                "The prompt file does not hold a list",
                seen=type(raw).__name__,
                allowed="a YAML list, each entry beginning with a dash",
                remedy="put a dash before each entry",
            )
    entries = cast("list[object]", raw)
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _repeated_key(key: object) -> PromptError:
    return PromptError(
        "A key is given twice",
        seen=key,
        allowed="each key once in an entry",
        remedy="remove one of the two",
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _repeated_key(key)
        found[key] = value
    return found


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which by itself silently keeps the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _repeated_key(f"{key.value} in line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


@contextlib.contextmanager
def _located(place: str) -> Generator[None]:
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


def _validated(raw: object) -> _Entry:
    try:
        return _Entry.model_validate(raw)
    except ValidationError as cause:
        raise _refusal(cause.errors()[0]) from cause


def _refusal(error: ErrorDetails) -> PromptError:
    """The error of a field in our words."""
    where = ".".join(str(part) for part in error["loc"]) or "entry"
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"])
        return PromptError(
            f"There is no key {where!r}",
            seen=error["loc"][-1],
            allowed=", ".join(known),
            remedy=nearest(str(error["loc"][-1]), known),
        )
    if error["type"] == "missing":
        return PromptError(
            f"The key {where!r} is missing",
            seen=sorted(str(key) for key in cast("dict[object, object]", error["input"])),
            allowed=", ".join(_keys_beside(error["loc"])),
            remedy=f"add {where!r}",
        )
    return PromptError(
        f"The value of {where!r} cannot be used",
        seen=f"{error['input']!r} ({type(error['input']).__name__})",
        allowed="keys with their values"
        if error["type"] == "model_type"
        else error["msg"].removeprefix("Input should be "),
        remedy="correct the value; in YAML, put quotes around words such as yes, no and numbers "
        "that are meant as text",
    )


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """The keys that may stand where the last part of a location stands."""
    part = _PARTS.get(str(location[0])) if len(location) > 1 else _Entry
    return list((part or _Entry).model_fields)


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
