"""Random directions are as long and as spread as told, and unrelated texts are split in halves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.core.streams import stream
from moralscope.organisms.directions.nulls import (
    equally_long,
    family_p,
    on_one_scale,
    random_directions,
    unrelated_cosines,
)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return stream(seed, "drawn").standard_normal(shape)


def test_random_directions_are_as_long_and_point_everywhere():
    vectors = drawn(3, 40) * np.array([1.0, 5.0, 0.1])[:, None]
    found = random_directions(vectors, 400, stream(1, "random"))
    norms = np.linalg.norm(vectors, axis=1)
    assert np.allclose(np.linalg.norm(found, axis=2), norms, rtol=1e-12)
    cosines = np.einsum("dlw,lw->dl", found, vectors) / norms**2
    # Of directions spread evenly in 40 dimensions a squared cosine is 1/40 on average.
    assert np.square(cosines).mean(axis=0) == pytest.approx(1 / 40, rel=0.25)
    assert np.abs(cosines.mean(axis=0)).max() < 0.03


def test_directions_like_streams_stay_among_them():
    like, vectors = 7.0 + drawn(4, 2, 9), drawn(2, 9, seed=1)
    found = random_directions(vectors, 6, stream(1, "random"), like=like)
    assert np.allclose(np.linalg.norm(found, axis=2), np.linalg.norm(vectors, axis=1), rtol=1e-12)
    for layer in range(2):
        spanned, held = (like[1:] - like[0])[:, layer].T, found[:, layer].T
        weights = np.linalg.lstsq(spanned, held, rcond=None)[0]
        assert np.abs(held - spanned @ weights).max() < 1e-10
    # A long axis of the streams is a long axis of what is drawn.
    wide = drawn(50, 1, 9) * np.array([10.0] + [1.0] * 8)
    along = random_directions(vectors[:1], 200, stream(2, "random"), like=wide)[:, 0]
    assert np.square(along[:, 0]).sum() > 0.6 * np.square(along).sum()


def test_halves_of_texts_are_those_that_there_are():
    first, second = drawn(4, 2, 6), drawn(4, 2, 6, seed=3)

    def cosine(half: tuple[int, ...], other: tuple[int, ...], layer: int) -> float:
        sides = []
        for texts, chosen in ((first, half), (second, other)):
            rest = [k for k in range(4) if k not in chosen]
            sides.append(texts[list(chosen), layer].mean(0) - texts[rest, layer].mean(0))
        return float(sides[0] @ sides[1] / np.linalg.norm(sides[0]) / np.linalg.norm(sides[1]))

    halves = list(itertools.combinations(range(4), 2))
    found = unrelated_cosines(first, second, stream(0, "halves"), draws=300)
    assert found.texts == 4
    for layer in range(2):
        same = np.array([cosine(h, h, layer) for h in halves])
        any_two = np.array([cosine(h, o, layer) for h in halves for o in halves])
        for values, possible in ((found.shared, same), (found.independent, any_two)):
            apart = np.abs(values[:, layer, None] - possible[None])
            assert apart.min(axis=1).max() < 1e-10
            assert len(set(apart.argmin(axis=1))) >= len(np.unique(possible.round(9)))
            assert abs(values[:, layer].mean() - possible.mean()) < 0.15


def test_agents_that_read_alike_share_what_texts_differ_in():
    texts = drawn(30, 2, 20) * np.array([30.0] + [1.0] * 19)
    found = unrelated_cosines(texts, texts, stream(0, "halves"), draws=400)
    assert np.allclose(found.shared, 1.0, atol=1e-12)
    # One long axis makes unrelated differences look alike, or opposite.
    assert np.quantile(np.abs(found.independent), 0.5) > 0.8
    round_texts = drawn(30, 2, 20, seed=8)
    even = unrelated_cosines(round_texts, round_texts, stream(0, "halves"), draws=400)
    assert np.quantile(np.abs(even.independent), 0.5) < 0.3
    assert abs(found.independent.mean()) < 0.15


def test_the_largest_of_a_family_corrects():
    statistics = drawn(200, 4)
    statistics[0, 2] = 2.4
    p, adjusted = family_p(statistics)
    for k in range(4):
        expected = sum(row[k] >= statistics[0, k] for row in statistics) / 200
        assert p[k] == pytest.approx(expected, abs=1e-12)
        expected = sum(max(row) >= statistics[0, k] for row in statistics) / 200
        assert adjusted[k] == pytest.approx(expected, abs=1e-12)
    tied, both = family_p(np.array([[1.0, -1.0], [1.0 - 1e-13, -1.0 - 1e-13], [0.0, -3.0]]))
    assert tied == pytest.approx([2 / 3, 2 / 3])
    assert both == pytest.approx([2 / 3, 1.0])


def test_columns_come_on_one_scale():
    statistics = drawn(50, 3) * np.array([1.0, 100.0, 0.0])
    found = on_one_scale(statistics)
    assert np.allclose(found[:, :2], stats.zscore(statistics[:, :2]), atol=1e-12)
    assert (found[:, 2] == 0.0).all()


def test_what_cannot_be_drawn_or_split_is_refused():
    with pytest.raises(EvidenceError) as caught:
        random_directions(drawn(2, 6), 3, stream(0, "random"), like=drawn(5, 2, 7))
    assert "shape (5, 2, 7) for directions of shape (2, 6)" in str(caught.value)
    with pytest.raises(EvidenceError, match="two streams or more"):
        random_directions(drawn(2, 6), 3, stream(0, "random"), like=drawn(1, 2, 6))
    with pytest.raises(EvidenceError, match="1 of 2 directions are zero"):
        equally_long(np.array([[1.0, 2.0], [0.0, 0.0]]), np.ones((2, 2)))
    for other in (drawn(5, 2, 6), drawn(4, 2, 7), drawn(4, 3, 6)):
        with pytest.raises(EvidenceError, match="the same unrelated texts with two agents"):
            unrelated_cosines(drawn(4, 2, 6), other, stream(0, "halves"))
    with pytest.raises(EvidenceError, match="4 texts or more"):
        unrelated_cosines(drawn(3, 2, 6), drawn(3, 2, 6), stream(0, "halves"))
