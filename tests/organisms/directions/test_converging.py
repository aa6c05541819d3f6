"""Directions converge only beyond what unrelated texts of the same agents give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from lessons import drawn_streams
from scipy.spatial import distance

from moralscope.core.errors import EvidenceError
from moralscope.core.streams import stream
from moralscope.organisms.directions.converging import ceiling, converge, cosines
from moralscope.organisms.directions.means import AnswerDirection, find_direction
from moralscope.organisms.directions.nulls import unrelated_cosines


def direction(agent: str, seed: int, planted: np.ndarray | None, **rest: str) -> AnswerDirection:
    found = find_direction(
        *drawn_streams(20, seed=seed, planted=planted, agent=agent, width=24), **rest
    )
    ids = frozenset(f"{agent} {each}" for each in found.ids)
    return dataclasses.replace(found, ids=ids)


def texts(seed: int) -> np.ndarray:
    return stream(seed, "texts").standard_normal((24, 3, 24))


NULL = unrelated_cosines(texts(1), texts(1) + 0.2 * texts(2), stream(0, "halves"), draws=999)


def test_a_shared_direction_is_found_where_it_is():
    planted = np.zeros((3, 24))
    planted[1, 3] = 4.0
    first, second = (direction(f"o{k}", k, planted) for k in range(2))
    found = converge(first, second, NULL)
    for layer in range(3):
        expected = 1 - distance.cosine(first.vectors[layer], second.vectors[layer])
        assert found.cosine[layer] == pytest.approx(expected, abs=1e-12)
        drawn = NULL.independent[:, layer]
        assert found.p[layer] == pytest.approx((1 + (drawn >= expected).sum()) / 1000, abs=1e-12)
        assert found.null_mean[layer] == pytest.approx(drawn.mean())
        assert (drawn > found.null_high[layer]).mean() == pytest.approx(0.05, abs=0.002)
    assert (found.first, found.second, found.halves) == ("o0", "o1", "independent")
    assert (found.shared_answers, found.texts, found.floor) == (0, 24, 1 / 1000)
    assert found.cosine[1] > 0.9
    assert found.p_adjusted[1] == 1 / 1000
    assert found.p_adjusted[[0, 2]].min() > 0.05
    assert (found.p_adjusted >= found.p - 1e-12).all()
    opposite = dataclasses.replace(second, vectors=-second.vectors)
    assert converge(first, opposite, NULL).p[1] == 1.0


def test_directions_of_the_same_answers_are_held_against_the_same_halves():
    planted = np.zeros((3, 24))
    planted[1, 3] = 4.0
    first, second = (direction(f"o{k}", k, planted) for k in range(2))
    same = dataclasses.replace(second, ids=first.ids | {"more"})
    found = converge(first, same, NULL)
    assert found.halves == "shared"
    assert found.shared_answers == len(first.ids)
    # Two agents that read texts alike: a cosine of .9 is no more than any difference has.
    assert found.null_mean[1] > 0.95
    assert found.p_adjusted[1] > 0.5


def test_unrelated_directions_do_not_converge():
    rejected = [
        converge(
            direction("a", 100 + k, None), direction("b", 300 + k, None), NULL
        ).p_adjusted.min()
        <= 0.05
        for k in range(80)
    ]
    assert np.mean(rejected) < 0.12


def test_the_ceiling_is_what_halves_allow():
    assert ceiling(np.array([1.0, 0.5, -0.2]), np.array([1.0, 0.5, 0.9])) == pytest.approx(
        [1.0, 2 / 3, 0.0]
    )
    # A planted direction in noise: two samples of it have about the cosine that halves foretell.
    rng = stream(4, "halves")
    truth, found, halves = np.ones(400) / 20, [], []
    for _ in range(40):
        four = truth + 0.1 * rng.standard_normal((4, 400))
        found.append(cosines(four[:2].mean(0)[None], four[2:].mean(0)[None])[0])
        halves.append([cosines(four[[k]], four[[k + 1]])[0] for k in (0, 2)])
    first, second = np.mean(halves, axis=0)
    assert np.mean(found) == pytest.approx(ceiling(first, second), abs=0.03)


def test_what_cannot_be_compared_is_refused():
    first = direction("a", 1, None)
    with pytest.raises(EvidenceError, match="Directions of models of different shape"):
        cosines(np.ones((3, 4)), np.ones((3, 5)))
    with pytest.raises(EvidenceError, match="zero after layer 1"):
        cosines(np.ones((2, 4)), np.array([[1.0] * 4, [0.0] * 4]))
    narrow = dataclasses.replace(first, vectors=first.vectors[:, :5])
    with pytest.raises(EvidenceError, match=r"\(3, 24\) and \(3, 5\)"):
        converge(first, narrow, NULL)
    token = direction("b", 2, None, weighting="token")
    with pytest.raises(EvidenceError, match="one weighting and one choice of tokens"):
        converge(first, token, NULL)
    flat = unrelated_cosines(texts(1)[:, :2], texts(2)[:, :2], stream(0, "halves"), draws=9)
    with pytest.raises(EvidenceError, match="a null of 2 layers"):
        converge(first, direction("b", 2, None), flat)
