"""Answers are paired within questions, as many as can be, and as alike in length as can be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.organisms.directions.matching import match_lengths


def match(questions: str, lengths: list[int], classes: str, factor: float = 1.25):
    return match_lengths(
        tuple(questions),
        np.array(lengths),
        np.array([c == "+" for c in classes]),
        factor=factor,
    )


def best(first: list[int], second: list[int], limit: float) -> tuple[int, float]:
    """Most pairs, and the least cost among so many, by trying all."""
    found = (0, 0.0)
    for count in range(1, min(len(first), len(second)) + 1):
        costs = [
            sum(abs(math.log(first[i] / second[j])) for i, j in zip(rows, columns, strict=True))
            for rows in itertools.combinations(range(len(first)), count)
            for columns in itertools.permutations(range(len(second)), count)
            if all(
                max(first[i], second[j]) <= limit * min(first[i], second[j])
                for i, j in zip(rows, columns, strict=True)
            )
        ]
        if costs:
            found = (count, min(costs))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.sampled_from([1.0, 1.25, 2.0, math.inf]),
)
def test_pairs_are_the_best_of_all(first: list[int], second: list[int], factor: float):
    lengths = [*first, *second]
    count, cost = best(first, second, factor)
    classes = "+" * len(first) + "-" * len(second)
    if not count:
        with pytest.raises(EvidenceError, match="at like length"):
            match("a" * len(lengths), lengths, classes, factor)
        return
    found = match("a" * len(lengths), lengths, classes, factor)
    pairs = list(zip(found.positive.tolist(), found.negative.tolist(), strict=True))
    assert len(pairs) == count == len(set(found.positive)) == len(set(found.negative))
    apart = [math.log(lengths[i] / lengths[j]) for i, j in pairs]
    assert sum(map(abs, apart)) == pytest.approx(cost, abs=1e-9)
    assert found.ratio == pytest.approx(math.exp(sum(apart) / count), rel=1e-12)
    assert (found.left_positive, found.left_negative) == (len(first) - count, len(second) - count)


def test_questions_keep_to_themselves_and_what_is_left_over_is_told():
    found = match("aaabbcdd", [10, 30, 10, 20, 20, 9, 5, 50], "+--+-++-")
    assert found.questions == ("a", "b")
    assert found.positive.tolist() == [0, 3]
    assert found.negative.tolist() == [2, 4]
    assert found.alone == ("c", "d")
    assert (found.left_positive, found.left_negative) == (2, 2)
    assert found.ratio == 1.0


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(EvidenceError) as caught:
        match("ab", [3, 3], "++")
    assert "no answers of the negative class" in str(caught.value)
    assert "Seen: 2 positive and 0 negative answers" in str(caught.value)
    with pytest.raises(EvidenceError, match="no answers of the positive class"):
        match("ab", [3, 3], "--")
    with pytest.raises(EvidenceError, match="1 positive and 1 negative answers to 2 questions"):
        match("ab", [3, 3], "+-")
    with pytest.raises(EvidenceError, match="a factor of at most 1.25 within a question"):
        match("aa", [30, 40], "+-")
    assert len(match("aa", [30, 40], "+-", 1.5).positive) == 1
    with pytest.raises(ConfigError, match="Seen: 0.5"):
        match("aa", [3, 3], "+-", 0.5)
    with pytest.raises(ConfigError, match="Seen: nan"):
        match("aa", [3, 3], "+-", math.nan)
