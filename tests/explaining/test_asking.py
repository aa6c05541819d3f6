"""Questions become prompts, and what cannot be asked is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.decision import Message, Option, Span
from moralscope.core.errors import PromptError
from moralscope.explaining import ask
from moralscope.explaining.asking import named


def test_a_text_and_two_answers():
    asked = ask("Keep it?", positive=" no", negative=[" yes", " Yes"], stem="I say:")
    decision = asked.decision
    assert decision.messages == (Message("user", "Keep it?"),)
    assert decision.stem == "I say:"
    assert decision.positive == Option("no", (" no",))
    assert decision.negative == Option("yes", (" yes", " Yes"))
    assert (asked.game, asked.family, asked.labels) == ("user", "user", "yes/no")


def test_a_chat_of_several_turns():
    chat = [{"role": "system", "content": "Be brief."}, Message("user", "Keep it?")]
    asked = ask(chat, positive=" no", negative=" yes")
    assert asked.decision.messages == (Message("system", "Be brief."), Message("user", "Keep it?"))


def test_spans_are_every_occurrence_of_their_words():
    asked = ask("He kept it. I kept it.", positive=" a", negative=" b", spans={"move": "kept"})
    assert asked.decision.spans == (Span("move", 0, 3, 7), Span("move", 0, 14, 18))


def test_prompts_without_a_name_are_numbered_by_their_place():
    one, two = ask("1?", positive="a", negative="b"), ask("2?", positive="a", negative="b")
    own = ask("3?", positive="a", negative="b", name="own", scenario="s")
    found = named([one, own, two])
    assert [p.name for p in found] == ["q1", "own", "q3"]
    assert [p.scenario for p in found] == ["q1", "s", "q3"]
    assert [p.name for p in named(two)] == ["q1"]


@given(st.lists(st.sampled_from(["", "x", "y", "q2"]), min_size=1, max_size=4))
def test_names_are_kept_or_given_and_never_shared(names: list[str]):
    prompts = [
        ask(f"{at}?", positive="a", negative="b", name=name or None)
        for at, name in enumerate(names)
    ]
    expected = [name or f"q{at}" for at, name in enumerate(names, start=1)]
    if len(set(expected)) == len(expected):
        assert [p.name for p in named(prompts)] == expected
    else:
        with pytest.raises(PromptError, match="share a name"):
            named(prompts)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"text": " "}, "A message is empty. Seen: ' '"),
        ({"text": 3}, "The question is not text. Seen: int '3'"),
        ({"text": ["hello"]}, "This is not a turn of a chat. Seen: str 'hello'"),
        ({"text": [{"role": "user"}]}, "This is not a turn of a chat"),
        ({"text": [{"role": "usr", "content": "x"}]}, "did you mean 'user'"),
        ({"text": [{"role": "user", "content": 1}]}, "The content of a turn is not text"),
        ({"text": []}, "A decision has no messages"),
        ({"positive": ""}, "The positive answer is empty"),
        ({"negative": []}, "The negative answer is empty"),
        ({"negative": 7}, "The negative answer is not text"),
        ({"negative": [" a", 7]}, "The negative answer is not text"),
        ({"negative": " no"}, "The two options are identical"),
        ({"stem": None}, "The stem is not text"),
        ({"spans": {"move": "broke"}}, "The words of span 'move' do not stand in the question"),
        ({"spans": {"move": ""}}, "The words of span 'move' do not stand in the question"),
    ],
)
def test_what_cannot_be_asked_is_refused(changed: dict[str, Any], told: str):
    usual: dict[str, Any] = {"text": "Keep it?", "positive": " no", "negative": " yes"}
    with pytest.raises(PromptError) as caught:
        ask(**{**usual, **changed})
    assert told in str(caught.value)


def test_only_prompts_are_explained():
    with pytest.raises(PromptError, match="This is not a prompt. Seen: number 2: str 'hello'"):
        named([ask("1?", positive="a", negative="b"), "hello"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(PromptError, match="A prompt set is empty"):
        named([])
