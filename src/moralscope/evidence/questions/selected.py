"""Which sites push towards the positive option, and which are like them but do not?

A site that was chosen because its contribution is large is less large the next time, changed or
not. So sites are chosen on one half of the scenarios and looked at on the other, and then the other
way round: every scenario is looked at, and none by sites that it helped to choose.

*Pushing* sites: heads and MLPs of the base whose mean contribution m to the answer is above zero
beyond noise on the choosing half, ``m - t_{.975, n-1} se > 0`` and above the error of the
attribution. *Matched* sites: for each, from the largest on, the remaining site of the same kind
that does not push, with |m| nearest to its own, each used once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.evidence.statistics.resampling import Array

HALF = 5
"""Fewest scenarios of a half."""

PAIRS = 6
"""Fewest pairs of sites: with five, no exchange within pairs could reach the level."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Sites that were chosen on one half of the scenarios and are looked at on the other.

    Attributes:
        looked: scenarios that they are looked at on, by index.
        pushing, matched: the sites by index, pair by pair.
        unmatched: pushing sites for which no other was left.
    """

    looked: tuple[int, ...]
    pushing: tuple[int, ...]
    matched: tuple[int, ...]
    unmatched: int


def choose(
    base: Array, kinds: Sequence[str], noise: float, rng: np.random.Generator
) -> tuple[Chosen, Chosen]:
    """Pushing and matched sites for each half of the scenarios.

    Args:
        base: (G, K) the base's contribution per scenario and site, at least 10 scenarios.
        kinds: (K,) what each site is: head or mlp.
        noise: error of the attribution, in the unit of the values.
        rng: halves the scenarios.
    """
    order = rng.permutation(len(base))
    first, second = np.sort(order[: len(base) // 2]), np.sort(order[len(base) // 2 :])
    return _from(base[first], second, kinds, noise), _from(base[second], first, kinds, noise)


def _from(
    chosen_on: Array, looked: NDArray[np.int64], kinds: Sequence[str], noise: float
) -> Chosen:
    mean = chosen_on.mean(axis=0)
    error = chosen_on.std(axis=0, ddof=1) / np.sqrt(len(chosen_on))
    pushes = (mean - t_quantile(0.975, len(chosen_on) - 1) * error > 0.0) & (mean > noise)
    by_size = sorted(np.flatnonzero(pushes).tolist(), key=lambda k: (-mean[k], k))
    left = {
        kind: [k for k in range(len(kinds)) if kinds[k] == kind and not pushes[k]]
        for kind in set(kinds)
    }
    pairs: list[tuple[int, int]] = []
    for site in by_size:
        rest = left[kinds[site]]
        if rest:
            size = float(mean[site])
            nearest = min(rest, key=lambda k: (abs(abs(float(mean[k])) - size), k))
            rest.remove(nearest)
            pairs.append((site, nearest))
    return Chosen(
        looked=tuple(int(g) for g in looked),
        pushing=tuple(one for one, _ in pairs),
        matched=tuple(other for _, other in pairs),
        unmatched=len(by_size) - len(pairs),
    )


@dataclass(frozen=True, eq=False)
class Changes:
    """How pushing and matched sites changed, where they were looked at.

    Attributes:
        pushing, matched: (G,) mean change over the sites of a scenario's own half.
        pairs: (P,) mean over scenarios of the difference of the changes, by distinct pushing site.
        shrunk: share of their contributions that matched sites lose, mean over scenarios.
        beyond: (G,) what pushing sites lose beyond that share of theirs, see ``beyond_shrinking``.
        without: (P,) its mean without each pair of sites.
    """

    pushing: Array
    matched: Array
    pairs: Array
    shrunk: float
    beyond: Array
    without: Array

    @property
    def difference(self) -> Array:
        """(G,) change of pushing sites minus that of matched ones."""
        return self.pushing - self.matched


def changes(change: Array, before: Array, halves: Sequence[Chosen]) -> Changes:
    """Read a change of contributions at the chosen sites.

    Args:
        change: (G, K) contributions minus those that they are compared with.
        before: (G, K) those that they are compared with.
        halves: what ``choose`` gave, each with one pair at least.
    """
    pushing, matched = np.empty(len(change)), np.empty(len(change))
    of_site: dict[int, list[float]] = {}
    for half in halves:
        rows = np.array(half.looked)
        one, other = (
            change[np.ix_(rows, np.array(sites))] for sites in (half.pushing, half.matched)
        )
        pushing[rows], matched[rows] = one.mean(axis=1), other.mean(axis=1)
        for site, value in zip(half.pushing, (one - other).mean(axis=0).tolist(), strict=True):
            of_site.setdefault(site, []).append(value)
    means: Mapping[int, float] = {k: float(np.mean(v)) for k, v in of_site.items()}
    beyond, shares = beyond_shrinking(change, before, halves)
    left = (beyond_shrinking(change, before, halves, leave=k)[0].mean() for k in means)
    return Changes(
        pushing=pushing,
        matched=matched,
        pairs=np.array(list(means.values())),
        shrunk=float(shares.mean()),
        beyond=beyond,
        without=np.array([float(one) for one in left]),
    )


def beyond_shrinking(
    change: Array, before: Array, halves: Sequence[Chosen], leave: int | None = None
) -> tuple[Array, Array]:
    """What pushing sites lose beyond the share that all contributions lose.

    If every contribution b shrinks by one share, c = -s b, sites lose the more the larger they
    are, whichever way they push. With the share that the matched sites q of a scenario lose,

        s = -sum_q c_q b_q / sum_q b_q^2,      beyond = mean_p c_p + s mean_p b_p,

    beyond is 0 then, however large pushing and matched sites are.

    Args:
        change: (G, K) c, as above.
        before: (G, K) b, as above.
        halves: the chosen sites.
        leave: a pushing site that is left out together with its match.

    Returns:
        (G,) beyond, and (G,) s; NaN in both where nothing is left.
    """
    beyond, shares = np.full(len(change), np.nan), np.full(len(change), np.nan)
    for half in halves:
        rows = np.array(half.looked)
        kept = [both for both in zip(half.pushing, half.matched, strict=True) if both[0] != leave]
        if not kept:
            continue
        one, other = (np.ix_(rows, np.array(sites)) for sites in zip(*kept, strict=True))
        under = np.square(before[other]).sum(axis=1)
        top = -(change[other] * before[other]).sum(axis=1)
        share = np.divide(top, under, out=np.zeros_like(top), where=under > 0.0)
        shares[rows] = share
        beyond[rows] = change[one].mean(axis=1) + share * before[one].mean(axis=1)
    return beyond, shares
