"""A run that is asked to stop hears it at its next safe point; handlers go back."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator

import pytest

from moralscope.core.stopping import SIGNALS, StopFlag, Stopped, stopping

HANDLED = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers() -> Generator[list[object]]:
    """Handlers that a test may replace and must leave as they were."""
    before = [signal.getsignal(number) for number in HANDLED]
    yield before
    after = [signal.getsignal(number) for number in HANDLED]
    for number, handler in zip(HANDLED, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_sets_the_flag_and_the_block_goes_on(number: signal.Signals) -> None:
    with stopping() as flag:
        assert not flag.requested()
        signal.raise_signal(number)
        went_on = True
        assert flag.requested()
        assert flag.signalled == number
    assert went_on


@pytest.mark.parametrize("first", HANDLED)
@pytest.mark.parametrize("second", HANDLED)
def test_a_second_signal_interrupts_at_once(first: signal.Signals, second: signal.Signals) -> None:
    reached: list[str] = []

    def ask_twice() -> None:
        with stopping():
            signal.raise_signal(first)
            reached.append("after the first")
            signal.raise_signal(second)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        ask_twice()
    assert reached == ["after the first"]


def test_handlers_go_back_whatever_happens_in_the_block() -> None:
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        heard.append(number)

    def break_inside() -> None:
        with stopping():
            signal.raise_signal(signal.SIGTERM)
            assert not heard
            raise ValueError("inside")

    previous = signal.signal(signal.SIGTERM, hear)
    with pytest.raises(ValueError, match="inside"):
        break_inside()
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, previous)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as flag:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert not flag.requested()
            signal.raise_signal(signal.SIGTERM)
            assert flag.requested()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_outside_the_main_thread_the_flag_is_never_set_and_handlers_stay(
    handlers: list[object],
) -> None:
    seen: list[object] = []

    def work() -> None:
        with stopping() as flag:
            seen.append(flag.requested())
            seen.extend(signal.getsignal(number) for number in HANDLED)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, *handlers]


def test_nested_blocks_give_back_to_each_other() -> None:
    with stopping() as outer:
        with stopping() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.requested()
        assert not outer.requested()
        signal.raise_signal(signal.SIGTERM)
        assert outer.requested()


def test_what_was_kept_is_said_and_only_who_catches_interruptions_catches_it() -> None:
    stopped = Stopped("stopped after step 3; it is saved")
    assert stopped.message == str(stopped) == "stopped after step 3; it is saved"
    assert isinstance(stopped, KeyboardInterrupt)
    assert not isinstance(stopped, Exception)
    assert pickle.loads(pickle.dumps(stopped)).message == stopped.message  # noqa: S301
    assert set(SIGNALS) == set(HANDLED)
    assert not StopFlag().requested()


CHILD = """
import sys, time
from moralscope.core.stopping import stopping
with stopping() as flag:
    print("ready", flush=True)
    for step in range(2000):
        time.sleep(0.01)
        if flag.requested():
            print("stopped", flush=True)
            sys.exit(7)
"""


@pytest.mark.parametrize("number", HANDLED)
def test_a_process_that_is_signalled_ends_as_it_wants(number: signal.Signals) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        started = time.monotonic()
        os.kill(child.pid, number)
        assert child.stdout.readline() == "stopped\n"
        assert child.wait() == 7
        assert time.monotonic() - started < 10
