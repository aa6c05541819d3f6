"""A draw depends on its address alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.streams import integer_seed, stream

addresses = st.lists(st.one_of(st.text(), st.integers()), max_size=4).map(tuple)


def draw(seed: int, *address: str | int) -> tuple[int, ...]:
    return tuple(stream(seed, *address).integers(0, 2**60, 4).tolist())


@given(st.integers(0, 2**32), addresses)
def test_order_of_work_does_not_matter(seed: int, address: tuple[str | int, ...]):
    alone = draw(seed, *address)
    stream(seed, "other").normal(size=3)
    assert draw(seed, *address) == alone


@given(st.integers(0, 2**32), addresses, addresses)
def test_different_addresses_give_different_streams(seed: int, one, other):
    assert (draw(seed, *one) == draw(seed, *other)) == (one == other)


def test_addresses_that_join_to_the_same_text_differ():
    assert draw(1, "a/b") != draw(1, "a", "b")
    assert draw(1, "1") != draw(1, 1)


def test_numpy_integers_are_integers():
    assert draw(1, "step", int(np.int64(3))) == tuple(
        stream(1, "step", np.int64(3)).integers(0, 2**60, 4).tolist()
    )


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_different_seeds_give_different_streams(one: int, other: int):
    assert (draw(one, "a") == draw(other, "a")) == (one == other)


@given(st.integers(0, 2**32), addresses)
def test_integer_seeds_fit_63_bits(seed: int, address: tuple[str | int, ...]):
    value = integer_seed(seed, *address)
    assert 0 <= value < 2**63
    assert value == integer_seed(seed, *address)


def test_another_process_draws_the_same():
    code = "from moralscope.core.streams import integer_seed as i; import sys; "
    told = subprocess.run(
        [sys.executable, "-c", code + "sys.stdout.write(str(i(7, 'minibatch', 12)))"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert int(told) == integer_seed(7, "minibatch", 12)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.array([stream(0, "episode", k).normal(size=400) for k in range(50)])
    correlations = np.corrcoef(draws)[np.triu_indices(50, 1)]
    # 1225 correlations of spread 1/sqrt(400) = .05: five spreads are never reached by chance.
    assert np.abs(correlations).max() < 0.25


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        stream(-1, "a")
