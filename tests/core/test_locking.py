"""A lock keeps others out, ends with its process, and is never stale."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from moralscope.core.errors import OutputError
from moralscope.core.locking import Holder, held

HOLD = """
import sys, time
from pathlib import Path
from moralscope.core.locking import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class RefusedError(Exception):
    pass


def refuse(holder: Holder) -> None:
    raise RefusedError(str(holder))


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.lock"
    with held(path):
        assert path.is_file()
    assert not path.exists()
    with held(path):
        assert path.is_file()


def test_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with (
        pytest.raises(RefusedError, match=rf"process {child.pid} on .+, since 20"),
        held(path, refuse),
    ):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert path.exists()  # what a kill leaves behind
    with held(path, refuse):
        pass
    assert not path.exists()


def test_who_waits_comes_next_and_is_told_once(tmp_path: Path) -> None:
    path, told, order = tmp_path / "one.lock", list[Holder](), list[str]()

    def second() -> None:
        with held(path, told.append):
            order.append("second")

    with held(path):
        waiting = threading.Thread(target=second)
        waiting.start()
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert [holder.pid for holder in told] == [os.getpid()]
    assert not path.exists()


def test_many_at_once_are_never_two_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "one.lock", [0], [0]

    def enter() -> None:
        for _ in range(5):
            with held(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert inside == [0]


def test_a_damaged_lock_file_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    with held(path):
        path.write_text("{")
        with pytest.raises(RefusedError, match="^another process$"), held(path, refuse):
            pass


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    with pytest.raises(ZeroDivisionError), held(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_file_system_without_locks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    told = "could disturb each other. Seen: .*one.lock .Function not implemented.*MORALSCOPE_CACHE"
    with pytest.raises(OutputError, match=told), held(tmp_path / "one.lock"):
        pass


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"), held(tmp_path / "file" / "one.lock"):
        pass
