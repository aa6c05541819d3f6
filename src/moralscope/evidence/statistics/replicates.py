"""Do rewards differ by more than training seeds of one reward do? The seed-replicate null.

With d_ij a distance between two trained agents,

    T = mean of d_ij over pairs with different rewards
      - mean of d_ij over pairs with the same reward and different seeds,

and p is the share of the reassignments of reward labels to seeds whose T is at least the observed
one (a permutation test of distances, as in Anderson 2001, Austral Ecol. 26:32): exact where there
are no more than 20,000 reassignments. The test is one-sided, as rewards that matter make agents
differ more. With S seeds of each of two rewards p cannot go below 2/C(2S, S), which is .10 at
three seeds and .029 at four.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import EXACT_LABELLINGS, Array, finite

MIN_SEEDS = 4
"""Seeds per reward below which a claim about rewards is not identified; aim at 7."""

_TIE = 1e-9

_Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replicates:
    """How far apart agents of different and of the same reward are.

    Attributes:
        between: mean distance over pairs with different rewards, in the unit given.
        within: mean distance over pairs with the same reward.
        p: one-sided, in (0, 1].
        floor: the smallest p that this design can give.
        seeds: the fewest seeds that any reward has; below ``MIN_SEEDS`` nothing can be claimed.
    """

    between: float
    within: float
    p: float
    floor: float
    seeds: int


def replicate_floor(sizes: Sequence[int], draws: int = 0) -> float:
    """Smallest p for groups of these sizes: rewards of equal size may exchange their names.

    ``draws`` of 0 means that every reassignment is enumerated.
    """
    mirrors = math.prod(math.factorial(count) for count in Counter(sizes).values())
    exact = min(1.0, mirrors / _ways(sizes))
    return max(exact, 1.0 / (draws + 1)) if draws else exact


def seed_replicate(
    distances: Array,
    rewards: Sequence[str],
    rng: np.random.Generator,
    draws: int = 9_999,
    *,
    counted: NDArray[np.bool_] | None = None,
) -> Replicates:
    """Do agents trained for different rewards lie further apart than seeds of one reward?

    Args:
        distances: (S, S), symmetric, 0 or more; the diagonal is not read.
        rewards: (S,) the reward that each agent was trained for.
        rng: draws the reassignments where there are more than 20,000.
        draws: how many, the observed one besides.
        counted: (S, S) symmetric, which pairs count; all unless given. Agents of two rewards that
            began from the same seed can be left out, which lie closer whatever they were
            trained for. A reassignment that leaves one of the two means without a pair counts as
            one with a larger difference.

    Raises:
        EvidenceError: the distances are not symmetric or not one row per agent, there is one
            reward only, no reward has two seeds, or no pair of one kind counts.
        TableError: a distance is undefined.
    """
    d = finite(distances, "distances")
    names = sorted(set(rewards))
    codes = np.array([names.index(reward) for reward in rewards], dtype=np.int64)
    sizes = [int((codes == at).sum()) for at in range(len(names))]
    _check(d, rewards, sizes)
    first, second = np.triu_indices(len(codes), 1)
    if counted is not None:
        kept = counted[first, second]
        first, second = first[kept], second[kept]
    pairs = d[first, second]
    exact = _ways(sizes) <= EXACT_LABELLINGS
    # The observed assignment comes first in either case.
    drawn = _every(codes) if exact else _shuffled(codes, rng, draws)
    same = drawn[:, first] == drawn[:, second]
    count = same.sum(axis=1)
    rest = len(pairs) - count
    if min(count[0], rest[0]) < 1:
        raise _not_told(sizes)
    inside = np.where(same, pairs, 0.0).sum(axis=1)
    within = inside / np.maximum(count, 1)
    between = (pairs.sum() - inside) / np.maximum(rest, 1)
    difference = np.where(np.minimum(count, rest) > 0, between - within, np.inf)
    tolerance = _TIE * float(np.abs(pairs).max())
    return Replicates(
        between=float(between[0]),
        within=float(within[0]),
        p=float((difference >= difference[0] - tolerance).mean()),
        floor=replicate_floor(sizes, 0 if exact else draws),
        seeds=min(sizes),
    )


def _ways(sizes: Sequence[int]) -> int:
    """Assignments of labels to agents: the multinomial coefficient."""
    ways, left = 1, sum(sizes)
    for size in sizes:
        ways *= math.comb(left, size)
        left -= size
    return ways


def _every(codes: _Codes) -> _Codes:
    """Every assignment once, the observed one first."""
    found = np.array(list(_arrangements(Counter(codes.tolist()), len(codes))), dtype=np.int64)
    at = int(np.flatnonzero((found == codes).all(axis=1))[0])
    found[[0, at]] = found[[at, 0]]
    return found


def _arrangements(left: Counter[int], length: int) -> Iterator[tuple[int, ...]]:
    if length == 0:
        yield ()
        return
    for code in sorted(left):
        if left[code]:
            left[code] -= 1
            for rest in _arrangements(left, length - 1):
                yield (code, *rest)
            left[code] += 1


def _shuffled(codes: _Codes, rng: np.random.Generator, draws: int) -> _Codes:
    drawn = np.tile(codes, (draws + 1, 1))
    drawn[1:] = rng.permuted(drawn[1:], axis=1)
    return drawn


def _check(d: Array, rewards: Sequence[str], sizes: Sequence[int]) -> None:
    if d.shape != (len(rewards), len(rewards)) or not np.allclose(d, d.T, rtol=1e-9, atol=0.0):
        raise EvidenceError(
            "Distances between agents do not fit",
            seen=f"{' x '.join(str(n) for n in d.shape)} distances for {len(rewards)} agents",
            allowed="a symmetric matrix, one row and one column per agent",
            remedy="compute each distance once, and mirror it",
        )
    if len(sizes) < 2 or max(sizes) < 2:
        raise _not_told(sizes)


def _not_told(sizes: Sequence[int]) -> EvidenceError:
    return EvidenceError(
        "Rewards cannot be told from training seeds",
        seen=f"{len(sizes)} rewards with {', '.join(str(size) for size in sizes)} seeds",
        allowed=f"two rewards or more, with {MIN_SEEDS} seeds or more each",
        remedy="train more seeds of each reward, or claim something about these agents alone",
    )
