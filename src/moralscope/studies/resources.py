"""What did a stage cost, and is there room for more? Wall time, peak memory, a full disk."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from moralscope.core.errors import MoralscopeError, OutputError

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_SAID = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
"""How libraries word it that are not written in Python."""


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


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that the disk is full."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if (isinstance(at, OSError) and at.errno in _FULL) or any(
            said in str(at) for said in _FULL_SAID
        ):
            return True
        at = at.__cause__ or at.__context__
    return False


def full_disk(error: BaseException, place: Path, wanted: int | None) -> OutputError:
    """The error of a full disk: how much is free, and how much the rest of the run needs.

    Args:
        error: what was raised.
        place: a folder on that disk, or below one that exists.
        wanted: bytes that are still to be written; None if it is not known.
    """
    present = next((p for p in (place, *place.parents) if p.is_dir()), Path("/"))
    free = shutil.disk_usage(present).free
    if isinstance(error, OutputError):
        seen = str(error.seen)
    else:
        seen = error.problem if isinstance(error, MoralscopeError) else str(error).strip()
    need = "room" if wanted is None else f"about {_size(wanted)}"
    return OutputError(
        "The disk is full",
        seen=f"{seen}; {_size(free)} free at {present}",
        allowed=f"{need} for what is left of the run, in the cache and in its folder",
        remedy="free some space, or choose another --out or another cache in MORALSCOPE_CACHE; "
        "then run the same command again, finished stages are kept",
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
