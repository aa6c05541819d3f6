"""On which scale are shares compared? Log-odds, from a least share on.

    logit(m) = ln( m / (1 - m) ),   m clipped to [LEAST, 1 - LEAST]

A share of attention that grows from .01 to .02 has doubled, and so has one from .2 to .4; their
differences are .01 and .2. Log-odds put both on one scale, which has no end at 0 and 1. Without the
clipping, a head that spends a millionth of its attention on something would count as much as one
that spends half of it: below ``LEAST`` it does not look there at all.
"""

from __future__ import annotations

import numpy as np

from moralscope.evidence.statistics.resampling import Array

LEAST = 1e-4
"""A share below this counts as this: one part in ten thousand."""

MARGIN = float(np.log(1.1))
"""A difference in log-odds that is too small to matter: odds that differ by less than a tenth."""


def share_log_odds(shares: Array) -> Array:
    """Log-odds of shares, nats, in [-9.21, 9.21].

    Args:
        shares: in [0, 1], any shape.
    """
    kept = np.clip(np.asarray(shares, dtype=np.float64), LEAST, 1.0 - LEAST)
    return np.log(kept) - np.log1p(-kept)
