"""How likely is an effect found, and how many units or seeds would find it?

A two-sided t test with nu degrees of freedom of an effect m, whose estimate has standard error e,
rejects with probability

    power = P(|T'| > t_{1 - alpha/2, nu}),   T' noncentral t with noncentrality m / e.

What decides in the end is a randomisation test, whose p cannot go below the share of its patterns
that mirror the observed one: 2/2^G for sign-flips of G units, 2/C(2S, S) for labels over two times
S seeds. A number of units is enough where the power is reached and that floor is below alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from moralscope.core.errors import ConfigError
from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.evidence.statistics.resampling import permutation_floor, sign_flip_floor

_MOST = 10_000_000


def power(effect: float, error: float, degrees: float, alpha: float = 0.05) -> float:
    """Probability that a two-sided t test finds an effect, in [alpha, 1].

    Args:
        effect: true mean, in the unit of the values; its sign does not matter.
        error: standard error of the estimate, in that unit: sd / sqrt(G) for one sample.
        degrees: of freedom, G - 1 for one sample; below one there is no test and no power.
        alpha: level, after correction for other tests.
    """
    return _chance(effect, error, degrees, alpha)


def _chance(effect: float, error: float, degrees: float, alpha: float) -> float:
    """The body of ``power``, under a name that no parameter takes."""
    if degrees < 1:
        return 0.0
    if error == 0.0:
        return 1.0 if effect else alpha
    noncentrality = abs(effect) / error
    critical = t_quantile(1.0 - alpha / 2.0, degrees)
    below = _noncentral_t(critical, degrees, noncentrality)
    far = _noncentral_t(-critical, degrees, noncentrality)
    return min(1.0, 1.0 - below + far)


def _noncentral_t(t: float, degrees: float, noncentrality: float) -> float:
    """P(T' <= t); scipy gives NaN for some that are below 1e-11, which are 0 here."""
    found = float(special.nctdtr(degrees, noncentrality, t))
    return found if math.isfinite(found) else 0.0


def units_for_power(effect_in_sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Units (scenarios) with which a paired effect is found, by t and by sign-flips.

    Args:
        effect_in_sd: mean of the unit means in their standard deviations, d; not 0.
        alpha: level, after correction for other tests.
        power: wanted probability of finding it, above alpha and below 1.

    Raises:
        ConfigError: the effect is 0 or undefined, a level is not one, or ten million units are
            too few.
    """

    def enough(units: int) -> bool:
        return (
            sign_flip_floor(units) < alpha
            and _chance(effect_in_sd, math.sqrt(1.0 / units), units - 1, alpha) >= power
        )

    _check(effect_in_sd, alpha, power)
    return _smallest(enough, effect_in_sd)


def seeds_for_power(effect_in_sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Training seeds per reward with which two rewards are told apart, by t and by permutation.

    Args:
        effect_in_sd: difference of the means in standard deviations over seeds, d; not 0.
        alpha: level, after correction for other tests.
        power: wanted probability of finding it, above alpha and below 1.

    Raises:
        ConfigError: the effect is 0 or undefined, a level is not one, or ten million seeds are
            too few.
    """

    def enough(seeds: int) -> bool:
        return (
            _label_floor(seeds) < alpha
            and _chance(effect_in_sd, math.sqrt(2.0 / seeds), 2 * seeds - 2, alpha) >= power
        )

    _check(effect_in_sd, alpha, power)
    return _smallest(enough, effect_in_sd)


def _label_floor(seeds: int) -> float:
    """The permutation floor; beyond 100 seeds below 1e-57, and its binomial not worth computing."""
    return permutation_floor(seeds, seeds) if seeds <= 100 else 0.0


def _smallest(enough: Callable[[int], bool], effect: float) -> int:
    """The smallest number that is enough; power and floor improve with every unit."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST:
            raise ConfigError(
                "No feasible number of units finds this effect",
                seen=f"{effect} standard deviations",
                allowed=f"an effect that {_MOST} units or fewer can show",
                remedy="name the smallest effect that would matter",
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check(effect: float, alpha: float, power: float) -> None:
    if not (math.isfinite(effect) and effect != 0.0 and 0.0 < alpha < power < 1.0):
        raise ConfigError(
            "No number of units follows from this effect and power",
            seen=f"effect {effect}, alpha {alpha}, power {power}",
            allowed="an effect other than 0, and 0 < alpha < power < 1",
            remedy="name the smallest effect that would matter, in standard deviations",
        )
