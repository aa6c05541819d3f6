"""Do counts follow the probabilities that were stated for them? An exact test, without sampling.

Prompt i has ``n_i`` answers, of which ``k_i`` are positive; stated is ``p_i``. Prompts are divided
into those where positive is expected (``p_i >= 1/2``) and the others, so that a scorer that takes
one option for the other is found as well as one that leans to one side. Under the null both totals
are sums of independent binomials, whose distribution is the convolution of theirs, and

    p = P( f(A) g(B) <= f(a) g(b) )

is the probability of totals at most as likely as those observed. All is summed, nothing is drawn;
since the totals are discrete the test is conservative, never too liberal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from moralscope.core.errors import EvidenceError
from moralscope.evidence.statistics.resampling import Array

TIE = 1e-9
"""Relative difference below which two probabilities count as equal."""


def sum_of_binomials(counts: Sequence[int], probabilities: Sequence[float]) -> Array:
    """The distribution of a sum of independent binomials.

    Args:
        counts: trials of each.
        probabilities: of success, of each, in [0, 1].

    Returns:
        Probability of every total from 0 to the sum of the trials.
    """
    total = np.ones(1)
    for count, probability in zip(counts, probabilities, strict=True):
        k = np.arange(count + 1)
        ways = special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1)
        chance = special.xlogy(k, probability) + special.xlog1py(count - k, -probability)
        total = np.convolve(total, np.asarray(np.exp(ways + chance), dtype=np.float64))
    return total


def counts_p(positive: Sequence[int], counts: Sequence[int], stated: Sequence[float]) -> float:
    """How probable are counts as unlikely as these, if the probabilities stated are right?

    Args:
        positive: positive answers of each prompt.
        counts: answers of each prompt.
        stated: probability of a positive one, of each prompt, in [0, 1].

    Raises:
        EvidenceError: a prompt has more positive answers than answers, or a probability is not
            one.
    """
    k, n, p = np.array(positive), np.array(counts), np.array(stated, dtype=np.float64)
    if (
        not len(k) == len(n) == len(p)
        or np.any((k < 0) | (k > n))
        or not np.all((p >= 0) & (p <= 1))
    ):
        raise EvidenceError(
            "These counts and probabilities are impossible",
            seen=f"{positive} of {counts} at {stated}",
            allowed="between none and all answers of each prompt, probabilities in [0, 1]",
            remedy="count each answer once, and give P(positive given legal)",
        )
    up = p >= 0.5
    first, second = (sum_of_binomials(n[side].tolist(), p[side].tolist()) for side in (up, ~up))
    seen = float(first[int(k[up].sum())] * second[int(k[~up].sum())])
    return _mass_at_most(first, second, seen * (1.0 + TIE))


def _mass_at_most(first: Array, second: Array, limit: float) -> float:
    """Probability that the product of the two point probabilities is at most a limit."""
    order = np.sort(second)
    below = np.concatenate([[0.0], order.cumsum()])
    possible = first[first > 0.0]
    with np.errstate(over="ignore"):  # a quotient beyond all numbers is above every probability
        reached = np.searchsorted(order, limit / possible, side="right")
    return min(1.0, float((possible * below[reached]).sum()))
