"""How long does each of several jobs take, measured fairly beside each other?

Jobs take turns, so that a machine that becomes busy slows all of them; the first turn warms up
and is not counted; medians are compared. No figure is worth anything without the machine it was
taken on, so that is recorded too.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moralscope import __version__

Entry = dict[str, object]
"""What the results say of one comparison."""

_LIBRARIES = ("torch", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Timed:
    """What a job returned in its warm-up, and the seconds of each counted turn."""

    result: Any
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)


def take_turns(jobs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Run every job once to warm up, then ``repeats`` times, taking turns.

    Args:
        jobs: functions by name.
        repeats: counted turns of each.
    """
    results = {name: job() for name, job in jobs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timed(results[name], tuple(seconds[name])) for name in jobs}


def environment() -> dict[str, object]:
    """The machine and the versions that timings depend on."""
    return {
        "moralscope": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
