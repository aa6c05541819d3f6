"""Is it practically zero? Two one-sided tests against a margin set beforehand.

TOST (Schuirmann 1987) on G unit means with margin D: ``(mean + D)/se`` and ``(D - mean)/se`` must
both exceed t_{1-alpha, G-1}; the p is the larger of the two. The margin is a decision about what
matters and is never derived from the effect that it is compared with. The default is 10% of the
base's own mean absolute log-odds.

A test that does not reject is no evidence of absence; this is. It still needs an agent that is
alive, which the verdict checks.
"""

from __future__ import annotations

import numpy as np

from moralscope.core.errors import ConfigError
from moralscope.evidence.statistics.intervals import standard_error, t_upper_tail
from moralscope.evidence.statistics.resampling import Array, finite

DEFAULT_MARGIN_SHARE = 0.1
"""Share of the base's mean absolute log-odds that is too small to matter, unless told otherwise."""


MIN_UNITS = 5
"""Fewest units of a claim that rests on a law of the units alone: such a test has no floor, and
with fewer units nothing shows whether the law holds."""


def default_margin(base_log_odds: Array) -> float:
    """10% of the mean absolute log-odds of the base, in nats."""
    return DEFAULT_MARGIN_SHARE * float(np.abs(finite(base_log_odds, "base log-odds")).mean())


def tost(values: Array, margin: float) -> float | None:
    """P of the two one-sided tests that the mean lies outside (-margin, margin).

    Args:
        values: (G,) one mean per unit; fewer than two give None.
        margin: in the unit of the values, above zero.

    Without any spread between units the tests are decided by the mean: 0 inside, 1 outside.

    Raises:
        ConfigError: the margin is not positive.
        TableError: a value is undefined.
    """
    if not margin > 0.0:
        raise ConfigError(
            "An equivalence margin must be positive",
            seen=margin,
            allowed="the smallest effect that would matter, in nats",
            remedy="give a margin above zero, or none to leave equivalence untested",
        )
    y = finite(values, "unit means")
    if len(y) < 2:
        return None
    mean = float(y.mean())
    error = standard_error(y)
    if error == 0.0:
        return 0.0 if abs(mean) < margin else 1.0
    closer = min(mean + margin, margin - mean) / error
    return t_upper_tail(closer, len(y) - 1)


def corrected_tost(values: Array, margin: float, tests: int) -> float | None:
    """``tost`` corrected for ``tests`` comparisons (Bonferroni), as claims state it.

    None where the margin is zero, which comes from a base without any preference, a tenth of which
    is nothing; and below 5 units.
    """
    if margin == 0.0 or len(values) < MIN_UNITS:
        return None
    p = tost(values, margin)
    return None if p is None else min(1.0, p * tests)
