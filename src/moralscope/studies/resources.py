"""What did a stage cost? Wall time and peak memory of a block of work."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Filled in when the block ends.

    Attributes:
        seconds: wall time.
        peak_memory_gib: highest resident memory of the process within the block; where the
            system cannot reset its mark, of the process so far.
    """

    seconds: float = 0.0
    peak_memory_gib: float = 0.0


def peak_memory_gib() -> float:
    """Highest resident memory since the mark was last reset, in GiB."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


@contextlib.contextmanager
def measured() -> Generator[Cost]:
    """Measure a block of work."""
    cost = Cost()
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # Linux: reset the high-water mark of resident memory
    started = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        cost.peak_memory_gib = peak_memory_gib()
