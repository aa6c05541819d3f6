"""What is a worker told, and what does it answer? Values that JSON can carry.

A worker makes the plan of the study itself. It is told a stage by name, with the key that the
driver expects, so that another version of the software is found out before it computes anything;
and what to leave out, where other stages have failed.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from moralscope.core import errors
from moralscope.core.errors import MoralscopeError
from moralscope.core.progress import ProgressEvent
from moralscope.core.stage import Stage


@dataclass(frozen=True)
class Assignment:
    """A stage to compute.

    Attributes:
        stage: its name in the plan.
        key: its content address.
        needs: the stages whose outputs are there, to their keys.
        without: agents that are left out, because a stage of theirs has failed.
    """

    stage: str
    key: str
    needs: Mapping[str, str]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a stage could not be computed.

    Attributes:
        kind: the class of the error.
        problem, seen, allowed, remedy: as errors have them; the last three are empty for an error
            that was not foreseen.
        trace: where it was raised.
    """

    kind: str
    problem: str
    seen: str = ""
    allowed: str = ""
    remedy: str = ""
    trace: str = ""

    @property
    def why(self) -> str:
        """The reason in one line."""
        if not self.remedy:
            return f"{self.kind}: {self.problem}"
        return f"{self.problem}. Seen: {self.seen}. Next: {self.remedy}"

    def error(self) -> MoralscopeError:
        """The error itself."""
        raising = next((e for e in _errors() if e.__name__ == self.kind), None)
        return (raising or MoralscopeError)(
            self.problem if raising else f"{self.kind}: {self.problem}",
            seen=self.seen or "an error that was not foreseen",
            allowed=self.allowed or "a stage that is computed to its end",
            remedy=self.remedy or "run the same command again; if it comes again, report it",
        )


def _errors() -> tuple[type[MoralscopeError], ...]:
    found = cast("list[object]", list(vars(errors).values()))
    return tuple(e for e in found if isinstance(e, type) and issubclass(e, MoralscopeError))


@dataclass(frozen=True)
class Finished:
    """A worker has a stage in the cache; ``computed`` unless another process had been faster."""

    worker: int
    stage: str
    computed: bool = True


@dataclass(frozen=True)
class Broken:
    """A stage has failed; ``fatal`` if everything else would fail as well."""

    worker: int
    stage: str
    failure: Failure
    fatal: bool = False


@dataclass(frozen=True)
class Died:
    """A worker is gone, in the middle of a stage."""

    worker: int
    stage: str
    why: str


@dataclass(frozen=True)
class Heard:
    """How far a worker's stage is."""

    worker: int
    event: ProgressEvent


Answer = Finished | Broken | Died | Heard


@dataclass(frozen=True)
class WorkOrder:
    """All that a worker must know of a run.

    Attributes:
        study: the resolved study, as YAML.
        cache: the root of the cache.
        folder: the driver's working folder, which relative paths in the study start from.
        probe: a file in the cache that a worker must see; another file system has none.
        environment: variables of its process.
    """

    study: str
    cache: str
    folder: str
    probe: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def reduced(stage: Stage, needs: Mapping[str, str], without: Iterable[str]) -> Stage:
    """A stage that reads what is there, in place of one that reads everything.

    Args:
        stage: as planned.
        needs: the stages whose outputs are there, to their keys.
        without: agents that are left out.
    """
    kept = {name: needs[name] for name in stage.needs if name in needs}
    if len(kept) == len(stage.needs):
        return replace(stage, needs=kept)
    return replace(stage, inputs={**stage.inputs, "without": sorted(without)}, needs=kept)


def failure_of(error: Exception) -> Failure:
    """An error as a value."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, MoralscopeError):
        kind = next(c.__name__ for c in type(error).__mro__ if c in _errors())
        seen = str(error.seen)
        return Failure(kind, error.problem, seen, error.allowed, error.remedy, trace)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({last[0].name}, line {last[0].lineno})" if last else ""
    said = str(error).strip().splitlines()[:1]
    return Failure(type(error).__name__, f"{said[0] if said else ''}{where}".strip(), trace=trace)
