"""Circuits of several wordings: overlap and transfer by hand, and what chance gives."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from set_functions import additive, heads, made, share_of

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.streams import stream
from moralscope.mechanisms.circuits.search import exhaustive, forward
from moralscope.mechanisms.circuits.stability import (
    pairs_by_wording,
    stability,
    stability_table,
)

SITES = heads(12)


def wording(*strong: int):
    """A wording in which some sites carry nearly all."""
    weights = {s: 1.0 if i in strong else 0.01 for i, s in enumerate(SITES)}
    return made(additive(weights), SITES, [sum(weights.values())])


def test_overlap_and_transfer_by_hand():
    made_ = {"plain": wording(0, 1), "tale": wording(1, 2), "table": wording(1, 3, 4)}
    wordings = {name: one.effects for name, one in made_.items()}
    found = stability(wordings, stream(1, "s"), search=forward, draws=99, transfer_draws=19)
    sets = {"plain": {0, 1}, "tale": {1, 2}, "table": {1, 3, 4}}
    for name, members in sets.items():
        assert found.circuits[name].members == {SITES[i] for i in members}
    for (i, a), (j, b) in itertools.product(enumerate(sets), repeat=2):
        overlap = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        assert found.overlap[i, j] == pytest.approx(overlap)
        share = share_of(made_[b], [SITES[k] for k in sets[a]])
        assert found.transfer[i, j] == pytest.approx(share)
    assert found.mean_overlap == pytest.approx((1 / 3 + 1 / 4 + 1 / 4) / 3)
    off = [found.transfer[i, j] for i, j in itertools.permutations(range(3), 2)]
    assert found.mean_transfer == pytest.approx(np.mean(off))
    assert found.random_overlap.shape == (99, 3, 3)
    assert found.random_transfer.shape == (19, 3, 3)
    assert np.isnan(found.random_transfer[:, range(3), range(3)]).all()
    rows = stability_table(wordings, found).rows(named=True)
    assert [(r["wording_a"], r["wording_b"]) for r in rows] == list(itertools.permutations(sets, 2))
    assert rows[0]["overlap"] == pytest.approx(1 / 3)
    assert rows[3]["transfer"] == found.transfer[1, 2]
    assert rows[3]["transfer_random"] == pytest.approx(found.random_transfer[:, 1, 2].mean())
    assert {r["overlap_p"] for r in rows} == {found.overlap_p}


def test_the_same_circuit_everywhere_is_more_than_chance():
    wordings = {name: wording(2, 5).effects for name in "abc"}
    found = stability(wordings, stream(2, "s"), search=exhaustive_of_two, draws=199)
    assert (found.mean_overlap, found.overlap_p) == (1.0, 1 / 200)
    assert found.mean_transfer == pytest.approx(2 / 2.1)
    assert found.transfer_p == 1 / 40


exhaustive_of_two = partial(exhaustive, top_k=6)


def test_different_circuits_have_no_more_in_common_than_chance():
    wordings = {"a": wording(0, 1).effects, "b": wording(2, 3).effects}
    found = stability(wordings, stream(3, "s"), search=forward, draws=199)
    assert (found.mean_overlap, found.overlap_p) == (0.0, 1.0)
    assert found.transfer_p > 0.5
    # Two random sets of two of twelve: 2 shared once, 1 shared 20 times, else none, of 66.
    expected = (1 * 1.0 + 20 / 3) / 66
    assert found.random_overlap[:, 0, 1].mean() == pytest.approx(expected, abs=0.05)
    assert found.random_overlap[:, 0, 1].any()


def test_wordings_are_told_apart_by_prompt():
    names = ["p0", "p1", "p2", "p3"]
    of = {"p0": "plain", "p1": "tale", "p2": "plain", "p3": "tale"}
    assert pairs_by_wording(names, of) == {"plain": ((0, 0), (2, 2)), "tale": ((1, 1), (3, 3))}
    with pytest.raises(EvidenceError, match="'p3' has no wording.*wordings of 3 prompts"):
        pairs_by_wording(names, dict.fromkeys(names[:3], "x"))


def test_wordings_that_cannot_be_compared_are_refused():
    one = wording(0).effects
    rng = stream(1, "s")
    with pytest.raises(EvidenceError, match="more than one wording.*Seen: a\\."):
        stability({"a": one}, rng)
    few = made(additive(dict.fromkeys(SITES, 1.0)), SITES[:3]).effects
    with pytest.raises(EvidenceError, match="different sites.*12 in 'a', 3 in 'b'"):
        stability({"a": one, "b": few}, rng)
    with pytest.raises(ConfigError, match="compared with random sets.*5 and 0 draws"):
        stability({"a": one, "b": one}, rng, draws=5, transfer_draws=0)
