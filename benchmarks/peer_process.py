"""How does another library, in an environment of its own, take its turns? One process for each.

The process loads its model once and then waits for requests (``benchmarks.peers.serve``), so that
two libraries never compute at the same time. Whatever goes wrong there is a reason, not a crash:
the comparison is then null and says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-peers"
STAMP = ".ready"
"""Written last when the environment is made: without it, something in there is missing."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OTEL_SDK_DISABLED": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
}


class PeerError(Exception):
    """Another library could not be run; the text says why."""


@dataclass(frozen=True)
class Library:
    """Another library.

    Attributes:
        name: as its authors write it.
        module: its driver in ``benchmarks.peers``.
    """

    name: str
    module: str


TRANSFORMERLENS = Library("TransformerLens", "benchmarks.peers.transformerlens")
NNSIGHT = Library("nnsight", "benchmarks.peers.by_nnsight")


def driver_command(library: Library, environment: Path = ENVIRONMENT) -> tuple[str, ...]:
    """How a library's driver is started, without the job file.

    Raises:
        PeerError: the environment of the libraries is absent or incomplete.
    """
    python = environment / "bin" / "python"
    if not (environment / STAMP).is_file() or not python.is_file():
        raise PeerError(
            f"needs {library.name} in an environment of its own: {environment.name} is absent or "
            "incomplete; make bench sets it up where a package index can be reached"
        )
    return (str(python), "-m", library.module)


class Peer:
    """A running driver. The first problem is kept as ``problem``, and it is not asked again.

    Attributes:
        problem: why it cannot be used, or None.
        told: what it said of itself when it was ready: versions, threads.
    """

    def __init__(self, command: Sequence[str], job: Path, *, log: Path, limit: float) -> None:
        """Start the driver and wait until it has loaded.

        Args:
            command: what to run; the job file is appended.
            job: the job file.
            log: where its standard error goes.
            limit: seconds after which an answer is given up.
        """
        self.problem: str | None = None
        self.told: dict[str, Any] = {}
        self._log, self._limit = log, limit
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, str(job)],
                cwd=ROOT,
                env={**os.environ, **_OFFLINE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.told = self._answer() or {}

    def ask(self, **request: object) -> dict[str, Any] | None:
        """One turn, or None once there is a problem."""
        if self.problem is not None:
            return None
        # If it has ended, there is no answer either, and its last words are in the log.
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        return self._answer()

    @property
    def _requests(self) -> TextIO:
        pipe: Any = self._process.stdin
        return pipe

    def _answer(self) -> dict[str, Any] | None:
        answers: Any = self._process.stdout
        timer = threading.Timer(self._limit, self._process.kill)
        timer.start()
        try:
            line: str = answers.readline()
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        said = self._log.read_text(errors="replace").strip().splitlines()
        self.problem = f"needs a driver that runs; it ended with: {said[-1] if said else 'nothing'}"
        if timer.finished.is_set() and self._process.returncode == -9:
            self.problem = f"needs an answer within {self._limit:g} s"
        return None

    def close(self) -> None:
        """Let the process end."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # It may be gone before it read its last request.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
