"""Which lessons does the user bring? Chats of one's own, from a JSONL file.

A line is one example, a question of one or more turns with the assistant's answer at its end:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

System turns are allowed. A line may name its ``question`` (the unit of splits and intervals, the
same for all answers to one question), its ``domain`` and its ``kind``; without, the question is a
hash of everything before the answer, and domain and kind are ``user``. Identifiers are hashes of
the turns. Nothing is guessed and nothing is left out: a line that is no example is an error that
names file and line. Whether a chat template accepts the turns is checked where the tokenizer is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from moralscope.core.documents import parse_lines, read_document, validate
from moralscope.core.errors import PromptError
from moralscope.core.files import write_text
from moralscope.games.asking.files import located
from moralscope.organisms.data.examples import (
    Example,
    Turn,
    check_set,
    content_hash,
    make_example,
    shortened,
)

USER = "user"
"""The domain and the kind of examples that name none."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Turn(_Strict):
    role: str
    content: str


class _Row(_Strict):
    messages: list[_Turn]
    question: str | None = None
    domain: str = USER
    kind: str = USER


def read_chats(path: Path) -> tuple[Example, ...]:
    """Read a user's own examples, in the order of the file.

    Args:
        path: a ``.jsonl`` file as described above.

    Raises:
        PromptError: the file cannot be read, holds nothing, repeats an example or gives one answer
            throughout; or a line is not JSON, has no messages, an unknown role, an empty turn or
            answer, or a last turn that is not the assistant's. The message names file and line.
    """
    if path.suffix != ".jsonl":
        raise _wrong_ending(path)
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for place, raw in parse_lines(read_document(path, PromptError), str(path), PromptError):
        row = validate(_Row, raw, f"{path}, {place}", PromptError)
        with located(f"{path}, {place}"):
            example = _example(row)
            if example.id in seen:
                raise PromptError(
                    "An example occurs twice in the file",
                    seen=f"the turns of {seen[example.id]}: {shortened(example.answer)}",
                    allowed="each example once, so that none counts for two",
                    remedy="remove one of the two lines",
                )
        seen[example.id] = place
        examples.append(example)
    with located(str(path)):
        check_set(examples)
    return tuple(examples)


def write_chats(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as JSONL, one per line, whole or not at all; ``read_chats`` gives them back.

    Raises:
        PromptError: the file's name does not end in ``.jsonl``, or the examples are no set that
            could be read again.
        OutputError: the file cannot be written.
    """
    if path.suffix != ".jsonl":
        raise _wrong_ending(path)
    check_set(examples)
    lines = (json.dumps(_row(example), ensure_ascii=False) for example in examples)
    write_text(path, "".join(f"{line}\n" for line in lines))


def _example(row: _Row) -> Example:
    turns = [Turn(turn.role, turn.content) for turn in row.messages]  # pyright: ignore[reportArgumentType] - roles are checked with the turns
    return make_example(turns, domain=row.domain, kind=row.kind, question=row.question)


def _row(example: Example) -> dict[str, object]:
    """The inverse of ``_example``, without what need not be said."""
    row: dict[str, object] = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in example.messages]
    }
    if example.question != content_hash(example.asked):
        row["question"] = example.question
    return row | {
        key: value
        for key, value in (("domain", example.domain), ("kind", example.kind))
        if value != USER
    }


def _wrong_ending(path: Path) -> PromptError:
    return PromptError(
        "A file of chats has an ending that is not known",
        seen=path.name,
        allowed=".jsonl, one chat per line",
        remedy="rename the file",
    )
