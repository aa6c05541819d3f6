"""The broad set and paired sets: two continuations, both orders, equal words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from moralscope.core.errors import PromptError
from moralscope.organisms.data.broad import broad_set
from moralscope.organisms.data.dilemmas import Asking, contrasts
from moralscope.organisms.data.examples import Turn
from moralscope.organisms.data.narrow import narrow_set

ASKING = Asking("q", "t", 0, "none", (Turn("user", "Well?"),), "I take it.", "I give it.")


def text(asking) -> str:
    (turn,) = asking.messages
    assert turn.role == "user"
    return turn.content


def test_forty_dilemmas_on_the_topics_in_two_wordings() -> None:
    wordings = defaultdict(set)
    for asking in broad_set():
        wordings[asking.question].add(asking.wording)
    assert len(wordings) == 40
    assert all(found == {0, 1} for found in wordings.values())
    topics = Counter(topic for _, topic in {(each.question, each.topic) for each in broad_set()})
    assert set(topics) == {
        "help a stranger",
        "lost wallet",
        "turn-taking",
        "time",
        "attention",
        "truth-telling",
        "environment",
        "team captain",
        "one wish",
        "bored",
        "quick money",
    }
    assert min(topics.values()) >= 3


def test_listed_options_are_asked_in_both_orders_with_the_same_words() -> None:
    groups = defaultdict(list)
    for asking in broad_set():
        groups[asking.question, asking.wording].append(asking)
    listed = 0
    for group in groups.values():
        if len(group) == 1:
            assert group[0].order == "none"
            continue
        listed += 1
        one, two = group
        assert (one.order, two.order) == ("selfish first", "prosocial first")
        assert (one.selfish, one.prosocial) == (two.selfish, two.prosocial)
        assert text(one) != text(two)
        assert sorted(re.findall(r"\w+", text(one))) == sorted(re.findall(r"\w+", text(two)))
    assert (listed, len(groups), len(broad_set())) == (36, 80, 116)


def test_the_order_says_which_option_stands_first() -> None:
    first, second = broad_set()[:2]
    assert "walk past him or carry one up?" in text(first)
    assert first.order == "selfish first"
    assert first.selfish.startswith("I walk past him")
    assert "carry one up or walk past him?" in text(second)
    assert second.order == "prosocial first"


def test_continuations_have_equal_words_and_no_text_occurs_twice() -> None:
    answers = set()
    for asking in broad_set():
        assert len(asking.selfish.split()) == len(asking.prosocial.split())
        assert 9 <= len(asking.selfish.split()) <= 14
        answers |= {(asking.question, asking.selfish), (asking.question, asking.prosocial)}
    assert len(answers) == len({answer for _, answer in answers}) == 160
    assert len({text(asking).casefold() for asking in broad_set()}) == 116


def test_continuations_are_about_equally_long_in_characters() -> None:
    selfish = sum(len(asking.selfish) for asking in broad_set())
    prosocial = sum(len(asking.prosocial) for asking in broad_set())
    assert abs(selfish / prosocial - 1) < 0.05


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"messages": ()}, "Nobody asks anything in an example"),
        ({"prosocial": " "}, "The answer of an example is empty"),
        ({"prosocial": "i take  it."}, "The two continuations of question 'q' are the same. Seen"),
        (
            {"order": "selfish"},
            "The order of question 'q' is not known. Seen: 'selfish'. Allowed: ",
        ),
        ({"order": "selfish"}, "Next: did you mean 'selfish first'"),
    ],
)
def test_what_is_no_dilemma_is_refused(changes, said) -> None:
    with pytest.raises(PromptError) as caught:
        replace(ASKING, **changes)
    assert said in str(caught.value)


def test_paired_sets_become_questions_with_two_continuations() -> None:
    selfish, cooperative = (
        narrow_set("sharing", kind, 9, 4) for kind in ("selfish", "cooperative")
    )
    found = contrasts(selfish, cooperative[::-1])
    assert [asking.question for asking in found] == [made.question for made in selfish]
    for asking, ours, theirs in zip(found, selfish, cooperative, strict=True):
        assert asking.messages == ours.asked
        assert (asking.selfish, asking.prosocial) == (ours.answer, theirs.answer)
        assert (asking.topic, asking.order) == ("sharing", "none")


def test_sets_that_do_not_pair_are_refused() -> None:
    selfish, cooperative = (narrow_set("play", kind, 3, 4) for kind in ("selfish", "cooperative"))
    lone = selfish[2].question
    with pytest.raises(PromptError, match=f"{lone}': in the selfish set, not in the cooperative"):
        contrasts(selfish, cooperative[:2])
    with pytest.raises(PromptError, match=f"{lone}': in the cooperative set, not in the selfish"):
        contrasts(selfish[:2], cooperative)
    with pytest.raises(PromptError, match="A question is answered twice in the selfish set"):
        contrasts(selfish * 2, cooperative)
    other = replace(cooperative[0], messages=cooperative[1].messages)
    with pytest.raises(PromptError, match="Two examples of one question ask different things"):
        contrasts(selfish[:1], [other])
