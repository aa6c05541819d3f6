"""What exactly does the model read? Decisions turned into text and tokens, checked at the seam.

A decision becomes the chat template's text with the generation prompt and the answer stem. Each
surface form is tokenised together with that text, because a tokenizer may merge across the seam;
where it would, the numbers would belong to another prompt, so that is refused. Tokenizers whose
model has no chat template, and decisions that ask for none, get the messages' contents, one per
line. Chat templates that refuse a system message get it at the beginning of the first message, a
blank line before what is said there. Named spans of the messages become token indices (``spans``),
found by the characters that each token covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from moralscope.core.decision import Decision, Message, Prompt
from moralscope.core.errors import PromptError, nearest
from moralscope.core.hashing import sha256_text
from moralscope.models.spans import Offsets, Spans, marked, message_starts, token_spans
from moralscope.models.tree import Tokens


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        name: the prompt's name.
        text: the rendered text, chat template and answer stem included.
        tokens: its tokens.
        positive, negative: for each option, the tokens of each of its forms, canonical first.
        spans: for each category of spans, ascending indices into ``tokens``.
        offsets: for each token, the half-open range of characters of ``text`` that it covers;
            empty where the tokenizer does not tell (then there are no spans either).
    """

    name: str
    text: str
    tokens: Tokens
    positive: tuple[Tokens, ...]
    negative: tuple[Tokens, ...]
    spans: Spans = ()
    offsets: Offsets = ()

    @property
    def sha256(self) -> str:
        """Hash of the rendered text."""
        return sha256_text(self.text)

    @property
    def continuations(self) -> tuple[Tokens, ...]:
        """Every sequence that has to be run to score this prompt.

        The last token of a form is only predicted, never read, so it is left out.
        """
        return tuple(self.tokens + form[:-1] for form in self.positive + self.negative)


def render(tokenizer: PreTrainedTokenizerBase, decision: Decision) -> str:
    """The text that the model reads: chat template, generation prompt and answer stem."""
    return chat_text(tokenizer, decision.messages, template=decision.chat_template) + decision.stem


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    template: bool = True,
    answering: bool = True,
) -> str:
    """The text of a chat.

    Args:
        tokenizer: whose chat template is meant.
        messages: of the chat, first turn first.
        template: whether it is put into the template; if not, a line for each message.
        answering: whether an answer is to follow, as the generation prompt says.
    """
    if not template or getattr(tokenizer, "chat_template", None) is None:
        return "\n".join(message.content for message in messages) + ("\n" if answering else "")
    chat = [{"role": m.role, "content": m.content} for m in messages]
    try:
        return _apply(tokenizer, chat, answering=answering)
    except TemplateError:
        if len(chat) == 1 or chat[0]["role"] != "system":
            raise
        system, first, *rest = chat
        said = f"{system['content']}\n\n{first['content']}"
        return _apply(tokenizer, [{**first, "content": said}, *rest], answering=answering)


def _apply(
    tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], *, answering: bool
) -> str:
    untyped: Any = tokenizer
    return str(untyped.apply_chat_template(chat, add_generation_prompt=answering, tokenize=False))


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, text: str, begin: Tokens
) -> tuple[Tokens, list[Any] | None]:
    """Tokens of a text after its beginning, and the fast tokenizer's own record of them."""
    encode: Any = tokenizer
    read = encode(text, add_special_tokens=False)
    return (*begin, *read["input_ids"]), getattr(read, "encodings", None)


def _beginning(tokenizer: PreTrainedTokenizerBase, decision: Decision) -> Tokens:
    """The beginning-of-sequence token, where it has to be added.

    Chat templates write their own; plain text gets it where the tokenizer's own default adds it.
    """
    encode: Any = tokenizer
    bos = getattr(tokenizer, "bos_token_id", None)
    plain = not decision.chat_template or getattr(tokenizer, "chat_template", None) is None
    if plain and bos is not None:
        default = list(encode("")["input_ids"])
        if default[:1] == [bos]:
            return (int(bos),)
    return ()


