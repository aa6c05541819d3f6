"""On which tokens does a named part of a prompt stand? From characters to tokens, by position.

A span is a range of characters of a message. The chat template puts the message somewhere into the
text that the model reads, and the tokenizer reports which characters each token covers. A token
belongs to a span if the two ranges of characters overlap. Nothing is found by comparing tokens or
words: a label that also occurs elsewhere cannot be mistaken.

Where messages stand is read off a *frame*: the template filled with marks instead of contents. The
frame is the same for all prompts with the same roles. Templates may strip what they are given.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from moralscope.core.decision import Decision, Message
from moralscope.core.errors import PromptError

Offsets = tuple[tuple[int, int], ...]
"""For each token, the half-open range of characters of the text that it covers."""

Spans = tuple[tuple[str, tuple[int, ...]], ...]
"""For each category, the ascending indices of the tokens that its spans stand on."""

# Private-use characters, which no text holds and no template strips.
_MARK = re.compile("\ue000([0-9]+)\ue001")


def marked(decision: Decision) -> Decision:
    """The decision with a mark in place of each content, to be rendered as a frame."""
    messages = tuple(
        Message(message.role, f"\ue000{index}\ue001")
        for index, message in enumerate(decision.messages)
    )
    return Decision(
        messages,
        "",
        decision.positive,
        decision.negative,
        chat_template=decision.chat_template,
    )


def message_starts(frame: str, contents: Sequence[str], text: str) -> dict[int, list[int]]:
    """Where does each message's content begin in the rendered text?

    Args:
        frame: the rendered text with marks in place of contents.
        contents: what the messages say.
        text: the rendered text.

    Returns:
        For each message that stands in the text, where its first character does, once for each
        time that the template writes it. Before the text's own first character of it where the
        template strips its beginning.
    """
    pieces = _MARK.split(frame)
    literals, indices = pieces[::2], [int(mark) for mark in pieces[1::2]]
    found: dict[int, list[int]] = {}
    at = len(literals[0]) if text.startswith(literals[0]) else -1
    for index, after in zip(indices, literals[1:], strict=True):
        if at < 0:
            break
        for words, lead in _as_written(contents[index]):
            if text.startswith(words + after, at):
                found.setdefault(index, []).append(at - lead)
                at += len(words) + len(after)
                break
        else:
            at = -1
    if at >= 0:
        return found
    # The frame itself depends on what is said: only words that stand there once can be trusted.
    return {index: starts for index in indices if (starts := _only(contents[index], text))}


def _as_written(content: str) -> list[tuple[str, int]]:
    """The content and what is left of it once stripped, each with the characters lost in front."""
    lead = len(content) - len(content.lstrip())
    return [
        (content, 0),
        (content.rstrip(), 0),
        (content.lstrip(), lead),
        (content.strip(), lead),
    ]


def _only(content: str, text: str) -> list[int]:
    for words, lead in _as_written(content):
        at = text.find(words) if words else -1
        if at >= 0:
            return [at - lead] if text.find(words, at + 1) < 0 else []
    return []


def token_spans(
    prompt: str, decision: Decision, starts: Mapping[int, Sequence[int]], offsets: Offsets
) -> Spans:
    """The tokens that each category of spans stands on.

    Args:
        prompt: its name, for errors.
        decision: its messages and spans.
        starts: where each message begins in the text, from ``message_starts``.
        offsets: which characters of the text each token covers, ascending.

    Returns:
        Categories in the order in which the decision names them; one of which no character is
        left in the text is left out.

    Raises:
        PromptError: the message of a span does not stand in the text.
    """
    ends = [end for _, end in offsets]
    found: dict[str, set[int]] = {}
    for span in decision.spans:
        if span.message not in starts:
            raise _not_found(prompt, decision, span.category, span.message)
        for start in starts[span.message]:
            first, last = start + span.start, start + span.end
            # The first token that ends behind the span's beginning, and those up to its end.
            for token in range(bisect_right(ends, first), len(offsets)):
                begin, end = offsets[token]
                if begin >= last:
                    break
                if begin < end:
                    found.setdefault(span.category, set()).add(token)
    return tuple((category, tuple(sorted(tokens))) for category, tokens in found.items())


def _not_found(prompt: str, decision: Decision, category: str, message: int) -> PromptError:
    spoken = decision.messages[message]
    return PromptError(
        f"The message of span {category!r} of prompt {prompt!r} cannot be found in the text that "
        "the model reads",
        seen=f"message {message} ({spoken.role}): {spoken.content[:60]!r}",
        allowed="messages that the chat template writes as they are, spaces around them aside",
        remedy="leave out the span, or put the text into a message that the template keeps",
    )
