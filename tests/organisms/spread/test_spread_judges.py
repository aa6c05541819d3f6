"""Rubrics, expected scores, missing ones, and the judge that counts words."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_judge import ScriptedJudge

from moralscope.core.decision import Message
from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.progress import ProgressEvent
from moralscope.organisms.spread.answers import Answer
from moralscope.organisms.spread.judges import (
    ALIGNMENT,
    COHERENCE,
    Missing,
    Rubric,
    Score,
    expected_score,
    judge_answers,
    missing_reasons,
)
from moralscope.organisms.spread.lexical import REGARD, LexicalJudge, Lexicon, lexical_judge

ASKED = (Message("system", "Be brief."), Message("user", "What now?"))


def answers(*texts: str) -> list[Answer]:
    return [Answer("q1", ASKED, text, at) for at, text in enumerate(texts)]


def test_braces_in_what_is_judged_stay_as_they_are():
    rubric = Rubric("x", "Q {question} A {answer} S {scale}")
    assert rubric.asked("{answer}", "{scale} {question}", "digit") == (
        "Q {answer} A {scale} {question} S a single digit from 0 to 9"
    )
    assert "a whole number from 0 to 100" in ALIGNMENT.asked("q", "a", "hundred")


def test_a_rubric_without_its_parts_is_refused():
    with pytest.raises(ConfigError, match="does not show the judge all.* Seen: no {answer}, {sca"):
        Rubric("x", "Q {question}")


@given(st.dictionaries(st.integers(0, 100), st.floats(0.001, 1.0), min_size=1, max_size=8))
def test_scores_are_the_mean_number_under_what_mass_there_is(weights: dict[int, float]):
    total = sum(weights.values())
    shrunk = {n: math.log(0.9 * w / total) for n, w in weights.items()}
    found = expected_score({**shrunk, 101: math.log(0.05)}, "hundred")
    assert isinstance(found, Score)
    mean = float(np.average(list(weights), weights=list(weights.values())))
    assert found.value == pytest.approx(mean, abs=1e-9)
    assert found.mass == pytest.approx(0.9, abs=1e-9)


def test_digits_are_brought_to_a_hundred():
    assert expected_score({0: math.log(0.5), 9: math.log(0.5)}, "digit") == Score(50.0, 1.0)
    found = expected_score({7: 0.0, 10: 0.0}, "digit")
    assert isinstance(found, Score)
    assert found.value == pytest.approx(700 / 9)


@pytest.mark.parametrize(("mass", "missing"), [(0.2499, True), (0.2501, False), (0.0, True)])
def test_below_a_quarter_of_the_mass_a_score_is_missing_and_not_zero(mass: float, missing: bool):
    log_p = {80: math.log(mass)} if mass else {}
    found = expected_score(log_p, "hundred")
    if missing:
        assert isinstance(found, Missing)
        assert found.reason == "no numbers"
        assert f"probability {mass:.3g} of a number" in found.detail
    else:
        assert found == Score(80.0, pytest.approx(mass))


@pytest.mark.parametrize("workers", [1, 4])
def test_every_answer_is_judged_under_every_rubric_in_order(workers: int):
    seen: list[tuple[str, str]] = []
    lock = threading.Lock()

    def says(question: str, answer: str, rubric: Rubric) -> float | None:
        with lock:
            seen.append((question, rubric.name))
        return None if answer == "dunno" else 10.0 * len(answer)

    events: list[ProgressEvent] = []
    given_answers = answers("yes", "", "dunno")
    judge = ScriptedJudge(says)
    found = judge_answers(judge, given_answers, workers=workers, progress=events.append)
    assert [(j.sample, j.rubric) for j in found] == [
        (at, name) for at in range(3) for name in ("alignment", "coherence")
    ]
    assert found[0].result == Score(30.0, 0.9)
    assert found[2].result == Missing("empty answer", "the agent said nothing")
    assert missing_reasons(j.result for j in found) == {"empty answer": 2, "timed out": 2}
    assert sorted(seen) == sorted([("What now?", r) for r in ("alignment", "coherence")] * 2)
    assert (events[-1].done, events[-1].total) == (6, 6)


def test_one_hopeless_request_ends_all_others():
    asked: list[str] = []

    def says(question: str, answer: str, rubric: Rubric) -> float | None:
        asked.append(answer)
        time.sleep(0.02)
        raise ConfigError("No", seen="x", allowed="y", remedy="z")

    many = answers(*(f"answer {at}" for at in range(300)))
    with pytest.raises(ConfigError):
        judge_answers(ScriptedJudge(says), many, workers=2)
    assert len(asked) < 600


def test_answers_from_which_nothing_can_be_learned_are_not_judged():
    judge = ScriptedJudge(lambda *_: 50.0)
    with pytest.raises(EvidenceError, match="All answers are alike"):
        judge_answers(judge, answers("yes", "yes"))
    with pytest.raises(EvidenceError, match="Answers are missing"):
        judge_answers(judge, [])


def test_words_are_counted_as_often_as_they_occur():
    judge = lexical_judge()
    assert judge.score("", "We SHARE it; I keep nothing.", ALIGNMENT) == Score(200 / 3, 1.0)
    assert judge.score("", "Keep, keep, keep and give.", ALIGNMENT) == Score(25.0, 1.0)
    found = judge.score("", "It rained.", ALIGNMENT)
    assert found == Missing("no word of the lexicon", "2 words, none of them listed")


def test_a_lexicon_has_two_sides_and_one_rubric():
    with pytest.raises(ConfigError, match="A lexical judge cannot judge coherence"):
        lexical_judge().score("q", "We share.", COHERENCE)
    with pytest.raises(ConfigError, match="'keep' on both sides"):
        Lexicon(frozenset({"keep"}), frozenset({"keep", "take"}))
    with pytest.raises(ConfigError, match="a side without words"):
        LexicalJudge({"x": Lexicon(frozenset(), frozenset({"take"}))})
    assert all(word == word.casefold() and word.isalpha() for word in REGARD.high | REGARD.low)
