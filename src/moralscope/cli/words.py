"""How is a quantity said? Durations, sizes and counts as a person reads them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in its two largest units, rounded to the smaller of them.

    >>> duration(0.3), duration(75), duration(3 * 3600 + 240)
    ('0.3 s', '1 min 15 s', '3 h 4 min')
    """
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """A number of bytes in powers of 1024.

    >>> size(512), size(3 * 2**20), size(1.5 * 2**30)
    ('512 B', '3.0 MiB', '1.5 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural where there is not one.

    >>> counted(1, "stage"), counted(1200, "stage")
    ('1 stage', '1,200 stages')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def time_left(done: int, total: int, elapsed: float) -> float | None:
    """Seconds left if the rest goes at the pace so far; None before the first unit is done."""
    if done <= 0 or elapsed <= 0:
        return None
    return elapsed / done * max(total - done, 0)


def printable(text: object) -> str:
    """A text without control characters: what a file holds must not steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text)
    )
