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
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.replicates import replicate_floor
from moralscope.evidence.statistics.resampling import EXACT_LABELLINGS, Array, finite

_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Whether two rewards differ more than seeds, level by level.

    Attributes:
        between, within: (K,) mean distance over pairs of different rewards, and of one reward.
        p: (K,) of each level alone, one-sided.
        p_adjusted: (K,) corrected over the levels.
        floor: the smallest p that this design can give.
    """

    between: Array
    within: Array
    p: Array
    p_adjusted: Array
    floor: float


def relabel(
    distances: Array, first: int, rng: np.random.Generator, draws: int = 9_999
) -> Relabelled:
    """Test all levels together.

    Args:
        distances: (K, N, N) symmetric, one matrix per level; the ``first`` agents have the first
            reward, the others the second.
        first: how many seeds the first reward has.
        rng: draws the reassignments where there are more than 20,000.
        draws: how many.

    Raises:
        EvidenceError: one reward has no seed, or both together no two seeds of one reward.
        TableError: a distance is undefined.
    """
    d = finite(distances, "distances")
    agents = d.shape[1]
    second = agents - first
    if min(first, second) < 1 or max(first, second) < 2:
        raise EvidenceError(
            "Rewards cannot be told from training seeds",
            seen=f"{first} and {second} seeds",
            allowed="at least one seed of each reward, and two of one",
            remedy="train more seeds of each reward",
        )
    groups = _groups(agents, first, rng, draws)
    one, other = np.triu_indices(agents, 1)
    same = groups[:, one] == groups[:, other]
    pairs = d[:, one, other].T
    inside = same @ pairs
    # Of unequal groups every reassignment has as many pairs inside as the observed one.
    count = int(same[0].sum())
    within = inside / count
    between = (pairs.sum(axis=0) - inside) / (len(one) - count)
    statistic = between - within
    tolerance = _TIE * np.maximum(np.abs(pairs).max(axis=0), np.finfo(float).tiny)
    centred = statistic - statistic.mean(axis=0)
    spread = statistic.std(axis=0)
    # Agents that are all equally far apart tell nothing: no reassignment stands out.
    varies = spread > tolerance
    t = np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)
    slack = tolerance / np.where(varies, spread, 1.0)
    largest = t.max(axis=1)
    exact = len(groups) == math.comb(agents, first)
    return Relabelled(
        between=between[0],
        within=within[0],
        p=(statistic >= statistic[0] - tolerance).mean(axis=0),
        p_adjusted=np.array(
            [(largest >= value - by).mean() for value, by in zip(t[0], slack, strict=True)]
        ),
        floor=replicate_floor([first, second], 0 if exact else draws),
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


def without_seeds(distances: Array, first: int) -> tuple[Array, Array]:
    """Mean distance between and within two rewards without each seed in turn.

    Args:
        distances: (N, N) of one level.
        first: how many seeds the first reward has.

    Returns:
        (N,) between and (N,) within; NaN where nothing is left.
    """
    agents = len(distances)
    code = np.arange(agents) < first
    one, other = np.triu_indices(agents, 1)
    apart, same = distances[one, other], code[one] == code[other]
    between, within = np.full(agents, np.nan), np.full(agents, np.nan)
    for seed in range(agents):
        rest = (one != seed) & (other != seed)
        for found, those in ((between, rest & ~same), (within, rest & same)):
            if those.any():
                found[seed] = apart[those].mean()
    return between, within
