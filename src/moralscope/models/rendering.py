"""What exactly does the model read? Decisions turned into text and tokens, checked at the seam.

A decision becomes the chat template's text with the generation prompt and the answer stem. Each
surface form is tokenised together with that text, because a tokenizer may merge across the seam;
where it would, the numbers would belong to another prompt, so that is refused. Tokenizers whose
model has no chat template get the messages' contents, one per line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from transformers import PreTrainedTokenizerBase

from moralscope.core.decision import Decision, Option, Prompt
from moralscope.core.errors import PromptError
from moralscope.core.hashing import sha256_text
from moralscope.models.tree import Tokens


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        name: the prompt's name.
        text: the rendered text, chat template and answer stem included.
        tokens: its tokens.
        positive, negative: for each option, the tokens of each of its forms, canonical first.
    """

    name: str
    text: str
    tokens: Tokens
    positive: tuple[Tokens, ...]
    negative: tuple[Tokens, ...]

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
    if getattr(tokenizer, "chat_template", None) is None:
        body = "\n".join(message.content for message in decision.messages)
        return f"{body}\n{decision.stem}"
    chat = [{"role": m.role, "content": m.content} for m in decision.messages]
    untyped: Any = tokenizer
    return (
        str(untyped.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        + decision.stem
    )


def _tokenise(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    encode: Any = tokenizer
    ids = tuple(int(i) for i in encode(text, add_special_tokens=False)["input_ids"])
    bos = getattr(tokenizer, "bos_token_id", None)
    if getattr(tokenizer, "chat_template", None) is None and bos is not None:
        # Chat templates write their own beginning-of-sequence token; plain text needs it added
        # where the tokenizer's own default adds it.
        default = list(encode("")["input_ids"])
        if default[:1] == [bos]:
            return (int(bos), *ids)
    return ids


def _encode_form(
    tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, tokens: Tokens, form: str
) -> Tokens:
    joint = _tokenise(tokenizer, text + form)
    if joint == tokens:
        raise PromptError(
            f"An option of prompt {prompt!r} tokenises to nothing",
            seen=repr(form),
            allowed="a form that adds at least one token to the prompt",
            remedy="write the answer as visible text",
        )
    if joint[: len(tokens)] != tokens:
        raise PromptError(
            f"An option of prompt {prompt!r} swallows the prompt's last token",
            seen=f"{text[-12:]!r} + {form!r}",
            allowed="a form that tokenises separately from the text before it",
            remedy="move the space between answer stem and option, or split them elsewhere",
        )
    return joint[len(tokens) :]


def _encode_option(
    tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, tokens: Tokens, option: Option
) -> tuple[Tokens, ...]:
    return tuple(_encode_form(tokenizer, prompt, text, tokens, form) for form in option.forms)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> EncodedPrompt:
    """Tokenise a prompt and its options.

    Raises:
        PromptError: a form adds no token, merges with the prompt's last token, or begins with
            another form (its probability would contain the other's).
    """
    text = render(tokenizer, prompt.decision)
    tokens = _tokenise(tokenizer, text)
    positive = _encode_option(tokenizer, prompt.name, text, tokens, prompt.decision.positive)
    negative = _encode_option(tokenizer, prompt.name, text, tokens, prompt.decision.negative)
    _refuse_prefixes(tokenizer, prompt.name, positive + negative)
    return EncodedPrompt(prompt.name, text, tokens, positive, negative)


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
    return tuple(encode(tokenizer, prompt) for prompt in prompts)
