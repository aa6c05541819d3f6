"""How does a long run end when it is asked to? At the next safe point, with its state saved.

SIGINT (Ctrl-C) and SIGTERM only set a flag, which the run asks where stopping costs nothing. A
second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run ended because it was asked to, with its state saved.

    Args:
        message: what was kept, and how to go on.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


@dataclass
class StopFlag:
    """Whether a run has been asked to stop.

    Attributes:
        signalled: number of the signal that asked; None while none has.
    """

    signalled: int | None = None

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signalled is not None


@contextlib.contextmanager
def stopping() -> Generator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag for the length of the block.

    Python runs signal handlers in the main thread alone; elsewhere the flag is never set and
    signals do what they did before. So does a signal that is ignored, as in a background job.

    Yields:
        The flag. A second signal raises ``KeyboardInterrupt`` wherever the run is.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if flag.requested():
            raise KeyboardInterrupt
        flag.signalled = number

    before = {number: signal.getsignal(number) for number in SIGNALS}
    # None is a handler that was not set from Python and could not be put back.
    taken = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handle)
        yield flag
    finally:
        for number in taken:
            signal.signal(number, before[number])
