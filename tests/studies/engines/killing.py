"""Kill the process that computes a stage, as soon as it does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path

LONGEST = 240.0


def _kill(lock: Path, killed: list[int], over: threading.Event) -> None:
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline and not over.is_set():
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads(lock.read_text())["pid"])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.002)


@contextlib.contextmanager
def killed_over(lock: Path) -> Generator[list[int]]:
    """Kill whoever takes a stage's lock first; yields the list that its process id goes into."""
    killed: list[int] = []
    over = threading.Event()
    watcher = threading.Thread(target=_kill, args=(lock, killed, over))
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()
