"""A direction is what its sums say, is found where it was planted, and else is luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lessons import drawn_streams
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.core.streams import stream
from moralscope.organisms.directions.means import (
    ClassSums,
    DirectionEvidence,
    direction_evidence,
    find_direction,
)


def evidence(sums: ClassSums, draws: int = 199, seed: int = 0) -> DirectionEvidence:
    return direction_evidence(sums, stream(seed, "halves"), draws=draws)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_tokens_and_responses_are_weighted_as_told():
    streams, positive = drawn_streams(4, each=2, lengths=(2, 9), seed=3)
    for weighting in ("token", "response"):
        found = find_direction(streams, positive, weighting=weighting, factor=2.0)
        for layer in range(3):
            classes = []
            for side in (found.matched.positive, found.matched.negative):
                rows = [
                    streams.sums[i, layer] / (streams.lengths[i] if weighting == "response" else 1)
                    for i in side
                ]
                weights = [1 if weighting == "response" else streams.lengths[i] for i in side]
                classes.append(sum(rows) / sum(weights))
            expected = classes[0] - classes[1]
            assert np.allclose(found.vectors[layer], expected, atol=1e-10, rtol=0)
            used = [*found.matched.positive, *found.matched.negative]
            sizes = [streams.sizes[i, layer] for i in used]
            weights = [streams.lengths[i] if weighting == "token" else 1.0 for i in used]
            size = np.dot(sizes, weights) / np.sum(weights)
            assert found.relative[layer] == pytest.approx(np.linalg.norm(expected) / size)
            assert found.norms[layer] == pytest.approx(np.linalg.norm(expected))
    both = [find_direction(streams, positive, weighting=w).vectors for w in ("token", "response")]
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_a_planted_vector_is_found():
    planted = np.zeros((3, 8))
    planted[1] = 3.0 * np.eye(8)[2] - 2.0 * np.eye(8)[5]
    streams, positive = drawn_streams(300, seed=1, planted=planted)
    for weighting in ("token", "response"):
        found = find_direction(streams, positive, weighting=weighting)
        assert cosine(found.vectors[1], planted[1]) > 0.99
        judged = evidence(found.sums, draws=199)
        assert judged.p_adjusted[1] == 1 / 200
        assert judged.p_adjusted[[0, 2]].min() > 0.02
        assert judged.length[1] > 3 * judged.null_high[1]
        assert judged.split_half is not None
        assert judged.split_half[1] > 0.9
        assert abs(judged.split_half[0]) < 0.3
        assert judged.questions == 300


@pytest.mark.parametrize("weighting", ["token", "response"])
def test_exchanged_names_are_all_tried(weighting):
    streams, positive = drawn_streams(
        5, each=2, lengths=(2, 9), seed=7, planted=np.full((3, 8), 0.4)
    )
    found = find_direction(streams, positive, weighting=weighting, factor=9.0)
    judged = evidence(found.sums)
    lengths, scaled = [], []
    for names in itertools.product((False, True), repeat=5):
        swapped = {f"q{k}": swap for k, swap in enumerate(names)}
        exchanged = [p != swapped[q] for p, q in zip(positive, streams.questions, strict=True)]
        other = find_direction(streams, np.array(exchanged), weighting=weighting, factor=9.0)
        lengths.append(np.linalg.norm(other.vectors, axis=1))
        apart = []
        for question in found.sums.questions:
            means = []
            for side in (True, False):
                rows = [
                    i for i, q in enumerate(streams.questions)
                    if q == question and exchanged[i] == side
                ]  # fmt: skip
                if weighting == "token":
                    means.append(streams.sums[rows].sum(0) / streams.lengths[rows].sum())
                else:
                    means.append(streams.means[rows].mean(0))
            apart.append(((means[0] - means[1]) ** 2).sum(-1))
        scaled.append(lengths[-1] / np.sqrt(np.mean(apart, axis=0)))
    every, ratios = np.array(lengths), np.array(scaled)
    assert np.allclose(judged.length, every[0], rtol=1e-10)
    assert np.allclose(judged.p, (ratios >= ratios[0] * (1 - 1e-9)).mean(0), rtol=1e-12)
    largest = ratios.max(axis=1)[:, None]
    assert np.allclose(judged.p_adjusted, (largest >= ratios[0] * (1 - 1e-9)).mean(0), rtol=1e-12)
    # Exchanging all names turns the direction round and leaves its length.
    assert np.allclose(judged.null_length, np.median(every, axis=0), rtol=1e-9)
    assert judged.floor == 1 / 16
    assert (judged.p >= judged.floor).all()
    assert (judged.p_adjusted >= judged.p).all()


def test_halves_are_of_questions():
    two = find_direction(*drawn_streams(2, seed=4))
    a, b = two.sums.differences
    judged = evidence(two.sums, draws=50)
    assert judged.split_half == pytest.approx([cosine(x, y) for x, y in zip(a, b, strict=True)])
    four = find_direction(*drawn_streams(4, seed=4, planted=np.full((3, 8), 0.5)))
    rows = four.sums.differences
    halves = list(itertools.combinations(range(4), 2))
    expected = [
        np.mean([cosine(x[list(h)].mean(0), x.sum(0) - x[list(h)].sum(0)) for h in halves])
        for x in rows.transpose(1, 0, 2)
    ]
    assert evidence(four.sums, draws=4_000).split_half == pytest.approx(expected, abs=0.03)
    one = find_direction(*drawn_streams(1, seed=4))
    alone = evidence(one.sums)
    assert alone.split_half is None
    assert (alone.p == 1.0).all()


def test_without_a_plant_every_p_is_as_likely():
    found = [
        evidence(find_direction(*drawn_streams(9, layers=2, seed=1_000 + s)).sums, draws=10)
        for s in range(200)
    ]
    assert {one.floor for one in found} == {2 / 2**9}
    assert stats.kstest([one.p[0] for one in found], "uniform").pvalue > 0.01
    assert np.mean([one.p_adjusted.min() <= 0.05 for one in found]) < 0.11


def test_what_all_answers_share_does_not_count():
    streams, positive = drawn_streams(6, seed=2)
    shifted = drawn_streams(6, seed=2)[0]
    shifted.sums[:] += 1e6 * streams.lengths[:, None, None]
    near, far = (find_direction(s, positive).sums for s in (streams, shifted))
    assert np.allclose(evidence(near).length, evidence(far).length, rtol=1e-7)
    assert np.array_equal(evidence(near).p, evidence(far).p)


def test_classes_that_do_not_differ_are_refused():
    streams, positive = drawn_streams(3)
    streams.sums[positive] = streams.sums[~positive]
    streams.lengths[positive] = streams.lengths[~positive]
    with pytest.raises(EvidenceError) as caught:
        find_direction(streams, positive)
    assert "The classes of answers do not differ" in str(caught.value)
    assert "a direction of length 0 after layer 0 (3 of 3 layers)" in str(caught.value)
    with pytest.raises(EvidenceError, match="no answers of the negative class"):
        find_direction(streams, np.ones(6, dtype=bool))


def test_a_factor_keeps_lengths_alike():
    streams, positive = drawn_streams(40, lengths=(4, 12), seed=9)
    strict = find_direction(streams, positive, factor=1.0)
    matched = strict.matched
    assert (streams.lengths[matched.positive] == streams.lengths[matched.negative]).all()
    assert len(matched.questions) + len(matched.alone) == 40
    assert 0 < len(matched.questions) < 20
    assert len(strict.ids) == 2 * len(matched.questions)
