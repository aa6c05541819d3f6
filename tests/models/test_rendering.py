"""What the model reads, and what is refused at the seam between prompt and answer."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError

from moralscope.core.decision import Decision, Message, Option, Prompt, Span
from moralscope.core.errors import PromptError
from moralscope.core.hashing import sha256_text
from moralscope.models.rendering import encode, encode_all, render

CHATTY = tiny.tiny_tokenizer()
PLAIN = tiny.tiny_tokenizer(chat=False)
BEGINS = tiny.tiny_tokenizer(chat=False, begins=True)


def ask(
    positive: tuple[str, ...] = (" action2",),
    negative: tuple[str, ...] = (" action1",),
    *,
    stem: str = "I choose",
    text: str = "choose action1 or action2",
) -> Prompt:
    decision = Decision(
        (Message("system", "You play a game."), Message("user", text)),
        stem,
        Option("defect", positive),
        Option("cooperate", negative),
    )
    return Prompt("ask", decision, "IPD", "s", "user", "t", "action1/action2")


def test_a_chat_is_its_template_with_generation_prompt_and_stem():
    text = render(CHATTY, ask().decision)
    assert text == (
        "<|system|>You play a game.</s><|user|>choose action1 or action2</s><|assistant|>I choose"
    )


def refusing(role: str) -> Any:
    """A tokenizer whose chat template refuses messages of a role."""
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == '"
        + role
        + "' %}{{ raise_exception('no such role') }}{% endif %}"
        "<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
    )
    return tokenizer


def test_a_system_message_that_a_template_refuses_begins_the_first_message():
    prompt = ask()
    at = prompt.decision.messages[1].content.index("action2")
    spanned = replace(
        prompt,
        decision=replace(
            prompt.decision, spans=(Span("who", 0, 4, 8), Span("labels", 1, at, at + 7))
        ),
    )
    read = encode(refusing("system"), spanned)
    assert read.text == (
        "<|user|>You play a game.\n\nchoose action1 or action2</s><|assistant|>I choose"
    )
    words = {
        category: "".join(read.text[slice(*read.offsets[i])] for i in tokens).strip()
        for category, tokens in read.spans
    }
    assert words == {"who": "play", "labels": "action2"}


def test_a_template_that_refuses_other_messages_is_not_talked_out_of_it():
    for decision in (
        ask().decision,
        replace(ask().decision, messages=ask().decision.messages[1:]),
        replace(ask().decision, messages=ask().decision.messages[:1]),
    ):
        role = decision.messages[-1].role
        with pytest.raises(TemplateError, match="no such role"):
            render(refusing(role), decision)


def test_without_a_template_the_contents_stand_one_per_line():
    assert render(PLAIN, ask().decision) == "You play a game.\nchoose action1 or action2\nI choose"


@pytest.mark.parametrize("tokenizer", [CHATTY, PLAIN, BEGINS], ids=["chat", "plain", "begins"])
def test_tokens_spell_the_prompt_and_its_options(tokenizer: Any):
    prompt = ask(("\n2", " action2 now"), (" action1",))
    read = encode(tokenizer, prompt)
    begin = tokenizer.bos_token if tokenizer is BEGINS else ""
    assert tokenizer.decode(list(read.tokens)) == begin + read.text
    for forms, option in (
        (read.positive, prompt.decision.positive),
        (read.negative, prompt.decision.negative),
    ):
        assert tuple(tokenizer.decode(list(form)) for form in forms) == option.forms
    assert read.sha256 == sha256_text(read.text)


def test_plain_text_begins_as_the_tokenizer_begins_it():
    assert encode(BEGINS, ask()).tokens[0] == BEGINS.bos_token_id
    assert encode(PLAIN, ask()).tokens[0] != PLAIN.bos_token_id


def test_continuations_leave_out_the_last_token_of_each_form():
    read = encode(CHATTY, ask((" action2 now",), (" action1",)))
    assert len(read.positive[0]) > 1
    assert read.continuations == (
        read.tokens + read.positive[0][:-1],
        read.tokens + read.negative[0][:-1],
    )


def test_prompts_are_encoded_in_order():
    prompts = tiny.worded_prompts(3)
    assert [read.name for read in encode_all(CHATTY, prompts)] == ["w0", "w1", "w2"]


@given(st.text(alphabet="abc 1.\n", min_size=1, max_size=8))
def test_a_form_is_kept_exactly_or_refused(form: str):
    prompt = ask((" action2",), (form,)) if form != " action2" else ask()
    try:
        read = encode(CHATTY, prompt)
    except PromptError:
        return
    joined = CHATTY(read.text + form, add_special_tokens=False)["input_ids"]
    assert read.tokens + read.negative[0] == tuple(joined)


def test_an_option_that_tokenises_to_nothing_is_refused():
    class Forgetful:
        """A tokenizer that drops what it does not know."""

        chat_template = None
        bos_token_id = None

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) for c in text if c.isascii()]}

    untyped: Any = Forgetful()
    with pytest.raises(PromptError, match="An option of prompt 'ask' tokenises to nothing") as e:
        encode(untyped, ask(("é",), ("n",)))
    assert "'é'" in str(e.value)
    assert "write the answer as visible text" in e.value.remedy


def test_an_option_that_swallows_the_last_token_is_refused():
    assert len(CHATTY("ab", add_special_tokens=False)["input_ids"]) == 1
    with pytest.raises(PromptError, match="swallows the prompt's last token") as e:
        encode(CHATTY, ask(("b",), ("z",), stem="a"))
    assert "'b'" in str(e.value)
    assert "move the space" in e.value.remedy


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ((" action1 now",), (" action1",)),
        ((" action2", " action2!"), (" action1",)),
    ],
    ids=["across options", "within one option"],
)
def test_a_form_that_begins_another_is_refused(
    positive: tuple[str, ...], negative: tuple[str, ...]
):
    with pytest.raises(PromptError, match="One option of prompt 'ask' is a prefix of another") as e:
        encode(CHATTY, ask(positive, negative))
    assert repr(min(*positive, *negative, key=len)) in str(e.value)
    assert "full stop" in e.value.remedy


def test_identical_options_are_refused():
    with pytest.raises(PromptError, match="The two options are identical"):
        ask((" action1",), (" action1",))


def test_options_of_other_spelling_but_equal_tokens_are_refused():
    class Deaf:
        """A tokenizer that does not hear capitals."""

        chat_template = None
        bos_token_id = None

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) for c in text.lower()]}

        def decode(self, tokens: list[int]) -> str:
            return "".join(map(chr, tokens))

    untyped: Any = Deaf()
    with pytest.raises(PromptError, match="is a prefix of another"):
        encode(untyped, ask((" Yes",), (" yes",)))
