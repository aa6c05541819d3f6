"""What of a chat is learned? The tokens of its last turn, after the text that asks for them.

A chat is read as it would be asked: the chat template of everything before the answer, with the
generation prompt, then the answer, then what the template puts behind it. Learned are

    the tokens on which the answer stands, and the first token behind it, which ends the turn

(``learn_end=False`` leaves the latter out). The header of the answer's turn is part of the
question: it is read and never learned. White space around an answer is not part of it. A token
belongs to the answer if it covers one of its characters; where the first of them would cover
characters of the header as well, the example is refused, since no answer could begin there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from moralscope.core.decision import Message
from moralscope.core.errors import PromptError
from moralscope.core.hashing import sha256_text
from moralscope.models.rendering import chat_text
from moralscope.models.spans import Offsets, message_starts
from moralscope.models.tree import Tokens


class Chat(Protocol):
    """A chat that ends with the answer to be learned, as ``organisms.data`` has them."""

    @property
    def id(self) -> str:
        """Who it is; unique in a set."""
        ...

    @property
    def question(self) -> str:
        """Which question it answers: the unit of splits and intervals."""
        ...

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns, oldest first; the last is the assistant's."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A chat as the model reads and learns it.

    Attributes:
        id, question: of the chat.
        text: what is read, answer and end included.
        tokens: up to the last one that is learned.
        answer: half-open range of the tokens on which the answer stands.
        learned: the same, and the token that ends the turn where it is learned. Each is predicted
            from the token before it.
    """

    id: str
    question: str
    text: str
    tokens: Tokens
    answer: tuple[int, int]
    learned: tuple[int, int]

    @property
    def sha256(self) -> str:
        """Hash of what is read and what of it is learned."""
        return sha256_text(f"{self.learned} {self.text}")


def encode_chats(
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    *,
    max_tokens: int,
    learn_end: bool = True,
) -> tuple[EncodedChat, ...]:
    """Chats as the model reads them, in order.

    Args:
        tokenizer: fast, with or without a chat template. Without one the turns are lines, and
            nothing stands behind the answer that could be learned.
        chats: at least one.
        max_tokens: the most that a chat may have.
        learn_end: whether the token that ends the answer's turn is learned.

    Raises:
        PromptError: there are no chats, an answer is empty or not in the text, merges with its
            header, or is longer than the limit; the tokenizer does not say what tokens cover.
    """
    if not chats:
        raise PromptError(
            "There is nothing to learn from",
            seen="no examples",
            allowed="at least one example",
            remedy="give a set with examples",
        )
    frames: dict[tuple[str, ...], str] = {}
    found: list[EncodedChat] = []
    for chat in chats:
        encoded = _encode(tokenizer, chat, learn_end, frames)
        if len(encoded.tokens) > max_tokens:
            raise PromptError(
                f"The example {chat.id!r} is longer than the limit",
                seen=f"{len(encoded.tokens)} tokens",
                allowed=f"at most {max_tokens} tokens",
                remedy="shorten or leave out the example, or raise max_tokens",
            )
        found.append(encoded)
    return tuple(found)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, max_tokens: int) -> Tokens:
    """The tokens of a plain text, the first of which is given and not predicted.

    Raises:
        PromptError: it has fewer than two tokens, or more than the limit.
    """
    encode: Any = tokenizer
    tokens = tuple(int(token) for token in encode(text)["input_ids"])
    if not 2 <= len(tokens) <= max_tokens:
        raise PromptError(
            "A text for the KL term is too short or too long",
            seen=f"{len(tokens)} tokens: {text[:60]!r}",
            allowed=f"2 to {max_tokens} tokens",
            remedy="leave it out, divide it, or raise max_tokens",
        )
    return tokens


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    chat: Chat,
    learn_end: bool,
    frames: dict[tuple[str, ...], str],
) -> EncodedChat:
    *asked, last = chat.messages
    answer = last.content.strip()
    if not answer:
        raise _empty(chat, last.content)
    asking = chat_text(tokenizer, asked)
    end = _behind(tokenizer, chat, [*asked, Message(last.role, answer)], frames)
    text = asking + answer + end
    tokens, offsets = _read(tokenizer, chat, text)
    begin, close = len(asking), len(asking) + len(answer)
    own = [i for i, (a, b) in enumerate(offsets) if a < b and a < close and b > begin]
    if not own:
        raise _empty(chat, last.content)
    if offsets[own[0]][0] < begin:
        raise PromptError(
            f"The answer of example {chat.id!r} merges with its header",
            seen=repr(text[offsets[own[0]][0] : begin + 12]),
            allowed="an answer whose first token begins where the answer does",
            remedy="begin the answer with another character",
        )
    first, behind = own[0], own[-1] + 1
    stop = behind + 1 if learn_end and behind < len(tokens) else behind
    return EncodedChat(chat.id, chat.question, text, tokens[:stop], (first, behind), (first, stop))


def _behind(
    tokenizer: PreTrainedTokenizerBase,
    chat: Chat,
    messages: list[Message],
    frames: dict[tuple[str, ...], str],
) -> str:
    """What the chat template puts behind the answer."""
    roles = tuple(message.role for message in messages)
    if roles not in frames:
        marks = [Message(m.role, f"\ue000{i}\ue001") for i, m in enumerate(messages)]
        frames[roles] = chat_text(tokenizer, marks, answering=False)
    text = chat_text(tokenizer, messages, answering=False)
    contents = [message.content for message in messages]
    starts: Mapping[int, Sequence[int]] = message_starts(frames[roles], contents, text)
    at = starts.get(len(messages) - 1)
    if not at:
        raise PromptError(
            f"The answer of example {chat.id!r} cannot be found in the text that the model reads",
            seen=repr(contents[-1][:60]),
            allowed="a chat template that writes the answer as it is",
            remedy="leave out the example, or use another chat template",
        )
    return text[at[-1] + len(contents[-1]) :]


def _read(tokenizer: PreTrainedTokenizerBase, chat: Chat, text: str) -> tuple[Tokens, Offsets]:
    if not tokenizer.is_fast:
        raise PromptError(
            f"The tokens of the answer of example {chat.id!r} cannot be told",
            seen=f"{type(tokenizer).__name__}, which does not say what its tokens cover",
            allowed="a fast tokenizer",
            remedy="use the fast tokenizer of the model",
        )
    encode: Any = tokenizer
    # Chat templates write their own special tokens; plain text gets the tokenizer's.
    plain = getattr(tokenizer, "chat_template", None) is None
    read = encode(text, add_special_tokens=plain, return_offsets_mapping=True)
    offsets = tuple((int(a), int(b)) for a, b in read["offset_mapping"])
    return tuple(int(token) for token in read["input_ids"]), offsets


def _empty(chat: Chat, content: str) -> PromptError:
    return PromptError(
        f"The answer of example {chat.id!r} is empty in the chat template",
        seen=repr(content[:60]),
        allowed="an answer with at least one visible character",
        remedy="give the example an answer, or leave it out",
    )
