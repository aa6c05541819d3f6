"""Where can a training be watched from elsewhere? Optional trackers, imported when asked for.

``trackio`` writes to this machine (or to the Space that ``TRACKIO_SPACE_ID`` names). ``wandb`` is
offline, its files beside the agent, unless a login is accepted or ``WANDB_MODE`` says otherwise.
Both get every number of the training table's row, under its column's name, at its step. They hear
of steps, never of anything that the training depends on.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moralscope.core.errors import ConfigError, DependencyError, nearest
from moralscope.core.files import make_folder

PROJECT = "moralscope"


class Tracker(Protocol):
    """Something that keeps figures by step."""

    def log(self, step: int, values: Mapping[str, object]) -> None:
        """Keep the finite numbers among a step's values."""
        ...

    def finish(self) -> None:
        """Write what is not yet written."""
        ...


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of wandb or trackio: both speak alike."""

    run: Any

    def log(self, step: int, values: Mapping[str, object]) -> None:
        self.run.log(numbers(values), step=step)

    def finish(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()


def open_tracker(kind: str, *, name: str, settings: Mapping[str, object], folder: Path) -> Tracker:
    """A tracker that has begun a run.

    Args:
        kind: ``trackio`` or ``wandb``.
        name: of the run.
        settings: of the training, kept with the run.
        folder: where wandb puts its files; trackio has a folder of its own (``TRACKIO_DIR``).

    Raises:
        ConfigError: there is no such tracker.
        DependencyError: it is not installed.
    """
    if kind not in TRACKERS:
        raise ConfigError(
            "There is no such tracker",
            seen=kind,
            allowed=", ".join(TRACKERS),
            remedy=nearest(kind, TRACKERS),
        )
    return _Run(TRACKERS[kind](_library(kind), name, dict(settings), folder))


def numbers(values: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers among a row's values, the step itself left out."""
    return {
        key: float(value)
        for key, value in values.items()
        if key not in ("step", "training_seed")
        and isinstance(value, int | float)
        and math.isfinite(value)
    }


def _library(kind: str) -> Any:
    try:
        return importlib.import_module(kind)
    except ModuleNotFoundError as cause:
        raise DependencyError(
            f"The tracker {kind} is not installed",
            seen=f"no module named {cause.name!r}",
            allowed=f"{kind}, an optional part of moralscope",
            remedy=f'run: pip install "moralscope[{kind}]"',
        ) from cause


def _wandb(library: Any, name: str, settings: dict[str, object], folder: Path) -> Any:
    quiet = library.Settings(silent=True, console="off")
    mode = os.environ.get("WANDB_MODE") or _wandb_mode(library)
    where = str(make_folder(folder))
    return library.init(
        project=PROJECT, name=name, config=settings, dir=where, mode=mode, settings=quiet
    )


def _wandb_mode(library: Any) -> str:
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return "online" if library.login(prompt=False) else "offline"
        except library.Error:  # a key that the server does not take, or no server
            return "offline"


def _trackio(library: Any, name: str, settings: dict[str, object], folder: Path) -> Any:
    del folder
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    with contextlib.redirect_stdout(io.StringIO()):
        return library.init(project=PROJECT, name=name, config=settings, resume="allow", **quiet)


TRACKERS: Mapping[str, Callable[[Any, str, dict[str, object], Path], Any]] = {
    "trackio": _trackio,
    "wandb": _wandb,
}
"""How a run of each tracker begins."""
