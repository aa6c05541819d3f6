"""Is somebody else at it? Locks between processes that a killed process cannot leave behind.

A lock is a file on which the operating system holds ``flock(2)`` for a process. It ends with the
process, however that ends, so a lock is never stale; what the file says (process, machine, time)
is for the reader of the message alone. Machines that share a folder must share its locks too, as
NFS does on Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moralscope.core.errors import OutputError
from moralscope.core.files import make_folder

_PAUSE = 0.1
"""Seconds between two attempts."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the file says.

    Attributes:
        pid: process id, 0 if it is not known yet.
        host: its machine.
        since: when it took the lock, in UTC.
    """

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host}, since {self.since}"


Waiting = Callable[[Holder], None]
"""Told, once, that a lock is held by another and waited for; may raise instead."""


def _unannounced(holder: Holder) -> None:
    del holder


@contextlib.contextmanager
def held(path: Path, waiting: Waiting = _unannounced) -> Generator[None]:
    """Hold a lock for the length of the block; wait while another holds it.

    Args:
        path: the lock's file; created, and removed at the end.
        waiting: told who holds it when it has to be waited for.

    Raises:
        OutputError: the file cannot be created, or its file system has no locks.
    """
    handle = _taken(path, waiting)
    try:
        yield
    finally:
        if _is_file(handle, path):
            path.unlink(missing_ok=True)  # still locked: whoever has opened it sees that it is gone
        os.close(handle)


def _taken(path: Path, waiting: Waiting) -> int:
    told = False
    while True:
        handle = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if not told:
                waiting(_holder(path))
                told = True
            time.sleep(_PAUSE)
            continue
        except OSError as cause:
            os.close(handle)
            raise _refusal(path, cause) from cause
        if _is_file(handle, path):
            _sign(handle)
            return handle
        os.close(handle)  # its last holder removed the file after it was opened here


def _opened(path: Path) -> int:
    make_folder(path.parent)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as cause:
        raise _refusal(path, cause) from cause


def _is_file(handle: int, path: Path) -> bool:
    """Whether the open file is the one that has the name now."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(handle)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def _sign(handle: int) -> None:
    """Write who holds the lock; without room for that it is held all the same."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(said).encode(), 0)


def _holder(path: Path) -> Holder:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(said["pid"]), str(said["host"]), str(said["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "", "")


def _refusal(path: Path, cause: OSError) -> OutputError:
    return OutputError(
        "A lock cannot be taken, so two runs could disturb each other",
        seen=f"{path} ({cause.strerror or cause})",
        allowed="a folder that can be written, on a file system with locks (flock)",
        remedy="choose another --out, or another cache in MORALSCOPE_CACHE",
    )
