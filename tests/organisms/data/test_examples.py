"""What an example is, what is none, and whose question it answers."""

from __future__ import annotations

import hashlib
import json

import pytest

from moralscope.core.errors import PromptError
from moralscope.organisms.data.examples import (
    Example,
    Turn,
    check_set,
    make_example,
    shortened,
)

ASK = Turn("user", "Which way?")
LEFT = Turn("assistant", "Left, I think.")


def example(*turns, **names):
    return Example(
        **({"id": "e", "question": "q", "domain": "d", "kind": "k"} | names), messages=turns
    )


def test_an_example_is_named_by_who_says_what() -> None:
    made = make_example([ASK, LEFT], domain="ways", kind="user")
    turns = [["user", "Which way?"], ["assistant", "Left, I think."]]
    hashes = [
        hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()[:16]
        for said in (turns, turns[:1])
    ]
    assert [made.id, made.question] == hashes
    assert (made.answer, made.asked) == ("Left, I think.", (ASK,))


def test_examples_of_one_question_share_it_whatever_they_answer() -> None:
    left = make_example([ASK, LEFT], domain="d", kind="k")
    right = make_example([ASK, Turn("assistant", "Right.")], domain="d", kind="k")
    other = make_example([Turn("user", "Which way now?"), LEFT], domain="d", kind="k")
    assert left.question == right.question != other.question
    assert len({left.id, right.id, other.id}) == 3
    assert make_example([ASK, LEFT], domain="d", kind="k", question="mine").question == "mine"


def test_who_speaks_is_part_of_the_name() -> None:
    """The same words as a system's turn are another question."""
    system = [Turn("system", "Be kind."), ASK, LEFT]
    user = [Turn("user", "Be kind."), ASK, LEFT]
    made = [make_example(turns, domain="d", kind="k") for turns in (system, user)]
    assert made[0].id != made[1].id
    assert made[0].question != made[1].question


@pytest.mark.parametrize(
    ("turns", "names", "text"),
    [
        ((), {}, "An example has no messages. Seen: no turns. Allowed: at least one turn"),
        ((ASK,), {}, "The last turn of an example is not the assistant's. Seen: role 'user'"),
        ((ASK, Turn("assistant", " \n")), {}, "The answer of an example is empty. Seen: ' \\n'"),
        ((ASK, Turn("bot", "Left.")), {}, "The role of a turn is not known. Seen: 'bot'. Allowed"),
        ((ASK, Turn("asistant", "L")), {}, "Next: did you mean 'assistant'"),
        ((Turn("user", ""), LEFT), {}, "Turn 1 of an example is empty. Seen: role 'user': ''"),
        ((LEFT,), {}, "Nobody asks anything in an example. Seen: turns of assistant"),
        (
            (Turn("system", "Be kind."), LEFT),
            {},
            "Nobody asks anything in an example. Seen: turns of system, assistant",
        ),
        ((ASK, LEFT), {"id": ""}, "The id of an example is empty. Seen: ''. Allowed: text"),
        ((ASK, LEFT), {"question": " "}, "The question of an example is empty. Seen: ' '"),
        ((ASK, LEFT), {"domain": ""}, "The domain of an example is empty"),
        ((ASK, LEFT), {"kind": ""}, "The kind of an example is empty"),
    ],
)
def test_what_is_no_example_is_refused(turns, names, text) -> None:
    with pytest.raises(PromptError) as caught:
        example(*turns, **names)
    assert text in str(caught.value)


def test_a_set_needs_examples() -> None:
    with pytest.raises(PromptError, match="There are no examples. Seen: an empty set"):
        check_set([])


def test_a_set_has_each_example_once() -> None:
    one = make_example([ASK, LEFT], domain="d", kind="k")
    with pytest.raises(PromptError) as caught:
        check_set([one, one])
    said = f"An example occurs twice in a set. Seen: {one.id}: 'Left, I think.'"
    assert str(caught.value).startswith(said)


def test_a_set_has_more_than_one_answer() -> None:
    """Case and spacing make no other answer; a single example is no set of like answers."""
    made = [
        make_example([Turn("user", str(number)), Turn("assistant", answer)], domain="d", kind="k")
        for number, answer in enumerate(("Left, I think.", "left,  I THINK.\n", "Right."))
    ]
    check_set(made)
    check_set(made[:1])
    with pytest.raises(PromptError) as caught:
        check_set(made[:2])
    said = "All answers of a set are alike. Seen: 2 times 'Left, I think.'. Allowed: at least two"
    assert str(caught.value).startswith(said)


def test_long_texts_are_quoted_by_their_beginning() -> None:
    assert shortened("a" * 80) == repr("a" * 80)
    assert shortened("a" * 81) == repr("a" * 79 + "…")
