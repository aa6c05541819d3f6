"""Named spans as tokens: found by where characters stand, whatever the template and the words."""

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from moralscope.core.decision import Decision, Message, Option, Prompt, Span
from moralscope.core.errors import PromptError
from moralscope.models.rendering import EncodedPrompt, encode, encode_all, tokens_of

CHATTY = tiny.tiny_tokenizer()
BEGINS = tiny.tiny_tokenizer(chat=False, begins=True)
STRIPS = tiny.tiny_tokenizer()
STRIPS.chat_template = tiny.CHAT.replace("m['content']", "m['content'] | trim")
PIECES = ["user", "<|user|>", "action1", " choose", "é", "🙂", "\n", " ", "a", "ab", "</s"]
words = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


def ask(messages: list[tuple[Any, str]], *spans: Span, stem: str = ":") -> Prompt:
    decision = Decision(
        tuple(Message(role, content) for role, content in messages),
        stem,
        Option("defect", (" action2",)),
        Option("cooperate", (" action1",)),
        spans,
    )
    return Prompt("ask", decision, "IPD", "s", "user", "t", "action1/action2")


def bytes_of(tokenizer: Any, token: int) -> bytes:
    """What a token spells, from the byte-level alphabet alone."""
    word = tokenizer.convert_ids_to_tokens(token)
    if word in tokenizer.all_special_tokens:
        return word.encode()
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    of = {chr(b): b for b in kept} | {chr(256 + i): b for i, b in enumerate(moved)}
    assert set(of) == set(ByteLevel.alphabet())
    return bytes(of[c] for c in word)


def standing_on(tokenizer: Any, read: EncodedPrompt, start: int, end: int) -> tuple[int, ...]:
    """Tokens whose bytes overlap characters of the text, counted off from its beginning."""
    first, last = (len(read.text[:at].encode()) for at in (start, end))
    begins = tokenizer is BEGINS
    found, at = [], 0
    for index, token in enumerate(read.tokens):
        length = 0 if begins and index == 0 else len(bytes_of(tokenizer, token))
        if length and at < last and at + length > first:
            found.append(index)
        at += length
    assert at == len(read.text.encode())
    return tuple(found)


@settings(max_examples=60)
@given(st.data(), st.sampled_from([CHATTY, STRIPS, BEGINS]))
def test_spans_stand_on_the_tokens_that_spell_them(data: st.DataObject, tokenizer: Any) -> None:
    kept = words.filter(str.strip)
    contents = data.draw(st.lists(kept, min_size=1, max_size=3))
    at = data.draw(st.integers(0, len(contents) - 1))
    start = data.draw(st.integers(0, len(contents[at]) - 1))
    end = data.draw(st.integers(start + 1, len(contents[at])))
    roles = ["system", "user", "assistant"]
    read = encode(
        tokenizer,
        ask([(roles[i], c) for i, c in enumerate(contents)], Span("x", at, start, end)),
    )
    # By hand: what the template writes before the message.
    shown = [c.strip() for c in contents] if tokenizer is STRIPS else contents
    lost = len(contents[at]) - len(contents[at].lstrip()) if tokenizer is STRIPS else 0
    if tokenizer is BEGINS:
        before = "".join(f"{c}\n" for c in shown[:at])
    else:
        before = "".join(f"<|{roles[i]}|>{c}</s>" for i, c in enumerate(shown[:at]))
        before += f"<|{roles[at]}|>"
    clipped = [max(0, min(len(shown[at]), edge - lost)) for edge in (start, end)]
    assert read.text.startswith(before + shown[at])
    places = [len(before) + edge for edge in clipped]
    expected = standing_on(tokenizer, read, *places) if places[0] < places[1] else ()
    assert read.spans == ((("x", expected),) if expected else ())


def test_a_word_that_also_stands_elsewhere_is_not_mistaken() -> None:
    read = encode(CHATTY, ask([("system", "user"), ("user", "user")], Span("x", 1, 0, 4)))
    assert read.text == "<|system|>user</s><|user|>user</s><|assistant|>:"
    assert tokens_of(read, "x") == standing_on(CHATTY, read, 26, 30)


def test_spans_of_a_category_are_joined_and_categories_keep_their_order() -> None:
    text = "action1 or action2: action1"
    spans = [Span("b", 0, 20, 27), Span("a", 0, 0, 7), Span("b", 0, 0, 7), Span("a", 0, 3, 18)]
    read = encode(CHATTY, ask([("user", text)], *spans))
    start = len("<|user|>")
    assert [category for category, _ in read.spans] == ["b", "a"]
    low = standing_on(CHATTY, read, start, start + 7)
    high = standing_on(CHATTY, read, start + 20, start + 27)
    assert tokens_of(read, "b") == (*low, *high)
    assert tokens_of(read, "a") == standing_on(CHATTY, read, start, start + 18)


