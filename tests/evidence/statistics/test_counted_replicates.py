"""The seed-replicate null where pairs that share a start are left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.replicates import seed_replicate


def apart(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def other_starts(seeds: int) -> np.ndarray:
    """Agent i of the first reward and agent i of the second began alike."""
    start = np.tile(np.arange(seeds), 2)
    return start[:, None] != start


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_it_equals_every_relabelling_of_the_pairs_that_count(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    labels = "a" * seeds + "b" * seeds
    d, counted = apart(rng.normal(size=(2 * seeds, 3))), other_starts(seeds)
    drawn = []
    for order in sorted(set(itertools.permutations(labels))):
        pairs = [
            (d[i, j], order[i] == order[j])
            for i, j in itertools.combinations(range(2 * seeds), 2)
            if counted[i, j]
        ]
        same, other = ([x for x, alike in pairs if alike is wanted] for wanted in (True, False))
        drawn.append(np.mean(other) - np.mean(same) if same and other else np.inf)
        if "".join(order) == labels:
            observed = drawn[-1]
    found = seed_replicate(d, list(labels), np.random.default_rng(0), counted=counted)
    assert found.between - found.within == pytest.approx(observed, abs=1e-12)
    assert found.p == pytest.approx(np.mean(np.array(drawn) >= observed - 1e-12), abs=1e-12)


def test_leaving_out_shared_starts_finds_rewards_that_they_hide() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(5, 40))
    reward = rng.normal(size=(2, 40)) * 0.55
    points = np.concatenate([start + r + 0.1 * rng.normal(size=(5, 40)) for r in reward])
    labels = ["a"] * 5 + ["b"] * 5
    hidden = seed_replicate(apart(points), labels, rng)
    found = seed_replicate(apart(points), labels, rng, counted=other_starts(5))
    assert found.p == pytest.approx(2 / 252)
    assert found.p < hidden.p


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_rewards_that_do_not_matter_are_found_no_more_often_than_said(share: float) -> None:
    """Whatever agents of one seed have in common; with 200 studies .05 may be passed by chance."""
    rng = np.random.default_rng(3)
    labels = ["a"] * 4 + ["b"] * 4
    rejected = 0
    for _ in range(200):
        start = rng.normal(size=(4, 6))
        own = rng.normal(size=(8, 6))
        points = np.sqrt(share) * np.concatenate([start, start]) + np.sqrt(1 - share) * own
        found = seed_replicate(apart(points), labels, rng, counted=other_starts(4))
        rejected += found.p < 0.05
    assert rejected <= 18


def test_pairs_of_one_kind_must_be_left() -> None:
    d = apart(np.arange(8.0).reshape(4, 2))
    with pytest.raises(EvidenceError, match="Rewards cannot be told from training seeds"):
        seed_replicate(
            d, list("aabb"), np.random.default_rng(0), counted=np.zeros((4, 4), dtype=bool)
        )
