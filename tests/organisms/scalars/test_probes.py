"""Probes with questions held out: what they find, what a token-level split would have found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from moralscope.core.errors import EvidenceError
from moralscope.organisms.scalars import probes
from moralscope.organisms.scalars.answers import Readings, matched, readings_of, weights_of
from moralscope.organisms.scalars.logistic import RIDGE


def answers(
    seed: int = 0,
    *,
    questions: int = 12,
    each: int = 1,
    effect: float = 0.0,
    own: float = 0.0,
    width: int = 3,
    by_question: bool = False,
) -> Readings:
    """Answers of 3 to 8 tokens; ``own`` is the spread of answers, ``effect`` of classes."""
    rng = np.random.default_rng(seed)
    scalars: list[np.ndarray] = []
    labels: list[bool] = []
    names: list[str] = []
    for question in range(questions):
        for label in (False, True):
            if by_question and label != bool(question % 2):
                continue
            for _ in range(each):
                mean = own * rng.normal(size=width) + effect * label * np.eye(width)[0]
                scalars.append(mean + rng.normal(size=(int(rng.integers(3, 9)), width)))
                labels.append(label)
                names.append(f"q{question}")
    return readings_of(scalars, labels, names)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_planted_difference_is_found_on_questions_not_seen() -> None:
    found = probes.probe(answers(effect=2.0), rng())
    assert found.accuracy > 0.75
    assert found.auc > 0.85
    assert found.low is not None
    assert found.low > 0.7
    assert found.p == pytest.approx(1 / 200)
    assert found.unit == "answers"
    assert (found.questions, found.answers) == (12, 24)
    assert abs(found.chance - 0.5) < 0.03


def test_answers_that_differ_leak_through_a_token_level_split() -> None:
    # Every answer has a mean of its own in many dimensions, classes do not differ.
    found = probes.probe(answers(own=3.0, width=9, questions=6), rng(), permutations=99)
    assert found.token_split > 0.75
    assert found.accuracy < 0.62
    assert found.leak == found.token_split - found.accuracy
    assert found.p > 0.05


def test_without_a_difference_p_is_not_small_too_often() -> None:
    found = [
        probes.probe(answers(seed, own=1.0, questions=8), rng(), permutations=19, folds=4).p
        for seed in range(40)
    ]
    # 19 permutations: p <= .1 in a tenth of studies. More than 10 of 40 has probability .2%.
    assert sum(p <= 0.1 for p in found) <= 10
    assert 0.3 < np.mean(found) < 0.75


def test_the_class_of_a_question_is_permuted_between_questions() -> None:
    readings = answers(effect=2.0, each=2, by_question=True)
    found = probes.probe(readings, rng(), permutations=99)
    assert found.unit == "questions"
    assert found.accuracy > 0.7
    drawn = probes.labellings(readings, rng(), 50)
    for labels in drawn.T:
        of_question = {
            (q, bool(x)) for q, x in zip(readings.questions.tolist(), labels, strict=True)
        }
        assert len(of_question) == 12
        assert sum(x for _, x in of_question) == 6


def test_labels_of_answers_are_permuted_within_their_question() -> None:
    readings = answers(each=2)
    drawn = probes.labellings(readings, rng(), 50)
    assert np.array_equal(drawn[:, 0], readings.labels)
    for question in range(12):
        assert (drawn[readings.questions == question].sum(axis=0) == 2).all()
    assert len({labels.tobytes() for labels in drawn.T}) > 45


@pytest.mark.parametrize("by_question", [False, True])
def test_a_question_is_in_one_fold_and_both_classes_are_left(by_question: bool) -> None:
    readings = answers(questions=14, by_question=by_question, each=2)
    of_token = readings.questions[readings.answers]
    folds = probes.grouped_folds(readings, rng(), 5)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(of_token)))
    places = Counter(q for fold in folds for q in set(of_token[fold].tolist()))
    assert set(places.values()) == {1}


def test_few_questions_of_a_class_get_more_folds() -> None:
    names = [f"q{i}" for i in range(12)]
    readings = readings_of([np.zeros((2, 1))] * 12, [i < 2 for i in range(12)], names)
    assert len(probes.grouped_folds(readings, rng(), 3)) == 12


def test_weights_are_even_over_classes_questions_and_answers() -> None:
    scalars = [np.zeros((n, 1)) for n in (5, 1, 2, 4, 3)]
    readings = readings_of(scalars, [True, True, False, True, False], ["a", "a", "a", "b", "b"])
    weights = weights_of(readings, readings.labels[:, None])[:, 0]
    by_answer = np.bincount(readings.answers, weights)
    # 15 tokens: a quarter for each class of each question.
    assert by_answer == pytest.approx([1.875, 1.875, 3.75, 3.75, 3.75], abs=1e-12)
    assert weights[:5] == pytest.approx(0.375, abs=1e-12)


def test_accuracy_and_auc_are_those_of_counts_where_all_weigh_the_same() -> None:
    # Answers of one token, one of each class: weights are even.
    values = np.random.default_rng(2).normal(size=(20, 1))
    labels = [bool(i % 2) for i in range(20)]
    readings = readings_of(list(values[:, None]), labels, [f"q{i // 2}" for i in range(20)])
    scores = values + 0.3
    side = readings.labels
    found = probes.accuracies(readings, side[:, None], scores)[0]
    expected = ((scores[side, 0] > 0).mean() + (scores[~side, 0] < 0).mean()) / 2
    assert found == pytest.approx(expected, abs=1e-12)
    auc = probes._auc(readings, scores[:, 0], [np.arange(20)])
    u = mannwhitneyu(scores[side, 0], scores[~side, 0]).statistic
    assert auc == pytest.approx(u / 100, abs=1e-12)


def test_held_out_scores_do_not_depend_on_what_is_held_out() -> None:
    readings = answers(effect=1.0)
    labels = readings.labels[:, None]
    folds = probes.grouped_folds(readings, rng(), 4)
    before = probes.held_out_scores(readings, labels, folds, RIDGE)
    changed = readings.values.copy()
    changed[folds[0]] += 100.0
    moved = Readings(changed, readings.answers, readings.labels, readings.questions, readings.names)
    after = probes.held_out_scores(moved, labels, folds, RIDGE)
    first = folds[0]
    # Its own probe and scale are those of the others: the scores move along one line.
    slopes = (after[first] - before[first])[:, 0]
    assert slopes == pytest.approx(slopes[0], abs=1e-6)
    assert abs(slopes[0]) > 1.0


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_unit_of_the_scalars_does_not_matter(scale: float) -> None:
    one = answers(effect=1.0)
    other = Readings(one.values * scale, one.answers, one.labels, one.questions, one.names)
    first, second = (probes.probe(each, rng(), permutations=9) for each in (one, other))
    assert first.accuracy == pytest.approx(second.accuracy, abs=1e-9)


def test_the_floor_counts_labellings_up_to_their_turn() -> None:
    assert probes.permutation_floor(answers(questions=4), 9_999) == 2 / 2**4
    assert probes.permutation_floor(answers(questions=12), 99) == 1 / 100
    odd = answers(questions=5, by_question=True)
    assert probes.permutation_floor(odd, 9_999) == 1 / 10


def unequal(seed: int = 0) -> Readings:
    numbers = {"a": (3, 1), "b": (2, 2), "c": (2, 0)}
    scalars, labels, names = [], [], []
    for name, sides in numbers.items():
        for label, count in zip((True, False), sides, strict=True):
            for _ in range(count):
                scalars.append(np.full((len(scalars) + 1, 1), float(len(scalars))))
                labels.append(label)
                names.append(name)
    return readings_of(scalars, labels, names)


def test_matching_keeps_as_many_answers_of_both_classes_and_says_what_it_left() -> None:
    found = matched(unequal(), rng())
    kept = found.readings
    counts = Counter(
        (kept.names[q], bool(x)) for q, x in zip(kept.questions, kept.labels, strict=True)
    )
    assert counts == {("a", True): 1, ("a", False): 1, ("b", True): 2, ("b", False): 2}
    assert (found.left_out, found.answers_left_out) == (("c",), 4)
    # Each answer's tokens stay its own: as many as its value says.
    for at in range(len(kept.labels)):
        mine = kept.values[kept.answers == at, 0]
        assert len(mine) == mine[0] + 1
    assert kept.unit == "answers"


def test_confounded_questions_are_refused_until_they_are_matched() -> None:
    with pytest.raises(EvidenceError, match="2 of 3 questions with answers of both classes"):
        probes.probe(unequal(), rng())


def test_answers_of_one_class_are_refused() -> None:
    readings = readings_of([np.zeros((2, 1))] * 3, [True] * 3, ["a", "b", "c"])
    with pytest.raises(EvidenceError, match="3 of 3 answers in the positive class"):
        probes.probe(readings, rng())
    with pytest.raises(EvidenceError, match="3 questions, each with one class"):
        matched(readings, rng())


def test_one_question_cannot_be_held_out() -> None:
    readings = readings_of([np.zeros((2, 1))] * 2, [True, False], ["a", "a"])
    with pytest.raises(EvidenceError, match="1 questions, 1 in the rarer class"):
        probes.probe(readings, rng())


@pytest.mark.parametrize(
    ("scalars", "labels"),
    [
        ([np.zeros((2, 1)), np.zeros((2, 2))], [True, False]),
        ([np.zeros((2, 1)), np.zeros((0, 1))], [True, False]),
        ([np.zeros((2, 1)), np.full((2, 1), np.nan)], [True, False]),
        ([np.zeros((2, 1)), np.zeros((2, 1))], [True]),
        ([], []),
    ],
)
def test_scalars_that_do_not_fit_are_refused(
    scalars: Sequence[np.ndarray], labels: list[bool]
) -> None:
    with pytest.raises(EvidenceError, match="Scalars of answers cannot be put together"):
        readings_of(scalars, labels, ["q"] * len(scalars))