def test_a_beginning_of_sequence_token_moves_spans_by_one() -> None:
    prompt = ask([("user", "action1 or action2")], Span("x", 0, 0, 7))
    plain, begun = (encode(t, prompt) for t in (tiny.tiny_tokenizer(chat=False), BEGINS))
    assert tokens_of(begun, "x") == tuple(i + 1 for i in tokens_of(plain, "x"))
    assert tokens_of(plain, "x")[0] == 0


def test_offsets_tell_what_each_token_says() -> None:
    for tokenizer in (CHATTY, BEGINS):
        read = encode(tokenizer, ask([("user", "choose action1")]))
        said = [read.text[start:end] for start, end in read.offsets]
        assert len(said) == len(read.tokens)
        assert "".join(said) == read.text


def test_a_message_that_is_written_twice_has_its_spans_twice() -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}|" + tiny.CHAT
    read = encode(tokenizer, ask([("user", "choose action1")], Span("x", 0, 7, 14)))
    again = len("choose action1|<|user|>")
    assert read.text[again : again + 6] == "choose"
    expected = (*standing_on(tokenizer, read, 7, 14),
                *standing_on(tokenizer, read, again + 7, again + 14))  # fmt: skip
    assert tokens_of(read, "x") == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages if m['role'] != 'system' %}<|user|>{{ m['content'] }}{% endfor %}",
        tiny.CHAT.replace("m['content']", "m['content'] | replace('game', 'match')"),
    ],
    ids=["dropped", "reworded"],
)
def test_a_message_that_the_template_does_not_keep_is_refused(template: str) -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = template
    messages = [("system", "You play a game."), ("user", "You play a gam. Go")]
    with pytest.raises(PromptError, match="The message of span 'rules' of prompt 'ask' cannot be f"
                       ) as caught:  # fmt: skip
        encode(tokenizer, ask(messages, Span("rules", 0, 0, 3)))
    assert "message 0 (system): 'You play a game.'" in str(caught.value)
    # Only spans need their message.
    assert encode(tokenizer, ask(messages)).spans == ()


def test_where_the_template_depends_on_the_words_only_unique_ones_are_found() -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] | length }}" + tiny.CHAT
    span = Span("x", 0, 1, 4)
    read = encode(tokenizer, ask([("user", "ab action1")], span))
    assert tokens_of(read, "x") == standing_on(tokenizer, read, 11, 14)
    with pytest.raises(PromptError, match="cannot be found in the text"):
        encode(tokenizer, ask([("user", "user"), ("user", "b")], Span("x", 0, 1, 4)))


def test_roles_are_told_apart_when_many_prompts_are_read() -> None:
    prompts = [
        ask([("user", "action1")], Span("x", 0, 0, 7)),
        ask([("assistant", "ab"), ("user", "action1")], Span("x", 1, 0, 7)),
        ask([("user", "action1")], Span("x", 0, 0, 7), stem="I choose"),
    ]
    for read, prompt in zip(encode_all(CHATTY, prompts), prompts, strict=True):
        assert read == encode(CHATTY, prompt)
        assert read.spans == (("x", tokens_of(read, "x")),)
        start = read.text.index("action1")
        assert tokens_of(read, "x") == standing_on(CHATTY, read, start, start + 7)


def test_an_absent_span_is_refused_with_those_that_are_there() -> None:
    read = encode(CHATTY, ask([("user", "action1 9")], Span("labels", 0, 0, 7),
                              Span("payoffs", 0, 8, 9)))  # fmt: skip
    with pytest.raises(PromptError) as caught:
        tokens_of(read, "payofs")
    assert str(caught.value) == (
        "A span is absent from prompt 'ask'. Seen: payofs. Allowed: labels, payoffs. "
        "Next: did you mean 'payoffs'."
    )
    bare = encode(CHATTY, ask([("user", "action1")]))
    with pytest.raises(PromptError, match="none: no span .* Next: name the words as a span in the"):
        tokens_of(bare, "labels")


def test_a_tokenizer_that_does_not_tell_where_tokens_stand_has_no_spans() -> None:
    class Slow:
        """A tokenizer without offsets."""

        chat_template = None
        bos_token_id = None

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) for c in text]}

        def decode(self, tokens: list[int]) -> str:
            return "".join(map(chr, tokens))

    untyped: Any = Slow()
    read = encode(untyped, ask([("user", "action1")], Span("labels", 0, 0, 7)))
    assert (read.spans, read.offsets) == ((), ())
    with pytest.raises(PromptError, match="Next: use a fast tokenizer"):
        tokens_of(read, "labels")