def read_tokens(tokenizer: PreTrainedTokenizerBase, decision: Decision) -> Tokens:
    """What the model reads of a decision, its options aside."""
    return _tokenise(tokenizer, render(tokenizer, decision), _beginning(tokenizer, decision))[0]


def _encode_form(
    tokenizer: PreTrainedTokenizerBase, read: EncodedPrompt, begin: Tokens, form: str
) -> Tokens:
    tokens = read.tokens
    joint, _ = _tokenise(tokenizer, read.text + form, begin)
    if joint == tokens:
        raise PromptError(
            f"An option of prompt {read.name!r} tokenises to nothing",
            seen=repr(form),
            allowed="a form that adds at least one token to the prompt",
            remedy="write the answer as visible text",
        )
    if joint[: len(tokens)] != tokens:
        raise PromptError(
            f"An option of prompt {read.name!r} swallows the prompt's last token",
            seen=f"{read.text[-12:]!r} + {form!r}",
            allowed="a form that tokenises separately from the text before it",
            remedy="move the space between answer stem and option, or split them elsewhere",
        )
    return joint[len(tokens) :]


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> EncodedPrompt:
    """Tokenise a prompt and its options.

    Raises:
        PromptError: a form adds no token, merges with the prompt's last token, or begins with
            another form (its probability would contain the other's); the message of a span is not
            in the text.
    """
    return _encode(tokenizer, prompt, {})


def _encode(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, frames: dict[tuple[object, ...], str]
) -> EncodedPrompt:
    decision = prompt.decision
    text, begin = render(tokenizer, decision), _beginning(tokenizer, decision)
    tokens, record = _tokenise(tokenizer, text, begin)
    offsets: Offsets = ((0, 0),) * len(begin) + tuple(record[0].offsets) if record else ()
    bare = EncodedPrompt(prompt.name, text, tokens, (), (), offsets=offsets)
    positive, negative = (
        tuple(_encode_form(tokenizer, bare, begin, form) for form in option.forms)
        for option in (decision.positive, decision.negative)
    )
    _refuse_prefixes(tokenizer, prompt.name, positive + negative)
    spans: Spans = ()
    if offsets and decision.spans:
        roles = (decision.chat_template, *(message.role for message in decision.messages))
        if roles not in frames:
            frames[roles] = render(tokenizer, marked(decision))
        contents = [message.content for message in decision.messages]
        starts = message_starts(frames[roles], contents, text)
        spans = token_spans(prompt.name, decision, starts, offsets)
    return replace(bare, positive=positive, negative=negative, spans=spans)


def _refuse_prefixes(
    tokenizer: PreTrainedTokenizerBase, prompt: str, forms: Sequence[Tokens]
) -> None:
    for a, b in combinations(sorted(forms, key=len), 2):
        if b[: len(a)] == a:
            untyped: Any = tokenizer
            raise PromptError(
                f"One option of prompt {prompt!r} is a prefix of another",
                seen=f"{untyped.decode(list(a))!r} and {untyped.decode(list(b))!r}",
                allowed="forms of which none begins with another, token by token",
                remedy="end each form explicitly, for example with a full stop or a line break",
            )


def encode_all(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
) -> tuple[EncodedPrompt, ...]:
    """``encode`` for each prompt, in order."""
    frames: dict[tuple[object, ...], str] = {}
    return tuple(_encode(tokenizer, prompt, frames) for prompt in prompts)


def tokens_of(encoded: EncodedPrompt, category: str) -> tuple[int, ...]:
    """The tokens that the spans of a category stand on.

    Returns:
        Ascending indices into ``encoded.tokens``, at least one.

    Raises:
        PromptError: the prompt has no such span.
    """
    spans = dict(encoded.spans)
    if category not in spans:
        if spans:
            remedy = nearest(category, spans)
        elif encoded.offsets:
            remedy = "name the words as a span in the prompt file"
        else:
            remedy = "use a fast tokenizer, which tells what characters its tokens cover"
        raise PromptError(
            f"A span is absent from prompt {encoded.name!r}",
            seen=category,
            allowed=", ".join(spans) or "none: no span of this prompt is located",
            remedy=remedy,
        )
    return spans[category]
