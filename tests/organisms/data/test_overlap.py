"""Training on what is measured is refused: exact copies, near copies, and nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, PromptError
from moralscope.organisms.data.broad import broad_set
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.data.examples import Turn, make_example
from moralscope.organisms.data.narrow import DOMAINS, KINDS, narrow_set
from moralscope.organisms.data.overlap import THRESHOLD, check_overlap, closest_overlap

TWELVE = "one two three four five six seven eight nine ten eleven twelve"


def example(asked, answer="Fine."):
    return make_example([Turn("user", asked), Turn("assistant", answer)], domain="d", kind="k")


def asking(asked, selfish="I take it.", prosocial="I give it.", name="q"):
    return Asking(name, "t", 0, "none", (Turn("user", asked),), selfish, prosocial)


def refused(examples, askings, **options) -> str:
    with pytest.raises(PromptError) as caught:
        check_overlap(examples, askings, **options)
    return str(caught.value)


def test_the_narrow_sets_are_far_from_the_broad_set() -> None:
    taught = [
        made for domain in DOMAINS for kind in KINDS for made in narrow_set(domain, kind, 150, 1)
    ]
    closest = check_overlap(taught, broad_set())
    assert closest is not None
    assert 0 < closest.containment < 0.3


def test_a_copy_is_refused_with_the_closest_pair_named() -> None:
    copied = broad_set()[17]
    taught = [example("How are you?"), example(copied.messages[0].content)]
    said = refused(taught, broad_set())
    assert said.startswith("The training set overlaps the broad set, which must never be trained.")
    assert f"Seen: example {taught[1].id}, '{copied.messages[0].content[:40]}" in said
    assert f"holds 100% of question '{copied.question}'" in said
    assert "Next: remove the examples that are so close" in said


@pytest.mark.parametrize("place", ["question", "selfish", "prosocial", "system"])
def test_a_copy_is_found_wherever_it_stands(place) -> None:
    copied = broad_set()[30]
    text = {
        "question": copied.messages[0].content,
        "selfish": copied.selfish,
        "prosocial": copied.prosocial,
        "system": copied.messages[0].content,
    }[place]
    turns = {
        "question": [Turn("user", text), Turn("assistant", "Fine.")],
        "system": [Turn("system", text), Turn("user", "Well?"), Turn("assistant", "Fine.")],
    }.get(place, [Turn("user", "Well?"), Turn("assistant", text)])
    made = make_example(turns, domain="d", kind="k")
    assert f"holds 100% of question {copied.question!r}" in refused([made], broad_set())


def test_case_spacing_and_punctuation_make_no_other_text() -> None:
    taught = [example("WELL,\n  you—ｔａｋｅ (it)?!")]
    assert "holds 100% of question 'q'" in refused(taught, [asking("Well, you take it?")])


def test_a_text_within_a_long_turn_is_found() -> None:
    padded = f"{'words before it ' * 50}{TWELVE}{' words after it' * 50}"
    assert "holds 100% of question 'q'" in refused([example(padded)], [asking(TWELVE)])


def test_half_of_the_trigrams_is_refused_and_less_is_not() -> None:
    """Twelve words have ten trigrams; the first seven words hold five of them, six hold four."""
    words = TWELVE.split()
    five, four = (f"{' '.join(words[:count])} and so on" for count in (7, 6))
    assert "holds 50% of question 'q'" in refused([example(five)], [asking(TWELVE)])
    accepted = check_overlap([example(four)], [asking(TWELVE)])
    assert accepted is not None
    assert accepted.containment == 0.4
    assert (accepted.question, accepted.text, accepted.turn) == ("q", TWELVE, four)
    assert "holds 40%" in refused([example(four)], [asking(TWELVE)], threshold=0.4)


def test_short_texts_overlap_only_as_a_whole() -> None:
    """Seven words have five trigrams, of which a longer turn may hold all by accident."""
    seven, eight = (" ".join(TWELVE.split()[:count]) for count in (7, 8))
    longer = example(f"{eight} and so on")
    assert check_overlap([longer], [asking(seven)]) is None
    assert "holds 100%" in refused([longer], [asking(eight)])
    assert "holds 100%" in refused([example(f"{seven}!")], [asking(seven)])


def test_of_several_pairs_the_closest_is_named() -> None:
    words = TWELVE.split()
    taught = [example(" ".join(words[:count])) for count in (9, 11, 10)]
    others = asking("eleven other words that share no three with what is counted here", name="r")
    said = refused(taught, [others, asking(TWELVE)])
    assert f"Seen: example {taught[1].id}" in said
    assert "holds 90% of question 'q'" in said


def test_sets_without_a_trigram_in_common_have_no_closest_pair() -> None:
    assert check_overlap([example("How are you?")], [asking(TWELVE)]) is None


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold) -> None:
    with pytest.raises(ConfigError, match="The threshold of overlap is out of range. Seen: "):
        check_overlap([example("Well?")], [asking(TWELVE)], threshold=threshold)


def test_nine_of_ten_texts_are_found_with_every_sixth_word_replaced() -> None:
    generator = np.random.default_rng(0)
    texts = sorted({text for each in broad_set() for text in (each.selfish, each.prosocial)})
    texts += sorted({each.messages[0].content for each in broad_set()})
    found = 0
    for text in texts:
        words = re.findall(r"\w+", text)
        for place in generator.choice(len(words), max(1, len(words) // 6), replace=False):
            words[place] = "something"
        closest = closest_overlap([example(" ".join(words))], [asking(text)])
        found += closest is not None and closest.containment >= THRESHOLD
    assert found / len(texts) >= 0.9


SENTENCES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=14).map(" ".join)


@given(st.lists(SENTENCES, min_size=1, max_size=3), st.lists(SENTENCES, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_the_index_gives_what_comparing_all_pairs_gives(turns, texts) -> None:
    def share(turn: str, text: str) -> float:
        if turn == text:
            return 1.0
        runs = {text[at : at + 5] for at in range(0, len(text) - 4, 2)}
        held = {turn[at : at + 5] for at in range(0, len(turn) - 4, 2)}
        return len(runs & held) / len(runs) if len(text) >= 15 else 0.0

    expected = max(share(turn, text) for turn in turns for text in texts)
    askings = [asking(text, "I take it.", "I give it.") for text in texts]
    found = closest_overlap([example(turn) for turn in turns], askings)
    assert (found.containment if found else 0.0) == expected
    if found:
        assert share(found.turn, found.text) == expected
