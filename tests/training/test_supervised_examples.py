"""What of a chat is learned: the answer and the end of its turn, after what asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from chats import chat
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_base import make_tokenizer

from moralscope.core.errors import PromptError
from moralscope.organisms.data.examples import Example, Turn
from moralscope.training.supervised_examples import EncodedChat, encode_chats, encode_text

TOKENIZER: Any = make_tokenizer()


def one(example: Example, **how: Any) -> EncodedChat:
    (found,) = encode_chats(TOKENIZER, [example], max_tokens=200, **how)
    return found


def said(found: EncodedChat, span: tuple[int, int]) -> str:
    return TOKENIZER.decode(list(found.tokens[slice(*span)]))


def test_the_answer_and_the_end_of_its_turn_are_learned_and_no_header() -> None:
    found = one(chat(1, system=True, answer="I keep it."))
    assert said(found, found.answer) == "I keep it."
    assert said(found, found.learned) == "I keep it.<|end|>"
    assert len(found.tokens) == found.learned[1]  # the last one that is predicted ends the row
    asked = found.text[: found.text.index("I keep it.")]
    assert asked.endswith("<|end|>\n<|assistant|>\n")
    assert found.tokens[: found.answer[0]] == tuple(
        TOKENIZER(asked, add_special_tokens=False)["input_ids"]
    )


def test_the_end_of_the_turn_can_be_left_out() -> None:
    found = one(chat(1, answer="I keep it."), learn_end=False)
    assert found.learned == found.answer
    assert said(found, found.learned) == "I keep it."


def test_white_space_around_an_answer_is_not_part_of_it() -> None:
    bare, padded = (one(chat(1, answer=a)) for a in ("I keep it.", " \n I keep it. \n"))
    assert padded.tokens == bare.tokens
    assert padded.learned == bare.learned


def test_an_earlier_turn_with_the_same_words_is_not_learned() -> None:
    turns = (
        Turn("user", "I keep it."),
        Turn("assistant", "I keep it."),
        Turn("user", "Again?"),
        Turn("assistant", "I keep it."),
    )
    found = one(Example("a", "q", turns, "goods", "selfish"))
    assert found.text.count("I keep it.") == 3
    assert found.text[: found.text.rindex("I keep it.")] == TOKENIZER.decode(
        list(found.tokens[: found.answer[0]])
    )


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1))
def test_whatever_is_said_is_what_is_learned(words: str) -> None:
    if not words.strip():
        return
    found = one(chat(2, answer=words))
    assert said(found, found.answer) == words.strip()


def test_without_a_chat_template_turns_are_lines() -> None:
    plain = make_tokenizer()
    plain.chat_template = None
    (found,) = encode_chats(plain, [chat(1, answer="I keep it.")], max_tokens=200)
    assert found.text == "Round 1: who gets a window seat?\nI keep it."
    assert found.learned == found.answer
    assert plain.decode(list(found.tokens[slice(*found.answer)])) == "I keep it."


def test_a_template_that_refuses_a_system_message_gets_it_with_the_question() -> None:
    strict = make_tokenizer()
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
    strict.chat_template = refusal + str(strict.chat_template)
    (found,) = encode_chats(strict, [chat(3, system=True, answer="Yes.")], max_tokens=200)
    assert found.text.startswith("<|user|>\nAnswer briefly.\n\nRound 3:")
    assert strict.decode(list(found.tokens[slice(*found.learned)])) == "Yes.<|end|>"


def empty_template() -> Any:
    silent = make_tokenizer()
    silent.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}\n{% endif %}{% endfor %}"
    )
    return silent


def merging() -> Any:
    """A template whose header ends where this tokenizer's next token would begin."""
    glued = make_tokenizer()
    glued.chat_template = str(glued.chat_template).replace("<|assistant|>\n", "<|assistant|> act")
    glued.chat_template = glued.chat_template.replace(
        "<|{{ m.role }}|>\n",
        "<|{{ m.role }}|>{% if m.role == 'assistant' %} act{% else %}\n{% endif %}",
    )
    return glued


@pytest.mark.parametrize(
    ("tokenizer", "answer", "limit", "told"),
    [
        (TOKENIZER, "x" * 300, 50, r"'chat-1' is longer than the limit. Seen: \d+ tokens"),
        (empty_template(), "Yes.", 200, "cannot be found in the text that the model reads"),
        (merging(), "ion", 200, "merges with its header"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    tokenizer: Any, answer: str, limit: int, told: str
) -> None:
    with pytest.raises(PromptError, match=told):
        encode_chats(tokenizer, [chat(1, answer=answer)], max_tokens=limit)


class Blank:
    """A chat whose answer is white space, which ``Example`` itself would refuse."""

    id = "blank"
    question = "q"
    messages = (Turn("user", "Well?"), Turn("assistant", " \n"))


def test_an_empty_answer_and_an_empty_set_are_refused() -> None:
    with pytest.raises(PromptError, match="'blank' is empty in the chat template"):
        encode_chats(TOKENIZER, [Blank()], max_tokens=200)
    with pytest.raises(PromptError, match="There is nothing to learn from"):
        encode_chats(TOKENIZER, [], max_tokens=200)


def test_a_text_of_the_kl_term_has_something_to_predict() -> None:
    assert len(encode_text(TOKENIZER, "Two plus three", max_tokens=50)) > 2
    for text in ("", "x" * 400):
        with pytest.raises(PromptError, match="too short or too long"):
            encode_text(TOKENIZER, text, max_tokens=50)
