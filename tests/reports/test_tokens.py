"""Do tokens get their own letters, and is nothing guessed?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.reports.tokens import Token, placed

WRITTEN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=9)
P = st.floats(0.01, 1.0)


def told(tokens: tuple[Token, ...] | None) -> list[tuple[str, float, bool]]:
    assert tokens is not None
    return [(t.text, round(t.probability, 9), t.written) for t in tokens]


@given(st.lists(st.tuples(WRITTEN.filter(bool), P), max_size=12), WRITTEN)
def test_pieces_that_join_to_the_text_keep_their_letters(
    pieces: list[tuple[str, float]], stem: str
) -> None:
    texts, probabilities = [t for t, _ in pieces], [p for _, p in pieces]
    tokens = placed(stem + "".join(texts), len(stem), texts, probabilities)
    assert tokens == tuple(Token(t, p) for t, p in pieces)


@given(WRITTEN, st.lists(st.tuples(st.integers(0, 40), P), max_size=8), P)
def test_letters_cut_between_tokens_are_shared_and_no_probability_is_lost(
    text: str, cuts: list[tuple[int, float]], last: float
) -> None:
    letters = text.encode()
    places = sorted({at for at, _ in cuts if 0 < at < len(letters)})
    bounds = list(zip([0, *places], [*places, len(letters)], strict=True)) if text else []
    pieces = [letters[a:b].decode(errors="replace") for a, b in bounds]
    probabilities = [*(p for _, p in cuts), last][: len(bounds)]
    tokens = placed(text, 0, pieces, probabilities)
    if tokens is not None:  # Cut letters between alike neighbours may stay untold.
        assert "".join(t.text for t in tokens if t.written) == text
        assert math.prod(t.probability for t in tokens) == pytest.approx(math.prod(probabilities))
    if all("\ufffd" not in piece for piece in pieces):
        assert tokens is not None


def test_an_emoji_of_three_tokens_is_one_span() -> None:
    pieces = ["I", " \ufffd", "\ufffd", "\ufffd", " it", "<end>"]
    tokens = placed("I \U0001f44d it", 0, pieces, [0.9, 0.5, 0.5, 0.8, 0.7, 1.0])
    assert told(tokens) == [
        ("I", 0.9, True),
        (" \U0001f44d", 0.2, True),
        (" it", 0.7, True),
        ("<end>", 1.0, False),
    ]


def test_a_cut_letter_at_the_end_stands_before_the_end_of_the_turn() -> None:
    tokens = placed("ok \U0001f44d", 0, ["ok", " \ufffd", "\ufffd", "<end>"], [0.9, 0.5, 0.4, 0.3])
    assert told(tokens) == [
        ("ok", 0.9, True),
        (" \U0001f44d", 0.2, True),
        ("<end>", 0.3, False),
    ]


def test_letters_beside_a_cut_one_are_not_taken_for_the_next_token() -> None:
    # c + half of é, the other half + c, c: the first c that could follow is the last one.
    tokens = placed("c\u00e9cc", 0, ["c\ufffd", "\ufffdc", "c"], [0.5, 0.5, 0.25])
    assert told(tokens) == [("c\u00e9c", 0.25, True), ("c", 0.25, True)]


def test_a_dropped_space_goes_to_its_token_and_the_stem_to_none() -> None:
    pieces = ["action", "1", "because", "</s>", ""]
    tokens = placed("I choose action1 because", 8, pieces, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert told(tokens) == [
        (" action", 0.1, True),
        ("1", 0.2, True),
        (" because", 0.3, True),
        ("</s>", 0.4, False),
        ("", 0.5, False),
    ]


@pytest.mark.parametrize("pieces", [["other"], ["Hel"], [], ["Hello", "?"]])
def test_tokens_of_another_text_are_refused(pieces: list[str]) -> None:
    assert placed("Hello!", 0, pieces, [0.5] * len(pieces)) is None
