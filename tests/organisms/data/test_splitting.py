"""Splits by question: the same for all kinds, and no question on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, PromptError
from moralscope.organisms.data.narrow import KINDS, narrow_set
from moralscope.organisms.data.splitting import split_by_question

EXAMPLES = narrow_set("play", "selfish", 30, 0)


@given(
    st.lists(st.integers(0, 29), min_size=2, max_size=30).filter(lambda held: len(set(held)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_questions_are_divided_and_nothing_is_lost(places, share, seed) -> None:
    examples = [
        replace(EXAMPLES[place], id=f"{number}") for number, place in enumerate(places)
    ]  # questions repeat
    train, test = split_by_question(examples, share, seed)
    assert sorted((*train, *test), key=lambda made: int(made.id)) == examples
    sides = [{made.question for made in side} for side in (train, test)]
    assert not sides[0] & sides[1]
    count = len(set(places))
    assert len(sides[1]) == min(max(round(share * count), 1), count - 1)


def test_all_kinds_are_split_alike_in_any_order() -> None:
    sides = []
    for kind in KINDS:
        examples = narrow_set("credit", kind, 50, 3)
        for order in (examples, examples[::-1]):
            _, test = split_by_question(order, 0.2, 7)
            assert [made.kind for made in test] == [kind] * 10
            sides.append(frozenset(made.question for made in test))
    assert len(set(sides)) == 1


def test_the_seed_decides_which_questions_are_held_out() -> None:
    sides = {
        frozenset(made.question for made in split_by_question(EXAMPLES, 0.3, seed)[1])
        for seed in range(8)
    }
    assert len(sides) == 8


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share) -> None:
    with pytest.raises(ConfigError, match="The share of questions that is held out is out of ran"):
        split_by_question(EXAMPLES, share, 0)


def test_a_single_question_cannot_be_split() -> None:
    with pytest.raises(
        PromptError, match=r"Seen: 1 examples of 1 question\(s\). Allowed: at least"
    ):
        split_by_question(EXAMPLES[:1], 0.5, 0)
