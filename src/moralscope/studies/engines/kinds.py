"""Which engine is meant? The words after ``--engine``, and the threads that each worker has.

    local            this process, one stage after another
    local:N          N processes of this machine
    ray              a Ray cluster of this machine, started for the run
    ray:ADDRESS      a cluster that is running: HOST:PORT, auto, or ray://HOST:PORT

The number of threads is part of what names a stage, because sums in another order differ in their
last bits. It is OMP_NUM_THREADS where that is set; else all cores for ``local``, the cores divided
among the processes for ``local:N``, and for Ray four, or the cores of the machine if fewer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from moralscope.core.errors import ConfigError

_RAY_THREADS = 4
THREADS = "OMP_NUM_THREADS"
WORDS = "local, local:N, ray, ray:ADDRESS"


@dataclass(frozen=True)
class Engine:
    """Where a study's stages are computed.

    Attributes:
        kind: in this process, in processes of this machine, or on Ray.
        workers: how many processes; 0 where the engine finds out by itself.
        address: of a Ray cluster that is running; empty for one of this machine.
    """

    kind: Literal["here", "processes", "ray"]
    workers: int = 0
    address: str = ""

    @property
    def parallel(self) -> bool:
        """Whether stages are computed by other processes."""
        return self.kind != "here"

    @property
    def elsewhere(self) -> bool:
        """Whether the devices that stages run on may be those of other machines."""
        return self.kind == "ray" and bool(self.address)


def engine_of(words: str) -> Engine:
    """The engine that is meant.

    Raises:
        ConfigError: there is no such engine, or not so many workers.
    """
    kind, given, rest = words.partition(":")
    if kind == "ray" and (rest or not given):
        return Engine("ray", address=rest)
    if kind == "local" and not given:
        return Engine("here", workers=1)
    if kind == "local" and rest.isascii() and rest.isdigit() and int(rest) > 0:
        return Engine("processes", workers=int(rest))
    if kind in ("local", "ray"):
        raise ConfigError(
            f"The engine {kind} cannot be asked for in this way",
            seen=words,
            allowed=WORDS,
            remedy="give a number of processes, local:2" if kind == "local" else "write ray alone",
        )
    raise ConfigError(
        "There is no such engine",
        seen=words,
        allowed=WORDS,
        remedy="leave --engine out to compute on this machine",
    )


def threads_of(engine: Engine, cores: int) -> int:
    """Threads of each worker, where OMP_NUM_THREADS does not say.

    Args:
        engine: where stages are computed.
        cores: of this machine.
    """
    if engine.kind == "processes":
        return max(1, cores // engine.workers)
    return max(1, min(_RAY_THREADS, cores)) if engine.kind == "ray" else max(1, cores)


@contextlib.contextmanager
def threads_set(engine: Engine) -> Generator[None]:
    """OMP_NUM_THREADS as it is for an engine's workers, so that plans made meanwhile say so."""
    if not engine.parallel or os.environ.get(THREADS, "").isdigit():
        yield
        return
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads_of(engine, cores()))
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
