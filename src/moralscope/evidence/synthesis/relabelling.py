"""Do two rewards differ more than training seeds do, at any of several levels?

With d^k_ij the distance of two agents at level k, of S seeds of one reward and R of the other,

    T_k = mean of d^k over pairs of different rewards - mean of d^k over pairs of one reward.

If rewards do not matter, every reassignment of the reward labels to the seeds is equally likely,
and it is made at all levels at once. Each T_k is taken about its mean over the reassignments and in
its standard deviation over them, t_k, and

    p_adj(k) = share of reassignments b with max_j t_j^b >= t_k   (max-T: Westfall and Young 1993),

one-sided, because rewards that matter make agents differ more. It controls the chance of any false
claim over the levels, and its smallest value does not rise with their number: 2 / C(2S, S) for S
seeds each, .008 for five, where Holm's correction over seven levels would need more seeds.
All reassignments up to 20,000 of them, else random ones with the observed one among them.

Agents of two rewards that began from the same seed share their first adapter and the order of their
batches, so they lie closer than others whatever they were trained for. Such pairs do not count. The
agents of a seed still have something in common, of which each reward has its equal part as long as
both were trained with the same seeds; the test is then conservative.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.replicates import replicate_floor
from moralscope.evidence.statistics.resampling import EXACT_LABELLINGS, Array, finite

Flags = NDArray[np.bool_]

_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Whether two rewards differ more than seeds, level by level.

    Attributes:
        between, within: (K,) mean distance over pairs of different rewards, and of one reward.
        p: (K,) of each level alone, one-sided.
        p_adjusted: (K,) corrected over the levels.
        spread: (K,) standard deviation of T over the reassignments.
        reach: (K, 2) how far below and above their mean the middle 95% of them reach.
        floor: the smallest p that this design can give.
    """

    between: Array
    within: Array
    p: Array
    p_adjusted: Array
    spread: Array
    reach: Array
    floor: float


def relabel(
    distances: Array,
    first: int,
    rng: np.random.Generator,
    draws: int = 9_999,
    counted: Flags | None = None,
) -> Relabelled:
    """Test all levels together.

    Args:
        distances: (K, N, N) symmetric, one matrix per level; the ``first`` agents have the first
            reward, the others the second.
        first: how many seeds the first reward has.
        rng: draws the reassignments where there are more than 20,000.
        draws: how many.
        counted: (N, N) symmetric, which pairs count; all unless given. A reassignment that leaves
            one of the two means without a pair counts as one that is larger at every level.

    Raises:
        EvidenceError: one reward has no seed, or both together no two seeds of one reward.
        TableError: a distance is undefined.
    """
    d = finite(distances, "distances")
    agents = d.shape[1]
    second = agents - first
    if min(first, second) < 1 or max(first, second) < 2:
        raise _not_told(first, second)
    groups = _groups(agents, first, rng, draws)
    one, other = np.triu_indices(agents, 1)
    if counted is not None:
        one, other = one[counted[one, other]], other[counted[one, other]]
    same = groups[:, one] == groups[:, other]
    pairs = d[:, one, other].T
    inside, count = same @ pairs, same.sum(axis=1)[:, None]
    rest = len(one) - count
    if min(count[0, 0], rest[0, 0]) < 1:
        raise _not_told(first, second)
    within = inside / np.maximum(count, 1)
    between = (pairs.sum(axis=0) - inside) / np.maximum(rest, 1)
    defined = (np.minimum(count, rest) > 0)[:, 0]
    statistic = np.where(defined[:, None], between - within, np.inf)
    tolerance = _TIE * np.maximum(np.abs(pairs).max(axis=0), np.finfo(float).tiny)
    centred = statistic - statistic[defined].mean(axis=0)
    spread = statistic[defined].std(axis=0)
    # Agents that are all equally far apart tell nothing: no reassignment stands out.
    varies = spread > tolerance
    t = np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)
    slack = tolerance / np.where(varies, spread, 1.0)
    largest = t.max(axis=1)
    ends = [np.quantile(level, [0.025, 0.975]) for level in centred[defined].T]
    reach = np.abs(np.array(ends))
    exact = len(groups) == math.comb(agents, first)
    return Relabelled(
        between=between[0],
        within=within[0],
        p=(statistic >= statistic[0] - tolerance).mean(axis=0),
        p_adjusted=np.array(
            [(largest >= value - by).mean() for value, by in zip(t[0], slack, strict=True)]
        ),
        spread=spread,
        reach=reach,
        floor=replicate_floor([first, second], 0 if exact else draws),
    )


def _not_told(first: int, second: int) -> EvidenceError:
    return EvidenceError(
        "Rewards cannot be told from training seeds",
        seen=f"{first} and {second} seeds",
        allowed="pairs of agents of different rewards and of one reward, from different seeds",
        remedy="train more seeds of each reward",
    )


def _groups(agents: int, first: int, rng: np.random.Generator, draws: int) -> Array:
    """(reassignments, agents) 1 for agents of the first reward; the observed one first."""
    if math.comb(agents, first) <= EXACT_LABELLINGS:
        chosen = np.array(list(itertools.combinations(range(agents), first)))
        groups = np.zeros((len(chosen), agents))
        np.put_along_axis(groups, chosen, 1.0, axis=1)
        return groups
    groups = np.zeros((draws + 1, agents))
    groups[:, :first] = 1.0
    groups[1:] = rng.permuted(groups[1:], axis=1)
    return groups


def means(distances: Array, first: int, counted: Flags | None = None) -> tuple[float, float]:
    """Mean distance between two rewards and within them; NaN where no pair counts.

    Args:
        distances: (N, N) of one level.
        first: how many seeds the first reward has.
        counted: (N, N) which pairs count.
    """
    code = np.arange(len(distances)) < first
    one, other = np.triu_indices(len(distances), 1)
    if counted is not None:
        one, other = one[counted[one, other]], other[counted[one, other]]
    apart, same = distances[one, other], code[one] == code[other]
    between, within = (
        float(apart[those].mean()) if those.any() else math.nan for those in (~same, same)
    )
    return between, within


def without_seeds(
    distances: Array, first: int, counted: Flags | None = None
) -> tuple[Array, Array]:
    """(N,) mean distance between and within two rewards without each seed in turn; as ``means``."""
    agents = len(distances)
    left = np.empty((agents, 2))
    for seed in range(agents):
        rest = np.delete(np.arange(agents), seed)
        kept = None if counted is None else counted[np.ix_(rest, rest)]
        left[seed] = means(distances[np.ix_(rest, rest)], first - (seed < first), kept)
    return left[:, 0], left[:, 1]
