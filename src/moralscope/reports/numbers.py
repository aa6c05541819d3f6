"""How is a number written? The same number the same way everywhere in a report."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def signed(value: float, digits: int = 2) -> str:
    """A difference: always with its sign, a real minus, and no sign on zero.

    >>> signed(-0.5), signed(0.001), signed(2)
    ('−0.50', '0.00', '+2.00')
    """
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def plain(value: float | None, unit: str | None = None) -> str:
    """A measured number in three significant digits; null is written as an en dash."""
    if value is None:
        return "\N{EN DASH}"
    if value == 0:
        text = "0"
    elif 1e-3 <= abs(value) < 1e5:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{abs(value):,.{decimals}f}"
    else:
        text = f"{abs(value):.2e}"
    sign = MINUS if value < 0 else ""
    return f"{sign}{text} {unit}" if unit else f"{sign}{text}"


def probability(value: float | None) -> str:
    """A probability with three decimals; below .001 and above .999 it says so; null is a dash.

    >>> probability(0.25), probability(1e-9), probability(0.0), probability(1.0)
    ('0.250', '< 0.001', '0', '1')
    """
    if value is None:
        return "\N{EN DASH}"
    if value in (0.0, 1.0):
        return f"{value:.0f}"
    if value < 0.001:
        return "< 0.001"
    return "> 0.999" if value > 0.999 else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """A p value with two significant digits; null is written as an en dash."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}"


def duration(seconds: float | None) -> str:
    """A time as a person says it: ``3.2 s``, ``4 min 05 s``, ``1 h 02 min``."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
